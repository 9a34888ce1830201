"""State of a replay memory: tensors and plain values, for files that hold no code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from condensekit.compute import Spent
from condensekit.errors import CondensekitError, ConfigError, DataError
from condensekit.replay.adapters.stream import Key, Layout
from condensekit.replay.memory.content import Content
from condensekit.sets.condensed import CondensedSet, Formation


@dataclass(frozen=True)
class Circumstances:
    """What a buffer's state says beside its images."""

    layout: Layout
    limit: int | None
    taken: list[Key]
    condense_s: list[float]
    work: list[Spent]


def stored(content: Content) -> list[dict[str, Any]]:
    """One dictionary for each class."""
    return [
        {"label": label, "seen": content.seen[label], "task": content.tasks.get(label), **part.to_state()}
        for label, part in sorted(content.parts.items())
    ]


def restored(state: Mapping[str, Any], formation: Formation) -> tuple[Content, Circumstances]:
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
        content = Content(
            parts,
            {int(record["label"]): int(record["seen"]) for record in state["memory"]},
            {int(record["label"]): int(record["task"]) for record in state["memory"] if record["task"] is not None},
        )
        tasked, target = state["layout"]
        taken = [(str(name), int(whole), int(number), str(digest)) for name, whole, number, digest in state["taken"]]
        layout = Layout(bool(tasked), getattr(torch, target) if target else None)
        seconds, work = [float(s) for s in state["condense_s"]], [Spent(**told) for told in state.get("work", ())]
        return content, Circumstances(layout, state["limit"], taken, seconds, work)
    except ConfigError:
        raise
    except (CondensekitError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"no state of a CondensedBuffer ({type(error).__name__}: {error})") from error


def reach_optimisers() -> None:
    """Let dill, by which Avalanche saves a strategy, find the modules of torch's optimisers.

    dill looks for them in ``torch.optim``, which deletes them, and then saves an optimiser's class with all that it
    refers to. Once a network was compiled that is torch's whole compiler, which cannot be saved.
    """
    for name, module in list(sys.modules.items()):
        package, _, child = name.rpartition(".")
        if package == "torch.optim" and not hasattr(torch.optim, child):
            setattr(torch.optim, child, module)


def _part(record: Mapping[str, Any]) -> CondensedSet:
    formation = record["formation"]
    if isinstance(formation, list):  # of version 0.1
        formation = dict(zip(("factor", "dtype"), formation, strict=True))
    part = CondensedSet.from_state({**record, "formation": formation})
    if part.classes != (int(record["label"]),):
        raise DataError(f"class {record['label']} holds images of {list(part.classes)}")
    return part
