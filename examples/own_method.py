"""A condensation method of your own: hyper-parameters, a first state and one step.

    python examples/own_method.py

From the command line, in the folder of this file, without changing the package:

    condensekit condense --data digits --method own_method:MomentMatching --set order=3 --ipc 1 --minutes 1 --out run

Its tests are three lines; they check resume, seeds, non-finite values and more:

    class TestMomentMatching(condensekit.testing.MethodContract):
        def make(self):
            return MomentMatching()
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import condensekit as ck
from condensekit.errors import positive, refuse, whole
from condensekit.methods import Condenser, State, StepContext
from condensekit.methods.base import keep_if


@dataclass(frozen=True)
class MomentMatching(Condenser):
    """Match the first ``order`` moments of each class's embeddings, by plain gradient descent.

    Args:
        order: How many moments, at least 1.
        lr: Step size for normalised images.
        batch_real: Real images of each class in a step.
    """

    order: int = 2
    lr: float = 0.5
    batch_real: int = 64
    name: str = "moments"
    separable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(whole("order", self.order, 1), positive("lr", self.lr))

    def init(self, synthetic: Tensor, ctx: StepContext) -> State:
        """Nothing but the images: (K, ipc, C, H, W)."""
        return {"images": synthetic}

    def step(self, state: State, ctx: StepContext) -> tuple[State, dict[str, Tensor]]:
        """One batch of real images of every class, one update of all synthetic images."""
        images, labels = state["images"], ctx.data.classes
        real, _ = ctx.real(labels, self.batch_real)  # (K, n, C, H, W), already augmented
        target = ctx.features(real)  # (K, n, D), by this step's random network

        def loss(features: Tensor) -> Tensor:  # (K, m, D) -> (K,)
            orders = range(1, self.order + 1)
            return torch.stack([(target.pow(k).mean(1) - features.pow(k).mean(1)).square().sum(1) for k in orders]).sum(
                0
            )

        losses, gradient = ctx.gradient(images, labels, loss)
        finite = torch.isfinite(losses).all() & torch.isfinite(gradient).all()
        new = {"images": images - self.lr * gradient}
        return keep_if(finite, new, state), {"loss": losses.sum(), "finite": finite}


def main() -> None:
    """Run the new method beside DM."""
    train, _ = ck.load("digits")
    encoder = ck.Fresh(ck.ConvNet(width=32))  # your own network goes here as well
    for method in (ck.DistributionMatching(batch_real=64), MomentMatching(order=2)):
        made = ck.condense(train, ck.Recipe(method, encoder), ipc=1, steps=50)
        first, last = made.history[0]["loss"], made.history[-1]["loss"]
        print(f"{method.name}: {made.message}; loss {first:.3g} -> {last:.3g}")


if __name__ == "__main__":
    main()
