"""The small sets that candidates are trained on: made once, kept in the run folder, with what making them cost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from condensekit import catalog
from condensekit.compute import Compute, make_plan
from condensekit.condense import Saving, Status, condense
from condensekit.condensed import CondensedSet, Formation
from condensekit.errors import CondensekitError
from condensekit.images import ClassImages
from condensekit.methods import Condenser
from condensekit.methods.gradient import GradientMatching
from condensekit.nas.cost import count
from condensekit.networks import ConvNet, Network
from condensekit.progress import SILENT, Progress
from condensekit.recipe import Recipe
from condensekit.rng import Draw
from condensekit.run import RunDir
from condensekit.selection import selected_set
from condensekit.store import read_json, write_json

HALF = "kmeans"  # the selection of the real half


@dataclass(frozen=True)
class Preparation:
    """What a ranker costs before it sees its first candidate.

    Args:
        seconds: Wall time.
        flops: Estimated floating-point operations of the networks involved: images times passes, a backward pass
            counted as two forward ones. Equal on every machine, so that "equal cost" is reproducible.
    """

    seconds: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes sets from one data set.

    Args:
        train: Real images, without those that candidates are tested on.
        data: Name of the data set, for its augmentation.
        iterations: Matching steps of a condensation.
        recipe: How to condense, but for the method.
        seed: Of all sets.
        folder: Where sets are kept, one folder each; None keeps nothing.
        device: Where to condense.
        progress: Told about each matching step.
    """

    train: ClassImages
    data: str = ""
    iterations: int = 300
    recipe: Recipe = Recipe()  # noqa: RUF009 - frozen
    seed: int = 0
    folder: Path | None = None
    device: str = "auto"
    progress: Progress = SILENT

    def build(self, method: str) -> tuple[Condenser, dict[str, Any]]:
        """The method, and the other arguments of ``condense``. Raises ConfigError for options that make no sense."""
        return replace(self.recipe, method=method).build(self.data)

    def condensed(self, method: str, ipc: int) -> tuple[CondensedSet, Preparation]:
        """A set condensed by a method of the catalog; a killed condensation is taken up where it stopped.

        Raises:
            CondensekitError: The condensation diverged.
            KeyboardInterrupt: It was interrupted; SIGTERM does what it would have done.
        """
        build = self.build(method)

        def make(folder: Path | None) -> tuple[CondensedSet, Preparation]:
            start = time.perf_counter()
            result = condense(
                self.train,
                build[0],
                ipc=ipc,
                iterations=self.iterations,
                seed=self.seed,
                device=self.device,
                saving=Saving(folder, resume=True) if folder else None,
                progress=self.progress,
                **build[1],
            )
            if result.status is Status.INTERRUPTED:
                signal.raise_signal(result.signum or signal.SIGINT)  # it has left a checkpoint: now let it act
                raise KeyboardInterrupt
            if result.status is Status.DIVERGED:
                raise CondensekitError(f"condensing with {method}: {result.message}")
            looped = RunDir.read(folder).metrics()[-1].get("elapsed_s", 0.0) if folder else 0.0
            seconds = max(time.perf_counter() - start, looped)
            encoder = getattr(build[1].get("encoder"), "network", ConvNet())
            images = ipc * build[1]["formation"].factor ** 2
            each = _matching_flops(build[0], encoder, self.train, images)
            return result.set, Preparation(seconds, each * self.iterations)

        return self._kept(f"{method}-{ipc}", make)

    def selected(
        self, selection: str, ipc: int, formation: Formation | None = None
    ) -> tuple[CondensedSet, Preparation]:
        """A set of real images by a selection of the catalog, ``packed-`` before its name allowed."""
        chosen_by, usual = catalog.baseline(selection)
        formed = formation or usual

        def make(folder: Path | None) -> tuple[CondensedSet, Preparation]:
            start = time.perf_counter()
            with Compute(make_plan(self.train.spec.shape[1:], device=self.device)) as compute:
                made = selected_set(self.train, chosen_by, ipc, Draw(self.seed), compute, formed)
            embedding = getattr(getattr(chosen_by, "embedding", None), "network", None)
            flops = len(self.train) * _forward(embedding, self.train) if embedding else 0.0
            return made, Preparation(time.perf_counter() - start, flops)

        return self._kept(f"{selection}-{ipc}-{formed.factor}", make)

    def half(self, method: str, ipc: int) -> tuple[CondensedSet, Preparation]:
        """Half of the images of each class, at least 2, condensed; the other half real, nearest to k-means centres."""
        made, first = self.condensed(method, ipc // 2)
        real, second = self.selected(HALF, ipc - ipc // 2, made.formation)
        return made.merge(real), Preparation(first.seconds + second.seconds, first.flops + second.flops)

    def _kept(
        self, name: str, make: Callable[[Path | None], tuple[CondensedSet, Preparation]]
    ) -> tuple[CondensedSet, Preparation]:
        """What ``make`` gives, or gave before; ``cost.json`` is written last and marks a finished one."""
        if self.folder is None:
            return make(None)
        folder = self.folder / name.replace(":", "-")
        if (folder / "cost.json").is_file():
            return CondensedSet.load(folder / "proxy.safetensors"), Preparation(**read_json(folder / "cost.json"))
        made, cost = make(folder / "run")
        made.save(folder / "proxy.safetensors")
        write_json(folder / "cost.json", asdict(cost))
        return made, cost


def _forward(network: Network, data: ClassImages) -> float:
    """Operations of one image's forward pass."""
    module = network.new(data.spec.shape, len(data.classes), Draw(0), "flops", "cpu")
    return float(count(module, data.spec.shape).flops)


def _matching_flops(method: Condenser, encoder: Network, data: ClassImages, ipc: int) -> float:
    """Operations of one matching step: real images forward, synthetic ones forward and back.

    Gradient matching takes gradients of both, second derivatives of the synthetic ones (counted as another forward
    and backward pass), and trains its network on the synthetic images between the steps.
    """
    real = getattr(method, "batch_real", 0) * len(data.classes)
    synthetic = ipc * len(data.classes)
    if not isinstance(method, GradientMatching):
        return _forward(encoder, data) * (real + 3 * synthetic)
    outer, inner = method.schedule(ipc)
    trained = inner * (outer - 1) / outer
    return _forward(encoder, data) * 3 * (real + 2 * synthetic + trained * synthetic)
