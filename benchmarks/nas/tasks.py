"""Tasks of ``run.py``: two spaces, with fixed samples of architectures and truths."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.nas.cells import FULL, FULL_IMAGES, HELD, OPTIONS, PUBLISHED, Training
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.errors import DataError
from condensekit.nas.rankers.base import Setting
from condensekit.nas.rankers.sets import Maker
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import canonical
from condensekit.nas.spaces.nasbench201 import computation, from_table
from condensekit.nas.spaces.spaces import enumerate_architectures, space
from condensekit.nas.study.combinations import rank_sum
from condensekit.nas.study.costs import Ledger
from condensekit.nas.study.full_training import FullTraining
from condensekit.nas.study.ranking import regret
from condensekit.nas.study.report import AMONG
from condensekit.nas.study.truth import Truth, read_table
from condensekit.rng import Draw

TRUTHS, PROXIES, EPOCHS = "nb201_valid_nets.csv", "nb201_zc_proxies.csv", "nb201_12_epochs.csv"
STEM, CELLS = 8, 1  # channels of the stem, and cells in each stage, of trained candidates; 16 and 5 in the benchmark
RANKED, TUNED, DRAWN = 100, 50, 300  # cells of NAS-Bench-201 in ``all``, in each ``tune`` sample, and in ``top-300``
STRATUM, SPARE = 4, 1  # ConvNets of each norm and pooling in ``all`` and in ``tune``


@dataclass(frozen=True, eq=False)
class Task:
    """One space with its data, samples and truth.

    Args:
        name: ``nb201`` or ``convnet``.
        train: Training images of the rankers.
        held: Held-out images on which candidates are scored.
        small: Space whose candidates are trained; it may have smaller networks than ``real``.
        real: Space of the truth and of zero-cost scores.
        samples: Architectures of each sample, fixed and in random order; ``tune`` samples share none with others.
        reference: Architectures that share the cost of a condensation, also if a run scores fewer.
        groups: Name of the group of each architecture, by key; architectures of a group compute the same.
        truth: The truth; None: ``full`` measures it.
        full: Settings of full trainings; None: ``truth`` is given.
        published: Scores from tables, by ranker and by key of the architecture.
    """

    name: str
    train: ClassImages
    held: ClassImages
    small: Any
    real: Any
    samples: dict[str, list[Architecture]]
    reference: list[Architecture]
    groups: dict[str, str]
    truth: Truth | None = None
    full: FullTraining | None = None
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @cached_property
    def sizes(self) -> Ledger:
        """Costs of the networks in ``real``."""
        return Ledger(self.real, self.train.spec.shape)

    @cached_property
    def small_sizes(self) -> Ledger:
        """Costs of the networks in ``small``."""
        return self.sizes if self.small is self.real else Ledger(self.small, self.train.spec.shape)

    def setting(self, recipe: Training, set_seed: int, folder: Path) -> Setting:
        """Setting that its rankers share; sets with seed ``set_seed`` are stored in ``folder``."""
        kept = folder / f"{self.name}-set{set_seed}-{recipe.steps}"
        maker = Maker(self.train, recipe.steps, OPTIONS, set_seed, kept)
        held = self.held
        if recipe.held < len(held):
            _, held = held.split(recipe.held / len(held), Draw(0))
        return Setting(
            maker,
            held,
            recipe.protocol(),
            recipe.ipc,
            seeds=recipe.seeds,
            seed=set_seed * recipe.seeds,  # trainings on different sets have different seeds
            last=recipe.last,
            checks=0,
            recalibrate=recipe.recalibrate,
        )


def nb201(root: Path | None, trust: bool, tables: Path, stem: int = STEM, cells: int = CELLS) -> Task:
    """NAS-Bench-201 on CIFAR-10: trained candidates have a small stem and few cells; the truth is the benchmark's.

    ``tune`` and ``all`` are samples of all cells. ``top-100``, ``top-200``, ``top-300`` (each is the beginning of the
    next) and ``tune-top`` are samples of the cells with at least the median truth. No sample has a computation twice,
    and ``tune`` samples share no computation with other samples.
    """
    train, _ = datasets.load("cifar10", root=root, trust_local_copy=trust)
    rest, held = _hold_out(train)
    real = space("nasbench201", train.spec.shape, 10)
    truth = read_table(tables / TRUTHS, real)
    groups = {name: computation(json.loads(name)) for name in truth.values}
    names = one_of_each(groups)
    order = [names[i] for i in Draw(0).permutation("cells", len(names)).tolist()]
    middle = sorted(values[0] for values in truth.values.values())[len(truth.values) // 2]
    better = [name for name in order[TUNED:] if truth.values[name][0] >= middle]
    best = [better[i] for i in Draw(0).permutation("top", len(better)).tolist()]
    samples = {"tune": order[:TUNED], "all": order[TUNED : TUNED + RANKED]}
    samples |= {f"top-{count}": best[:count] for count in range(RANKED, DRAWN + 1, RANKED)}
    samples["tune-top"] = [name for name in best[DRAWN:] if name not in samples["all"]][:TUNED]
    lists = {name: [json.loads(text) for text in texts] for name, texts in samples.items()}
    return Task(
        "nb201",
        rest,
        held,
        space("nasbench201", train.spec.shape, 10, stem=stem, cells=cells),
        real,
        lists,
        lists[f"top-{DRAWN}"],
        groups,
        truth,
        published=_published(tables, real),
    )


def one_of_each(groups: Mapping[str, str]) -> list[str]:
    """The first cell of each group."""
    return list({group: name for name, group in reversed(list(groups.items()))}.values())


def population(task: Task) -> dict[str, Any]:
    """Mean regret of published scores among 100 random cells, over all draws of distinct computations."""
    assert task.truth is not None
    names = one_of_each(task.groups)
    truth = [task.truth.values[name][0] for name in names]
    scores: dict[str, list[float]] = {r: [found[name] for name in names] for r, found in task.published.items()}
    scores["published-synflow+published-jacov"] = rank_sum(
        scores["published-synflow"], scores["published-jacov"]
    ).tolist()
    scores["at random"] = [0.0] * len(names)
    return {"cells": len(names), "regret": {name: regret(values, truth, AMONG) for name, values in scores.items()}}


def convnet(root: Path | None, trust: bool) -> Task:
    """ConvNet grid on Fashion-MNIST: samples stratified by norm and pooling, and a truth from full training."""
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
    for name, sample in samples.items():  # random order instead of strata, so that each part is a fair sample
        samples[name] = [sample[i] for i in Draw(0).permutation(f"order/{name}", len(sample)).tolist()]
    full = FullTraining(part, test, FULL, seeds=2)
    return Task("convnet", part, held, grid, grid, samples, samples["all"], {}, full=full)


def _hold_out(train: ClassImages) -> tuple[ClassImages, ClassImages]:
    return train.split(HELD / len(train), Draw(0))


def _published(tables: Path, real: Any) -> dict[str, dict[str, float]]:
    """Scores of each cell from tables: zero-cost scores, and validation accuracy after 12 epochs."""
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
        raise DataError(f"cannot read {path} ({error.strerror}): --tables must be the folder of this file") from error
