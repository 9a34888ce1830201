"""Decoded images of a replay memory, by row."""

from __future__ import annotations

import torch
from torch import Tensor

from condensekit.compute import usual_modes
from condensekit.replay.memory.content import Content, Group


class DecodedImages:
    """The images of a memory as networks see them. Coded images are decoded when they are read, and are not kept.

    Attributes:
        labels: (N,) int64.
        tasks: (N,) int64.

    Args:
        content: Content with at least one stored image.
    """

    @usual_modes()
    def __init__(self, content: Content) -> None:
        self._parts = [content.parts[group] for group in content.groups]
        counts = torch.tensor([len(part) * part.formation.factor**2 for part in self._parts])
        self._ends = counts.cumsum(0)
        self.labels = torch.tensor([label for _, label in content.groups]).repeat_interleave(counts)
        self.tasks = torch.tensor([task for task, _ in content.groups]).repeat_interleave(counts)
        self._kept: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Tensor:
        """One image (C, H, W) normalised float32, on the CPU."""
        return self.at(torch.tensor([i], device="cpu"))[0] if self.coded else self.all()[i]

    @property
    def coded(self) -> bool:
        """Whether the images are stored as codes, and decoded for each batch."""
        return self._parts[0].formation.coded

    def rows_of(self, group: Group) -> Tensor:
        """Rows (n,) int64 of the images of a task and class."""
        return ((self.tasks == group[0]) & (self.labels == group[1])).nonzero()[:, 0]

    def at(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The images (R, C, H, W) normalised float32 at ``rows`` (R,) int64."""
        if not self.coded:
            return self.all(device)[rows.to(device)]
        rows = rows.cpu()
        place = torch.searchsorted(self._ends, rows, right=True)
        found = torch.empty((len(rows), *self._parts[0].spec.shape))
        for number in torch.unique(place).tolist():
            mine, part = (place == number).nonzero()[:, 0], self._parts[number]
            start = int(self._ends[number]) - len(part) * part.formation.factor**2
            found[mine] = part.decode(rows[mine] - start)[0]
        return found.to(device)

    def all(self, device: torch.device | str = "cpu") -> Tensor:
        """All images (N, C, H, W) normalised float32; uncoded images are kept on ``device`` until the next call."""
        if self.coded:
            return torch.cat([part.decode()[0] for part in self._parts]).to(device)
        if self._kept is None:
            self._kept = torch.cat([part.decode()[0] for part in self._parts])
        self._kept = self._kept.to(device)
        return self._kept
