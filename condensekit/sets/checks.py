"""Checks of the values of a set: wrong values are refused, and images far from pixels are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from condensekit.data.spec import ImageSpec
from condensekit.errors import DataError, refuse
from condensekit.sets.codes import Code
from condensekit.sets.formation import DTYPES, Formation, check_each

ESCAPED = 0.1  # share of values far from pixels from which images are said to diverge
SUM_OFF = 0.01  # the sum of soft labels may differ from 1 by less


def check_shape(images: Tensor, spec: ImageSpec) -> None:
    """Raise DataError unless images are (M, C, H, W) with the shape of ``spec``, and at least one."""
    if images.ndim != 4 or tuple(images.shape[1:]) != spec.shape or len(images) == 0:
        expected = f"(M, {', '.join(map(str, spec.shape))}) with M >= 1"
        raise DataError(f"images must be {expected}, got shape {tuple(images.shape)}")


def check_fields(held: Mapping[str, Tensor | None], spec: ImageSpec, formation: Formation) -> None:
    """Raise an error for tensors of a set, by field, whose shapes or types do not fit each other."""
    images, labels, ranges, soft, sizes = (
        held[name] for name in ("images", "labels", "ranges", "soft_labels", "coded")
    )
    assert images is not None
    assert labels is not None
    dtype, coded = formation.dtype, formation.coded
    if not coded:
        check_shape(images, spec)
    count = len(images) if sizes is None or not coded else len(sizes)
    decoded = count * formation.factor**2
    if images.dtype != (torch.uint8 if coded else DTYPES[dtype]):
        raise DataError(f"images must be stored as {dtype}, got {images.dtype}")
    if coded and (sizes is None or images.ndim != 1 or not count):
        raise DataError(f"{dtype} images must be (B,) bytes with their sizes, got shape {tuple(images.shape)}")
    if tuple(labels.shape) != (count,) or labels.dtype != torch.int64:
        raise DataError(f"labels must be ({count},) int64, got {tuple(labels.shape)} {labels.dtype}")
    if (dtype == "uint8" or (coded and formation.codec.pixels and not spec.pixels)) != (ranges is not None):
        raise DataError("ranges must be given with uint8 storage, and with pictures of values that are no pixels")
    if ranges is not None and tuple(ranges.shape) != (count, spec.shape[0], 2):
        raise DataError(f"ranges must be ({count}, {spec.shape[0]}, 2), got shape {tuple(ranges.shape)}")
    if soft is not None and (soft.ndim != 2 or len(soft) != decoded):
        raise DataError(f"soft labels must have {decoded} rows, got shape {tuple(soft.shape)}")
    if sizes is not None and (tuple(sizes.shape) != (count,) or sizes.dtype != torch.int64):
        raise DataError(f"coded must be ({count},) int64, got {tuple(sizes.shape)} {sizes.dtype}")
    refuse(formation.misfit(spec.shape, count))


def check_values(tensors: Mapping[str, Tensor], spec: ImageSpec, formation: Formation, codes: Sequence[Code]) -> None:
    """Raise DataError for values that no set can have; the text has the index of the stored image.

    Args:
        tensors: The tensors of the set, whose shapes fit, by field.
        spec: Its spec.
        formation: Its formation.
        codes: Its codes, if the formation is coded.
    """
    named, ranges = torch.tensor(spec.classes), tensors.get("ranges")
    if tensors["images"].is_floating_point():
        check_each(torch.isfinite(tensors["images"]), "has a value that is not finite")
    if codes:
        formation.codec.decode(codes, spec.shape)
    if ranges is not None:
        good = torch.isfinite(ranges).all(2) & (ranges[..., 0] <= ranges[..., 1])
        check_each(good, "has a range that is not finite, or whose ends are exchanged")
    if len(named):
        known = torch.isin(tensors["labels"], named)
        check_each(known, f"has a label that is none of the {len(named)} classes")
    if "coded" in tensors:
        least = formation.codec.smallest if formation.coded else 1
        check_each(tensors["coded"] >= least, f"has a coded size below {least} byte")
    if "soft_labels" in tensors:
        _check_soft(tensors["soft_labels"], len(named), formation.factor**2)


def merged(specs: Sequence[ImageSpec], formations: Sequence[Formation], held: Sequence[set[str]]) -> ImageSpec:
    """The spec of the images of two sets together.

    Args:
        specs: The spec of each set.
        formations: The formation of each set.
        held: The fields of each set that are tensors.

    Raises:
        DataError: Specs, formations or class names that differ, or soft labels that do not match.
    """
    mine, theirs = specs
    if not mine.alike(theirs):
        raise DataError(f"cannot merge sets of different shape or normalisation: {mine} and {theirs}")
    if formations[0] != formations[1]:
        raise DataError(f"cannot merge {formations[0]} with {formations[1]}: use stored_as() on one of them")
    if "soft_labels" in held[0] ^ held[1]:
        raise DataError("cannot merge a set with soft labels and one without")
    if "coded" in held[0] ^ held[1]:
        raise DataError("cannot merge a set with coded sizes and one without: use stored_as() on the first")
    names = {**mine.class_names, **theirs.class_names}
    renamed = [k for k, name in mine.class_names.items() if names[k] != name]
    if renamed:
        raise DataError(f"class {renamed[0]} is {mine.name_of(renamed[0])} here and {theirs.name_of(renamed[0])} there")
    if "soft_labels" in held[0] and mine.classes != theirs.classes:
        raise DataError(f"cannot merge soft labels over different classes: {mine.classes} and {theirs.classes}")
    return replace(mine, class_names=names)


def _check_soft(soft: Tensor, classes: int, each: int) -> None:
    if soft.shape[1] != classes or soft.dtype != torch.float32:
        raise DataError(
            f"soft labels must be float32 with {classes} columns, one for each class, "
            f"got {tuple(soft.shape)} {soft.dtype}"
        )
    good = (torch.isfinite(soft) & (soft >= 0)).all(1) & ((soft.sum(1) - 1).abs() < SUM_OFF)
    check_each(good.reshape(-1, each), "has soft labels that are no probabilities (at least 0, with sum 1)")


def strays(images: Tensor, spec: ImageSpec) -> str | None:
    """What to say of normalised images (N, C, H, W) that are far from pixels.

    None for images of data that are no pixels, and if less than a tenth of the values lie a whole range of pixels, or
    more, below black or above white.
    """
    mean, std = spec.constants(images.device)
    pixels = images.to(torch.float32) * std + mean
    share = float(((pixels < -1) | (pixels > 2)).float().mean())
    if not spec.pixels or share < ESCAPED:
        return None
    low, high = (float(end) for end in pixels.aminmax())
    return (
        f"{100 * share:.0f} % of the values are far from pixels ({low:.3g} to {high:.3g}, where 0 is black and 1 is "
        "white)"
    )


def escaped(images: Tensor, spec: ImageSpec) -> str | None:
    """What to say of condensed images that are far from pixels, see :func:`strays`: they diverge."""
    far = strays(images, spec)
    return far and f"{far}: lower the method's lr"
