"""``condensekit methods``."""

from __future__ import annotations

from typing import Any

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.options import JSON, Command, unneeded
from condensekit.presets import COSTS, Preset

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
    parts = [show.columns(lines), "", *(_details(name, found) for name, found in record.items()), _legend()]
    show.emit(as_json, {"methods": record, "costs": COSTS}, "\n".join(parts))


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
    own = ", ".join(f"{k}={v}" for k, v in record["options"].items())
    lines = [name, f"  takes    {' '.join(f'--{choice}' for choice in record['fits'])}", f"  --set    {own}"]
    lines += [f"  refuses  --{choice}: {reason}" for choice, reason in record["unfit"].items()]
    return "\n".join([*lines, ""])


def _legend() -> str:
    costs = [f"  {name:<8} {text}" for name, text in COSTS.items()]
    return "\n".join(["cost of a step", *costs, "separable: each class can be condensed apart, with the same result."])
