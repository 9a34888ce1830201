"""Rules of a replay memory: the number of images of each class, and which images an update makes and keeps."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from condensekit.data.images import ClassImages, ImageSpec
from condensekit.driver import Saving
from condensekit.errors import DataError, require
from condensekit.replay.memory.base import CHECKPOINT_STEPS, Filler, Job
from condensekit.replay.memory.budget import Budget
from condensekit.replay.memory.content import Content, first, mixed, turnover
from condensekit.replay.memory.fillers import filled
from condensekit.rng import Draw
from condensekit.selection.base import stored_each
from condensekit.sets.condensed import CondensedSet


@dataclass(frozen=True)
class Rules:
    """Budget, filler and settings of a memory.

    Args:
        budget: Largest size of the memory.
        classes: Number of classes of the whole stream; None: unknown.
        filler: The filler that makes the images.
        job: Seed, steps and machine of the filler.
        limit: Largest number of stored images, in addition to the budget; None: no limit.
    """

    budget: Budget
    classes: int | None
    filler: Filler
    job: Job
    limit: int | None = None

    def sharing(self, seen: Sequence[int]) -> int:
        """Number of classes that share the budget after the classes ``seen`` have appeared."""
        return self.classes or max(1, len(seen))

    def resized(self, size: int, seen: Sequence[int]) -> Rules:
        """The same rules for at most ``size`` stored images.

        Raises:
            ConfigError: ``size`` is less than one image for each class.
        """
        _check_size(size, self.sharing(seen))
        return replace(self, budget=self.budget.resized(size), limit=size)

    def ipc(self, seen: Sequence[int], spec: ImageSpec, pixels: bool) -> int:
        """Number of stored images of each class after the classes ``seen`` have appeared.

        Args:
            seen: Labels.
            spec: Shape of the images.
            pixels: Whether the real images are 8-bit pixels.

        Raises:
            ConfigError: The budget is less than one image for each class.
        """
        sharing = self.sharing(seen)
        return self._limited(self.budget.images(sharing, self.filler.bytes_each(spec, pixels)), sharing)

    def trimmed(self, content: Content) -> Content:
        """The first images of each class of ``content``, as many as the budget and the limit allow.

        Raises:
            ConfigError: The first image of a class does not fit.
        """
        sharing = self.sharing(content.classes)

        def room(sizes: Tensor) -> int:
            fitting = self.budget.fitting(sharing, sizes)
            if fitting < 1:
                self.budget.images(sharing, int(sizes[0]))  # raises the error
            return self._limited(fitting, sharing)

        return content.trimmed(room)

    def max_size(self, content: Content) -> int:
        """Largest number of stored images; 0: it is known only after the first experience."""
        if not content.parts or self.budget.in_images:
            return self.budget.max_size(self.classes or len(content.classes))
        room = self.ipc(content.classes, content.spec, content.coded) * self.sharing(content.classes)
        return max(room, len(content))  # coded images are smaller than their pixels

    def taken(
        self,
        content: Content,
        data: ClassImages,
        update: int,
        out: Path | None = None,
        cache: MutableMapping[str, CondensedSet] | None = None,
    ) -> Content:
        """The content of the memory after an experience.

        Args:
            content: Content before the experience; it is not changed.
            data: Real images of the experience.
            update: Number of the update, from 0.
            out: Folder of condensations, from which they can be resumed; None: nothing is saved.
            cache: See :func:`condensekit.replay.memory.fillers.filled`.

        Raises:
            ConfigError: A budget below one image per class, or more classes than announced.
            DataError: Images with another shape or normalisation than the stored images.
        """
        seen = self._check(content, data)
        ipc = self.ipc(seen, data.spec, data.whole_bytes)
        parts, counts = dict(content.parts), dict(content.seen)
        wanted, kept = dict[int, list[int]](), dict[int, int]()
        for label in data.classes:
            kept[label], made = self._turnover(content, data, label, ipc, update)
            counts[label] = counts.get(label, 0) + data.count(label)
            wanted.setdefault(made, []).append(label)
        for made in sorted(set(wanted) - {0}):
            job = replace(self.job, saving=self._saving(out, update, made))
            for label, part in filled(self.filler, data.select(wanted[made]), made, job, cache).items():
                parts[label] = mixed(first(parts[label], kept[label]), part) if kept[label] else part
        return self.trimmed(replace(content, parts=parts, seen=counts))

    def _saving(self, out: Path | None, update: int, made: int) -> Saving | None:
        """A folder for each update and, if the learner is the encoder, for each state of the learner."""
        if out is None:
            return None
        learner = self.filler.recipe.encoder.fingerprint() if self.filler.recipe else ""
        name = f"{update:03d}-{made}" + (f"-{learner[:12]}" if learner else "")
        return Saving(out / name, resume=True, every=CHECKPOINT_STEPS)

    def _check(self, content: Content, data: ClassImages) -> list[int]:
        """Labels of all classes seen so far and of ``data``; raises an error if ``data`` does not fit the memory."""
        seen = sorted({*content.classes, *data.classes})
        require(
            self.classes is None or len(seen) <= self.classes,
            f"classes={self.classes} were announced and {len(seen)} have appeared ({seen}): "
            "announce all classes of the stream, or leave out classes",
        )
        if content.parts:
            here, there = data.spec, content.spec
            if not here.alike(there):
                raise DataError(
                    f"images of the stream have shape {here.shape}, mean {here.mean} and std {here.std}; "
                    f"those in the memory {there.shape}, {there.mean} and {there.std}: use a new buffer"
                )
        return seen

    def _turnover(self, content: Content, data: ClassImages, label: int, ipc: int, update: int) -> tuple[int, int]:
        """Number of images of the class that stay, and number of images to make."""
        fresh, factor = data.count(label), self.filler.formation.factor
        available = fresh // factor**2
        old = content.parts.get(label)
        if old is None:
            return 0, max(stored_each(data, ipc, factor).values())  # the filler stores fewer of a smaller class
        return turnover(len(old), content.seen[label], fresh, available, ipc, Draw(self.job.seed, update + 1), label)

    def _limited(self, images: int, sharing: int) -> int:
        """The smaller of ``images`` and the part of each class in the limit.

        Raises:
            ConfigError: The limit is less than one image for each class.
        """
        if self.limit is None:
            return images
        _check_size(self.limit, sharing)
        return min(images, self.limit // sharing)


def _check_size(size: int, sharing: int) -> None:
    require(
        size >= sharing,
        f"a size of {size} is less than one image for each of {sharing} classes: resize to {sharing} or more",
    )
