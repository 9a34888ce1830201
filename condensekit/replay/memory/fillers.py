"""What fills a replay memory from one experience: a condenser, a selection, or anything with ``fill``."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch

from condensekit.compute import Compute, make_plan
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.driver import Saving, Status, condense
from condensekit.errors import CondensekitError, ConfigError, DataError
from condensekit.methods import Condenser
from condensekit.methods.encoders import Encoder
from condensekit.methods.sampling import Sampling, Uniform
from condensekit.progress import SILENT, Progress
from condensekit.replay.memory.content import SECONDS
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.selection.base import Noise, Selection, selected_set
from condensekit.sets.condensed import DTYPES, CondensedSet, Formation
from condensekit.sets.jpeg import LABEL
from condensekit.training.augment import Augmentation

TIMES = ("elapsed_s", "preparation_s")  # what a condensation's provenance says
EVERY = 100  # steps between checkpoints of a condensation that has a folder


@dataclass(frozen=True)
class Filling:
    """How one experience is made into memory: what :func:`condensekit.driver` is given beside data and method.

    Args:
        seed: Everything random follows from it.
        iterations: Matching steps of a condenser.
        init: Where a condenser's images start; None: random real images.
        encoder: Where its embedding networks come from; None: a new ConvNet each step.
        augmentation: Siamese augmentation while condensing; None for none.
        sampling: How its real batches are drawn.
        formation: How the images are stored.
        nested: Whether the first k images of a class shall be a set of their own for each k.
        soft_labels: Whether trained encoders label the images; only training from scratch takes such a memory.
        device: Where to compute.
        precision: How networks run.
        saving: Run folder of a condenser, for a resume; None keeps everything in memory.
        progress: Told about each step.
    """

    seed: int = 0
    iterations: int = 500
    init: Selection | Noise | None = None
    encoder: Encoder | None = None
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    sampling: Sampling = Uniform()  # noqa: RUF009 - frozen
    formation: Formation = Formation(dtype="uint8")  # noqa: RUF009 - frozen
    nested: bool = False
    soft_labels: bool = False
    device: str = "auto"
    precision: str = "fp32"
    saving: Saving | None = None
    progress: Progress = SILENT


@runtime_checkable
class Filler(Protocol):
    """Makes the memory of the classes of one experience."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def fill(self, data: ClassImages, ipc: int, how: Filling) -> CondensedSet:
        """``ipc`` stored images of each class of ``data``, the most important first, in ``how.formation``.

        Every class has at least ``ipc * factor**2`` real images. A pure function of its arguments.
        """


class DivergedError(CondensekitError):
    """A condensation, or a learner, ended with values that are not finite; the memory is as it was before."""

    exit_code = 3


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a condensation; its checkpoint stands and the memory is as it was before.

    Args:
        message: What to do next.
        signum: The signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


@dataclass(frozen=True)
class Condensing:
    """Fills with a condenser.

    Args:
        method: The condenser.
    """

    method: Condenser

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    def fill(self, data: ClassImages, ipc: int, how: Filling) -> CondensedSet:
        """See :class:`Filler`.

        Raises:
            ConfigError: A method that works on pixels, where the stream's normalisation is not known.
            DivergedError: Values that are not finite, twice in a row.
            Interrupted: A signal.
        """
        if getattr(self.method, "space", "") == "pixel" and (found := data.beyond_pixels()):
            low, high = found
            raise ConfigError(
                f"{self.name} works on pixels in [0, 1] and the stream's values lie in [{low:.2f}, {high:.2f}]: "
                "give the buffer spec=ImageSpec(shape, mean, std) with the stream's normalisation"
            )
        result = condense(
            data,
            self.method,
            ipc=ipc,
            iterations=how.iterations,
            seed=how.seed,
            init=how.init,
            encoder=how.encoder,
            augmentation=how.augmentation,
            sampling=how.sampling,
            formation=how.formation,
            nested=how.nested and ipc > 1,
            soft_labels=how.soft_labels,
            device=how.device,
            precision=how.precision,
            saving=how.saving,
            progress=how.progress,
        )
        if result.status is Status.INTERRUPTED:
            raise Interrupted(result.message, result.signum or signal.SIGINT)
        if result.status is Status.DIVERGED:
            raise DivergedError(f"filling the memory with {self.name}: {result.message}")
        return result.set


@dataclass(frozen=True)
class Selecting:
    """Fills with real images.

    Args:
        selection: Which ones.
    """

    selection: Selection

    @property
    def name(self) -> str:
        """The selection's."""
        return self.selection.name

    def fill(self, data: ClassImages, ipc: int, how: Filling) -> CondensedSet:
        """See :class:`Filler`; images that come coded are stored so, whatever the formation.

        Pixels of 8 bits that stay such need no ranges: only the pixels count.
        """
        formation = Formation() if coded(self.selection) else how.formation
        with Compute(make_plan(data.spec.shape[1:], device=how.device)) as compute:
            made = selected_set(data, self.selection, ipc, Draw(how.seed), compute, formation)
        if formation.dtype != "uint8" or not eight_bit(data):
            return made
        return replace(made, coded=torch.full((len(made),), math.prod(data.spec.shape)))


def filler(method: Condenser | Selection | Filler) -> Filler:
    """The one seam: a condenser or a selection as a :class:`Filler`; a filler as it is.

    Raises:
        ConfigError: Something else.
    """
    if isinstance(method, Filler):
        return method
    if isinstance(method, Condenser):
        return Condensing(method)
    if callable(method) and not isinstance(method, type):
        return Selecting(method)
    raise ConfigError(
        f"a buffer takes a condenser, a selection or an object with fill(data, ipc, how), got {method!r}: "
        "catalog.method(name) and catalog.selection(name) make the first two"
    )


def coded(method: object) -> bool:
    """Whether a selection's images come coded, so that what they take is known only afterwards."""
    return bool(getattr(getattr(method, "selection", method), "codes", False))


def eight_bit(data: ClassImages) -> bool:
    """Whether the images are pixels of 8 bits."""
    return data.images.dtype == torch.uint8


def bytes_each(method: Filler, spec: ImageSpec, formation: Formation, pixels: bool) -> int:
    """What one stored image takes.

    Args:
        method: Makes it.
        spec: Its shape.
        formation: How it is stored.
        pixels: Whether the real images are pixels of 8 bits, see :func:`eight_bit`.

    Returns:
        Bytes of its values, ranges where there are any, and label; of its pixels where it is coded.
    """
    channels = spec.shape[0]
    if coded(method) or (isinstance(method, Selecting) and pixels and formation.dtype == "uint8"):
        return math.prod(spec.shape) + LABEL
    ranges = 2 * 4 * channels if formation.dtype == "uint8" else 0
    return math.prod(spec.shape) * DTYPES[formation.dtype].itemsize + ranges + LABEL


def filled(
    method: Filler, data: ClassImages, ipc: int, how: Filling, cache: MutableMapping[str, CondensedSet] | None = None
) -> dict[int, CondensedSet]:
    """The sets of the classes of ``data``.

    Args:
        method: Makes them.
        data: The real images.
        ipc: Stored images of each class.
        how: The rest.
        cache: Sets of single classes: those in it are taken, those made by a method whose classes can be condensed
            apart are put into it. The key says everything that decides the set, the pixels included. Classes that
            are left when others were found, as after a kill between two files, are condensed in a folder of their own.

    Returns:
        One set for each class. Its provenance says under ``SECONDS`` what making it took, its part of the time that
        all classes made with it took together: before a kill, in other runs and for preparation included.

    Raises:
        DataError: A filler of one's own that returns other classes, or images of another shape or normalisation.
    """
    keys = {} if cache is None else {label: _key(method, data, label, ipc, how) for label in data.classes}
    known = {label: cache[key] for label, key in keys.items() if cache is not None and key in cache}
    left = [label for label in data.classes if label not in known]
    if not left:
        return known
    start = time.perf_counter()
    made = method.fill(data.select(left) if known else data, ipc, _saved_apart(how, left) if known else how)
    seconds = max(time.perf_counter() - start, sum(float(made.provenance.get(name, 0)) for name in TIMES)) / len(left)
    here, there = data.spec, made.spec
    if made.classes != tuple(left) or (here.shape, here.mean, here.std) != (there.shape, there.mean, there.std):
        raise DataError(
            f"{method.name} made classes {list(made.classes)} of {there.shape}, mean {there.mean}, std {there.std}; "
            f"asked for {left} of {here.shape}, mean {here.mean}, std {here.std}"
        )
    parts = {label: made.select([label]) for label in left}
    parts = {k: replace(part, provenance={**part.provenance, SECONDS: seconds}) for k, part in parts.items()}
    if cache is not None and made.provenance.get("separable"):
        cache.update({keys[label]: part for label, part in parts.items()})
    return known | parts


def _saved_apart(how: Filling, left: Sequence[int]) -> Filling:
    """The same, its run folder named after the classes: the folder itself may hold a run of more of them."""
    if how.saving is None:
        return how
    name = f"{how.saving.out.name}-left-{hashlib.sha256(str(left).encode()).hexdigest()[:8]}"
    return replace(how, saving=replace(how.saving, out=how.saving.out.with_name(name)))


def _key(method: Filler, data: ClassImages, label: int, ipc: int, how: Filling) -> str:
    pixels = data.images[data.indices_of(label)]
    only = ClassImages(pixels, torch.full((len(pixels),), label), data.spec)
    plain = replace(how, saving=None, progress=SILENT)
    record = [describe(method), label, ipc, describe(plain), only.fingerprint()]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
