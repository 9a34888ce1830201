"""Command ``methods``: the published recipes and their options."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import click

from condensekit import catalog
from condensekit.catalog import COSTS, Published
from condensekit.cli import show
from condensekit.cli.flags import flag
from condensekit.cli.kinds import Choice, Command
from condensekit.cli.options import FLAGS, JSON

PARTS: dict[str, Mapping[str, Any]] = {
    "init": {name: catalog.SELECTIONS[name] for name in catalog.STARTS if name in catalog.SELECTIONS},
    "sampling": catalog.SAMPLINGS,
    "encoder": catalog.ENCODERS,
    "schedule": catalog.SCHEDULES,
}

WIDTH = 150  # columns of the list of options
CHOICES = (*(name for name in FLAGS if name not in ("lr", "batch_real", "storage")), "augment", "compiled")

HELP = """Show the methods, and the options of `condense` that fit each method; of NAME alone, if it is given.

\b
Examples:
  condensekit methods
  condensekit methods m3d
  condensekit methods --json | jq .methods.m3d
"""


@click.command("methods", cls=Command, help=HELP)
@click.argument("name", type=Choice(catalog.PUBLISHED), required=False)
@JSON
def command(name: str | None, as_json: bool) -> None:
    """Read the catalog."""
    record = {name: _record(catalog.PUBLISHED[name]) for name in ([name] if name else catalog.PUBLISHED)}
    lines = [("method", "cost", "separable", "factor", "init", "encoder", "paper")]
    lines += [
        (name, r["cost"], "yes" if r["separable"] else "no", str(r["factor"]), r["init"], r["encoder"], r["paper"])
        for name, r in record.items()
    ]
    parts = {part: {name: catalog.options_of(found) for name, found in table.items()} for part, table in PARTS.items()}
    details = [_details(name, found) for name, found in record.items()]
    text = "\n".join([show.columns(lines), "", *details, _parts(parts), _legend()])
    show.emit(as_json, {"methods": record, "parts": parts, "costs": COSTS}, text)


def _record(published: Published) -> dict[str, Any]:
    """The description of one method as JSON values."""
    recipe = published.recipe
    return {
        "paper": published.paper,
        "cost": published.cost,
        "separable": recipe.method.separable,
        "init": recipe.init.name,
        "encoder": catalog.encoder_name(recipe.encoder),
        "factor": recipe.formation.factor,
        "augment": list(recipe.augmentation.ops) if recipe.augmentation else None,
        "fits": [name for name in CHOICES if name not in published.unfit],
        "unfit": dict(published.unfit),
        "options": catalog.options_of(recipe.method),
        "schedule": recipe.schedule.name,
        "average": recipe.average,
    }


def _details(name: str, record: dict[str, Any]) -> str:
    """The options of one method, and the options that do not fit it, each with the reason."""
    takes = " ".join(map(flag, record["fits"]))
    options = record["options"] | {option: record[option] for option in ("schedule", "average")}
    values = textwrap.wrap(_values(options), WIDTH, initial_indent="  --set    ", subsequent_indent=" " * 11)
    lines = [name, f"  takes    {takes}", *values]
    lines += [f"  refuses  {flag(choice)}: {reason}" for choice, reason in record["unfit"].items()]
    return "\n".join([*lines, ""])


def _parts(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The options of the parts of a recipe."""
    lines = ["options of parts (--set PART.NAME=VALUE)"]
    for part, table in parts.items():
        given = f"--{part} " if part in FLAGS else f"--set {part}="
        lines += [f"  {given}{name}: {_values(options, part + '.')}" for name, options in table.items() if options]
    return "\n".join([*lines, ""])


def _values(options: Mapping[str, Any], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{k}={v}" for k, v in options.items())


def _legend() -> str:
    costs = [f"  {name:<8} {text}" for name, text in COSTS.items()]
    foot = (
        "separable: a class can be condensed without the others, with the same result;",
        "  not with --encoder trained, --sampling importance or a network with batch norm, nor with schedule=plateau.",
    )
    return "\n".join(["cost of a step", *costs, *foot])
