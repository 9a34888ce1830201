"""Configuration file of a command: options in TOML, as the words of a command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from condensekit.cli import COMMANDS
from condensekit.cli.suggest import for_option
from condensekit.errors import ConfigError, Problems, meant, require

FLAG = "--config"
LONGEST = 1 << 20  # bytes of a file
LIST = "LIST"  # metavar of an option that takes a list
KINDS: tuple[tuple[type, tuple[type, ...], str], ...] = (
    (click.IntRange, (int,), "a whole number"),
    (click.FloatRange, (int, float), "a number"),
    (click.ParamType, (str,), "a text in quotes"),
)  # types of options, the types of their values in TOML, and what these are called
ONCE = ("config", "resume", "trust-local-copy", "help", "help-all")  # options of one call; trust comes from no file


def words(path: Path, command: click.Command, own: Sequence[str] = ()) -> list[str]:
    """The options in a file for a command, as words of a command line; the command line comes after them.

    The keys of the file are names of options (``ipc = 10``), at its top level or in a table of the command's name,
    which comes first. Lists are for options that take a list.

    Args:
        path: The file.
        command: The command.
        own: Names of parameters that the command line has: their keys in the file are left out.

    Raises:
        ConfigError: The file cannot be read or is no TOML; or unknown keys, or values of wrong types; all listed.
    """
    told, problems = _read(path), Problems()
    tables = {key: value for key, value in told.items() if isinstance(value, Mapping)}
    for key in tables:
        with problems:
            require(key in COMMANDS, f"{path}: unknown command [{key}].{meant(key, COMMANDS)}")
    known = {_name(p): p for p in command.params if isinstance(p, click.Option)}
    merged: dict[str, Any] = {}
    for table in ({k: v for k, v in told.items() if k not in tables}, tables.get(command.name or "", {})):
        spelt = [key.replace("_", "-") for key in table]
        for key in {key for key in spelt if spelt.count(key) > 1}:
            problems.found.append(f"{path}: {key} is given {spelt.count(key)} times: keep one of them")
        merged |= dict(zip(spelt, table.values(), strict=True))
    found: list[str] = []
    for key, value in merged.items():
        with problems:
            require(key not in ONCE, f"{path}: {key} stands in no file: give --{key} on the command line")
            if key not in known:
                hint = for_option(command.name or "", map("--{}".format, known), key).replace("'--", "'")
                raise ConfigError(f"{path}: unknown option {key!r} of {command.name}. {hint}")
            if known[key].name not in own:
                found += _words(known[key], key, value, path)
    problems.refuse()
    return found


def without_file(args: Sequence[str]) -> list[str]:
    """The words of a command line without ``--config FILE``."""
    kept: list[str] = []
    rest = iter(args)
    for word in rest:
        if word == FLAG:
            next(rest, None)
        elif not word.startswith(f"{FLAG}="):
            kept.append(word)
    return kept


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST + 1)
        require(len(text) <= LONGEST, f"{path} is larger than a file of options: {LONGEST} bytes at most")
        return tomllib.loads(text.decode())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error


def _words(option: click.Option, key: str, value: Any, path: Path) -> list[str]:
    """The words that give an option a value."""
    lists = option.multiple or LIST in (option.metavar, option.type.name.upper())
    kinds, wanted = next((kinds, called) for base, kinds, called in KINDS if isinstance(option.type, base))
    texts = value if lists and isinstance(value, list) else [value]
    if option.is_flag:
        kinds, wanted = (bool,), "true or false"
    elif lists:
        wanted = "a list of texts"
    if not all(isinstance(text, kinds) and isinstance(text, bool) == option.is_flag for text in texts):
        raise ConfigError(f"{path}: {key} takes {wanted}, got {value!r:.60}")
    if option.is_flag:
        return [option.opts[0]] if value else option.secondary_opts[:1]
    if lists and not option.multiple:
        texts = [",".join(map(_listed, texts)) if isinstance(value, list) else value]
    return [f"{option.opts[0]}={text}" for text in texts]


def _listed(name: str) -> str:
    """A name of a list as the command line writes it: in quotes if it has a comma or a quote."""
    if "," not in name and "'" not in name and '"' not in name:
        return name
    quote = "'" if "'" not in name else '"'
    require(quote not in name, f"{name!r} has both kinds of quotes: leave out one of them")
    return f"{quote}{name}{quote}"


def _name(option: click.Parameter) -> str:
    """``image-size`` for ``--image-size``."""
    return option.opts[0].lstrip("-")
