"""Checks of the values of a set: wrong values are refused, and images far from pixels are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from condensekit.data.spec import ImageSpec
from condensekit.errors import DataError
from condensekit.sets.codes import Code
from condensekit.sets.formation import Formation, check_each

ESCAPED = 0.1  # share of values far from pixels from which images are said to diverge
SUM_OFF = 0.01  # the sum of soft labels may differ from 1 by less


def check_shape(images: Tensor, spec: ImageSpec) -> None:
    """Raise DataError unless images are (M, C, H, W) with the shape of ``spec``, and at least one."""
    if images.ndim != 4 or tuple(images.shape[1:]) != spec.shape or len(images) == 0:
        expected = f"(M, {', '.join(map(str, spec.shape))}) with M >= 1"
        raise DataError(f"images must be {expected}, got shape {tuple(images.shape)}")


def check_values(tensors: Mapping[str, Tensor], spec: ImageSpec, formation: Formation, codes: Sequence[Code]) -> None:
    """Raise DataError for values that no set can have; the text has the index of the stored image.

    Args:
        tensors: The tensors of the set, whose shapes fit, by field.
        spec: Its spec.
        formation: Its formation.
        codes: Its JPEG images, if it stores such.
    """
    named, ranges = torch.tensor(spec.classes), tensors.get("ranges")
    if tensors["images"].is_floating_point():
        check_each(torch.isfinite(tensors["images"]), "has a value that is not finite")
    for row, code in enumerate(codes):
        if problem := code.misfit(spec.shape):
            raise DataError(f"image {row} {problem}")
        code.pixels()
    if ranges is not None:
        good = torch.isfinite(ranges).all(2) & (ranges[..., 0] <= ranges[..., 1])
        check_each(good, "has a range that is not finite, or whose ends are exchanged")
    if len(named):
        known = torch.isin(tensors["labels"], named)
        check_each(known, f"has a label that is none of the {len(named)} classes")
    if "coded" in tensors:
        check_each(tensors["coded"] >= 1, "has a coded size below 1 byte")
    if "soft_labels" in tensors:
        _check_soft(tensors["soft_labels"], len(named), formation.factor**2)


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
