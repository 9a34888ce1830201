"""Group of all commands: its help, and the exit codes of their errors."""

from __future__ import annotations

import errno
import io
import logging
import signal
from collections.abc import Sequence

import click

from condensekit import __version__, interrupt
from condensekit.cli import COMMANDS, imported, show, waiting
from condensekit.cli.layout import WIDEST, Context
from condensekit.cli.suggest import for_command, for_option
from condensekit.errors import CondensekitError, StoreError
from condensekit.ranks import launched, tells

SHARED = ("condense", "evaluate", "replay")  # commands that the ranks of torchrun share


class Commands(click.Group):
    """The group of all commands; its help imports no command, and lists them in the order of :data:`COMMANDS`."""

    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of a session."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the command."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            told = for_option("", ("--help", "--version"), error.option_name)
            message = f"No such option {error.option_name!r}. {told}"
            raise click.NoSuchOption(error.option_name, message, ctx=ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the given command."""
        try:
            name, _, rest = super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            told = f"No such command {error.command_name!r}. {for_command(error.command_name)}"
            raise click.NoSuchCommand(error.command_name, told, ctx=ctx) from None
        if name not in SHARED and launched().several:
            way = ", with --workers N for several candidates at a time" if name == "search" else ""
            raise click.UsageError(f"{name} runs in one process: start it without torchrun{way}", ctx=ctx)
        return name, imported(name or ""), rest

    def invoke(self, ctx: click.Context) -> object:
        """Call the command; an interrupt ends it here, because click would print an empty line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error


HELP = """Learn a few synthetic images per class that stand for a whole data set, and measure how good they are.

\b
A session:
  condensekit demo --out demo
  condensekit condense --data digits --ipc 10 --steps 1000 --out run
  condensekit evaluate run --against random,kmeans
  condensekit export run --to images

`condensekit COMMAND --help` shows the common options of a command, `condensekit COMMAND --help-all` all of them.

A run folder (--out) holds the set (set.safetensors), its options (config.json) and environment (env.json), the
metrics of each step (metrics.csv) and the newest checkpoints. With --json, every command prints one JSON object
on standard output and nothing else.

Where one process is too slow, `torchrun --nproc-per-node N -m condensekit condense ...` starts N processes that share
the classes; with evaluate, they share the networks to train, and with replay, the memories and class orders.

\b
Exit codes:
  0    done
  1    another process of torchrun has ended
  2    bad input: an option, the data, or a run folder that holds another run
  3    diverged, and the last finite images are saved; or a search scored no
       candidate, or none by training
  4    a file is damaged or could not be written
  130  interrupted by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP; --resume goes on
"""


@click.group(
    cls=Commands,
    help=HELP,
    commands=[click.Command(name, short_help=text) for name, text in COMMANDS.items()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST, "show_default": True},
)
@click.version_option(__version__, prog_name="condensekit")
def group() -> None:
    """The group of all commands."""


def run(arguments: Sequence[str] | None) -> int:
    """Run a command; its exit code. Every expected failure is one line on standard error."""
    warnings = logging.StreamHandler() if launched().first else logging.NullHandler()
    warnings.setFormatter(show.Warnings("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[warnings])
    try:
        return group.main(arguments, prog_name="condensekit", standalone_mode=False) or 0
    except click.Abort as error:
        show.tell(waiting.interrupted())
        return 128 + int(getattr(error.__cause__, "signum", signal.SIGINT))
    except click.ClickException as error:
        told = io.StringIO()
        error.show(told)
        waiting.end()
        if launched().first:
            click.echo("\n".join(map(show.message, told.getvalue().splitlines())), err=True)
        return error.exit_code
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # of standard output: all else is a StoreError
            show.tell(f"Error: cannot write the output: {error.strerror}")
            return StoreError.exit_code
        if error.errno != errno.EIO or error.filename is not None:
            raise
        interrupt.leave(signal.SIGHUP)  # the terminal is gone: nothing can be said, nor written at the end
    except CondensekitError as error:
        rank = "" if launched().first else f"rank {launched().number}: "
        show.tell(f"{rank}Error: {error}", tells(error))
        return error.exit_code
