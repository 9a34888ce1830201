"""Preparation: the tensors of an encoder and the first images, made before the first step within their time."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from condensekit.compute import Compute, Spent
from condensekit.methods.encoders import Prepared
from condensekit.methods.shares import Shares
from condensekit.progress import Progress
from condensekit.rng import Draw
from condensekit.runs.files import load_tensors, save_tensors

FILE, KIND = "prepared.safetensors", "prepared"


class Preparation:
    """What a run makes before its first step.

    Args:
        shares: The recipe, the data and the ranks of the run.
        compute: Runs networks.
        draw: The random numbers of the run.
        seconds: Time for the encoders, and again for the first images; infinite if it does not matter.
        progress: Receives the steps.

    Attributes:
        shortened: What was done with less, because of the time.
    """

    def __init__(self, shares: Shares, compute: Compute, draw: Draw, seconds: float, progress: Progress) -> None:
        self.shares, self.ranks = shares, shares.ranks
        self.recipe, self.data = shares.recipe, shares.data
        self.compute, self.draw, self.seconds, self.progress = compute, draw, seconds, progress
        self.shortened: list[str] = []

    def encoders(self, folder: Path | None) -> tuple[Prepared, float, Spent]:
        """The tensors that the encoder needs, the seconds that they took, and the work of this rank.

        Args:
            folder: The run folder, from which they are read, or else to which they are written; None: neither.

        Raises:
            StoreError: The file in the folder is damaged, or cannot be written.
        """
        path = folder / FILE if folder else None
        kept = self.ranks.from_first(lambda: load_tensors(path, KIND) if path and path.exists() else None)
        if kept:
            manifest = kept[1]
            self.shortened = list(manifest.get("shortened", ()))
            return kept[0], float(manifest["seconds"]), self.shares.counted(Spent(**manifest["spent"]))
        start, before, encoder = time.perf_counter(), self.compute.spent, self.recipe.encoder
        steps = self.ranks.from_first(self._steps)
        encoder = encoder if steps == encoder.steps else encoder.replace(steps=steps)
        found = encoder.prepare(self.data, self.draw, self.compute, self.progress)
        seconds, mine = time.perf_counter() - start, self.compute.spent - before
        spent = self.shares.total(mine)
        if path and found:
            spec = self.data.spec.to_json()  # of the images that the networks were trained on
            told = {"seconds": seconds, "spent": asdict(spent), "shortened": self.shortened, "spec": spec}
            save_tensors(path, found, told, KIND)
        return found, seconds, mine

    def _steps(self) -> int:
        """The steps of each encoder's training that fit into the time."""
        encoder = self.recipe.encoder.within(self.seconds, self.data, self.draw, self.compute)
        self._shorten(f"encoders are trained for {encoder.steps:,} steps", encoder is not self.recipe.encoder)
        return encoder.steps

    def images(self, ipc: int) -> Tensor:
        """The first images of the classes of this rank: (K, ipc, C, H, W); rank 0 makes those of all classes."""
        return self.shares.own(self.ranks.from_first(lambda: self._images(ipc)))

    def _images(self, ipc: int) -> Tensor:
        init, factor = self.recipe.init, self.recipe.formation.factor
        with self.progress.stage(f"initialise ({init.name})", 1) as stage:
            data = init.within(self.seconds, self.data, ipc * factor**2, self.draw, self.compute)
            among = f"the first images ({init.name}) are chosen among {len(data):,} of {len(self.data):,} images"
            self._shorten(among, len(data) < len(self.data))
            images = init.first(data, ipc, factor, self.draw, self.compute)
            stage.advance()
        return images

    def _shorten(self, how: str, shortened: bool) -> None:
        """Tell and note that something was done with less, if it was."""
        if shortened:
            self.shortened.append(how)
            self.progress.tell(f"{how}: all would take more than {self.seconds:.0f} s of the time")
