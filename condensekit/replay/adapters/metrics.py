"""Metrics of a replay memory in Avalanche: bytes, seconds, and accuracies of old and new classes."""

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
    """Metrics ``MemoryBytes`` and ``MemoryBytes_Coded``: bytes of a strategy's condensed memories.

    ``MemoryBytes_Coded`` is the size after lossless coding (zlib) of every tensor. Both count ranges, labels and soft
    labels. The values are emitted after each experience, with the experience in the name. A strategy without a
    :class:`CondensedBuffer` emits no value.

    >>> from avalanche.training.plugins import EvaluationPlugin
    >>> from condensekit.replay import memory_bytes_metrics
    >>> evaluator = EvaluationPlugin(memory_bytes_metrics(), loggers=[])
    """
    return [_Memory("MemoryBytes"), _Memory("MemoryBytes_Coded", coded=True)]


def condense_seconds_metrics() -> list[PluginMetric]:
    """Metric ``CondenseSeconds``: wall seconds of filling the memory in each experience, with reading and coding.

    >>> from avalanche.training.plugins import EvaluationPlugin
    >>> from condensekit.replay import condense_seconds_metrics
    >>> evaluator = EvaluationPlugin(condense_seconds_metrics(), loggers=[])
    """
    return [_Seconds()]


def old_new_accuracy_metrics() -> list[PluginMetric]:
    """Metrics of old classes (of earlier experiences) and new classes (of the last experience), after each evaluation.

    ``Accuracy_Old`` and ``Accuracy_New``: accuracy on the images of old classes and of new classes.
    ``Confusion_OldToNew``: fraction of the images of old classes that the network predicts as a new class.
    ``Confusion_NewToOld``: fraction of the images of new classes that the network predicts as an old class. A metric
    without images, such as of old classes in the first experience, is not emitted.

    >>> from avalanche.training.plugins import EvaluationPlugin
    >>> from condensekit.replay import old_new_accuracy_metrics
    >>> evaluator = EvaluationPlugin(old_new_accuracy_metrics(), loggers=[])
    """
    return [_OldNew()]


def coded_bytes(memory: CondensedSet) -> int:
    """Size of the set in bytes after its tensors are coded by zlib; JPEG images count with their own size.

    8-bit pixels without ranges have ``coded`` sizes in the set, but are not coded: here zlib codes them.
    """
    jpeg = memory.coded if memory.formation.dtype != "uint8" else None
    ranges = memory.ranges if memory.coded is None or memory.formation.coded else None
    tensors = [None if jpeg is not None else memory.images, ranges, memory.labels, memory.soft_labels]
    parts = [t.contiguous().view(torch.uint8).numpy().tobytes() for t in tensors if t is not None]
    return sum(len(zlib.compress(part, 9)) for part in parts) + (0 if jpeg is None else int(jpeg.sum()))


class _Emitting(PluginMetric[float]):
    """Base class of metrics that keep their last values by name."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def result(self) -> dict[str, float]:
        """The last values."""
        return self._last

    def reset(self) -> None:
        """Delete the last values."""
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
        """Count the bytes of the memories."""
        held = [buffer for buffer in CondensedBuffer.all_of(strategy) if buffer.memory is not None]
        if not held:
            return []
        if self.coded:
            sizes = [coded_bytes(buffer.memory) for buffer in held if buffer.memory]
        else:
            sizes = [getattr(strategy, "nbytes", sum(buffer.nbytes for buffer in held))]  # DER++ adds its logits
        return self._emit(strategy, {self.name: float(sum(sizes))}, add_experience=True)

    def __str__(self) -> str:
        return self.name


class _Seconds(_Emitting):
    def __init__(self) -> None:
        super().__init__()
        self._counted = 0

    def after_training_exp(self, strategy: Any) -> list[MetricValue]:
        """Emit the seconds that were added since the last experience."""
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
        self._counts: Tensor | None = None  # (2, 3): rows old and new; number of images right, confused, all

    def before_training_exp(self, strategy: Any) -> None:
        """Make the new classes of the last experience old classes."""
        self._old |= self._new
        self._new = {int(label) for label in strategy.experience.dataset.targets}
        self._old -= self._new

    def before_eval(self, strategy: Any) -> None:
        """Reset the counts."""
        self._counts = None

    def after_eval_iteration(self, strategy: Any) -> None:
        """Count the images of one batch, without waiting for the device."""
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
        """Emit the four fractions."""
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
