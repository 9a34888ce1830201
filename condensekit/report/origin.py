"""Sections of a run's origin: its data, its options, the machine, and the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from condensekit.html import shown
from condensekit.html.layout import paragraph
from condensekit.html.tables import facts
from condensekit.report.found import Found
from condensekit.report.section import Section
from condensekit.runs.kept import leaves
from condensekit.sets.condensed import CondensedSet

PROGRAM, OURS = "condensekit", ("condensekit", "__main__.py")
NAMED = 20  # classes that are named
ELSEWHERE = ("data", "data_root", "data_fingerprint", "test_fingerprint")  # entries that stand with the data


def sections(found: Found) -> list[Section]:
    """What is known of the origin of a run."""
    config, env = _config(found), _env(found)
    made = []
    if told := data(config, next((m.set for m in found.members if m.set is not None), None)):
        made.append(Section("Data", [facts(told)]))
    if config:
        told = {name: text.strip('"') for name, text in leaves(_own(config)) if text != "null"}
        made.append(Section("Configuration", [facts(told)]))
    if env:
        made.append(Section("Environment", [facts(_machine(env))]))
    if commands := _commands(found, env):
        made.append(Section("To repeat it", commands))
    return made


def data(config: Mapping[str, Any], made: CondensedSet | None) -> dict[str, object]:
    """The data of a run as its options and its set tell them."""
    named = config.get("data")
    told: dict[str, object] = {
        "data": named.get("name") if isinstance(named, Mapping) else None,
        "image size asked for": named.get("image_size") if isinstance(named, Mapping) else None,
        "folder of the data": config.get("data_root"),
    }
    if made is not None:
        spec = made.spec
        names = [spec.class_names.get(label, str(label)) for label in made.classes]
        more = f", and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        told |= {
            "training images": None if made.source_images is None else f"{made.source_images:,}",
            "classes": f"{len(names):,}: {', '.join(names[:NAMED])}{more}",
            **spec.told(),
        }
    told["fingerprint of the training images"] = config.get("data_fingerprint")
    return {name: value for name, value in told.items() if value is not None}


def command(env: Mapping[str, Any]) -> str | None:
    """The command line of an environment; None if a run was not made by the command ``condensekit``."""
    argv = env.get("argv")
    if not isinstance(argv, list) or len(argv) < 2 or Path(str(argv[0])).name not in OURS:
        return None
    return shlex.join([PROGRAM, *map(str, argv[1:])])


def _machine(env: Mapping[str, Any]) -> dict[str, Any]:
    """An environment without its command; ``threads`` are torch's own, ``workers`` those of the command's option."""
    called = env.get("command")
    options = called.get("options") if isinstance(called, Mapping) else None
    workers = options.get("workers") if isinstance(options, Mapping) else None
    told = {name: value for name, value in env.items() if name not in ("argv", "command")}
    return told if workers is None else {**told, "workers": workers}


def _written(commands: list[str]) -> Markup:
    """Commands as lines, which are broken between words only."""
    word = Markup("<span>{}</span>")
    lines = (Markup(" ").join(word.format(shown(part)) for part in line.split(" ")) for line in commands)
    return Markup("<pre><code>{}</code></pre>").format(Markup("\n").join(lines))


def _commands(found: Found, env: Mapping[str, Any]) -> list[Markup]:
    lines = [command(env), command(found.evaluation.environment) if found.evaluation else None]
    told = list(dict.fromkeys(line for line in lines if line))
    if not told:
        return [paragraph("The run was made from Python: no command is recorded.")] if env else []
    pieces = [_written(told)]
    options = env.get("command", {}).get("options") if isinstance(env.get("command"), Mapping) else None
    resumed = "resume" in (str(word).lstrip("-") for word in env.get("argv") or ())
    if resumed and isinstance(options, Mapping):
        pieces += [paragraph("This call continued a run, whose options were:"), facts(options)]
    return pieces


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options, without what stands with the data."""
    return {name: value for name, value in config.items() if name not in ELSEWHERE}


def _config(found: Found) -> Mapping[str, Any]:
    return next((m.config for m in found.members if m.config), {})


def _env(found: Found) -> Mapping[str, Any]:
    own = next((m.env for m in found.members if m.env), None)
    others = (part.environment for part in (found.evaluation, found.replay) if part is not None)
    return own or next(others, {})
