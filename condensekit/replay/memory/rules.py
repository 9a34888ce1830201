"""Rules of a replay memory: the number of images of each class, and which images an update makes and keeps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from condensekit.data.images import ClassImages, ImageSpec
from condensekit.driver import Saving
from condensekit.errors import ConfigError, DataError, refuse, require
from condensekit.replay.memory.base import CHECKPOINT_STEPS, Filler, Job
from condensekit.replay.memory.budget import Budget, Images
from condensekit.replay.memory.content import Content, Group, first, mixed, turnover
from condensekit.replay.memory.fillers import filled
from condensekit.replay.memory.names import DOWNSCALED
from condensekit.rng import Draw
from condensekit.selection.base import stored_each
from condensekit.sets.condensed import CondensedSet


@dataclass(frozen=True)
class Rules:
    """Budget, filler and settings of a memory.

    Args:
        budget: Largest size of the memory.
        classes: Number of classes of the whole stream, the same label in two tasks counted twice; None: unknown.
        filler: The filler that makes the images.
        job: Seed, steps and machine of the filler.
        limit: Largest number of stored images, in addition to the budget; None: no limit.
        text: The text that names the filler; None: it was given as an object.

    Raises:
        ConfigError: A budget that the filler cannot fill, or of less than one image for each announced class.
    """

    budget: Budget
    classes: int | None
    filler: Filler
    job: Job
    limit: int | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        few = self.budget.in_images and self.classes is not None and self.budget.share(self.classes) < 1
        refuse(
            self.filler.budget_misfit(self.budget),
            self._too_small(self.classes, 1) if few and self.classes else None,
        )

    @property
    def name(self) -> str:
        """The text that names the filler, or the name of the filler."""
        return self.text or self.filler.name

    def sharing(self, seen: Sequence[Group] | Mapping[Group, int]) -> int:
        """Number of classes that share the budget after the groups ``seen`` have appeared."""
        return self.classes or max(1, len(seen))

    def resized(self, size: int, content: Content) -> Rules:
        """The same rules for at most ``size`` stored images.

        Raises:
            ConfigError: ``size`` is less than one image for each class.
        """
        sharing = self.sharing(content.seen)
        require(
            size >= sharing,
            f"a size of {size} is less than one image for each of {sharing} classes: resize to {sharing} or more",
        )
        return replace(self, budget=self.budget.resized(size), limit=size)

    def counts(self, present: int, sharing: int, spec: ImageSpec, pixels: bool) -> list[int]:
        """Number of stored images of each of the ``present`` classes, in the order in which they appeared.

        For coded images it is the number of uncoded images in whose bytes they are coded, rounded up.

        Args:
            present: Number of classes that have appeared.
            sharing: Number of classes that share the budget.
            spec: Shape of the images.
            pixels: Whether the real images are 8-bit pixels.

        Raises:
            ConfigError: The budget is less than one image: of each class, if the number of classes was announced.
        """
        each = self.filler.bytes_each(spec, pixels)
        found = self.budget.counts(present, sharing, each)
        every = found if self.classes is None else self.budget.counts(sharing, sharing, each)
        if self.filler.codes and not self.budget.in_images:
            found = every = [-(-self.budget.share(sharing) // each)] * present
        if not any(found) or (self.classes is not None and not all(every)):
            raise ConfigError(self._too_small(sharing, each))
        if self.limit is None:
            return found
        return [min(pair) for pair in zip(found, Images(self.limit).counts(present, sharing, each), strict=True)]

    def trimmed(self, content: Content) -> Content:
        """The first images of each class of ``content``, as many as the budget and the limit allow."""
        held, sharing = [group for group in content.seen if group in content.parts], self.sharing(content.seen)
        sizes = [content.parts[group].sizes() for group in held]
        found = self.budget.fitting(sizes, sharing)
        if self.limit is not None:
            limited = Images(self.limit).fitting(sizes, sharing)
            found = [min(pair) for pair in zip(found, limited, strict=True)]
        return content.trimmed(dict(zip(held, found, strict=True)))

    def cut(self, content: Content) -> Content:
        """See :meth:`trimmed`.

        Raises:
            ConfigError: A class would lose all its images.
        """
        found = self.trimmed(content)
        if len(found.parts) < len(content.parts):
            each = max(int(part.sizes()[0]) for part in content.parts.values())
            raise ConfigError(self._too_small(self.sharing(content.seen), each))
        return found

    def max_size(self, content: Content) -> int:
        """Largest number of stored images; 0: it is known only after the first experience."""
        sharing = self.sharing(content.seen)
        if not content.parts or self.budget.in_images:
            return self.budget.max_size(self.classes or len(content.seen))
        part = next(iter(content.parts.values()))
        room = sum(self.counts(sharing, sharing, content.spec, part.coded is not None))
        return max(room, len(content))  # coded images are smaller than their pixels

    def taken(
        self,
        content: Content,
        data: ClassImages,
        task: int = 0,
        update: int = 0,
        out: Path | None = None,
        cache: MutableMapping[str, CondensedSet] | None = None,
    ) -> Content:
        """The content of the memory after an experience.

        Args:
            content: Content before the experience; it is not changed.
            data: Real images of the experience.
            task: Task label of all these images.
            update: Number of the update, from 0.
            out: Folder of condensations, from which they can be resumed; None: nothing is saved.
            cache: See :func:`condensekit.replay.memory.fillers.filled`.

        Raises:
            ConfigError: A budget below one image per class, or more classes than announced.
            DataError: Images with another shape or normalisation than the stored images.
        """
        seen = self._seen(content, data, task)
        sharing = self.sharing(seen)
        room = dict(zip(seen, self.counts(len(seen), sharing, data.spec, data.whole_bytes), strict=True))
        parts, kept = dict(content.parts), dict[int, int]()
        wanted: dict[tuple[int, int], list[int]] = {}
        for label, (kept[label], made, bytes_) in self._plan(content, data, task, update, room, sharing).items():
            wanted.setdefault((made, bytes_), []).append(label)
        for made, bytes_ in sorted(key for key in wanted if key[0]):
            labels = wanted[made, bytes_]
            job = replace(self.job, saving=self._saving(out, update, task, made), room=bytes_ or None)
            for label, part in filled(self.filler, data.select(labels), made, job, cache).items():
                old = parts.get((task, label))
                parts[task, label] = mixed(first(old, kept[label]), part) if old and kept[label] else part
        found = self.trimmed(replace(content, parts=parts, seen=seen))
        self._tell_of_empty(found, sharing, self.filler.bytes_each(data.spec, data.whole_bytes))
        return found

    def _seen(self, content: Content, data: ClassImages, task: int) -> dict[Group, int]:
        """Real images of each group so far and of ``data``; raises an error if ``data`` does not fit the memory."""
        seen = dict(content.seen)
        for label in data.classes:
            seen[task, label] = seen.get((task, label), 0) + data.count(label)
        named = [label for _, label in seen] if not any(task for task, _ in seen) else list(seen)
        require(
            self.classes is None or len(seen) <= self.classes,
            f"classes={self.classes} were announced and {len(seen)} have appeared ({named}): announce all classes of "
            "the stream (a label counts once for each task), or leave out classes",
        )
        if content.parts:
            here, there = data.spec, content.spec
            if not here.alike(there):
                raise DataError(
                    f"images of the stream have shape {here.shape}, mean {here.mean} and std {here.std}; "
                    f"those in the memory {there.shape}, {there.mean} and {there.std}: use a new buffer"
                )
        for label in data.classes:
            if (task, label) in content.parts:
                _check_name(label, data.spec, content.parts[task, label].spec)
        return seen

    def _plan(
        self,
        content: Content,
        data: ClassImages,
        task: int,
        update: int,
        room: Mapping[Group, int],
        sharing: int,
    ) -> dict[int, tuple[int, int, int]]:
        """Of each class the images that stay, those to make, and their bytes if coded (0: those of uncoded images)."""
        factor, each = self.filler.formation.factor, self.filler.bytes_each(data.spec, data.whole_bytes)
        new = [label for label in data.classes if (task, label) not in content.parts]
        if new:
            self._check_packing(data.select(new), factor)
        most = max((room[task, label] for label in new), default=0)  # trimmed where a class has room for fewer
        most = max(stored_each(data.select(new), most, factor).values()) if most else 0
        share = 0 if self.budget.in_images or not self.filler.codes else self.budget.share(sharing)
        found = {}
        for label in data.classes:
            old, own = content.parts.get((task, label)), room[task, label]
            if old is None or not own:
                kept, made = 0, most if own else 0
            else:
                held = min(own, -(-old.nbytes // each)) if self.filler.codes else len(old)
                fresh = data.count(label)
                draw, seen = Draw(self.job.seed, update + 1), content.seen[task, label]
                kept, made = turnover(held, seen, fresh, fresh // factor**2, own, draw, label)
                if self.filler.codes:
                    kept = int((old.sizes().cumsum(0) <= share * kept // own).sum())
            exact = share * made // own if own else 0
            found[label] = kept, made, 0 if exact == made * each else exact
        return found

    def _check_packing(self, data: ClassImages, factor: int) -> None:
        """Raise DataError if not one class has the images that are packed into a stored image."""
        label = max(data.classes, key=data.count)
        if (count := data.count(label)) >= factor**2:
            return
        sides = data.spec.shape[1:]
        most = max(n for n in range(1, math.isqrt(count) + 1) if not any(side % n for side in sides))
        smaller = f"{DOWNSCALED}-{most}" if self.name.startswith(DOWNSCALED) else f"factor={most}"
        raise DataError(
            f"{self.name} packs {factor} x {factor} = {factor**2} images into one, and class "
            f"{data.spec.name_of(label)}, the largest of the experience, has {count}: use {smaller}"
        )

    def _saving(self, out: Path | None, update: int, task: int, made: int) -> Saving | None:
        """A folder for each update and task and, if the learner is the encoder, for each state of the learner."""
        if out is None:
            return None
        learner = self.filler.recipe.encoder.fingerprint() if self.filler.recipe else ""
        name = f"{update:03d}-{made}" + (f"-task-{task}" if task else "") + (f"-{learner[:12]}" if learner else "")
        return Saving(out / name, resume=True, every=CHECKPOINT_STEPS)

    def _tell_of_empty(self, content: Content, sharing: int, bytes_each: int) -> None:
        """Warn of groups without a stored image."""
        empty = [group for group in content.seen if group not in content.parts]
        if empty:
            task, label = empty[0]
            where = f"class {label}" + (f" of task {task}" if task else "")
            more = f" and {len(empty) - 1} other{'s' * bool(empty[2:])} store" if empty[1:] else " stores"
            warnings.warn(f"{self._too_small(sharing, bytes_each)}; {where}{more} no image", stacklevel=2)

    def _too_small(self, classes: int, bytes_each: int) -> str:
        unit = "" if self.budget.in_images else f" of {bytes_each:,} bytes"
        least = self.budget.least(classes, bytes_each)
        return f"{self.budget} is less than one image{unit} for each of {classes} classes: use at least {least}"


def _check_name(label: int, here: ImageSpec, there: ImageSpec) -> None:
    """Raise DataError if a label names another class than in the memory; a name that is the label fits any name."""
    now, before = (spec.class_names.get(label, str(label)) for spec in (here, there))
    if len({now, before} - {str(label)}) > 1:
        raise DataError(
            f"label {label} is {now!r} here and {before!r} in the memory: give each class a label of its own, as "
            "condensekit.load(..., like=train) does with the images of the experience before, or another task="
        )
