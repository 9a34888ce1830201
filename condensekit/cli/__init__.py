"""Command line: one file for each command, imported when the command is called. Only this package prints."""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from condensekit import __version__
from condensekit.cli import show
from condensekit.errors import CondensekitError

COMMANDS = {
    "condense": "Learn a few synthetic images per class.",
    "select": "Choose a few real images per class.",
    "code": "Code a set's images as JPEG: more images in the same bytes.",
    "methods": "List the methods and their options.",
    "evaluate": "Train networks from scratch on sets; compare them with baselines.",
    "replay": "Learn classes in several experiences with condensed memory; compare with random memory.",
    "search": "Rank architectures by training them on a small proxy set.",
    "export": "Write a set as PNG files, one folder per class.",
    "inspect": "Show the contents of a set and how it was made.",
    "demo": "Condense small digits and compare with random images; minutes, no download.",
}


class Commands(click.Group):
    """The group of all commands; its help imports no command, and lists them in the order of :data:`COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of a session."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the given command."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, importlib.import_module(f"condensekit.cli.{name}").command, rest


HELP = """Learn a few synthetic images per class that stand for a whole data set, and measure how good they are.

\b
A session:
  condensekit demo --out demo
  condensekit condense --data cifar10 --method dm --ipc 10 --steps 1000 --out runs/dm --download
  condensekit evaluate runs/dm --against random,kmeans
  condensekit export runs/dm --to images

A run folder (--out) holds the set (set.safetensors), its options (config.json) and environment (env.json), the
metrics of each step (metrics.csv) and the newest checkpoints. With --json, every command prints one JSON object
on standard output and nothing else.

\b
Exit codes:
  0    done
  2    bad input: an option, the data, or a run folder that holds another run
  3    the run diverged, and the last finite images are saved; or a search scored no candidate
  4    a file is damaged or could not be written
  130  interrupted by Ctrl-C, 143 by SIGTERM; condense leaves a checkpoint (--resume)
"""


@click.group(
    cls=Commands,
    help=HELP,
    commands=[click.Command(name, short_help=text) for name, text in COMMANDS.items()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="condensekit")
def group() -> None:
    """The group of all commands."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; every expected failure is one line on standard error."""
    warnings = logging.StreamHandler()
    warnings.setFormatter(show.Lines("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[warnings])
    signal.signal(signal.SIGTERM, _terminated)
    sys.path.append(os.getcwd())  # so that module:object finds files in the current folder
    try:
        code = group.main(arguments, prog_name="condensekit", standalone_mode=False)
    except click.Abort as error:
        code = 128 + (signal.SIGTERM if isinstance(error.__cause__, _Terminated) else signal.SIGINT)
    except click.ClickException as error:
        told = io.StringIO()
        error.show(told)
        click.echo("\n".join(map(show.message, told.getvalue().splitlines())), err=True)
        code = error.exit_code
    except CondensekitError as error:
        show.tell(f"Error: {error}")
        code = error.exit_code
    sys.exit(code or 0)


class _Terminated(KeyboardInterrupt):
    """SIGTERM. Libraries handle a KeyboardInterrupt as Ctrl-C; they may take a SystemExit for a failure."""


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise _Terminated
