"""Tensor loader: batches indexed from tensors, instead of Avalanche's loader, which reads sample by sample."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from avalanche.benchmarks.utils.data_loader import MultiDatasetDataLoader, MultiDatasetSampler
from avalanche.distributed.distributed_helper import DistributedHelper
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from condensekit.errors import ConfigError, refuse, whole
from condensekit.replay.adapters.arguments import augmentation_problem
from condensekit.replay.adapters.materialise import Unfit, materialise
from condensekit.replay.adapters.stream import check_head
from condensekit.rng import Draw
from condensekit.training.augment import Augmentation
from condensekit.training.train import ByRow

log = logging.getLogger(__name__)

BatchAugmentation = Augmentation | Callable[[Tensor], Tensor]


class TensorLoader(SupervisedPlugin):
    """Plugin that reads an experience and the memory once, and then indexes the same batches on the strategy's device.

    It replaces the stock loader, which Avalanche or another plugin has made, and uses the samplers of that loader:
    batches, their order and the state of the random generator stay the same. Data with random training transforms keep
    the stock loader, unless an ``augmentation`` replaces the transforms; so do data of more than ``LIMIT`` bytes. How
    random code is recognised, and what may be missed: :func:`condensekit.replay.adapters.materialise.materialise`.
    Labels beyond the network's head raise an error.

    >>> from condensekit import Augmentation
    >>> from condensekit.replay import TensorLoader
    >>> plugins = [TensorLoader(Augmentation(("crop", "flip")))]  # the last of the plugins

    Attributes:
        fallback: Why the running experience keeps the stock loader; None: the loader was replaced.

    Args:
        augmentation: Augmentation of whole batches (N, C, H, W) on the device, after the evaluation transforms. It
            replaces the training transforms of stream and memory. None: the stream's own transforms.
        seed: Seed of an :class:`~condensekit.training.augment.Augmentation`.

    Raises:
        ConfigError: ``augmentation`` or ``seed`` is of another type; in training, if the augmentation cannot be applied
            to batches.
    """

    def __init__(self, augmentation: BatchAugmentation | None = None, *, seed: int = 0) -> None:
        super().__init__()
        refuse(augmentation_problem(augmentation), whole("seed", seed))
        self.augmentation, self.seed = augmentation, seed
        self.fallback: str | None = None
        self._batches = 0  # number of augmented batches: the step of the counted random numbers
        self._loader: TensorBatches | None = None
        self._stock: Any = None
        self._checked = False

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Check the labels again, because a new experience may have labels beyond the network's outputs."""
        self._checked = False

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Replace the loader, after all plugins that may have set it."""
        if strategy.dataloader is self._loader or strategy.dataloader is self._stock:
            return
        self._stock, self._loader = strategy.dataloader, None
        try:
            self._loader = TensorBatches(self._stock, strategy.device, self.augment if self.augmentation else None)
            self.fallback = None
            strategy.dataloader = self._loader
        except Unfit as reason:
            self.fallback = str(reason)
            if self.augmentation:
                raise ConfigError(
                    f"the augmentation cannot be applied batch by batch: {reason}; leave it out, and augment in the "
                    "transform of the stream"
                ) from reason
            log.info("Avalanche's own loader is kept: %s", reason)

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Check the labels before the first loss: on a GPU, a label beyond the head would end the whole process.

        Raises:
            DataError: The experience has a label beyond the head.
        """
        outputs = strategy.mb_output
        if not self._checked and isinstance(strategy._criterion, torch.nn.CrossEntropyLoss) and outputs.ndim == 2:
            labels = torch.tensor([int(label) for label in strategy.experience.dataset.targets])
            check_head(outputs.shape[1], labels)
        self._checked = True

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Delete the tensors."""
        self._loader = self._stock = None

    def augment(self, images: Tensor) -> Tensor:
        """Augment images (N, C, H, W): the same operation for the whole batch, other parameters for each image."""
        self._batches += 1
        if isinstance(self.augmentation, Augmentation):
            return self.augmentation.apply_batch(images, Draw(self.seed, self._batches), "replay")
        return self.augmentation(images) if self.augmentation else images


class TensorBatches:
    """The batches of a stock loader, indexed from tensors.

    Args:
        stock: A torch ``DataLoader``, or a loader of Avalanche over one or several data sets.
        device: Device of the tensors.
        augment: Augmentation of whole batches that replaces the training transforms; None: the training transforms.

    Raises:
        Unfit: The data differ between two readings, or the loader is of another kind.
    """

    def __init__(
        self, stock: Any, device: torch.device | str, augment: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        if DistributedHelper.is_distributed:
            raise Unfit("training is distributed")
        if isinstance(stock, MultiDatasetDataLoader):
            parts = stock.datasets
        elif type(stock) is DataLoader and isinstance(stock.batch_sampler, BatchSampler):
            parts = [stock.dataset]
        else:
            raise Unfit(f"the loader is a {type(stock).__name__}")
        self.stock, self.augment, self.device = stock, augment, torch.device(device)
        if augment:
            parts = [part.eval() for part in parts]
        columns = list(zip(*(materialise(part) for part in parts), strict=True))
        self.columns = [Column(column, self.device) for column in columns]

    def __len__(self) -> int:
        return len(self.stock)

    def __iter__(self) -> Iterator[list[Tensor]]:
        torch.empty((), dtype=torch.int64).random_()  # torch's loader draws this number in each epoch
        for rows in self._rows():
            index = rows.to(self.device, non_blocking=True)
            batch = [column.at(index) for column in self.columns]
            if self.augment:
                batch[0] = self.augment(batch[0])
            yield batch

    def _rows(self) -> Iterable[Tensor]:
        """Rows of each batch, chosen by the stock loader's samplers; the rows of several data sets are numbered on."""
        stock = self.stock
        if isinstance(stock, DataLoader):
            return _split(stock.batch_sampler)
        samplers = stock._create_samplers(
            stock.datasets, stock.batch_sizes, stock.distributed_sampling, stock.loader_kwargs
        )
        if len(samplers) == 1 and not stock.never_ending:
            return _split(samplers[0])
        together = MultiDatasetSampler(
            stock.datasets,
            samplers,
            termination_dataset_idx=stock.termination_dataset,
            oversample_small_datasets=stock.oversample_small_datasets,
            never_ending=stock.never_ending,
        )
        return map(torch.tensor, together)


class Column:
    """The rows of one field in several data sets, numbered on.

    Args:
        parts: The rows of each data set, as :func:`~condensekit.replay.adapters.materialise.materialise` gives them.
        device: Device of the batches.

    Raises:
        Unfit: The rows of the data sets do not stack.
    """

    def __init__(self, parts: Sequence[Tensor | ByRow], device: torch.device | str) -> None:
        tensors = [part.to(device) for part in parts if isinstance(part, Tensor)]
        if len({(t.dtype, t.shape[1:]) for t in tensors}) > 1:
            raise Unfit("the samples of its data sets do not stack")
        self.device = torch.device(device)
        self.parts: list[Tensor | ByRow] = [torch.cat(tensors)] if len(tensors) == len(parts) else list(parts)
        self.ends = torch.tensor([len(part) for part in self.parts]).cumsum(0)

    def at(self, rows: Tensor) -> Tensor:
        """The values at ``rows`` (R,) int64."""
        if len(self.parts) == 1:
            return self._of(0, rows)
        place = torch.searchsorted(self.ends.to(rows.device), rows, right=True)
        found: Tensor | None = None
        for number in torch.unique(place).tolist():
            mine = place == number
            start = int(self.ends[number]) - len(self.parts[number])
            values = self._of(number, rows[mine] - start)
            found = values.new_empty((len(rows), *values.shape[1:])) if found is None else found
            found[mine] = values
        assert found is not None
        return found

    def _of(self, number: int, rows: Tensor) -> Tensor:
        part = self.parts[number]
        if isinstance(part, Tensor):
            return part.index_select(0, rows.to(part.device)).to(self.device)
        return part.at(rows, self.device)


def rows_of(dataset: Any, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """A reader of the images of some rows (N,), as (N, C, H, W) on ``device``, under the current transforms.

    Fixed images are read once and indexed; coded images are decoded and random images are drawn anew in each call.
    """
    try:
        return Column(materialise(dataset)[:1], device).at
    except Unfit:
        return lambda rows: torch.stack([dataset[i][0] for i in rows.tolist()]).to(device)


def _split(sampler: Any) -> Iterator[Tensor]:
    """The batches of a torch ``BatchSampler`` as tensors; fast, without a Python number per row, if shuffled."""
    inner = sampler.sampler
    if type(inner) is not RandomSampler or inner.replacement or inner.num_samples != len(inner.data_source):
        yield from map(torch.tensor, sampler)
        return
    generator = inner.generator  # the following lines draw the same numbers as RandomSampler
    if generator is None:
        generator = torch.Generator().manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
    for rows in torch.randperm(inner.num_samples, generator=generator).split(sampler.batch_size):
        if len(rows) == sampler.batch_size or not sampler.drop_last:
            yield rows
