"""Metrics of a replay memory in Avalanche: its bytes, its seconds, old and new classes apart."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name
from torch import Tensor

from condensekit.replay.adapters.buffer import CondensedBuffer
from condensekit.sets.condensed import CondensedSet


def memory_bytes_metrics() -> list[PluginMetric]:
    """Bytes of the condensed memories of a strategy after each experience: ``MemoryBytes`` and ``MemoryBytes_Coded``.

    The second codes every tensor losslessly (zlib); both count ranges, labels and soft labels. Emitted with the
    experience in the name; nothing for strategies without a :class:`CondensedBuffer`.
    """
    return [_Memory("MemoryBytes"), _Memory("MemoryBytes_Coded", coded=True)]


def condense_seconds_metrics() -> list[PluginMetric]:
    """Wall seconds that the memory took in each experience, reading and coding included: ``CondenseSeconds``."""
    return [_Seconds()]


def old_new_accuracy_metrics() -> list[PluginMetric]:
    """After each evaluation, over all its images of classes trained on so far.

    ``Accuracy_Old`` and ``Accuracy_New``: of classes of earlier experiences and of the last one.
    ``Confusion_OldToNew`` and ``Confusion_NewToOld``: the share of old images that the network takes for a new class,
    and of new images for an old class. A share of no images is left out, say of old classes at first.
    """
    return [_OldNew()]


def coded_bytes(memory: CondensedSet) -> int:
    """What the set's tensors take after zlib; images that are coded already count as they are.

    Pixels of 8 bits without ranges count as coded in ``nbytes``, but are not: here they are.
    """
    pixels = memory.coded is not None and memory.formation.dtype == "uint8"
    pictures = (memory.images, None if pixels else memory.ranges) if pixels or memory.coded is None else ()
    tensors = [t for t in (*pictures, memory.labels, memory.soft_labels) if t is not None]
    found = sum(len(zlib.compress(t.contiguous().view(torch.uint8).numpy().tobytes(), 9)) for t in tensors)
    return found if pixels or memory.coded is None else found + int(memory.coded.sum())


class _Emitting(PluginMetric[float]):
    """A metric that keeps its last value by name."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def result(self) -> dict[str, float]:
        """The last values."""
        return self._last

    def reset(self) -> None:
        """Forget them."""
        self._last = {}

    def _emit(self, strategy: Any, values: dict[str, float], **named: bool) -> list[MetricValue]:
        self._last = values
        x = strategy.clock.train_iterations
        names = {name: get_metric_name(name, strategy, add_task=False, **named) for name in values}
        return [MetricValue(self, names[name], value, x) for name, value in values.items()]


class _Memory(_Emitting):
    def __init__(self, name: str, coded: bool = False) -> None:
        super().__init__()
        self.name, self.coded = name, coded

    def after_training_exp(self, strategy: Any) -> list[MetricValue]:
        """Count what the memories hold now."""
        held = [buffer for buffer in CondensedBuffer.all_of(strategy) if buffer.memory is not None]
        if not held:
            return []
        if self.coded:
            sizes = [coded_bytes(buffer.memory) for buffer in held if buffer.memory]
        else:
            sizes = [getattr(strategy, "nbytes", sum(buffer.nbytes for buffer in held))]  # with the logits of DER++
        return self._emit(strategy, {self.name: float(sum(sizes))}, add_experience=True)

    def __str__(self) -> str:
        return self.name


class _Seconds(_Emitting):
    def __init__(self) -> None:
        super().__init__()
        self._counted = 0

    def after_training_exp(self, strategy: Any) -> list[MetricValue]:
        """What has been added since the last experience."""
        spent = [
            seconds for buffer in CondensedBuffer.all_of(strategy) for seconds in buffer.condense_s[self._counted :]
        ]
        self._counted = max([self._counted, *(len(buffer.condense_s) for buffer in CondensedBuffer.all_of(strategy))])
        return self._emit(strategy, {"CondenseSeconds": sum(spent)}, add_experience=True) if spent else []

    def __str__(self) -> str:
        return "CondenseSeconds"


class _OldNew(_Emitting):
    def __init__(self) -> None:
        super().__init__()
        self._old: set[int] = set()
        self._new: set[int] = set()
        self._counts: Tensor | None = None  # (2, 3): old and new images; how many right, taken for the others, in all

    def before_training_exp(self, strategy: Any) -> None:
        """What was new becomes old."""
        self._old |= self._new
        self._new = {int(label) for label in strategy.experience.dataset.targets}
        self._old -= self._new

    def before_eval(self, strategy: Any) -> None:
        """Start counting."""
        self._counts = None

    def after_eval_iteration(self, strategy: Any) -> None:
        """Count one batch, without waiting for the device."""
        wanted, taken = strategy.mb_y, strategy.mb_output.argmax(1)
        groups = [torch.tensor(sorted(g), dtype=torch.int64, device=wanted.device) for g in (self._old, self._new)]
        rows = []
        for own, other in (groups, groups[::-1]):
            here = torch.isin(wanted, own)
            rows.append(
                torch.stack([(here & (taken == wanted)).sum(), (here & torch.isin(taken, other)).sum(), here.sum()])
            )
        counts = torch.stack(rows)
        self._counts = counts if self._counts is None else self._counts + counts

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the four shares."""
        return self._emit(strategy, dict(self._shares()))

    def _shares(self) -> Iterator[tuple[str, float]]:
        if self._counts is None:
            return
        for own, other, (right, confused, total) in zip(
            ("Old", "New"), ("New", "Old"), self._counts.tolist(), strict=True
        ):
            if total:
                yield f"Accuracy_{own}", right / total
                yield f"Confusion_{own}To{other}", confused / total

    def __str__(self) -> str:
        return "OldNew"
