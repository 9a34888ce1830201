"""Descent: how images move along a gradient, with what it remembers of the steps before, as tensors of a state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from condensekit.errors import choice, finite, positive, refuse
from condensekit.methods.base import Condenser, State, StepContext

SPACES = ("normalised", "pixel")
OPTIMISERS = ("sgd", "adamw")
LR = {"sgd": 1.0, "adamw": 0.001}  # the step size of an optimiser that is chosen by name without one
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW


@dataclass(frozen=True)
class Descent:
    """SGD with momentum, or AdamW (Loshchilov and Hutter, ICLR 2019), on images.

    In ``pixel`` space it equals the optimiser on pixels p in [0, 1], which are clamped after each step. An image is
    (p - m) / s: the gradient with respect to p is 1 / s times the gradient with respect to the image, and a step of p
    moves the image by 1 / s times that step. Of images that are no pixels, the least and the greatest real value stand
    for the pixels 0 and 1.

    The state of SGD is ``momentum`` (K, ...). That of AdamW is ``images/first`` and ``images/second`` (K, ...), and
    ``updates`` (K,), the steps of each class: with ``classes_per_step``, classes have unlike many.

    Args:
        lr: Step size, above 0; :attr:`StepContext.rate` multiplies it. A step of AdamW moves most values by about so
            much, so that it must be below 1.
        momentum: Momentum of SGD, in [0, 1).
        space: ``normalised`` or ``pixel``.
        optimiser: ``sgd`` or ``adamw``.
        weight_decay: Decoupled weight decay of AdamW, at least 0: in each step, pixels (or normalised values) first
            shrink by the factor 1 - lr * weight_decay.

    Raises:
        ConfigError: Values out of range; all of them listed.
    """

    lr: float
    momentum: float = 0.5
    space: str = "normalised"
    optimiser: str = "sgd"
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        refuse(*misfits(self))

    def start(self, values: Tensor, name: str = "images") -> State:
        """What the first step of (K, ...) values called ``name`` remembers."""
        if self.optimiser == "sgd":
            return {_velocity(name): torch.zeros_like(values)}
        return {
            f"{name}/first": torch.zeros_like(values),
            f"{name}/second": torch.zeros_like(values),
            "updates": torch.zeros(len(values), device=values.device),
        }

    def step(self, state: State, slope: Tensor, ctx: StepContext, name: str = "images") -> State:
        """Make one step of the (K, ...) values called ``name``.

        Args:
            state: With the values and the result of :meth:`start`.
            slope: The gradient with respect to the values; it is left as it is.
            ctx: The step, with the data and the factor of the step size.
            name: Name of the values in the state.

        Returns:
            The new values and what the next step remembers.
        """
        lr = self.lr * ctx.rate
        mean, std, low, high = _pixels(ctx, slope) if self.space == "pixel" else (0.0, 1.0, -math.inf, math.inf)
        if self.optimiser == "sgd":
            velocity = (self.momentum * state[_velocity(name)]).add_(slope)
            way, rest = lr / std**2 * velocity, {_velocity(name): velocity}
        else:
            way, rest = self._adamw(state, slope, lr, std, name)
        if self.weight_decay:
            way.add_((state[name] + mean / std).mul_(lr * self.weight_decay))
        moved = torch.sub(state[name], way, out=way)  # a set may be as large as the memory of a GPU allows
        return {name: moved if self.space == "normalised" else moved.clamp_(low, high), **rest}

    def _adamw(self, state: State, slope: Tensor, lr: Any, std: Any, name: str) -> tuple[Tensor, State]:
        """The step of AdamW without its weight decay, and its new moments, which are those of pixels."""
        updates = state["updates"] + 1
        first = (BETAS[0] * state[f"{name}/first"]).add_(slope * ((1 - BETAS[0]) / std))
        second = (BETAS[1] * state[f"{name}/second"]).add_(slope.square().mul_((1 - BETAS[1]) / std**2))
        bias, bias_second = (1 - beta ** updates.reshape(-1, *[1] * (slope.ndim - 1)) for beta in BETAS)
        way = (second / bias_second).sqrt_().add_(EPSILON)
        torch.div(first, way, out=way).mul_(lr / std / bias)
        return way, {f"{name}/first": first, f"{name}/second": second, "updates": updates}


class Descending(Condenser):
    """A method whose images move by a :class:`Descent`; it has the fields of that class."""

    scheduled: ClassVar[bool] = True
    lr: float
    momentum: float
    space: str
    optimiser: str
    weight_decay: float

    @property
    def descent(self) -> Descent:
        """How the images move."""
        return Descent(self.lr, self.momentum, self.space, self.optimiser, self.weight_decay)

    @property
    def bounded(self) -> bool:
        """See :class:`Condenser`."""
        return self.space == "pixel"


def misfits(given: Descent | Descending) -> tuple[str | None, ...]:
    """The problems of the fields of :class:`Descent`; entries that are None are no problem."""
    bad_lr, adamw = positive("lr", given.lr), given.optimiser == "adamw"
    bad_decay = positive("weight_decay", given.weight_decay, zero=True)
    return (
        bad_lr,
        f"adamw moves each value by about lr in a step, got lr={given.lr}: give an lr below 1, such as {LR['adamw']}"
        if adamw and not bad_lr and given.lr >= 1
        else None,
        None
        if finite(given.momentum) and 0 <= given.momentum < 1
        else f"momentum must lie in [0, 1), got {given.momentum!r:.60}",
        choice("space", given.space, SPACES),
        choice("optimiser", given.optimiser, OPTIMISERS),
        bad_decay,
        f"weight_decay={given.weight_decay} is an option of optimiser='adamw': leave it out"
        if not adamw and not bad_decay and given.weight_decay
        else None,
    )


def _velocity(name: str) -> str:
    return "momentum" if name == "images" else f"{name}/momentum"


def _pixels(ctx: StepContext, images: Tensor) -> tuple[Any, Any, Any, Any]:
    """Constants m and s of images (p - m) / s of pixels p, and the ends of their values: numbers or (C, 1, 1)."""
    if not ctx.data.spec.pixels:
        low, high = ctx.data.ends
        width = (high - low) or 1.0
        return -low / width, 1 / width, low, high
    mean, std = ctx.data.spec.constants(images.device)
    return mean, std, -mean / std, (1 - mean) / std
