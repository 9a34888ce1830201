"""Preparation: the tensors of an encoder and the first images, made before the first step within their time."""

from __future__ import annotations

import time
from pathlib import Path

from torch import Tensor

from condensekit.compute import Compute
from condensekit.methods.encoders import Prepared
from condensekit.methods.shares import Shares
from condensekit.progress import Progress
from condensekit.rng import Draw
from condensekit.runs.budget import Budget
from condensekit.runs.files import load_tensors, save_tensors

FILE, KIND = "prepared.safetensors", "prepared"


class Preparation:
    """What a run makes before its first step.

    Args:
        shares: The recipe, the data and the ranks of the run.
        compute: Runs networks.
        draw: The random numbers of the run.
        budget: The time of the run.
        progress: Receives the steps.

    Attributes:
        shortened: What was done with less, because of the time.
    """

    def __init__(self, shares: Shares, compute: Compute, draw: Draw, budget: Budget, progress: Progress) -> None:
        self.shares, self.ranks = shares, shares.ranks
        self.recipe, self.data = shares.recipe, shares.data
        self.compute, self.draw, self.progress = compute, draw, progress
        self.seconds, self.training = budget.share, budget.training
        self.shortened: list[str] = []

    def encoders(self, folder: Path | None) -> tuple[Prepared, float]:
        """The tensors that the encoder needs, and the seconds that they took.

        Args:
            folder: The run folder, from which they are read, or else to which they are written; None: neither.

        Raises:
            StoreError: The file in the folder is damaged, or cannot be written.
        """
        path = folder / FILE if folder else None
        kept = self.ranks.from_first(lambda: load_tensors(path, KIND) if path and path.exists() else None)
        if kept:
            self.shortened = list(kept[1].get("shortened", ()))
            return kept[0], float(kept[1]["seconds"])
        start, encoder = time.perf_counter(), self.recipe.encoder
        steps = self.ranks.from_first(self._steps)
        found = encoder.prepare(self.data, self.draw, self.compute, self.progress, steps)
        seconds = time.perf_counter() - start
        if path and found:
            spec = self.data.spec.to_json()  # of the images that the networks were trained on
            save_tensors(path, found, {"seconds": seconds, "shortened": self.shortened, "spec": spec}, KIND)
        return found, seconds

    def _steps(self) -> int | None:
        """The steps of each encoder's training that fit into the time; None: all of them."""
        steps = self.recipe.encoder.within(self.training, self.data, self.compute)
        if steps is not None:
            self._shorten(f"encoders are trained for {steps:,} steps", self.training)
        return steps

    def images(self, ipc: int) -> Tensor:
        """The first images of the classes of this rank: (K, ipc, C, H, W); rank 0 makes those of all classes."""
        return self.shares.own(self.ranks.from_first(lambda: self._images(ipc)))

    def _images(self, ipc: int) -> Tensor:
        init, factor = self.recipe.init, self.recipe.formation.factor
        with self.progress.stage(f"initialise ({init.name})", 1) as stage:
            data = init.within(self.seconds, self.data, ipc * factor**2, self.draw, self.compute)
            among = f"the first images ({init.name}) are chosen among {len(data):,} of {len(self.data):,} images"
            if len(data) < len(self.data):
                self._shorten(among, self.seconds)
            images = init.first(data, ipc, factor, self.draw, self.compute)
            stage.advance()
        return images

    def _shorten(self, how: str, seconds: float) -> None:
        """Tell and note that something was done with less, because of the time."""
        self.shortened.append(how)
        self.progress.tell(f"{how}: all would take more than {seconds:.0f} s of the time")
