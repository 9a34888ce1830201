"""Command ``inspect``: show the contents of a set and how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from condensekit.cli import show
from condensekit.cli.kinds import Command, Location, Whole, option
from condensekit.cli.options import JSON
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.found import find_one

HELP = """Show the contents of the set of RUN and how it was made. The checksum of the file is verified.

\b
Examples:
  condensekit inspect runs/dm
  condensekit inspect runs/dm --json | jq .provenance.config.method
"""


@click.command("inspect", cls=Command, help=HELP)
@click.argument("run", type=Location())
@option("--seed", type=Whole(), help="Seed of one set, if RUN has several sets.  [default: the first]")
@JSON
def command(run: Path, seed: int | None, as_json: bool) -> None:
    """Load the set and describe it."""
    path = find_one(run, seed)
    chosen = CondensedSet.load(path)
    channels, height, width = chosen.spec.shape
    count = f"{len(chosen)} ({chosen.per_class} per class)"
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
    made = chosen.provenance
    lines = {
        "set": path,
        "classes": ", ".join(map(chosen.spec.name_of, chosen.classes[:10]))
        + (", ..." if len(chosen.classes) > 10 else ""),
        "images": f"{count}, {channels} x {height} x {width}, {chosen.formation.dtype}",
        "size": show.size(chosen.nbytes),
        **{key: made[key] for key in ("selection", "status", "steps", "elapsed_s", "seed") if key in made},
        **{key: _short(value) for key, value in made.get("config", {}).items()},
    }
    show.emit(as_json, record, show.pairs(lines))


def _short(value: Any) -> str:
    """``DistributionMatching(lr=1.0, ...)`` for a described object."""
    if not isinstance(value, dict):
        return str(value)
    fields = ", ".join(f"{k}={_short(v)}" for k, v in value.items() if k != "type")
    return f"{value.get('type', '')}({fields})"
