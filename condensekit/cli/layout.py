"""Help of a command: options under headings, the common options first, the others for ``--help-all``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import click

GROUPS = {
    "What": "data image-size data-root download trust-local-copy mmap splits layout values method selection memory "
    "regime experiences space rankers truth against network networks ipc bytes storage quality search seed seeds "
    "orders first-order trials",
    "How": "",  # all others
    "Compute": "device precision workers compiled engine port trial-limit budget",
    "Output": "out to grid npz pt pair safetensors overwrite resume checkpoint-every checkpoint-minutes "
    "snapshot-every tensorboard quiet json",
    "Other": "config help help-all",
}
"""Headings, each with its options."""
COLUMN = 24  # characters of an option beside its text
NARROW = 60  # columns of a terminal below which the text of an option stands on lines of its own
WIDEST = 100  # columns of the help
ALL = "condensekit.help-all"  # key of the context: whether all options and texts are shown


class Formatter(click.HelpFormatter):
    """A formatter that takes the width of the terminal as it is, down to 20 columns."""

    def __init__(self, width: int | None = None, max_width: int | None = None) -> None:
        super().__init__(max_width=max_width)
        self.width = width or max(20, min(self.columns(), max_width or WIDEST) - 1)

    @staticmethod
    def columns() -> int:
        """Columns of the terminal; 80 where there is none."""
        import shutil

        return shutil.get_terminal_size().columns

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = COLUMN, col_spacing: int = 2) -> None:  # type: ignore[override]
        """Write terms and their texts: beside each other, or below each other in a narrow terminal."""
        if self.width >= NARROW:
            return super().write_dl(rows, col_max, col_spacing)
        for term, text in rows:
            self.write_text(term)
            with self.indentation():
                self.write_text(text)
        return None


class Context(click.Context):
    """A context whose help is written by :class:`Formatter`."""

    formatter_class = Formatter


def show_all(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    """Print the whole help, and end."""
    if asked and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()


HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_all,
    help="Show all options, and exit.",
)


def write_text(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the text of a command; what follows its form feed is written by ``--help-all`` alone."""
    short, _, more = inspect.cleandoc(ctx.command.help or "").partition("\f")
    texts = [short, more] if ctx.meta.get(ALL) else [short]
    for text in filter(None, map(str.strip, texts)):
        formatter.write_paragraph()
        formatter.write_text(text)


def write_options(ctx: click.Context, formatter: click.HelpFormatter, common: Sequence[str]) -> None:
    """Write the options under their headings.

    Args:
        ctx: The context of the command.
        formatter: Writes them.
        common: Names of the options that the short help shows; empty: all.
    """
    order = {name: place for place, name in enumerate((*common, *GROUPS["Other"].split()))}
    options = [param for param in ctx.command.get_params(ctx) if isinstance(param, click.Option)]
    shown = [one for one in options if not common or ctx.meta.get(ALL) or name(one) in order]
    groups: dict[str, list[tuple[str, str]]] = {heading: [] for heading in GROUPS}
    for option in sorted(shown, key=lambda one: order.get(name(one), len(order))):
        heading = next((one for one, names in GROUPS.items() if name(option) in names.split()), "How")
        if (common or option is not HELP_ALL) and (record := option.get_help_record(ctx)):
            groups[heading].append(record)
    width = min(COLUMN, max(len(term) for rows in groups.values() for term, _ in rows))
    for heading, rows in groups.items():
        if rows:
            with formatter.section(heading):
                formatter.write_dl([(term.ljust(width), text) for term, text in rows], width)
    if more := len(options) - len(shown):
        formatter.write_paragraph()
        formatter.write_text(f"`{ctx.command_path} --help-all` shows {more} more options.")


def name(option: click.Option) -> str:
    """``image-size`` for ``--image-size``."""
    return max(option.opts, key=len).lstrip("-")
