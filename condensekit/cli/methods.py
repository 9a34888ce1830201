"""``condensekit methods``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.options import JSON, Command, unneeded
from condensekit.presets import COSTS, Preset

PARTS: dict[str, Mapping[str, Any]] = {
    "init": {name: catalog.SELECTIONS[name] for name in catalog.STARTS if name in catalog.SELECTIONS},
    "sampling": catalog.SAMPLINGS,
    "encoder": catalog.ENCODERS,
}

HELP = """List the methods, and which options of `condense` go with each.

\b
Examples:
  condensekit methods
  condensekit methods --json | jq .methods.m3d
"""


@click.command("methods", cls=Command, help=HELP)
@unneeded
@click.option("--seed", type=int, expose_value=False, help="Accepted by every command; unused here.")
@JSON
def command(as_json: bool) -> None:
    """Read the catalog."""
    record = {name: _record(preset) for name, preset in catalog.PRESETS.items()}
    lines = [("method", "cost", "separable", "factor", "init", "encoder", "paper")]
    lines += [
        (name, r["cost"], "yes" if r["separable"] else "no", str(r["factor"]), r["init"], r["encoder"], r["paper"])
        for name, r in record.items()
    ]
    parts = {part: {name: catalog.options_of(found) for name, found in table.items()} for part, table in PARTS.items()}
    details = [_details(name, found) for name, found in record.items()]
    text = "\n".join([show.columns(lines), "", *details, _parts(parts), _legend()])
    show.emit(as_json, {"methods": record, "parts": parts, "costs": COSTS}, text)


def _record(preset: Preset) -> dict[str, Any]:
    """Everything about one method."""
    return {
        "paper": preset.paper,
        "cost": preset.cost,
        "separable": preset.method.separable,
        "init": preset.init.name,
        "encoder": catalog.encoder_name(preset.encoder),
        "factor": preset.factor,
        "augment": list(preset.augmentation.ops) if preset.augmentation else None,
        "fits": list(preset.fitting),
        "unfit": dict(preset.unfit),
        "options": catalog.options_of(preset.method),
    }


def _details(name: str, record: dict[str, Any]) -> str:
    """The options of one method, and those it refuses, each with the reason."""
    takes = " ".join(f"--{choice}" for choice in record["fits"])
    lines = [name, f"  takes    {takes}", f"  --set    {_values(record['options'])}"]
    lines += [f"  refuses  --{choice}: {reason}" for choice, reason in record["unfit"].items()]
    return "\n".join([*lines, ""])


def _parts(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The options of what a run is made of beside the method."""
    lines = ["options of parts (--set PART.NAME=VALUE)"]
    for part, table in parts.items():
        lines += [f"  --{part} {name}: {_values(options, part + '.')}" for name, options in table.items() if options]
    return "\n".join([*lines, ""])


def _values(options: Mapping[str, Any], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{k}={v}" for k, v in options.items())


def _legend() -> str:
    costs = [f"  {name:<8} {text}" for name, text in COSTS.items()]
    foot = (
        "separable: each class can be condensed apart, with the same result;",
        "  not with --encoder trained, --sampling importance or a network with batch norm.",
    )
    return "\n".join(["cost of a step", *costs, *foot])
