"""Contents of public files: the images and labels that the codes of other papers save, found by their structure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condensekit.data.arrays import Values, as_nchw, as_numbers, as_tensor
from condensekit.data.labels import as_labels
from condensekit.errors import DataError
from condensekit.runs.files import read_json
from condensekit.sets.checks import SUM_OFF
from condensekit.sets.pt import load_pt

DC, MTT, IDC, PLAIN = "DC, DSA or DM", "MTT", "IDC, M3D, DANCE or NCFM", "images and labels"  # who writes such files
ENTRIES = (("images", "labels"), ("data", "targets"), ("image_syn", "label_syn"), ("x", "y"))  # of plain dictionaries
ABOUT = "about.json"  # beside two files of tensors that condensekit wrote: the spec of the images


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Args:
        kind: Who writes such files.
        pairs: Images and labels of each experiment, as they are in the file; at least one.
        stated: The spec of the images as :meth:`ImageSpec.to_json` writes it; None: the file has none.
        accuracies: Mean test accuracy of each network, measured by the code that wrote the file.
    """

    kind: str
    pairs: Sequence[tuple[Tensor, Any]]
    stated: Any = None
    accuracies: Mapping[str, float] | None = None


def content_of(path: Path) -> Content:
    """Read a file; of MTT, where images and labels are two files, the one of the images.

    Raises:
        DataError: No such file, code or objects in it, or anything but images with labels.
        StoreError: It cannot be read.
    """
    found = load_pt(path)
    if isinstance(found, Tensor):
        labels, about = load_pt(_labels_of(path, found)), path.with_name(ABOUT)
        if not isinstance(labels, Tensor):
            raise DataError(f"{_labels_of(path, found)} holds a {type(labels).__name__}, expected a tensor of labels")
        return Content(MTT, [(found, labels)], read_json(about, dict) if about.exists() else None)
    data, stated = (found.get("data"), found.get("spec")) if isinstance(found, Mapping) else (found, None)
    if isinstance(data, list | tuple) and all(map(_is_pair, data)) and len(data):
        accuracies = _means(found.get("accs_all_exps")) if isinstance(found, Mapping) else None
        return Content(DC if isinstance(found, Mapping) else PLAIN, [tuple(pair) for pair in data], stated, accuracies)
    if isinstance(found, Mapping):
        named: list[tuple[Any, Any]] = [(found.get(images), found.get(labels)) for images, labels in ENTRIES]
        if pairs := [pair for pair in named if _is_pair(pair)]:
            return Content(PLAIN, pairs[:1], stated)
    elif _is_pair(found):
        return Content(IDC, [tuple(found)])
    what = type(found).__name__
    what += f" with {', '.join(map(repr, list(found)[:5]))}" if isinstance(found, Mapping) else ""
    raise DataError(
        f"{path} holds no images with labels ({what}): a set is a list [images, labels] of two tensors, or a "
        "dictionary with the entries 'images' and 'labels'"
    )


def _is_pair(found: Any) -> bool:
    """Whether something is a list of images and labels."""
    good = isinstance(found, list | tuple) and len(found) == 2
    return good and isinstance(found[0], Tensor) and isinstance(found[1], Tensor)


def _labels_of(path: Path, images: Tensor) -> Path:
    """The file of the labels of MTT's images: ``labels_best.pt`` for ``images_best.pt``."""
    labels = path.with_name(re.sub("^images(_zca)?", "labels", path.name))
    if labels == path or images.ndim < 3:
        raise DataError(
            f"{path} holds one tensor of shape {tuple(images.shape)}: give the file of the images with a name like "
            "images_best.pt, and the file of the labels, labels_best.pt, beside it"
        )
    if not labels.exists():
        raise DataError(f"{path} holds images without labels: put the file of their labels, {labels.name}, beside it")
    return labels


def _means(found: object) -> dict[str, float] | None:
    """The mean of the accuracies of each network; None if there are no accuracies."""
    told = found if isinstance(found, Mapping) else {}
    lists = {str(name): [v for v in each if isinstance(v, float)] for name, each in told.items() if _is_list(each)}
    return {name: sum(each) / len(each) for name, each in lists.items() if each} or None


def _is_list(found: object) -> bool:
    return isinstance(found, list | tuple)


def images_of(given: Tensor, layout: str | None) -> Tensor:
    """Images in any layout and of any type as (N, C, H, W) uint8 in 0..255 or float32.

    Raises:
        DataError: Other shapes, values that are not finite, or floats from 0 to far above 1.
    """
    if given.numel() == 0:
        raise DataError(f"it holds no images, but a tensor of shape {tuple(given.shape)}")
    images = as_nchw(as_tensor(given), layout)
    if given.untyped_storage().nbytes() < given.numel() * given.element_size():
        raise DataError(f"it declares images of shape {tuple(given.shape)}, and holds fewer values")
    images = as_numbers(images).contiguous()
    found = Values().see(images)
    if found.bytes(found.high) and images.is_floating_point():
        return images.to(torch.uint8)
    found.check()
    return images


def labels_of(given: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
    """The labels of ``count`` images: (N,) int64, and (N, K) float32 probabilities if there are such.

    Raises:
        DataError: Another number of labels, labels that are no whole numbers, or rows that are no probabilities.
    """
    if given.ndim not in (1, 2) or len(given) != count:
        raise DataError(f"it has {count} images, and labels of shape {tuple(given.shape)}")
    if given.ndim == 1 or given.shape[1] == 1 or bool(((given == 0) | (given == 1)).all()):
        return as_labels(given)[0], None
    rows = given.detach().to(torch.float32)
    good = torch.isfinite(rows).all(1) & (rows >= 0).all(1) & ((rows.sum(1) - 1).abs() < SUM_OFF)
    if not good.all():
        raise DataError(
            f"the labels of image {int((~good).nonzero()[0])} are no probabilities (at least 0, with sum 1): if they "
            "are logits, as those of DATM, save torch.softmax(labels, 1) in their place"
        )
    return rows.argmax(1), rows
