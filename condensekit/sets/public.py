"""Public files: the sets that the codes of other papers save, read as condensed sets."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condensekit.data.arrays import check_layout
from condensekit.data.datasets import STATISTICS, UNFLIPPED
from condensekit.data.images import ClassImages, channel_statistics
from condensekit.data.spec import ImageSpec
from condensekit.errors import CondensekitError, DataError, instance, quoted, refuse, require, whole
from condensekit.runs.files import read_bytes
from condensekit.sets.checks import strays
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.contents import DC, IDC, MTT, Content, content_of, images_of, labels_of
from condensekit.sets.formation import Formation
from condensekit.sets.paths import a_path

log = logging.getLogger(__name__)
PIXELS = "pixels"
INSIDE = 0.9  # share of the values in [0, 1] from which images are pixels: some codes let a few values leave it
Normalisation = tuple[Sequence[float], Sequence[float]]
Read = tuple[Tensor, Tensor, Tensor | None]  # images (N, C, H, W), labels (N,), soft labels (N, K)


def read_sets(
    path: str | Path,
    like: ClassImages | None = None,
    *,
    values: str | Normalisation | None = None,
    factor: int | None = None,
    layout: str | None = None,
) -> tuple[CondensedSet, ...]:
    """Read the sets that another code saved with ``torch.save``; each experiment in a file is a set.

    Known are the files of DC, DSA and DM (``res_DM_CIFAR10_ConvNet_10ipc.pt``), of MTT (``images_best.pt``, with
    ``labels_best.pt`` beside it), and of IDC, DANCE and NCFM (``data.pt``, a list of images and labels), as well as
    lists of such lists and dictionaries of images and labels. Nothing in a file is executed. What neither the file nor
    an argument says, and is taken for granted, is logged as a warning.

    >>> import condensekit as ck, tempfile, torch
    >>> train, test = ck.load("digits")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"images": torch.rand(10, 1, 8, 8), "labels": torch.arange(10)}, f"{folder}/mine.pt")
    ...     ck.read_sets(f"{folder}/mine.pt", train, values="pixels")
    (CondensedSet(10 images of (1, 8, 8), 10 classes, 1 per class, 2,640 bytes: mine),)

    Args:
        path: The file, ``.pt`` or ``.pth``.
        like: The real training images: they tell the classes, their names, and the normalisation for images that are
            pixels. None: classes are named by their numbers, and pixels are normalised by their own mean and std.
        values: ``"pixels"``, in [0, 1]; or (mean, std) of each channel by which pixels were normalised. None: images
            of which 90 % of the values lie in [0, 1] are pixels; the others were normalised as the code that wrote the
            file does for the data set, which the name of the file or ``like`` tells.
        factor: Each image packs ``factor * factor`` smaller ones. None: 1; of a list of images and labels, the number
            after ``factor`` in the path.
        layout: ``NCHW`` or ``NHWC``, the axes of the images; None: by their shape.

    Returns:
        The sets in float32, images grouped by class, with the normalisation of ``like``, if it is given and the images
        are pixels or were. Labels that are rows of probabilities become soft labels.

    Raises:
        DataError: No file; code or objects in it; other content; images, labels or values that do not fit ``like``;
            or values of which nothing tells how they were normalised, or a packing that nothing tells.
        ConfigError: Wrong arguments.
        StoreError: The file is damaged.
    """
    path = a_path(path)
    require(path.suffix != ".safetensors", f"{path} is a set of condensekit: CondensedSet.load reads it")
    check_layout(layout)
    refuse(
        None if like is None else instance("like", like, ClassImages, "the training images"),
        None if values is None else _misfit(values),
        None if factor is None else whole("factor", factor, 1),
    )
    content = content_of(path)
    reader = _Reader(path, content, like)
    try:
        made = reader.sets(values, factor, layout)
    except (CondensekitError, RuntimeError) as error:  # of torch, for a kind of tensor that nothing here knows
        raise DataError(f"{path}: {' '.join(str(error).split())}") from error
    if reader.notes:
        log.warning("%s: %s", path, "; ".join(reader.notes))
    return made


def _misfit(values: object) -> str | None:
    """The problem of the argument ``values``; None if there is no problem."""
    parts = values if isinstance(values, tuple | list) and len(values) == 2 else ()
    numbers = [v for part in parts if isinstance(part, tuple | list) for v in part]
    if (isinstance(values, str) and values == PIXELS) or (numbers and all(isinstance(v, int | float) for v in numbers)):
        return None
    return f"values must be 'pixels' or (mean, std), got {quoted(values)}: pass such as values=((0.5,), (0.25,))"


@dataclass
class _Reader:
    """Makes the sets of a file; ``notes`` tell what is taken for granted."""

    path: Path
    content: Content
    like: ClassImages | None
    notes: list[str] = field(default_factory=list)

    def sets(self, values: Any, factor: int | None, layout: str | None) -> tuple[CondensedSet, ...]:
        """The sets; see :func:`read_sets`."""
        found = list[Read]()
        for given, labels in self.content.pairs:
            images = images_of(given, layout)
            found.append((images, *labels_of(labels, len(images))))
        spec = self.named(self.base(found[0][0]), found)
        shapes = {tuple(images.shape[1:]) for images, _, _ in found}
        if shapes != {spec.shape}:
            told = " and ".join(" x ".join(map(str, shape)) for shape in [*sorted(shapes - {spec.shape}), spec.shape])
            raise DataError(f"images of the file and of the data differ in shape ({told}): read data with image_size=N")
        spec, pixels = self.meaning(spec, torch.cat([images for images, _, _ in found]), values)
        formation = Formation(self.factor() if factor is None else factor)
        found = self.joined([(_normal(images, spec, pixels), labels, soft) for images, labels, soft in found])
        if self.content.stated is None and (far := strays(found[0][0], spec)):
            self.notes.append(f"{far}: check how they were normalised")
        if self.like is not None and spec.pixels and self.like.spec.pixels and not spec.alike(self.like.spec):
            mean, std = spec.constants()
            spec = replace(spec, mean=self.like.spec.mean, std=self.like.spec.std)
            found = [(spec.normalise(images * std + mean), labels, soft) for images, labels, soft in found]
        if self.content.accuracies:
            told = ", ".join(f"{100 * value:.1f} % ({name})" for name, value in self.content.accuracies.items())
            self.notes.append(f"the code that wrote it noted an accuracy of {told}")
        read = {"file": self.path.name, "sha256": hashlib.sha256(read_bytes(self.path)).hexdigest()}
        kind, stem = self.content.kind, self.path.stem  # the names of such files say little
        name = stem if kind not in (IDC, MTT) else f"{self.path.absolute().parent.name}/{stem}"
        config = {"name": name, "read": {**read, "written by": kind, "notes": self.notes}}
        return tuple(_made(one, spec, formation, {**config, "seed": seed}) for seed, one in enumerate(found))

    def base(self, images: Tensor) -> ImageSpec:
        """What the file itself or the data tell of the images; if neither does, values are taken as they are."""
        if self.content.stated is not None:
            return _stated(self.content.stated)
        if self.like is not None:
            return self.like.spec
        channels, height, width = images.shape[1:]
        shape, flippable = (channels, height, width), self.data_name() not in UNFLIPPED
        return ImageSpec(shape, (0.0,) * channels, (1.0,) * channels, flippable=flippable)

    def meaning(self, spec: ImageSpec, images: Tensor, values: Any) -> tuple[ImageSpec, bool]:
        """The spec of all images with their normalisation, and whether they are pixels now."""
        if self.content.stated is not None and values is None:
            return spec, False
        channels = images.shape[1]
        share = float(((images >= 0) & (images <= 1)).float().mean())
        low, high = (float(end) for end in images.aminmax())
        between = f"values from {round(low, 2) + 0.0:g} to {round(high, 2):g}"
        if values is None and (images.dtype == torch.uint8 or share >= INSIDE):
            values = PIXELS
            self.notes.append(f"{between} are taken as pixels")
        if values == PIXELS:
            if not spec.pixels:
                raise DataError("its images are pixels, and those of the data are no pixels")
            if self.like is None:
                mean, std = channel_statistics(images if images.dtype == torch.uint8 else images.clamp(0, 1))
                spec = replace(spec, mean=mean, std=std)
            return spec, True
        if values is None and not spec.pixels:
            self.notes.append(f"{between} are taken as normalised like the data")
            return spec, False
        given: Normalisation = values or self.usual(between, channels)
        mean, std = (tuple(map(float, part)) for part in given)
        if len(mean) != channels or len(std) != channels:
            raise DataError(
                f"its images have {channels} channels, got mean of {len(mean)} and std of {len(std)} values"
            )
        return replace(spec, mean=mean, std=std, pixels=True), False

    def usual(self, between: str, channels: int) -> Normalisation:
        """Mean and std by which the code that wrote the file normalises the data set."""
        kind, name = self.content.kind, self.data_name()
        whitened = sorted(self.path.parent.glob("images_zca_*.pt")) if kind == MTT else []
        if whitened:
            raise DataError(
                f"{whitened[0].name} beside it tells of ZCA whitening, which no data have here: give that file "
                "instead, whose images are turned back into pixels"
            )
        known = "cifar10" if (kind, name) == (MTT, "cifar100") else name  # MTT's code has the same for both
        mean, std = STATISTICS.get(known or "", STATISTICS["cifar10" if channels == 3 else "mnist"])
        if known in STATISTICS and kind in (DC, MTT) and len(mean) == channels:
            self.notes.append(
                f"{between} are taken as normalised by mean {mean} and std {std}, as {kind} does for {name}"
            )
            return mean, std
        raise DataError(
            f"{between} are no pixels, and nothing tells their normalisation: give mean and std of each channel, such "
            f"as values={(mean, std)}"
        )

    def data_name(self) -> str | None:
        """The data set that a file such as ``res_DM_CIFAR10_ConvNet_10ipc.pt`` names, else that of the data."""
        told = next((word for word in re.split("[^a-z0-9]+", self.path.stem.lower()) if word in STATISTICS), None)
        source = (self.like.source if self.like is not None else None) or {}
        known = str(source.get("name"))
        if told and known in STATISTICS and told != known:
            raise DataError(f"its name says {told}, and the data are {known}: give the data that it was made from")
        return told or known

    def factor(self) -> int:
        """The packing of the images, which no argument says."""
        if self.content.kind != IDC:
            return 1
        told = [int(digits) for digits in re.findall(r"factor(\d{1,3})", str(self.path.absolute()))]
        if not told or told[-1] < 1:
            raise DataError(
                "codes that save a list of images and labels (IDC, M3D, DANCE, NCFM) mostly pack 2 x 2 smaller images "
                "into each: give factor=2, or factor=1 if each is one image"
            )
        self.notes.append(f"factor={told[-1]} is taken from its path")
        return told[-1]

    def joined(self, found: list[Read]) -> list[Read]:
        """The sets; one set of all, if each has other classes, as the steps of a continual run have."""
        classes = [set(torch.unique(labels).tolist()) for _, labels, _ in found]
        apart = len(set.union(*classes)) == sum(map(len, classes))
        if len(found) == 1 or not apart or any(soft is not None for _, _, soft in found):
            return found
        self.notes.append(f"its {len(found)} parts have different classes, and are taken as one set")
        return [(torch.cat([images for images, _, _ in found]), torch.cat([labels for _, labels, _ in found]), None)]

    def named(self, spec: ImageSpec, found: list[Read]) -> ImageSpec:
        """The spec with the class names, which all labels must have."""
        labels = sorted(set(torch.cat([labels for _, labels, _ in found]).tolist()))
        columns = {soft.shape[1] for _, _, soft in found if soft is not None}
        if not spec.class_names:
            names = {label: str(label) for label in (range(max(columns)) if columns else labels)}
            spec = replace(spec, class_names=names)
        classes = spec.classes
        if strange := [label for label in labels if label not in classes]:
            raise DataError(f"it has label {strange[0]}, and the data have {len(classes)} classes, {_ends(classes)}")
        if columns - {len(classes)}:
            raise DataError(f"its soft labels are of {max(columns)} classes, and the data have {len(classes)}")
        if len(labels) < len(classes):
            self.notes.append(f"it has {len(labels)} of the {len(classes)} classes")
        return spec


def _ends(classes: Sequence[int]) -> str:
    gaps = any(b - a > 1 for a, b in pairwise(classes))
    return f"labelled {classes[0]} to {classes[-1]}{' with gaps' * gaps}"


def _normal(images: Tensor, spec: ImageSpec, pixels: bool) -> Tensor:
    """Normalised float32 images."""
    return spec.normalise(images) if pixels else images.to(torch.float32)


def _stated(stated: Any) -> ImageSpec:
    """The spec that the file itself states."""
    try:
        return ImageSpec.from_json(stated)
    except (CondensekitError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"what it states of its images is damaged ({error})") from error


def _made(one: Read, spec: ImageSpec, formation: Formation, config: Mapping[str, Any]) -> CondensedSet:
    """A set, its images grouped by class."""
    images, labels, soft = one
    refuse(formation.misfit(spec.shape, len(images)))
    order = torch.argsort(labels, stable=True)
    made = CondensedSet.from_images(
        images[order], labels[order], spec, formation=formation, provenance={"config": dict(config)}
    )
    if soft is None:
        return made
    return made.with_soft_labels(soft[order].repeat_interleave(formation.factor**2, 0), spec.classes)
