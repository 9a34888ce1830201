"""Evaluators for NNI, which score a candidate by a short training or without training."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from statistics import fmean
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from torch import Tensor, nn

from condensekit.compute import Machine
from condensekit.errors import refuse, whole
from condensekit.nas.engines.failures import TrialError
from condensekit.nas.names import SCORES
from condensekit.nas.rankers import zero_cost
from condensekit.nas.rankers.training import ProxyData, ProxyProtocol, TrialResult, check_score, train_candidate
from condensekit.networks.cost import count
from condensekit.rng import Draw, isolated
from condensekit.runs.describe import describe


class ProxyEvaluator(Evaluator):  # type: ignore[misc]
    """Evaluator that trains each candidate from scratch on a proxy set, and scores it on held-out training images.

    Every candidate has a new module, optimiser and schedule, and the same batches and augmentation. The final result
    is ``{"default": score, "scores": {...}, "seconds": ..., "image_steps": ..., "stopped": ...}``. A training that
    diverges is a failed trial.

    >>> import condensekit as ck
    >>> from condensekit.nas import ProxyData, ProxyEvaluator, ProxyProtocol, search, space
    >>> train, test = ck.load("digits")
    >>> train, held = train.split(0.2, seed=0)
    >>> data = ProxyData(ck.select(train, "kmeans", ipc=5), held)
    >>> evaluator = ProxyEvaluator(data, ProxyProtocol(steps=5, augmentation=None))
    >>> convnets = space("convnet-small", (1, 8, 8), 10)
    >>> [trial.status for trial in search(convnets, evaluator, "random", trials=2, engine="sequential")]
    ['finished', 'finished']

    Args:
        data: The images, or a function without arguments that loads the images. With a function the evaluator is
            small, which NNI's remote services need.
        protocol: Training protocol of a candidate.
        score: Name of the score that is the final result, see :data:`~condensekit.nas.names.SCORES`.
        seeds: Number of trainings of each candidate, with seeds ``seed``, ``seed + 1``, ...; scores are averaged.
        seed: Seed of the first training; the same for all candidates.
        last: See :func:`train_candidate`.
        checks: See :func:`train_candidate`.
        hopeless: See :func:`train_candidate`.
        machine: See :func:`train_candidate`.

    Raises:
        ConfigError: An unknown score, a score that does not work with ``hopeless``, or ``seeds`` below 1.
    """

    def __init__(
        self,
        data: ProxyData | Callable[[], ProxyData],
        protocol: ProxyProtocol = ProxyProtocol(),  # noqa: B008 - frozen
        *,
        score: str = "accuracy",
        seeds: int = 1,
        seed: int = 0,
        last: int = 5,
        checks: int = 4,
        hopeless: float | None = None,
        machine: Machine = Machine(),  # noqa: B008 - frozen
    ) -> None:
        check_score(score, hopeless)
        refuse(whole("seeds", seeds, 1))
        self.data, self.protocol, self.score = data, protocol, score
        self.seeds, self.seed, self.last, self.checks = seeds, seed, last, checks
        self.hopeless, self.machine = hopeless, machine

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """All settings and data that decide a score, as JSON values: a log of trials with another recipe is refused."""
        data, usual = self.data, Machine().identity
        how = {
            "score": self.score,
            "seeds": self.seeds,
            "seed": self.seed,
            "last": self.last,
            "checks": self.checks,
            "hopeless": self.hopeless,
            "protocol": describe(self.protocol),
            **{name: value for name, value in self.machine.identity.items() if value != usual[name]},
        }
        if isinstance(data, partial):
            how["arguments"] = describe([data.args, data.keywords])
            data = data.func
        if not isinstance(data, ProxyData):
            name = getattr(data, "__qualname__", type(data).__qualname__)  # name of a function or of another callable
            return {**how, "data": f"{data.__module__}.{name}"}
        protocol = replace(self.protocol.on(data.test.spec), steps=self.protocol.steps_on(len(data.targets)))
        return {**how, "protocol": {**describe(protocol), "epochs": None}, **data.fingerprints()}

    def prepare(self) -> ProxyData:
        """Load the images once, before workers are forked, which then share them; returns the images."""
        if not isinstance(self.data, ProxyData):
            self.data = self.data()
        _ = self.data.targets, self.data.images
        return self.data

    def evaluate(self, model: nn.Module | Callable[[], nn.Module]) -> list[TrialResult]:
        """Train a candidate with each seed, and report its score to NNI.

        Args:
            model: Function that makes the module, whose weights then depend on the seed; or a module, of which copies
                with the same weights are trained.

        Returns:
            The result of each training.

        Raises:
            TrialError: A training diverged.
        """
        make = (lambda: copy.deepcopy(model)) if isinstance(model, nn.Module) else model
        data, results = self.prepare(), []
        for seed in range(self.seed, self.seed + self.seeds):
            result = train_candidate(
                make,
                data,
                self.protocol,
                seed=seed,
                last=self.last,
                checks=self.checks,
                hopeless=self.hopeless,
                machine=self.machine,
                report=self._report,
            )
            results.append(result)
            if result.problem:
                raise TrialError(result.problem, sum(each.image_steps for each in results))
        scores = {kind: fmean(result.scores[kind] for result in results) for kind in SCORES}
        nni.report_final_result(
            {
                "default": scores[self.score],
                "scores": scores,
                "seconds": sum(result.seconds for result in results),
                "image_steps": sum(result.image_steps for result in results),
                "stopped": any(result.stopped for result in results),
            }
        )
        return results

    def _dump(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "recipe"}

    @staticmethod
    def _load(**made: Any) -> ProxyEvaluator:
        return ProxyEvaluator(**made)

    def _report(self, entry: Mapping[str, float]) -> None:
        nni.report_intermediate_result({"default": entry[self.score], **entry})

    def _execute(self, model: Any) -> Any:
        """Evaluate a frozen space, for NNI: each training builds a new module with its own seed."""
        return self.evaluate(model.executable_model)


class ZeroCostEvaluator(Evaluator):  # type: ignore[misc]
    """Evaluator that scores candidates without training.

    Args:
        kind: Name of the score: ``params``, ``flops`` or a name of :data:`~condensekit.nas.names.ZERO_COST`.
        images_NCHW: Batch (N, C, H, W) of normalised float32 images.
        seed: Seed of the initial weights and of random numbers.
    """

    def __init__(self, kind: str, images_NCHW: Tensor, seed: int = 0) -> None:  # noqa: N803
        self.kind, self.images, self.seed = kind, images_NCHW, seed

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """See :attr:`ProxyEvaluator.recipe`."""
        images = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]
        return {"kind": self.kind, "seed": self.seed, "images": images}

    def evaluate(self, model: Callable[[], nn.Module]) -> float:
        """Score the module that ``model`` makes, and report the score to NNI.

        Raises:
            TrialError: The score is not finite.
        """
        start = time.perf_counter()
        draw = Draw(self.seed)
        channels, height, width = self.images.shape[1:]
        with isolated(draw.key("weights")):
            module = model()
            cost = count(module, (channels, height, width))  # its forward pass also sets the sizes of lazy layers
        counts = {"params": cost.params, "flops": cost.flops}
        found: float | None = counts.get(self.kind)
        if self.kind not in counts:
            found = zero_cost.score(self.kind, module, self.images, draw.key("zero-cost"))
        steps = zero_cost.image_steps(self.kind, len(self.images))
        if found is None:
            raise TrialError(f"{self.kind} is not finite", steps)
        nni.report_final_result(
            {
                "default": float(found),
                "scores": {self.kind: float(found)},
                "seconds": time.perf_counter() - start,
                "image_steps": steps,
                "stopped": False,
            }
        )
        return found

    def _execute(self, model: Any) -> Any:
        """Evaluate a frozen space, for NNI."""
        return self.evaluate(model.executable_model)
