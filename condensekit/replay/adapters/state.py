"""A replay memory as tensors and plain values, for files that hold no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from condensekit.data.images import ImageSpec
from condensekit.errors import CondensekitError, ConfigError, DataError
from condensekit.replay.adapters.stream import Key, Layout
from condensekit.replay.memory.content import Memory
from condensekit.sets.condensed import CondensedSet, Formation

TENSORS = ("images", "labels", "ranges", "soft_labels", "coded")


@dataclass(frozen=True)
class Circumstances:
    """What a buffer's state says beside its images."""

    layout: Layout
    limit: int | None
    taken: list[Key]
    condense_s: list[float]


def stored(memory: Memory) -> list[dict[str, Any]]:
    """One dictionary for each class."""
    return [
        {
            "label": label,
            "seen": memory.seen[label],
            "task": memory.tasks.get(label),
            "spec": part.spec.to_json(),
            "formation": [part.formation.factor, part.formation.dtype],
            "provenance": dict(part.provenance),
            **{name: getattr(part, name) for name in TENSORS},
        }
        for label, part in sorted(memory.parts.items())
    ]


def restored(state: Mapping[str, Any], formation: Formation) -> tuple[Memory, Circumstances]:
    """The inverse of :func:`stored`, and the rest of a buffer's state.

    Raises:
        DataError: Something else.
        ConfigError: A state of another formation than the buffer's.
    """
    try:
        factor, dtype = state["formation"]
        if Formation(factor, dtype) != formation:
            raise ConfigError(
                f"the state holds {Formation(factor, dtype)}, the buffer stores {formation}: use the same"
            )
        parts = {int(record["label"]): _part(record) for record in state["memory"]}
        memory = Memory(
            parts,
            {int(record["label"]): int(record["seen"]) for record in state["memory"]},
            {int(record["label"]): int(record["task"]) for record in state["memory"] if record["task"] is not None},
        )
        tasked, target = state["layout"]
        taken = [(str(name), int(whole), int(number), str(digest)) for name, whole, number, digest in state["taken"]]
        layout = Layout(bool(tasked), getattr(torch, target) if target else None)
        return memory, Circumstances(layout, state["limit"], taken, [float(s) for s in state["condense_s"]])
    except ConfigError:
        raise
    except (CondensekitError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"no state of a CondensedBuffer ({type(error).__name__}: {error})") from error


def _part(record: Mapping[str, Any]) -> CondensedSet:
    tensors: dict[str, Tensor | None] = {name: record[name] for name in TENSORS}
    factor, dtype = record["formation"]
    part = CondensedSet(
        spec=ImageSpec.from_json(record["spec"]),
        formation=Formation(factor, dtype),
        provenance=record["provenance"],
        **tensors,  # type: ignore[arg-type]
    )
    if part.classes != (int(record["label"]),):
        raise DataError(f"class {record['label']} holds images of {list(part.classes)}")
    return part
