"""Schedules: the factor of the step size in each step of a run; and what a run remembers beside its method's state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.data.spec import ImageSpec
from condensekit.errors import positive, refuse, require, whole, within
from condensekit.methods.base import State
from condensekit.methods.storing import Storing

THRESHOLD = 1e-4  # share by which a loss must fall below the least one to be better
PREFIX = "course/"  # of the tensors of a :class:`Course` in a checkpoint
BEST, BAD, RATE, LOSS = (PREFIX + name for name in ("best", "bad", "rate", "loss"))
MEAN, COUNT = PREFIX + "mean/", PREFIX + "count"
GAP, QUALITIES = PREFIX + "gap", PREFIX + "qualities"


class Schedule(ABC):
    """The factor of the step size in each step.

    Attributes:
        name: Its name in text.
        sees_end: Whether it depends on how long the run is.
        sees_loss: Whether it depends on the loss of all classes together.
    """

    name: ClassVar[str]
    sees_end: ClassVar[bool] = False
    sees_loss: ClassVar[bool] = False

    def start(self, device: torch.device) -> State:
        """What it remembers before the first step: 0-dim tensors."""
        return {}

    @abstractmethod
    def rate(self, done: float, state: State) -> float | Tensor:
        """The factor of a step: a number, or a 0-dim tensor.

        Args:
            done: How much of the run is over before the step, from 0 to 1.
            state: What it remembers.
        """

    def after(self, state: State, loss: Tensor, turns: int, ends: bool) -> State:
        """What it remembers after a step; decided on the device, so that the CPU does not wait.

        Args:
            state: What it remembers before.
            loss: The 0-dim loss of the classes of this step; NaN if the step was not finite.
            turns: Steps in which each class takes part once.
            ends: Whether such a round of steps ends with this one.
        """
        return state


@dataclass(frozen=True)
class Constant(Schedule):
    """The same step size in all steps."""

    name: ClassVar[str] = "constant"

    def rate(self, done: float, state: State) -> float:
        """See :meth:`Schedule.rate`: 1."""
        return 1.0


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a wave of a cosine, from 1 at the first step to ``floor`` at the end (Loshchilov and Hutter, ICLR 2017).

    Of a run of a number of minutes, the minutes after the preparation count.

    Args:
        floor: The factor at the end, 0 to 1.
    """

    floor: float = 0.0
    name: ClassVar[str] = "cosine"
    sees_end: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(within("floor", self.floor, 0, 1))

    def rate(self, done: float, state: State) -> float:
        """See :meth:`Schedule.rate`."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Plateau(Schedule):
    """The step size falls by ``factor`` after more than ``patience`` steps without a better loss, again and again.

    A loss is better if it is a ten-thousandth below the least one, as in torch's ``ReduceLROnPlateau``. With
    ``classes_per_step``, losses of all classes are compared: the sums over rounds of steps. With several ranks, a loss
    may be rounded otherwise than with one, so that the step size may fall at another step.

    Args:
        patience: Steps without a better loss, at least 0.
        factor: Factor of the step size, above 0 and at most 1.
    """

    patience: int = 500
    factor: float = 0.5
    name: ClassVar[str] = "plateau"
    sees_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(
            whole("patience", self.patience, 0),
            positive("factor", self.factor) or within("factor", self.factor, 0, 1),
        )

    def start(self, device: torch.device) -> State:
        """See :meth:`Schedule.start`: least loss, steps since then, factor, and loss of the round so far."""
        first = {BEST: torch.finfo(torch.float32).max, BAD: 0.0, RATE: 1.0, LOSS: 0.0}
        return {name: torch.full((), value, device=device) for name, value in first.items()}

    def rate(self, done: float, state: State) -> Tensor:
        """See :meth:`Schedule.rate`."""
        return state[RATE]

    def after(self, state: State, loss: Tensor, turns: int, ends: bool) -> State:
        """See :meth:`Schedule.after`; a round with a step that was not finite changes nothing."""
        loss = state[LOSS] + loss
        if not ends:
            return {**state, LOSS: loss}
        best, known = state[BEST], torch.isfinite(loss)
        better = loss < best - THRESHOLD * best.abs()
        bad = torch.where(better, 0.0, state[BAD] + turns)
        over = bad > self.patience
        new = {
            BEST: torch.where(better, loss, best),
            BAD: torch.where(over, 0.0, bad),
            RATE: torch.where(over, self.factor * state[RATE], state[RATE]),
        }
        kept = {name: torch.where(known, value, state[name]) for name, value in new.items()}
        return {**kept, LOSS: torch.zeros_like(loss)}


class Course:
    """What a run remembers beside the state of its method: of its schedule, of its last images, and of its storage.

    Args:
        schedule: The factor of the step size.
        average: The last part of the run, 0 to 1, whose images are averaged; 0: none are.
        averaged: Names of the tensors of the method's state of which the mean is taken.
        turns: Steps in which each class takes part once.
        device: Where the tensors lie.
        storing: The storage through which images are learnt, or None.

    Attributes:
        state: These tensors; their names begin with :data:`PREFIX`.
    """

    def __init__(
        self,
        schedule: Schedule,
        average: float,
        averaged: tuple[str, ...],
        turns: int,
        device: torch.device,
        storing: Storing | None = None,
    ) -> None:
        self.schedule, self.average, self.averaged, self.turns = schedule, average, averaged, turns
        self.storing = storing
        self.state: State = schedule.start(device)

    def rate(self, done: float) -> float | Tensor:
        """The factor of the step size, where the part ``done`` of the run is over."""
        return self.schedule.rate(done, self.state)

    def gap(self, step: int, images: Tensor, spec: ImageSpec) -> Tensor | None:
        """What the storage changes in the images (K, ipc, C, H, W) before ``step``: the same shape; None: no storage.

        Raises:
            ConfigError: The first images do not fit into the room of the storage.
        """
        if self.storing is None:
            return None
        if GAP not in self.state:
            self.state[QUALITIES] = self.storing.qualities(images, spec)
        if GAP not in self.state or (step - 1) % self.storing.every == 0:
            self.state[GAP] = self.storing.gap(images, spec, self.state[QUALITIES])
        return self.state[GAP]

    def after(self, step: int, done: float, state: State, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take note of a step.

        Args:
            step: Its number, from 1.
            done: The part of the run that was over before the step.
            state: The method's state after the step.
            metrics: Those of the step, of all classes.

        Returns:
            The metrics, with the factor of the step size as ``rate`` unless it is constant.

        Raises:
            ConfigError: A schedule needs the metric ``loss``, and the method gives none.
        """
        found, finite = dict(metrics), metrics["finite"]
        if not isinstance(self.schedule, Constant):
            require(
                "loss" in found or not self.schedule.sees_loss,
                f"schedule='{self.schedule.name}' needs the metric loss, which the method does not give",
            )
            found["rate"] = torch.as_tensor(self.rate(done))
        if self.schedule.sees_loss:
            loss = torch.where(finite, found["loss"].float(), torch.nan)
            self.state |= self.schedule.after(self.state, loss, self.turns, step % self.turns == 0)
        if self.average and done >= 1 - self.average - 1e-9:
            self._average(state, finite)
        return found

    def _average(self, state: State, finite: Tensor) -> None:
        """Let the images of a step count, unless the step was not finite."""
        count = self.state.get(COUNT, torch.zeros((), device=finite.device)) + finite
        self.state[COUNT], share = count, finite / count.clamp(min=1)
        for name in self.averaged:
            if MEAN + name not in self.state:
                self.state[MEAN + name] = torch.zeros_like(state[name])
            self.state[MEAN + name].lerp_(state[name], share)

    def restore(self, tensors: State) -> State:
        """Take its tensors out of those of a checkpoint; the others."""
        self.state |= {name: value for name, value in tensors.items() if name.startswith(PREFIX)}
        return {name: value for name, value in tensors.items() if not name.startswith(PREFIX)}


def averaged(state: State) -> State:
    """A state of method and :class:`Course` together, with the mean in place of the last images, if there is one."""
    if COUNT not in state or not float(state[COUNT]):
        return state
    return {**state, **{name[len(MEAN) :]: value for name, value in state.items() if name.startswith(MEAN)}}
