"""Space of a stream's images: stored images go back to where the training transforms start, to be replayed by them.

Stored images are in the space of the evaluation transforms, mostly normalised tensors. The training transforms start
from other values: pictures, bytes, tensors in [0, 1]. The way back is found by what the evaluation transforms do to
images of one colour, and is tried on images of the stream.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

from condensekit.data.decoding import is_grey
from condensekit.errors import DataError
from condensekit.replay.adapters.opened import Opened, evaluated
from condensekit.replay.adapters.reading import differs, same, spread
from condensekit.replay.adapters.transforms import Way, followed, is_fixed, is_random, of_torchvision, through, ways
from condensekit.rng import isolated

log = logging.getLogger(__name__)

TRIED = 16  # largest number of images of the stream that are tried
READ = 48  # number of readings of these images that tell whether they are random
LEVELS = (0, 255, 51, 204, 102, 153, 17, 238)  # brightness of the images of one colour
EXACT = 0.01  # largest error of the way back, in 8-bit levels
SCALES = 2.0  # largest factor between the standard deviations of training and evaluation images
RESIZING = ("CenterCrop", "Resize")  # transforms after which the way back is not exact
SPATIAL = (
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomPerspective",
    "RandomRotation",
    "RandomVerticalFlip",
)  # torchvision's random transforms that do not depend on the scale of values


@dataclass(frozen=True)
class Back:
    """The way of a stored image back to the value at which the training transforms start.

    Args:
        kind: ``picture`` (PIL), ``array`` (H, W, C) or (H, W), ``bytes`` (C, H, W) uint8, or ``float`` (C, H, W).
        channels: Number of channels there.
        gain: (C', 1, 1) factor of each stored channel.
        shift: (C', 1, 1) number added after it. The result is in 0..255, for floats in their own unit.
        limits: Smallest and largest value there; None: no limits.
        flat: Whether an array is (H, W).
    """

    kind: str
    channels: int
    gain: np.ndarray
    shift: np.ndarray
    limits: tuple[float, float] | None = (0.0, 255.0)
    flat: bool = False

    @property
    def unit(self) -> float:
        """What 255 levels are divided by in the unit of the start: 1 for 8-bit values, 255 for floats."""
        return 255.0 if self.kind == "float" else 1.0

    def __call__(self, image: Tensor) -> Any:
        """The image (C', H, W) float32 in the kind of the start."""
        values = image.numpy() * self.gain + self.shift
        if self.channels != len(values):
            values = np.repeat(values.mean(0, keepdims=True), self.channels, 0)
        if self.limits is not None:
            values = values.clip(*self.limits)
        if self.kind == "float":
            return torch.from_numpy(np.ascontiguousarray(values, np.float32))
        pixels = np.rint(values).astype(np.uint8)
        if self.kind == "bytes":
            return torch.from_numpy(np.ascontiguousarray(pixels))
        grey = self.channels == 1 and (self.kind == "picture" or self.flat)
        pixels = pixels[0] if grey else np.ascontiguousarray(pixels.transpose(1, 2, 0))
        return Image.fromarray(pixels) if self.kind == "picture" else pixels


@dataclass(frozen=True)
class Followed:
    """What replayed images go through, to be augmented as the images of a stream are.

    Args:
        groups: Transforms of stored images (C, H, W); None: none.
        lacking: Why they are not the whole training transforms; empty: they are.
        drawn: Whether the stream's images are random in evaluation, too, so that the memory keeps one draw of them.
    """

    groups: TransformGroups | None = None
    lacking: str = ""
    drawn: bool = False


def follow(dataset: Any, before: Followed) -> Followed:
    """Find the training transforms of an experience for stored images.

    What training and evaluation begin with in common is left out, because stored images have gone through it. If the
    data set joins several with other transforms, those of the last are taken. Unknown code is tried on
    :data:`TRIED` images, so that rare random effects in evaluation may be missed.

    Args:
        dataset: Data set of an experience.
        before: What was found for the experiences before: a warning is not repeated.

    Raises:
        DataError: Training images have another scale than those of evaluation, and there is no way back.
    """
    found = _follow(dataset)
    if found.drawn and not before.drawn:
        log.warning(
            "images of the stream differ from reading to reading in evaluation, too: the memory keeps them as they "
            "were read once; move what is random into the stream's train_transform"
        )
    if found.lacking and not before.lacking:
        warnings.warn(found.lacking, UserWarning, stacklevel=2)
    return replace(found, lacking=found.lacking or before.lacking, drawn=found.drawn or before.drawn)


def _follow(dataset: Any) -> Followed:
    view = evaluated(dataset)
    train, test = (ways(dataset, group)[-1] for group in ("train", "eval"))
    if isinstance(view, Opened):
        kept = () if view.own else train.own
        train = replace(train, own=kept, images=view.own + train.images)
        test = replace(test, own=kept, images=view.images)
    common = _common(train.images, test.images)
    first, train_only, test_only = train.images[:common], train.images[common:], test.images[common:]
    drawn = _draws(view, test)
    if not (train_only or test_only) or (drawn and not all(is_fixed(part) for part in test_only)):
        return Followed(drawn=drawn)
    starts, images = _tried(dataset, view, first, test_only)
    back = _way_back(starts, images, test_only) if test_only else None
    reason = "the normalisation of its evaluation transforms is not found"
    if back or not test_only:
        whole = Compose([*([back] if back else []), *train_only])
        reason = _misfit(whole, images)
        if not reason:
            return Followed(_groups(whole), drawn=drawn)
    return replace(_in_part(dataset, view, train_only, images, reason), drawn=drawn)


def _groups(transform: Compose) -> TransformGroups:
    return TransformGroups({"train": (transform, None), "eval": (None, None)})


def _common(train: Sequence[Any], test: Sequence[Any]) -> int:
    """Number of transforms with which both begin."""
    pairs = list(zip(train, test, strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if not _alike(a, b)), len(pairs))


def _alike(first: Any, second: Any) -> bool:
    if first is second:
        return True
    known = type(first) is type(second) and is_fixed(first) and of_torchvision(first)
    return known and str(_options(first)) == str(_options(second))


def _options(transform: Any) -> list[tuple[str, Any]]:
    return sorted((name, value) for name, value in vars(transform).items() if not name.startswith("_"))


def _draws(dataset: Any, way: Way) -> bool:
    """Whether the samples of a data set are random under its current transforms."""
    if any(is_random(part) for part in way.transforms):
        return True
    return not way.known and differs(lambda i: dataset[i][0], len(dataset), TRIED, READ)


def _tried(dataset: Any, view: Any, first: Sequence[Any], test: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
    """Images of the last source where training and evaluation part, and the same images after evaluation."""
    rows = [followed(dataset, i) for i in reversed(spread(len(dataset), TRIED))]
    last = rows[0][0]
    source = view.bare if isinstance(view, Opened) else last
    with isolated(0):
        starts = [through(first, source[row][0]) for found, row in rows if found is last]
        return starts, [through(test, start) for start in starts]


def _way_back(starts: list[Any], images: list[Tensor], test: Sequence[Any]) -> Back | None:
    """The way back from ``images`` to ``starts``, if the transforms ``test`` between them have one."""
    plain = _plain(starts)
    if plain is None:
        return None
    exact = not (all(is_fixed(part) for part in test) and any(type(part).__name__ in RESIZING for part in test))
    for coloured in (True, False):
        try:
            back = _fitted(plain, starts[0], test, coloured)
            if back and (not exact or all(_returns(back, image, test) for image in images)):
                return back
        except Exception:  # the stream's own code may raise anything for an image of one colour
            continue
    return None


def _plain(starts: list[Any]) -> Back | None:
    """The kind of images at the start, as a way back that changes no values; None: an unknown kind."""
    first = starts[0]
    unchanged = np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)
    if isinstance(first, Image.Image):
        return Back("picture", 1 if is_grey(first) else 3, *unchanged)
    if isinstance(first, np.ndarray) and first.dtype == np.uint8 and first.ndim in (2, 3):
        return Back("array", 1 if first.ndim == 2 else first.shape[2], *unchanged, flat=first.ndim == 2)
    if not isinstance(first, Tensor) or first.ndim != 3:
        return None
    if first.dtype == torch.uint8:
        return Back("bytes", len(first), *unchanged)
    pixels = all(float(start.min()) >= 0 and float(start.max()) <= 1 for start in starts)
    return (
        Back("float", len(first), *unchanged, (0.0, 1.0) if pixels else None) if first.dtype == torch.float32 else None
    )


def _fitted(plain: Back, start: Any, test: Sequence[Any], coloured: bool) -> Back | None:
    """The way back that fits images of one colour, or of one grey; None: the transforms are not linear on them."""
    height, width = _size(start)
    channels = plain.channels if coloured else 1
    levels = np.array([np.roll(LEVELS, -3 * k) for k in range(channels)], np.float32) / plain.unit
    made = np.broadcast_to(levels[:, None, None], (channels, height, width, len(LEVELS)))
    fills = [plain(torch.from_numpy(np.ascontiguousarray(made[..., k]))) for k in range(len(LEVELS))]
    found = np.stack([_centre(through(test, fill)) for fill in fills], 1).astype(np.float64)
    if coloured and len(found) != channels:
        return None
    levels = np.broadcast_to(levels, found.shape).astype(np.float64)
    slope, offset = np.array([np.polyfit(x, y, 1) for x, y in zip(levels, found, strict=True)]).T[:, :, None]
    error = np.abs(slope * levels + offset - found).max()
    if not np.isfinite(error) or (np.abs(slope) < 1e-9).any() or (error > np.abs(slope) * EXACT / plain.unit).any():
        return None
    gain, shift = (1 / slope)[..., None], (-offset / slope)[..., None]
    return replace(plain, gain=gain.astype(np.float32), shift=shift.astype(np.float32))


def _size(start: Any) -> tuple[int, int]:
    if isinstance(start, Image.Image):
        return start.height, start.width
    height, width = start.shape[-2:] if isinstance(start, Tensor) else start.shape[:2]
    return int(height), int(width)


def _centre(image: Tensor) -> np.ndarray:
    middle: np.ndarray = image[:, image.shape[1] // 2, image.shape[2] // 2].numpy()
    return middle


def _returns(back: Back, image: Tensor, test: Sequence[Any]) -> bool:
    """Whether an image is the same after its way back and the transforms."""
    again = through(test, back(image))
    if again.shape != image.shape:
        return False
    error = np.abs((again - image).numpy() * back.gain).max()
    return bool(error <= EXACT / back.unit)


def _misfit(transforms: Compose, images: list[Tensor]) -> str:
    """Why stored images cannot go through ``transforms`` and share a batch afterwards; empty: they can."""
    with isolated(0):
        for image in images:
            try:
                found = transforms(image)
            except Exception as error:  # the stream's own code may raise anything
                return f"they raise {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if not isinstance(found, Tensor) or found.dtype != image.dtype or found.shape != image.shape:
                given = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
                return f"they turn a stored image of shape {tuple(image.shape)} into {given}"
    return ""


def _in_part(dataset: Any, view: Any, train: Sequence[Any], images: list[Tensor], reason: str) -> Followed:
    """The training transforms that fit tensors of any scale, and what to tell about the rest."""
    rows = spread(len(dataset), TRIED)
    trained = dataset.train()
    with isolated(0):
        mine, theirs = ([data[i][0] for i in rows] for data in (trained, view))
    if same(mine, theirs) and not _draws(trained, ways(dataset, "train")[-1]):
        return Followed()
    _check_scale(torch.stack(mine), torch.stack(theirs))
    spatial = [part for part in train if of_torchvision(part) and type(part).__name__ in SPATIAL]
    if spatial and _misfit(Compose(spatial), images):
        spatial = []
    names = ", ".join(type(part).__name__ for part in spatial)
    return Followed(
        _groups(Compose(spatial)) if spatial else None,
        f"stored images cannot go through the stream's training transforms ({reason}): they are replayed "
        f"{f'with {names} only' if names else 'without augmentation'}; pass transforms= that accept stored images "
        "(TransformGroups({}) for none), or a batch augmentation=",
    )


def _check_scale(mine: Tensor, theirs: Tensor) -> None:
    """Raise DataError if training images (N, C, H, W) have another scale than those of evaluation."""
    scale, other = float(mine.std()), float(theirs.std())
    moved = abs(float(mine.mean() - theirs.mean()))
    if not 1 / SCALES <= scale / max(other, 1e-12) <= SCALES or moved > SCALES * other:
        raise DataError(
            f"training images of the stream have mean {float(mine.mean()):.3g} and standard deviation {scale:.3g}, "
            f"those of evaluation {float(theirs.mean()):.3g} and {other:.3g}, and a memory holds the latter: normalise "
            "both alike, or pass transforms= that turn one into the other"
        )
