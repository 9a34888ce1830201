"""Evaluators of NNI: score a candidate by a short training, or without training."""

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
    """Trains each candidate from scratch on a proxy set and reports its score on held-out training images.

    Every candidate gets a fresh module, optimiser and schedule, and the same batches and augmentation. The final
    result is ``{"default": score, "scores": {...}, "seconds": ..., "image_steps": ..., "stopped": ...}``; a
    training that diverges is a failed trial.

    Args:
        data: The images, or a function without arguments that loads them (then the evaluator itself stays
            small; needed for NNI's remote services).
        protocol: How it is trained.
        score: Which of :data:`~condensekit.nas.names.SCORES` is the final result.
        seeds: Trainings of each candidate, with seeds ``seed``, ``seed + 1``, ...; scores are averaged.
        seed: Of the first training; the same for all candidates.
        last: See :func:`train_candidate`.
        checks: See there.
        hopeless: See there.
        machine: See there.

    Raises:
        ConfigError: An unknown score, or a score that goes ill with ``hopeless``; fewer than one seed.
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
        """Everything that decides a candidate's score, as JSON values: a log of trials is checked against it."""
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
            name = getattr(data, "__qualname__", type(data).__qualname__)  # of anything callable
            return {**how, "data": f"{data.__module__}.{name}"}
        protocol = replace(self.protocol.on(data.test.spec), steps=self.protocol.steps_on(len(data.targets)))
        return {**how, "protocol": {**describe(protocol), "epochs": None}, **data.fingerprints()}

    def prepare(self) -> ProxyData:
        """The images, loaded once; called before workers are forked, which then share them."""
        if not isinstance(self.data, ProxyData):
            self.data = self.data()
        _ = self.data.targets, self.data.images
        return self.data

    def evaluate(self, model: nn.Module | Callable[[], nn.Module]) -> list[TrialResult]:
        """Train once for each seed, and report to NNI.

        Args:
            model: Makes the module, whose weights then follow from the seed; or a module, copies of which are
                trained from the weights it has.

        Raises:
            TrialError: The training diverged.
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
        """Called by NNI with a frozen space: the module is built anew, with its own seed, for each training."""
        return self.evaluate(model.executable_model)


class ZeroCostEvaluator(Evaluator):  # type: ignore[misc]
    """The NNI evaluator of :class:`ZeroCost`.

    Args:
        kind: The score's name.
        images_NCHW: A batch of normalised float32 images.
        seed: Initial weights follow from it.
    """

    def __init__(self, kind: str, images_NCHW: Tensor, seed: int = 0) -> None:  # noqa: N803
        self.kind, self.images, self.seed = kind, images_NCHW, seed

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """See :attr:`ProxyEvaluator.recipe`."""
        images = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]
        return {"kind": self.kind, "seed": self.seed, "images": images}

    def evaluate(self, model: Callable[[], nn.Module]) -> float:
        """Score what ``model`` makes, and report to NNI.

        Raises:
            TrialError: The score is not finite.
        """
        start = time.perf_counter()
        draw = Draw(self.seed)
        channels, height, width = self.images.shape[1:]
        with isolated(draw.key("weights")):
            module = model()
            cost = count(module, (channels, height, width))  # a forward pass, from which lazy layers learn their size
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
        """Called by NNI with a frozen space."""
        return self.evaluate(model.executable_model)
