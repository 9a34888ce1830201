"""Streams of Avalanche: real images by class, and errors for data that Avalanche would train on wrongly."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from condensekit.data.arrays import channels_last
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.errors import DataError
from condensekit.replay.adapters.opened import evaluated
from condensekit.replay.adapters.reading import empty, in_blocks
from condensekit.rng import isolated

TASKS = "targets_task_labels"  # name of the attribute that Avalanche appends to each sample of an (x, y, t) stream
LOOKED_AT = 8  # number of images whose values identify an experience, in addition to its labels

Key = tuple[str, int, int, str]


@dataclass(frozen=True)
class Layout:
    """Fields of a sample of a stream, which replayed samples have, too.

    Args:
        tasked: Whether samples are (x, y, t); False: they are (x, y).
        target: Type of tensor targets; None: the targets are integers.
    """

    tasked: bool
    target: torch.dtype | None

    @classmethod
    def of(cls, dataset: Any) -> Layout:
        """Read the layout from the first sample. Raises DataError for fields that a memory cannot have."""
        sample = _sample(dataset.eval(), 0)
        appended = [name for name, attribute in dataset._data_attributes.items() if attribute.use_in_getitem]
        extra = [name for name in appended if name != TASKS]
        tasked = TASKS in appended
        if extra or len(sample) != 2 + tasked:
            found = f"the fields {', '.join(extra)}" if extra else f"{len(sample)} values"
            raise DataError(
                f"samples of the stream have {found}: a condensed memory needs (x, y), or (x, y, t) with {TASKS}"
            )
        return cls(tasked, sample[1].dtype if isinstance(sample[1], Tensor) else None)


def class_images(dataset: Any, spec: ImageSpec | None = None, workers: int = 0) -> ClassImages:
    """Read the images of an Avalanche data set under its evaluation transforms, each once.

    Random transforms of evaluation, such as those of ``MNIST(root, transform=...)``, are left out if that keeps the
    shape of images. Images of more than :data:`condensekit.replay.adapters.reading.MAPPED` bytes lie in a
    temporary file.

    Args:
        dataset: Data set of samples (x, y) or (x, y, t); x is (C, H, W) float32, y an integer or a tensor of shape ().
        spec: Normalisation of the stream, if its images come from 8-bit pixels: then the images are read as bytes, and
            methods that work on pixels know the range of pixels. None: the images stay float32.
        workers: Number of processes that read.

    Raises:
        DataError: The data set is empty; images are float64 or uint8, have different shapes or values that are not
            finite, or are not 8-bit pixels under ``spec``.
    """
    count = len(dataset)
    if count == 0:
        raise DataError("the experience is empty: expected at least one image")
    labels = torch.empty(count, dtype=torch.int64)
    images = torch.empty(0)
    with isolated(0):
        for rows, (block, found) in in_blocks(partial(_block, evaluated(dataset)), count, workers):
            shape = tuple(block.shape[1:])
            if not rows.start:
                if spec is not None and spec.shape != shape:
                    raise DataError(f"images of the stream have shape {shape}, the spec says {spec.shape}")
                images = empty((count, *shape), torch.float32 if spec is None else torch.uint8)
            elif shape != images.shape[1:]:
                _refuse_shape(rows.start, shape, tuple(images.shape[1:]))
            images[rows.start : rows.stop] = block if spec is None else spec.to_bytes(block, rows.start)
            labels[rows.start : rows.stop] = found
    names = {label: str(label) for label in torch.unique(labels).tolist()}
    if spec is None:
        c, h, w = images.shape[1:]
        return ClassImages(images, labels, ImageSpec((c, h, w), (0.0,) * c, (1.0,) * c, names))
    named = {label: spec.class_names.get(label, name) for label, name in names.items()}
    return ClassImages(images, labels, replace(spec, class_names=named))


def _block(source: Any, rows: range) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels (N,) of some rows."""
    images, labels = [], []
    for i in rows:
        sample = _sample(source, i)
        images.append(_image(sample, i))
        labels.append(_label(sample, i))
        if images[-1].shape != images[0].shape:
            _refuse_shape(i, tuple(images[-1].shape), tuple(images[0].shape))
    return torch.stack(images), torch.tensor(labels)


def _refuse_shape(i: int, shape: tuple[int, ...], before: tuple[int, ...]) -> NoReturn:
    raise DataError(f"image {i} of the stream has shape {shape}, those before it {before}")


def task_labels(dataset: Any) -> Tensor:
    """(N,) int64 task label of each sample; 0 in a data set without task labels."""
    if TASKS not in dataset._data_attributes:
        return torch.zeros(len(dataset), dtype=torch.int64)
    return torch.tensor([int(task) for task in getattr(dataset, TASKS)], dtype=torch.int64)


def check_batchable(dataset: Any, shape: tuple[int, ...], what: str) -> None:
    """Raise DataError unless the training transforms of ``dataset`` give float32 images of ``shape`` (C, H, W)."""
    with isolated(0):
        image = _image(_sample(dataset.train(), 0), 0, what)
    if tuple(image.shape) != shape:
        raise DataError(
            f"{what} has shape {tuple(image.shape)} after its training transforms and {shape} in evaluation: "
            "one batch cannot hold both"
        )


def check_head(outputs: int, targets: Tensor) -> None:
    """Raise DataError if one of the labels (N,) is beyond a network's head with ``outputs`` outputs."""
    if len(targets) and int(targets.max()) >= outputs:
        raise DataError(
            f"label {int(targets.max())} is beyond the network's head, which has {outputs} outputs: "
            "build the network for all classes of the stream"
        )


def key_of(exp: Any) -> Key:
    """Identity of an experience in every process: name of its stream, its numbers, and a digest of its images."""
    exp = exp.logging()  # the view that shows all attributes
    whole = _get(_get(exp, "origin_experience", None), "current_experience", -1)
    stream = _get(exp, "origin_stream", None)
    return str(_get(stream, "name", "")), whole, _get(exp, "current_experience", -1), _digest(exp.dataset)


def _get(owner: Any, name: str, default: Any) -> Any:
    """An attribute of an Avalanche object, or ``default``: Avalanche raises AssertionError for an unset attribute."""
    try:
        return getattr(owner, name)
    except (AttributeError, AssertionError):
        return default


def _digest(dataset: Any) -> str:
    """SHA-256 of the labels and of a few images under the evaluation transforms."""
    labels = torch.tensor([int(label) for label in getattr(dataset, "targets", ())], dtype=torch.int64)
    found = hashlib.sha256(labels.numpy().tobytes() + len(dataset).to_bytes(8, "little"))
    source = dataset.eval()
    with isolated(0):
        for i in torch.linspace(0, len(dataset) - 1, min(len(dataset), LOOKED_AT)).long().tolist():
            found.update(_image(_sample(source, i), i).contiguous().numpy().tobytes())
    return found.hexdigest()


def _sample(dataset: Any, i: int) -> Any:
    sample = dataset[i]
    if not isinstance(sample, tuple | list) or len(sample) < 2:
        raise DataError(f"sample {i} of the stream is a {type(sample).__name__}, expected (x, y) or (x, y, t)")
    return sample


def _image(sample: Any, i: int, what: str = "") -> Tensor:
    what, image = what or f"image {i} of the stream", sample[0]
    if not isinstance(image, Tensor):
        raise DataError(f"{what} is a {type(image).__name__} after its transforms, expected a tensor: add ToTensor()")
    if image.dtype != torch.float32:
        silent = {torch.float64: "turned every batch into float64", torch.uint8: "been trained on as 0 to 255"}
        reason = f", which would silently have {silent[image.dtype]}" if image.dtype in silent else ""
        raise DataError(f"{what} is {image.dtype}{reason}: expected normalised float32, convert it in the transforms")
    if image.ndim != 3:
        raise DataError(f"{what} has shape {tuple(image.shape)}, expected (C, H, W)")
    if channels_last(tuple(image.shape)):
        raise DataError(f"{what} has shape {tuple(image.shape)}, expected (C, H, W): add permute(2, 0, 1)")
    return image


def _label(sample: Any, i: int) -> int:
    label = sample[1]
    if isinstance(label, Tensor) and (label.ndim or label.is_floating_point()):
        shown = f"{label.dtype} of shape {tuple(label.shape)}"
        raise DataError(f"target {i} of the stream is {shown}, expected an integer: give class labels, not soft labels")
    try:
        found = int(label)
    except (TypeError, ValueError):
        raise DataError(f"target {i} of the stream is {label!r}, expected an integer") from None
    if found < 0:
        raise DataError(f"target {i} of the stream is {found}, expected at least 0: leave out images without a class")
    return found
