"""Data set objects: objects with a length and (image, label, ...) items, such as torchvision's or Avalanche's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from condensekit.data.arrays import Values, as_bytes, as_nchw, check_layout, settled
from condensekit.data.decoding import alike, as_image, check_size, shown, stacked
from condensekit.data.images import ClassImages, ImageSpec, spec_of
from condensekit.data.labels import as_labels
from condensekit.errors import DataError, quoted
from condensekit.progress import SILENT, Progress

FLIPS = {  # whether torchvision's data sets of these names may be mirrored; digits and letters may not
    **dict.fromkeys(("MNIST", "QMNIST", "KMNIST", "EMNIST", "SVHN", "USPS", "Omniglot"), False),
    "FashionMNIST": True,  # a subclass of MNIST
}
WRAPPED = ("dataset", "datasets", "_flat_data", "_datasets")  # where Subset, ConcatDataset and Avalanche's keep others
TAKEN = (
    "a data set object with a length and (image, label) items, (images, labels) arrays, or what condensekit.load "
    "returns"
)


def as_images(given: Any, name: str = "data", layout: str | None = None) -> ClassImages:
    """Convert images in any supported form to :class:`ClassImages`.

    Args:
        given: :class:`ClassImages`; a pair (images, labels) of arrays or tensors; a torchvision-style data set or a
            ``Subset`` of one; an Avalanche experience, read with its evaluation transforms.
        name: Name of the argument in errors.
        layout: ``NCHW`` or ``NHWC``, the axes of arrays; None: see :func:`condensekit.data.arrays.as_nchw`.

    Raises:
        DataError: Another object, or images that cannot be used.
    """
    if isinstance(given, ClassImages):
        return given
    if isinstance(given, str | Path):
        raise DataError(f"{name} must be images, got {str(given)!r}: pass a part of what load({str(given)!r}) returns")
    if isinstance(given, tuple) and len(given) == 2:
        if all(isinstance(part, ClassImages | Dataset) for part in given):
            raise DataError(f"{name} must be one set of images, got two: pass the training or the test images alone")
        return ClassImages.from_arrays(*given, layout=layout)
    inner = getattr(given, "dataset", None)
    if inner is not None and not hasattr(given, "__getitem__"):  # an experience
        given = inner.eval() if hasattr(inner, "eval") else inner
    sized = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    if isinstance(given, type | bytes | list | tuple | dict | np.ndarray | Tensor) or not sized:
        raise DataError(f"{name} must be images with labels, got {quoted(given)}: pass {TAKEN}")
    return from_dataset(given, layout=layout)


def _flippable(dataset: Any) -> bool:
    """Whether mirrored items still show their class: False for torchvision's digits and letters, wrapped or not."""
    known = (FLIPS[kind.__name__] for kind in type(dataset).__mro__ if kind.__name__ in FLIPS)
    inner = [getattr(dataset, name, None) for name in WRAPPED]
    parts = [part for found in inner for part in (found if isinstance(found, list | tuple) else [found])]
    return next(known, True) and all(_flippable(part) for part in parts if part is not None)


def from_dataset(
    dataset: Any,
    *,
    image_size: int | None = None,
    spec: ImageSpec | None = None,
    layout: str | None = None,
    progress: Progress = SILENT,
) -> ClassImages:
    """The images of a torchvision-style or Avalanche data set object, read once, in order.

    Pixels that are bytes, or floats that are all multiples of 1/255 in [0, 1] (as ``ToTensor`` makes them), become
    uint8. Other floats in [0, 1] are pixels too, and floats beyond are taken as normalised already: see
    :func:`condensekit.data.arrays.settled`.

    Args:
        dataset: Has a length and (image, label, ...) items: a PIL image, array or tensor and an integer or a
            string. Its transforms apply: switch random ones off first.
        image_size: Resize every image to this many pixels in height and width.
        spec: Normalisation and class names to use; computed if None.
        layout: ``NCHW`` or ``NHWC``, the axes of items that are arrays (without N); None: by their shape.
        progress: Told how many images are read.

    Raises:
        DataError: An item that cannot be used; the text names its index.
        ConfigError: An ``image_size`` below 1, or an unknown layout.
    """
    check_size(image_size)
    check_layout(layout)
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(f"a data set needs a length and items by index, {type(dataset).__name__} lacks them")
    if not len(dataset):
        raise DataError("the data set is empty: expected at least one image")
    labels: list[Any] = []
    ready = _whole(dataset)
    values = Values()
    images = _items(dataset, labels, values, layout) if ready is None else iter(ready)
    if ready is not None:
        labels = list(dataset.targets)
    read = shown(alike(images, "item {}".format, image_size), len(dataset), progress)
    pixels, are_pixels = settled(stacked(read, len(dataset)), values)
    known = None if spec is None else spec.class_names
    numbers, names = as_labels([_plain(label, index) for index, label in enumerate(labels)], known)
    if spec is not None:
        return ClassImages(pixels, numbers, spec)
    listed = getattr(dataset, "classes", None)
    if names is None and isinstance(listed, list | tuple):
        names = {label: str(name) for label, name in enumerate(listed)}
    return ClassImages(pixels, numbers, spec_of(pixels, numbers, names, _flippable(dataset), are_pixels))


def _whole(dataset: Any) -> Tensor | None:
    """The images (N, C, H, W) of a data set that holds one uint8 array and has no transforms; else None."""
    data, targets = getattr(dataset, "data", None), getattr(dataset, "targets", None)
    changes = [getattr(dataset, name, None) for name in ("transform", "target_transform", "transforms")]
    if not isinstance(data, np.ndarray | Tensor) or any(change is not None for change in changes):
        return None
    if str(data.dtype) not in ("uint8", "torch.uint8") or data.ndim not in (3, 4) or targets is None:
        return None
    if not len(data) == len(targets) == len(dataset):
        return None
    images = as_nchw(torch.as_tensor(data))
    image, label = dataset[0][:2]
    return images if torch.equal(as_image(image), images[0]) and bool(label == targets[0]) else None


def _items(dataset: Any, labels: list[Any], values: Values, layout: str | None) -> Iterator[Tensor]:
    """The images one by one; ``labels`` and ``values`` grow with them."""
    kind = None
    for index in range(len(dataset)):
        item = dataset[index]
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise DataError(f"item {index} must be (image, label, ...), got {type(item).__name__}")
        try:
            image = as_image(item[0], layout)
        except (DataError, TypeError) as error:
            raise DataError(f"item {index}: {error}") from None
        kind = kind or image.dtype
        if image.dtype != kind:
            raise DataError(f"item {index} is {image.dtype}, item 0 is {kind}: let the data set give one of the two")
        labels.append(item[1])
        values.see(image[None])
        yield as_bytes(image)


def _plain(label: Any, index: int) -> Any:
    """A label as a Python number or text."""
    value = label.tolist() if isinstance(label, Tensor | np.ndarray | np.generic) else label
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool | float) or not isinstance(value, int | str):
        raise DataError(
            f"the label of item {index} must be an integer or a string, got {label!r}"
            + ("; give the number of its class" if isinstance(value, list) else "")
        )
    return value
