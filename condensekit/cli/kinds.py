"""Kinds of options: checked values, commands that list every wrong value together, and options that make an object."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from condensekit.catalog import own
from condensekit.cli import config, layout, waiting
from condensekit.cli.suggest import for_option
from condensekit.errors import ConfigError, Problems, refuse, unknown, unusable
from condensekit.nas.names import RIDGE
from condensekit.runs.files import read_json
from condensekit.runs.folder import ARGV, COMMAND, ENV

F = TypeVar("F", bound=Callable[..., Any])
MANY = 100_000  # the most runs, networks, images of a class or trials that one command makes
RUN_FILE = "config.json"  # the file that every run folder has
_FOUND = "condensekit.problems"  # key of the context: problems of single options
_BUILT = "condensekit.built"  # key of the context: problems of objects built from options


class Command(click.Command):
    """A command that lists every wrong option before it starts, and shows its common options first.

    A command with the option ``--quiet`` computes, and takes its options from a file, too: ``--config``.

    Args:
        common: Names of the options of the short help, in their order, as ``data ipc``; empty: all.
    """

    context_class = layout.Context

    def __init__(self, *args: Any, common: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.common = common.split()
        self.params += [CONFIG] if any(p.name == "quiet" for p in self.params) else []
        self.params.append(layout.HELP_ALL)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the text, all of it for ``--help-all``."""
        layout.write_text(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under headings."""
        layout.write_options(ctx, formatter, self.common)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse all options, then raise one error for all wrong options.

        ``--config`` adds the options of a file. ``--resume`` and ``--out`` alone stand for the options of the run in
        that folder.
        """
        ctx.with_resource(own.only(*args, beside=True))
        given = self._given(ctx, args)
        if text := given.get("config"):
            file = Location().convert(text, CONFIG, ctx)
            told = config.words(file, self, list(given))
            _built_in(file, self._given(ctx, told), {p.name or "": p.opts[0] for p in self.params})
            args = [*told, *args]
            given = self._given(ctx, args)
            ARGV.set([*sys.argv[:1], self.name or "", *config.without_file(args)])
        if given.get("resume") and not all(given.get(p.name or "") for p in self.params if p.required):
            left = {p.name: p.opts[0] for p in self.params if p.name and p.name not in (*given, *UNRECORDED)}
            ctx.default_map = recorded(Path(given.get("out") or ""), self.name, left)
            if given.get("out") and not ctx.default_map:
                _check_run(Path(given["out"]))
        if given.get("out") and any(p.name == "resume" for p in self.params):
            waiting.PLACE.set((str(self.name), Path(given["out"])))
        told_now = {name: value for name, value in given.items() if name not in UNRECORDED}
        COMMAND.set({"name": self.name, "options": {**(ctx.default_map or {}), **told_now}})
        rest = super().parse_args(ctx, args)
        refuse(*ctx.meta.get(_FOUND, ()))
        return rest

    def _given(self, ctx: click.Context, args: Sequence[str]) -> dict[str, Any]:
        """The values of the parameters in a command line, as texts; one error for all unknown options."""
        try:
            return self.make_parser(ctx).parse_args(list(args))[0]
        except click.NoSuchOption as error:
            known = {option for p in self.get_params(ctx) for option in (*p.opts, *p.secondary_opts)}
            names = (word.partition("=")[0] for word in itertools.takewhile(lambda word: word != "--", args))
            wrong = [name for name in names if re.match("-+[A-Za-z]", name) and name not in known]
            told = (
                f"No such option {name!r}. {for_option(self.name or '', known, name)}"
                for name in dict.fromkeys(wrong or [error.option_name])
            )
            raise click.NoSuchOption(error.option_name, " ".join(told), ctx=ctx) from None


UNRECORDED = ("out", "config", "resume", "quiet", "as_json", "help", "download", "trust_local_copy", "mmap")
"""Options that ``--resume`` takes from no file: those of one call, and those with which a file could do harm."""
NAMELESS = ("data", "data_root", "truth_name", "device", "out", "mmap")
"""Options whose values may have a colon and import nothing."""


def recorded(out: Path, command: str | None, options: Mapping[str, str]) -> dict[str, Any]:
    """The options with which a command made the run in ``out``; none if there is no such run.

    Args:
        out: The run folder, or the folder of several seeds.
        command: Name of the command.
        options: The flag of each option that may be taken from there.

    Raises:
        ConfigError: An option names an object that is not built in.
        StoreError: The file that tells them is damaged.
    """
    file = next((f for f in (out / ENV, *sorted(out.glob(f"seed-*/{ENV}"))) if f.is_file()), None)
    if file is None:
        return {}
    told = read_json(file)
    found = told.get("command") if isinstance(told, dict) else None
    if not (isinstance(found, dict) and found.get("name") == command and isinstance(found.get("options"), dict)):
        return {}
    known = {name: value for name, value in found["options"].items() if name in options}
    _built_in(file, known, options)
    return known


def _check_run(out: Path) -> None:
    """Raise ConfigError if there is no run in a folder, nor in folders of several seeds in it."""
    if not any(file.exists() for file in (out / RUN_FILE, *out.glob(f"seed-*/{RUN_FILE}"))):
        raise ConfigError(f"there is no run in {out}: name its folder, or leave out --resume and give all options")


def _built_in(file: Path, told: Mapping[str, Any], options: Mapping[str, str]) -> None:
    """Raise ConfigError for the values in a file that name an object that is not built in."""
    refuse(
        *(
            f"{file} names {text!r}, which is not built in: give {options[name]} again"
            for name, value in told.items()
            for text in (value if isinstance(value, list) else [value])
            if name not in NAMELESS and ":" in str(text).replace(RIDGE, "")
        )
    )


class Option(click.Option):
    """An option that records a wrong or missing value, for :class:`Command` to report."""

    def make_metavar(self, ctx: click.Context) -> str:
        """What stands for the value in the help: NAME for a text that has no other."""
        made = super().make_metavar(ctx)
        return "NAME" if made == click.STRING.name.upper() else made

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What stands in brackets in the help: the default, or that it is required; no range."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Parse the value; record the problem of a wrong value."""
        try:
            return super().handle_parse_result(ctx, opts, args)
        except click.BadParameter as error:
            problem = error.format_message().rstrip(".")
        except ConfigError as error:
            problem = f"Invalid value for '{self.opts[0]}': {error}"
        ctx.meta.setdefault(_FOUND, []).append(problem)
        return None, args


class Whole(click.IntRange):
    """An integer of 64 bits, written in the digits 0 to 9."""

    def __init__(self, min: int | None = None, max: int | None = None) -> None:
        self.low, self.high = -(2**63) if min is None else min, 2**63 - 1 if max is None else max
        super().__init__(self.low, self.high)
        told = (f"at least {min}" if min is not None else "", f"at most {max:,}" if max is not None else "")
        self.bounds = " and ".join(filter(None, told)) or "64 bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Convert the value; a number of more digits, or in other digits, is an error."""
        if isinstance(value, str) and not re.fullmatch(r"[+-]?[0-9]{1,19}", value):
            long = " of 64 bits" if re.fullmatch(r"[+-]?[0-9]+", value) else ""
            self.fail(f"takes a whole number{long}, got {value!r}.", param, ctx)
        number = int(value)
        if not self.low <= number <= self.high:
            self.fail(f"{number} is not in the range: {self.bounds}.", param, ctx)
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """N, for numbers of things."""
        return "N"

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """An example."""
        return f"Give a whole number, such as {param.opts[0]} 10"


class Number(click.FloatRange):
    """A number, written in the digits 0 to 9; the library refuses NaN and infinity where it takes numbers."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert the value; other digits are an error."""
        if isinstance(value, str) and not (value.isascii() and value.strip() == value):
            self.fail(f"{value!r} is not a number.", param, ctx)
        if isinstance(value, str) and (found := re.fullmatch(r"([0-9.]+) ?([a-z]+)", value)):
            way_out = f": write {found[1]}" if param and param.name and param.name.startswith(found[2]) else ""
            self.fail(f"takes a number without a unit, got {value!r}{way_out}.", param, ctx)
        return float(super().convert(value, param, ctx))

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """X, for quantities."""
        return "X"


class Positive(Number):
    """A finite number above 0."""

    name = "positive number"

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert the value; NaN and infinity are errors, too."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not finite.", param, ctx)
        return number


class Location(click.ParamType):  # type: ignore[type-arg]
    """The path of a file or folder, as a :class:`~pathlib.Path`.

    Args:
        made: ``folder`` or ``file``: what a command makes there; None: a command reads what is there.
    """

    name = "path"

    def __init__(self, made: str | None = None) -> None:
        self.made = made

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Convert the value; a path where nothing can be is an error."""
        path = Path(value)
        try:
            problem = unusable(value) or (None if self.made is None else _unwritable(path, self.made))
        except OSError as error:  # such as a folder that may not be entered
            problem = error.strerror or str(error)
        if problem:
            self.fail(f"{os.fspath(value)!r}: {problem}.", param, ctx)
        return path

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """FOLDER or FILE, for what a command makes."""
        return self.made.upper() if self.made else None


def _unwritable(path: Path, made: str) -> str | None:
    """Why no ``file`` or ``folder`` can be made at ``path``; None if one can."""
    if path.name == "-":
        return f"write ./- for a {made} of this name"
    if path.is_dir() if made == "file" else path.exists() and not path.is_dir():
        return f"there is a {'folder' if made == 'file' else 'file'} in its place"
    above = path if path.is_dir() else next((p for p in path.absolute().parents if os.path.lexists(p)), Path("/"))
    if not above.is_dir():
        return f"{above} is not a folder"
    return None if os.access(above, os.W_OK | os.X_OK) else f"you may not write to {above}"


class Data(click.ParamType):  # type: ignore[type-arg]
    """The name of a data set, or a path."""

    name = "data"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value."""
        if problem := unusable(value):
            self.fail(f"{value!r}: {problem}.", param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """NAME|PATH."""
        return "NAME|PATH"


class Choice(click.ParamType):  # type: ignore[type-arg]
    """One of some names; the error for another name offers what it may mean.

    Args:
        names: The names, the usual one first.
    """

    name = "name"

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value."""
        if value not in self.names:
            kind = param.human_readable_name.lower() if param else "name"
            self.fail(str(unknown(kind, str(value), self.names)), param, ctx)
        return str(value)

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """The names."""
        return f"Give one of {', '.join(self.names)}"


class List(click.ParamType):  # type: ignore[type-arg]
    """A comma-separated list of names; see :func:`listed`."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Read the names; a list of names stays as it is."""
        return value if isinstance(value, list) else listed(str(value))

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """LIST."""
        return config.LIST


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """``click.option`` with the class :class:`Option`."""
    return click.option(*names, cls=Option, **settings)


CONFIG = Option(
    ["--config"],
    type=Location(),
    metavar="FILE",
    expose_value=False,
    help="Take options from a TOML file: ipc = 10, at its top level or below [COMMAND]. The command line comes first.",
)


def packed(
    kind: type[Any],
    name: str,
    *decorators: Callable[[Any], Any],
    check: Callable[[Any], None] = lambda made: None,
) -> Callable[[F], Any]:
    """A decorator for options whose values the command gets as one argument ``name``, an object of class ``kind``.

    ``check`` raises ConfigError for an object whose options do not go together.
    """

    def decorate(function: F) -> Any:
        @functools.wraps(function)
        def call(**values: Any) -> Any:
            given = {field.name: values.pop(field.name) for field in dataclasses.fields(kind) if field.name in values}
            values[name] = None
            with gathered():
                values[name] = kind(**given)
                check(values[name])
            return function(**values)

        for one in reversed(decorators):
            call = one(call)
        return call

    return decorate


def gathered() -> Problems:
    """The collector of problems of the running command; the command raises them together.

    It already has the problems of objects that are made from options, such as a machine.
    """
    found: Problems = click.get_current_context().meta.setdefault(_BUILT, Problems())
    return found


def unused(**reasons: str | None) -> None:
    """Refuse options that would do nothing.

    Args:
        reasons: For an option, by the name of its parameter, why it does nothing in this call; None: it does something.

    Raises:
        ConfigError: Options that the command line has and that have a reason; all of them listed.
    """
    ctx = click.get_current_context()
    flags = {p.name: p.opts[0] for p in ctx.command.params}
    given = {name: ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in reasons}
    refuse(*(f"{flags[name]} does nothing here: {why}" for name, why in reasons.items() if why and given[name]))


def listed(text: str) -> list[str]:
    """The names in a comma-separated list; a comma between quotes belongs to the name.

    >>> listed("dm augment='color,crop', random")
    ['dm augment=color,crop', 'random']

    Raises:
        ConfigError: No name, or a quote that is not closed.
    """
    found = shlex.shlex(text, posix=True)
    found.whitespace, found.whitespace_split, found.commenters, found.escape = ",", True, "", ""
    try:
        names = [part.strip() for part in found if part.strip()]
    except ValueError:
        raise ConfigError(f"a quote is not closed in {text!r}") from None
    if not names:
        raise ConfigError(f"{text!r} names nothing")
    return names
