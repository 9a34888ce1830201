"""Matching: images that are read apart get the normalisation, the labels and the class names of others."""

from __future__ import annotations

import dataclasses

import torch

from condensekit.data.images import ClassImages
from condensekit.errors import DataError
from condensekit.sets.condensed import CondensedSet


def alike(test: ClassImages, train: ClassImages) -> ClassImages:
    """The test images with the normalisation and class names of the training images.

    Raises:
        DataError: A class that the training images lack, or images of another kind.
    """
    ours, theirs = train.spec, test.spec
    strangers = sorted(set(test.classes) - set(train.classes))
    if strangers:
        raise DataError(f"test has class {theirs.name_of(strangers[0])!r}, which train lacks")
    told = [
        f"images of shape {s.shape}, {'pixels' if s.pixels else 'values that are no pixels'}" for s in (theirs, ours)
    ]
    if told[0] != told[1]:
        raise DataError(f"test has {told[0]}, and train {told[1]}: give both the same transform")
    return test.with_spec(**{f.name: getattr(ours, f.name) for f in dataclasses.fields(ours)})


def normalised(test: ClassImages, made: CondensedSet) -> ClassImages:
    """The test images with the normalisation of the set, if both are pixels of the same shape."""
    ours, theirs = made.spec, test.spec
    if ours.alike(theirs) or ours.shape != theirs.shape or not (ours.pixels and theirs.pixels):
        return test
    return test.with_spec(mean=ours.mean, std=ours.std)


def renumbered(images: ClassImages, made: CondensedSet | ClassImages, argument: str) -> ClassImages:
    """The images with the labels that others give to their class names; a name that is its number fits any label.

    Raises:
        DataError: A class name that the others lack, while they name the label otherwise.
    """
    ours, theirs = made.spec.class_names, images.spec.class_names
    if all(len({ours.get(k, str(k)), theirs.get(k, str(k))} - {str(k)}) < 2 for k in images.classes):
        return images
    label_of = {name: label for label, name in ours.items()}
    strangers = [theirs[k] for k in images.classes if theirs.get(k, str(k)) not in label_of]
    if strangers:
        owner = "train" if isinstance(made, ClassImages) else "the set"
        raise DataError(f"{argument} has class {strangers[0]!r}, which {owner} lacks; it has: {', '.join(label_of)}")
    listed = images.compact()
    labels = torch.tensor([label_of[theirs[k]] for k in listed.labels.tolist()])
    spec = dataclasses.replace(listed.spec, class_names=dict(ours))
    return ClassImages(listed.images, labels, spec, images.source, images.notes)


def check_classes(train: ClassImages, made: CondensedSet) -> None:
    """Raise DataError if the training images lack a class of the set."""
    missing = sorted(set(made.classes) - set(train.classes))
    if missing:
        raise DataError(
            f"train has no images of class {made.spec.name_of(missing[0])}, which the set has: pass the images that it "
            "was made from"
        )
