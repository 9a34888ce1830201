"""State of a replay memory: tensors and plain values, for files without code."""

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
    """Entries of a buffer's state other than its images.

    Args:
        layout: Fields of a sample of the stream.
        limit: Largest number of stored images from ``resize``; None: no limit.
        taken: Keys of the stored experiences.
        condense_s: Seconds of each experience.
        work: Images and FLOPs of the networks in each experience.
    """

    layout: Layout
    limit: int | None
    taken: list[Key]
    condense_s: list[float]
    work: list[Spent]


def stored(content: Content) -> list[dict[str, Any]]:
    """State of the stored images: one dictionary for each class."""
    return [
        {"label": label, "seen": content.seen[label], "task": content.tasks.get(label), **part.to_state()}
        for label, part in sorted(content.parts.items())
    ]


def restored(state: Mapping[str, Any], formation: Formation) -> tuple[Content, Circumstances]:
    """Read the state of a buffer: its stored images, see :func:`stored`, and its other entries.

    Raises:
        DataError: ``state`` is not the state of a buffer.
        ConfigError: The state has another formation than the buffer.
    """
    try:
        factor, dtype = state["formation"]
        if Formation(factor, dtype) != formation:
            raise ConfigError(
                f"the state holds {Formation(factor, dtype)}, the buffer stores {formation}: use the same formation"
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
        raise DataError(f"this is not the state of a CondensedBuffer ({type(error).__name__}: {error})") from error


def reach_optimisers() -> None:
    """Put the modules of torch's optimisers back into ``torch.optim``, where dill looks for them.

    Avalanche saves a strategy by dill. ``torch.optim`` deletes these modules; then dill saves the class of an optimiser
    with all objects that it refers to. After a network was compiled, this includes torch's compiler, which cannot be
    saved.
    """
    for name, module in list(sys.modules.items()):
        package, _, child = name.rpartition(".")
        if package == "torch.optim" and not hasattr(torch.optim, child):
            setattr(torch.optim, child, module)


def _part(record: Mapping[str, Any]) -> CondensedSet:
    formation = record["formation"]
    if isinstance(formation, list):  # written by version 0.1
        formation = dict(zip(("factor", "dtype"), formation, strict=True))
    part = CondensedSet.from_state({**record, "formation": formation})
    if part.classes != (int(record["label"]),):
        raise DataError(f"class {record['label']} holds images of {list(part.classes)}")
    return part
