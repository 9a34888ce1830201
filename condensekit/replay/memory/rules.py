"""How an experience becomes memory: what each class may have, what is made anew, what stays."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from condensekit.data.images import ClassImages, ImageSpec
from condensekit.driver import Saving
from condensekit.errors import ConfigError, DataError
from condensekit.replay.memory.budget import Budget, Images
from condensekit.replay.memory.content import Memory, first, mixed, turnover
from condensekit.replay.memory.fillers import EVERY, Filler, Filling, bytes_each, eight_bit, filled
from condensekit.rng import Draw
from condensekit.sets.condensed import CondensedSet


@dataclass(frozen=True)
class Rules:
    """What a memory obeys.

    Args:
        budget: How much may be stored.
        classes: How many classes will come; None where nobody knows.
        method: Makes the images.
        how: And how.
        limit: Stored images besides the budget; None for no limit.
    """

    budget: Budget
    classes: int | None
    method: Filler
    how: Filling
    limit: int | None = None

    def sharing(self, seen: Sequence[int]) -> int:
        """How many classes share the budget when the classes ``seen`` have come."""
        return self.classes or max(1, len(seen))

    def resized(self, size: int, seen: Sequence[int]) -> Rules:
        """The same rules for at most ``size`` stored images.

        Raises:
            ConfigError: Less than one image for each class.
        """
        sharing = self.sharing(seen)
        if size < sharing:
            raise _too_small(size, sharing)
        budget = Images(size) if isinstance(self.budget, Images) and self.budget.shrinks else self.budget
        return replace(self, budget=budget, limit=size)

    def per_class(self, seen: Sequence[int], spec: ImageSpec, pixels: bool) -> int:
        """Stored images of each class when the classes ``seen`` have come; see :func:`bytes_each` for the rest.

        Raises:
            ConfigError: Not even one.
        """
        sharing = self.sharing(seen)
        found = self.budget.images(sharing, bytes_each(self.method, spec, self.how.formation, pixels))
        return self._limited(found, sharing)

    def trimmed(self, memory: Memory) -> Memory:
        """The images of ``memory`` that may stay.

        Raises:
            ConfigError: Less than one of some class.
        """
        sharing = self.sharing(memory.classes)

        def room(sizes: Tensor) -> int:
            fitting = self.budget.fitting(sharing, sizes)
            if fitting < 1:
                self.budget.images(sharing, int(sizes[0]))  # says so
            return self._limited(fitting, sharing)

        return memory.trimmed(room)

    def max_size(self, memory: Memory) -> int:
        """Stored images there is room for; 0 where that takes a first experience to know."""
        if isinstance(self.budget, Images) and self.budget.total is not None:
            return self.budget.total
        if not memory.parts:
            return self.budget.share(1) * self.classes if isinstance(self.budget, Images) and self.classes else 0
        room = self.per_class(memory.classes, memory.spec, memory.coded) * self.sharing(memory.classes)
        return max(room, len(memory))  # coded images take less than their pixels

    def taken(
        self,
        memory: Memory,
        data: ClassImages,
        step: int,
        out: Path | None = None,
        cache: MutableMapping[str, CondensedSet] | None = None,
    ) -> Memory:
        """``memory`` with the images of ``data``.

        Args:
            memory: What was there; it stays as it is.
            data: The experience.
            step: Which update this is, from 0.
            out: Folder for condensations that can be continued.
            cache: See :func:`condensekit.replay.memory.fillers.filled`.

        Raises:
            ConfigError: A budget below one image per class, or more classes than announced.
            DataError: Images unlike those in the memory, or a new class with too few of them.
        """
        seen = self._check(memory, data)
        per_class = self.per_class(seen, data.spec, eight_bit(data))
        parts, counts, wanted, kept = dict(memory.parts), dict(memory.seen), dict[int, list[int]](), dict[int, int]()
        for label in data.classes:
            kept[label], made = self._turnover(memory, data, label, per_class, step)
            counts[label] = counts.get(label, 0) + data.count(label)
            wanted.setdefault(made, []).append(label)
        for made in sorted(set(wanted) - {0}):
            how = replace(self.how, saving=self._saving(out, step, made))
            for label, part in filled(self.method, data.select(wanted[made]), made, how, cache).items():
                parts[label] = mixed(first(parts[label], kept[label]), part) if kept[label] else part
        return self.trimmed(replace(memory, parts=parts, seen=counts))

    def _saving(self, out: Path | None, step: int, made: int) -> Saving | None:
        """A folder for each update; where the learner embeds, for each state of the learner as well."""
        if out is None:
            return None
        told = getattr(self.how.encoder, "fingerprint", None)
        name = f"{step:03d}-{made}" + (f"-{told()[:12]}" if told else "")
        return Saving(out / name, resume=True, every=EVERY)

    def _check(self, memory: Memory, data: ClassImages) -> list[int]:
        """All classes seen so far, these included."""
        seen = sorted({*memory.classes, *data.classes})
        if self.classes is not None and len(seen) > self.classes:
            raise ConfigError(
                f"classes={self.classes} were announced and {len(seen)} have come ({seen}): "
                "announce as many as the stream has, or leave out classes"
            )
        if memory.parts:
            here, there = data.spec, memory.spec
            if (here.shape, here.mean, here.std) != (there.shape, there.mean, there.std):
                raise DataError(
                    f"images of the stream have shape {here.shape}, mean {here.mean} and std {here.std}; "
                    f"those in the memory {there.shape}, {there.mean} and {there.std}: use a new buffer"
                )
        return seen

    def _turnover(self, memory: Memory, data: ClassImages, label: int, per_class: int, step: int) -> tuple[int, int]:
        """How many images of the class stay, and how many are made."""
        fresh, factor = data.count(label), self.how.formation.factor
        available = fresh // factor**2
        old = memory.parts.get(label)
        if old is None:
            if available == 0:
                name = data.spec.name_of(label)
                raise DataError(
                    f"class {name} has {fresh} images and factor={factor} packs {factor**2} into one: lower the "
                    "factor, or give the class more images"
                )
            return 0, min(per_class, available)
        draw = Draw(self.how.seed, step + 1)
        return turnover(len(old), memory.seen[label], fresh, available, per_class, draw, label)

    def _limited(self, images: int, sharing: int) -> int:
        """No more than the limit.

        Raises:
            ConfigError: It does not reach.
        """
        if self.limit is None:
            return images
        if self.limit < sharing:
            raise _too_small(self.limit, sharing)
        return min(images, self.limit // sharing)


def _too_small(size: int, sharing: int) -> ConfigError:
    return ConfigError(
        f"a size of {size} is less than one image for each of {sharing} classes: resize to {sharing} or more"
    )
