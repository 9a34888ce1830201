"""Command ``inspect``: show the contents of a set and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from condensekit.cli import show
from condensekit.cli.kinds import Command, Location, Whole, option
from condensekit.cli.next import ending, page
from condensekit.cli.options import JSON
from condensekit.cli.public import Public, converted, is_public, public_options
from condensekit.html.numbers import seconds, size
from condensekit.report.words import holds
from condensekit.sets.condensed import CondensedSet
from condensekit.training.evaluation import FILE

ORDER = ("data", "ipc", "method", "init", "encoder", "sampling", "augmentation", "formation", "machine")
TOLD = ("name", "type", "seed", "selection", "steps")  # entries of a configuration that are told elsewhere
COLOUR = ("brightness", "saturation", "contrast")  # options of the operation color
HELP = """Show the contents of the set of RUN and how it was made. The checksum of the file is verified.

RUN is a run folder, the file of a set, or a .pt file of another code: of DC, DSA, DM, MTT, IDC, DANCE or NCFM.

\b
Examples:
  condensekit inspect runs/dm
  condensekit inspect res_DM_CIFAR10_ConvNet_10ipc.pt
  condensekit inspect runs/dm --json | jq .provenance.config.method
"""


@click.command("inspect", cls=Command, help=HELP)
@click.argument("run", type=Location())
@option("--seed", type=Whole(), help="Seed of one set, if RUN has several sets.  [default: the first]")
@public_options
@JSON
def command(run: Path, seed: int | None, public: Public, as_json: bool) -> None:
    """Load the set and describe it."""
    path, chosen = public.one(run, seed)
    channels, height, width = chosen.spec.shape
    record = {
        "path": str(path),
        "classes": len(chosen.classes),
        "ipc": chosen.ipc,
        "per_class": chosen.per_class,
        "images": len(chosen),
        "shape": [channels, height, width],
        "storage": chosen.formation.dtype,
        "factor": chosen.formation.factor,
        "nbytes": chosen.nbytes,
        "spec": chosen.spec.to_json(),
        "provenance": dict(chosen.provenance),
    }
    lines = {
        "set": path,
        "made by": chosen.name,
        "images": f"{len(chosen)} ({chosen.per_class} per class), {channels} x {height} x {width}, "
        f"{chosen.formation.dtype}{_quality(chosen)}, {size(chosen.nbytes)}",
        "classes": ", ".join(map(chosen.spec.name_of, chosen.classes[:10]))
        + (f", ... ({len(chosen.classes)} in all)" if len(chosen.classes) > 10 else ""),
        **_run(chosen.provenance),
    }
    folder = run if run.is_dir() else run.parent
    if is_public(run):
        end = ending(path, f"{holds(chosen)}.", "write them as a set of condensekit", *converted(run))
    elif (folder / FILE).exists():
        end = ending(path, f"{holds(chosen)}.", "see them with their accuracy", *page(folder, run))
    else:
        end = ending(path, f"{holds(chosen)}.", "measure how good they are", "evaluate", run)
    show.emit(as_json, record, f"{show.pairs(lines)}\n\n{end}")


def _quality(chosen: CondensedSet) -> str:
    """The lowest and the highest quality of the pictures of a set, as a clause; empty if they are not recorded."""
    stored = chosen.provenance.get("storage")
    found = stored.get("quality") if isinstance(stored, Mapping) else None
    return f" of quality {min(found)} to {max(found)}" if isinstance(found, list) and found else ""


def _run(made: Mapping[str, Any]) -> dict[str, str]:
    """How the set was made: status, seed and the options that are set, in the order of a run."""
    config = made.get("config")
    options = {**config} if isinstance(config, Mapping) else {}
    found = {"seed": made.get("seed", options.get("seed"))}
    if "status" in made and isinstance(made.get("elapsed_s"), int | float):
        found["status"] = f"{made['status']} after {made.get('steps')} steps and {seconds(made['elapsed_s'])}"
    elif "options" in made:
        found["selection"] = made["options"]
    names = [*ORDER, *(name for name in options if name not in (*ORDER, *TOLD))]
    found |= {name.replace("_", " "): options[name] for name in names if name in options}
    return {name: text for name, value in found.items() if (text := _words(value))}


def _words(value: Any) -> str:
    """A described object in words: ``ConvNet, width 8``; what is None, False or empty is left out."""
    if isinstance(value, Mapping):
        if isinstance(value.get("ops"), list):
            return ", ".join(_operation(op, value) for op in value["ops"])
        title = str(value.get("type") or value.get("name") or "")
        parts = {name: _words(one) for name, one in value.items() if name not in ("type", "name")}
        return ", ".join(filter(None, [title, *(f"{name} {text}" for name, text in parts.items() if text)]))
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if value is None or value is False:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _operation(op: str, options: Mapping[str, Any]) -> str:
    """An operation of an augmentation with its own options."""
    told = [f"{name} {_words(options.get(name))}" for name in COLOUR] if op == "color" else []
    return f"{op} ({', '.join(told)})" if told else f"{op} {_words(options.get(op))}"
