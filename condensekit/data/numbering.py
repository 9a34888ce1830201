"""Numbering of classes by name: images that are read later get the numbers and the normalisation of former ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from condensekit.data.images import KEPT, ClassImages
from condensekit.errors import DataError


def numbered(images: ClassImages, like: ClassImages) -> ClassImages:
    """The images with the labels that ``like`` gives to their class names, and with its normalisation.

    A name that ``like`` does not know gets the next number; the result knows all names of both. A label without a name
    counts as its own name and is kept if ``like`` does not use it.

    >>> import condensekit as ck
    >>> first = ck.ClassImages.from_arrays(torch.zeros(2, 1, 8, 8), ["bear", "mouse"])
    >>> second = ck.ClassImages.from_arrays(torch.ones(2, 1, 8, 8), ["bear", "ant"])
    >>> numbered(second, first).spec.class_names
    {0: 'bear', 1: 'mouse', 2: 'ant'}

    Args:
        images: The later images.
        like: The former images.

    Raises:
        DataError: Images of another shape, or pixels and values that are no pixels.
    """
    ours, theirs = images.spec, like.spec
    if ours.shape != theirs.shape:
        side = f": pass image_size={theirs.shape[1]}" if ours.shape[0] == theirs.shape[0] else ""
        raise DataError(f"the images have shape {ours.shape}, those of like have {theirs.shape}{side}")
    if ours.pixels != theirs.pixels:
        kinds = {True: "pixels", False: "values that are no pixels"}
        raise DataError(f"the images are {kinds[ours.pixels]}, those of like {kinds[theirs.pixels]}: give both alike")
    names = {**{label: str(label) for label in like.classes}, **theirs.class_names}
    label_of = _labels(ours.class_names, torch.unique(images.labels).tolist(), names)
    labels = torch.tensor([label_of[label] for label in images.labels.tolist()], dtype=torch.int64)
    spec = replace(ours, mean=theirs.mean, std=theirs.std, class_names=names)
    notes = [note for note in images.notes if note != KEPT]  # which the constructor adds
    found = ClassImages(images.images, labels, spec, images.source, notes).subset(images.order)
    found.held_out = images.held_out and numbered(images.held_out, found)
    return found


def following(parts: tuple[ClassImages, ClassImages], like: ClassImages | None) -> tuple[ClassImages, ClassImages]:
    """Training and test images, numbered and normalised as those of ``like``."""
    if like is None:
        return parts
    train = numbered(parts[0], like)
    return train, numbered(parts[1], train)


def _labels(ours: Mapping[int, str], present: list[int], names: dict[int, str]) -> dict[int, int]:
    """The new label of each label; ``names`` gets the names that it lacks."""
    known = {name: label for label, name in names.items()}
    found = {}
    for label in sorted({*ours, *present}):
        name = ours.get(label, str(label))
        if name not in known:
            known[name] = label if name == str(label) and label not in names else max(names) + 1
            names[known[name]] = name
        found[label] = known[name]
    return found
