"""Inspection: an evaluator that counts a candidate and tries one step of its training, before hours are spent on it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import nni
import torch
from nni.nas.evaluator import Evaluator
from torch import Tensor, nn

from condensekit.compute import Machine
from condensekit.nas.engines.failures import TrialError
from condensekit.nas.engines.guarded import unchanged
from condensekit.nas.rankers.training import check_outputs
from condensekit.nas.trials.log import Trial
from condensekit.networks.cost import Cost, count
from condensekit.rng import Draw, isolated


class Inspection(Evaluator):  # type: ignore[misc]
    """Evaluator that finds the cost of a candidate, and whether its outputs can be trained.

    A batch passes forward and backward, and forward in evaluation mode. The cost is an intermediate result with
    ``params`` and ``flops``; without it the candidate cannot be counted. The final result is 1, or 0 for outputs that
    are the same for all images; the outputs of a trained network may still become different.

    Args:
        images_NCHW: Batch (N, C, H, W) of normalised float32 images, at least two.
        classes: Number of classes.
        machine: Device on which candidates are trained.
        seed: Seed of the initial weights.
    """

    def __init__(self, images_NCHW: Tensor, classes: int, machine: Machine, seed: int = 0) -> None:  # noqa: N803
        self.images, self.classes, self.machine, self.seed = images_NCHW, classes, machine, seed

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """All that decides a result, as JSON values."""
        images = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]
        return {"inspection": images, "classes": self.classes, "seed": self.seed}

    def evaluate(self, make: Callable[[], nn.Module]) -> None:
        """Inspect the module that ``make`` builds.

        Raises:
            TrialError: The outputs cannot be trained; the text says why.
        """
        weights = Draw(self.seed).key("weights")
        with unchanged(), isolated(weights), contextlib.suppress(Exception):  # what follows tells what is wrong
            channels, height, width = self.images.shape[1:]
            cost = count(make(), (channels, height, width))
            nni.report_intermediate_result({"default": cost.flops, "params": cost.params, "flops": cost.flops})
        device = self.machine.resolved().device
        with isolated(weights):
            module, images = make().to(device), self.images.to(device)
            alike = _outputs_alike(module.train(), images, self.classes)
            with torch.no_grad():
                check_outputs(module.eval()(images), len(images), self.classes)
        nni.report_final_result(0.0 if alike else 1.0)

    def _execute(self, model: Any) -> Any:
        """Inspect a frozen space, for NNI."""
        return self.evaluate(model.executable_model)


def cost_of(inspected: Trial | None) -> Cost | None:
    """Cost in the trial of an inspection; None: the candidate was not inspected or cannot be counted."""
    if inspected is None or not inspected.curve:
        return None
    return Cost(int(inspected.curve[0]["params"]), int(inspected.curve[0]["flops"]))


def _outputs_alike(module: nn.Module, images: Tensor, classes: int) -> bool:
    """Whether the outputs are the same for all images. Raises TrialError for outputs that cannot be trained."""
    images = images.clone().requires_grad_() * 1  # a candidate may change its inputs, which a leaf does not permit
    outputs = check_outputs(module(images), len(images), classes)
    if not bool(torch.isfinite(outputs).all()):
        raise TrialError("its outputs are not finite numbers before the training")
    if not outputs.requires_grad:
        raise TrialError("its outputs depend on no parameter that can be trained")
    learnt = [p for p in module.parameters() if p.requires_grad]
    loss = torch.nn.functional.cross_entropy(outputs, torch.arange(len(images), device=images.device) % classes)
    (seen, *gradients) = torch.autograd.grad(loss, [images, *learnt], allow_unused=True)
    if all(found is None for found in gradients):
        raise TrialError("its outputs depend on no parameter that can be trained")
    if not all(bool(torch.isfinite(found).all()) for found in gradients if found is not None):
        raise TrialError("its gradients are not finite numbers before the training")
    if bool((outputs != outputs[0]).any()):
        return False
    if seen is None:
        raise TrialError("its outputs are constant: they do not depend on the images")
    if not any(bool(found.any()) for found in gradients if found is not None):
        raise TrialError("its outputs are constant: they depend on no parameter that can be trained")
    return True
