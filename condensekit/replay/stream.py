"""Avalanche's data sets as the engine reads them, with what is silently wrong there made an error."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from condensekit.images import ClassImages, ImageSpec


def class_images(dataset: Any, spec: ImageSpec | None = None) -> ClassImages:
    """The images of an Avalanche data set as its evaluation transforms give them.

    Args:
        dataset: Of (x, y) or (x, y, t) samples; x (C, H, W) float32, y an integer or a 0-dim tensor.
        spec: The normalisation of the stream, where its images come from 8-bit pixels: they are kept as bytes, and
            methods that work on pixels know where these lie. None: images stay float32.

    Raises:
        DataError: Float64 or undecoded uint8 images, images whose shape changes, values that are not finite, or
            images that are no 8-bit pixels under ``spec``.
    """
    raise NotImplementedError


def check_head(output: Tensor, targets: Tensor) -> None:
    """Raise DataError where a label (N,) lies beyond the network's head, of which ``output`` (N, K) are the logits."""
    raise NotImplementedError
