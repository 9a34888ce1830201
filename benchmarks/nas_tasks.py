"""What ``benchmarks/nas.py`` ranks: two spaces, their frozen samples of architectures, and their truths."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nas_cells import PUBLISHED, Training

from condensekit import datasets
from condensekit.errors import DataError
from condensekit.images import ClassImages
from condensekit.nas.full import FullTraining
from condensekit.nas.nasbench201 import from_table
from condensekit.nas.proxies import Setting
from condensekit.nas.proxy_sets import Maker
from condensekit.nas.spaces import enumerate_architectures, space
from condensekit.nas.spending import Ledger
from condensekit.nas.trials import Architecture, key
from condensekit.nas.truth import Truth, canonical, read_table
from condensekit.recipe import Recipe
from condensekit.rng import Draw

TRUTHS, GROUPS = "nb201_valid_nets.csv", "nb201_isomorphs.csv"
PROXIES, EPOCHS = "nb201_zc_proxies.csv", "nb201_12_epochs.csv"
STEM, CELLS = 4, 1  # of trained NAS-Bench-201 cells: channels of the stem, cells in each stage; the benchmark has 16, 5
HELD = 1_500  # held-out training images on which candidates are scored
FULL_IMAGES, FULL_EPOCHS, FULL_BATCH = 10_000, 10, 100  # of a full training in the ConvNet grid
RANKED, TUNED = 100, 50  # cells of NAS-Bench-201 in a sample to report on, and in the one to tune on
STRATUM, SPARE = 4, 1  # ConvNets of each norm and pooling to report on, and to tune on


@dataclass(frozen=True, eq=False)
class Task:
    """One space with its data.

    Args:
        name: ``nb201`` or ``convnet``.
        data: Name of the data set.
        train: Images that rankers may use.
        held: Images on which candidates are scored.
        small: The space whose candidates are trained: smaller than the real one where the benchmark says so.
        real: The space that zero-cost scores look at.
        samples: Architectures by sample; ``tune`` shares none with the others.
        groups: By key, the name of all that compute the same thing.
        truth: Where it is known already.
        full: How it is measured where not.
        published: Scores from tables, by ranker, by key of an architecture.
    """

    name: str
    data: str
    train: ClassImages
    held: ClassImages
    small: Any
    real: Any
    samples: dict[str, list[Architecture]]
    groups: dict[str, str]
    truth: Truth | None = None
    full: FullTraining | None = None
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @cached_property
    def sizes(self) -> Ledger:
        """Of the real networks."""
        return Ledger(self.real, self.train.spec.shape)

    @cached_property
    def small_sizes(self) -> Ledger:
        """Of those that are trained."""
        return self.sizes if self.small is self.real else Ledger(self.small, self.train.spec.shape)

    def setting(self, recipe: Training, set_seed: int, folder: Path) -> Setting:
        """What its rankers share."""
        how = Recipe(batch_real=recipe.batch_real, factor=recipe.factor)
        maker = Maker(self.train, self.data, recipe.iterations, how, set_seed, folder)
        return Setting(maker, self.held, recipe.protocol(), recipe.ipc, last=2, checks=0)


def nb201(root: Path | None, trust: bool, tables: Path, stem: int = STEM, cells: int = CELLS) -> Task:
    """NAS-Bench-201 on CIFAR-10: candidates have a small stem and few cells, the truth is that of the real ones."""
    train, _ = datasets.load("cifar10", root=root, trust_local_copy=trust)
    rest, held = _hold_out(train)
    real = space("nasbench201", train.spec.shape, 10)
    truth = read_table(tables / TRUTHS, real)
    groups = {key(canonical(real, from_table(row["net_str"]))): row["group"] for row in _rows(tables / GROUPS)}
    names = list({group: name for name, group in reversed(groups.items())}.values())  # one cell of each group
    order = [names[i] for i in Draw(0).permutation("cells", len(names)).tolist()]
    middle = sorted(values[0] for values in truth.values.values())[len(truth.values) // 2]
    better = [name for name in order[TUNED:] if truth.values[name][0] >= middle]
    best = [better[i] for i in Draw(0).permutation("top", len(better)).tolist()]
    samples = {"tune": order[:TUNED], "all": order[TUNED : TUNED + RANKED], "top": best[:RANKED]}
    return Task(
        "nb201",
        "cifar10",
        rest,
        held,
        space("nasbench201", train.spec.shape, 10, stem=stem, cells=cells),
        real,
        {name: [json.loads(text) for text in texts] for name, texts in samples.items()},
        groups,
        truth,
        published=_published(tables, real),
    )


def convnet(root: Path | None, trust: bool) -> Task:
    """The ConvNet grid on Fashion-MNIST: a sample stratified by norm and pooling, truths measured here."""
    train, test = datasets.load("fashionmnist", root=root, trust_local_copy=trust)
    rest, held = _hold_out(train)
    each = FULL_IMAGES // len(train.classes)
    part = rest.subset(rest.draw_indices(rest.classes, each, Draw(0), role="full").flatten())
    grid = space("convnet-small", train.spec.shape, len(train.classes))
    strata: dict[tuple[str, str], list[Architecture]] = {}
    for architecture in enumerate_architectures(grid):
        strata.setdefault((architecture["norm"], architecture["pooling"]), []).append(architecture)
    samples: dict[str, list[Architecture]] = {"tune": [], "all": []}
    for stratum, members in strata.items():
        order = [members[i] for i in Draw(0).permutation(f"stratum/{stratum}", len(members)).tolist()]
        samples["all"] += order[:STRATUM]
        samples["tune"] += order[STRATUM : STRATUM + SPARE]
    protocol = replace(Training().protocol(), epochs=FULL_EPOCHS, batch=FULL_BATCH)
    full = FullTraining(part, test, protocol, seeds=2)
    return Task("convnet", "fashionmnist", part, held, grid, grid, samples, {}, full=full)


def _hold_out(train: ClassImages) -> tuple[ClassImages, ClassImages]:
    return train.split(math.ceil(HELD / len(train.classes)) * len(train.classes) / len(train), Draw(0))


def _published(tables: Path, real: Any) -> dict[str, dict[str, float]]:
    """What others' code and trainings say of each cell: zero-cost scores, validation accuracy after 12 epochs."""
    found: dict[str, dict[str, float]] = {name: {} for name in PUBLISHED}
    for file in (PROXIES, EPOCHS):
        for row in _rows(tables / file):
            name = key(canonical(real, from_table(row["net_str"])))
            for ranker in PUBLISHED:
                column = "cifar10_val" if ranker == "published-12-epochs" else ranker.removeprefix("published-")
                if column in row:
                    found[ranker][name] = float(row[column])
    return found


def _rows(path: Path) -> Sequence[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): --tables names the folder that holds it") from error
