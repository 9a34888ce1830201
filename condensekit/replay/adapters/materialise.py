"""Materialised data set: all samples as tensors, if each reading gives the same samples."""

from __future__ import annotations

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor
from torch.utils.data import default_collate

from condensekit.replay.adapters.reading import differs
from condensekit.replay.adapters.replayed import Replayed
from condensekit.replay.adapters.transforms import Way, is_random, ways
from condensekit.replay.memory.decoded import DecodedImages
from condensekit.rng import isolated
from condensekit.training.train import ByRow

LIMIT = 4 << 30  # largest size of one data set in bytes
BLOCK = 512  # number of samples that are collated together


class Unfit(Exception):  # noqa: N818 - a reason, not a failure
    """The reason why a data set cannot be read in advance."""


def materialise(dataset: AvalancheDataset) -> list[Tensor | ByRow]:
    """Read all samples of a data set under its current transforms; coded images of a memory stay coded.

    Transforms of torchvision that draw random numbers are known by their classes. The code of others (Lambda, own
    classes, the ``__getitem__`` of own data sets) is tried on some samples, see
    :func:`condensekit.replay.adapters.reading.differs`, which also says what is missed.

    Returns:
        The len(dataset) rows of each field of a sample: images (N, C, H, W), targets (N,), and so on.

    Raises:
        Unfit: The samples are random, do not stack or take more than ``LIMIT`` bytes, or the data set has its own
            collate function.
    """
    if dataset.collate_fn is not default_collate:
        raise Unfit("the data set has a collate function of its own")
    found_ways = ways(dataset)
    for transform in (transform for way in found_ways for transform in way.transforms):
        if is_random(transform):
            raise Unfit(f"its transform {type(transform).__name__} may be random: give a batched augmentation instead")
    if len(dataset) == 0:
        raise Unfit("the data set is empty")
    if not all(way.known for way in found_ways) and differs(dataset.__getitem__, len(dataset)):
        raise Unfit("a sample differs between two readings")
    if len(found_ways) == 1 and (columns := _coded(dataset, found_ways[0])):
        return columns
    return _read(dataset)


def _read(dataset: AvalancheDataset) -> list[Tensor | ByRow]:
    with isolated(0):
        once = _block(dataset, range(1))
        if len(dataset) * sum(field.numel() * field.element_size() for field in once) > LIMIT:
            raise Unfit(f"its {len(dataset)} samples take more than {LIMIT:,} bytes")
        found = [torch.empty((len(dataset), *field.shape[1:]), dtype=field.dtype) for field in once]
        for start in range(0, len(dataset), BLOCK):
            rows = range(start, min(start + BLOCK, len(dataset)))
            for column, field in zip(found, _block(dataset, rows), strict=True):
                if column.shape[1:] != field.shape[1:] or column.dtype != field.dtype:
                    shape = tuple(field.shape[1:])
                    raise Unfit(f"its samples do not stack (from sample {start} on their shape is {shape})")
                column[start : rows.stop] = field
    return list(found)


def _coded(dataset: AvalancheDataset, way: Way) -> list[Tensor | ByRow] | None:
    """The columns of a memory of coded images that no transform changes; None: another data set."""
    pairs = way.source
    if not isinstance(pairs, Replayed) or way.transforms or len(pairs) != len(dataset):
        return None
    if not isinstance(pairs.source, DecodedImages) or not pairs.source.coded:
        return None
    labels, *tasks = _block(dataset, range(1))[1:]
    fields = (pairs.source.labels.to(labels.dtype), pairs.source.tasks)
    return [pairs.source, *fields[: 1 + len(tasks)]]


def _block(dataset: AvalancheDataset, rows: range) -> list[Tensor]:
    try:
        fields = default_collate([dataset[i] for i in rows])
    except (RuntimeError, TypeError, ValueError) as error:
        raise Unfit(f"its samples do not stack ({error})") from error
    if not isinstance(fields, list | tuple) or not all(isinstance(f, Tensor) and len(f) == len(rows) for f in fields):
        raise Unfit("its samples are not tuples of tensors and numbers")
    return list(fields)
