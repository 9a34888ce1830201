"""What a set is worth: accuracy of networks trained on it from scratch, compared with a baseline, pair by pair."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from condensekit.compute import Compute, make_plan
from condensekit.data.images import ClassImages
from condensekit.errors import DataError, refuse, whole
from condensekit.networks.base import Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress, Shared, Stage
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.folder import environment
from condensekit.sets.condensed import CondensedSet
from condensekit.training.train import DC, IDC, SHORT, TrainProtocol, accuracy, class_indices, train_network

__all__ = ["DC", "IDC", "SHORT", "Candidate", "Evaluation", "TrainProtocol", "evaluate", "paired_interval"]

ENOUGH_SETS = 3  # from here on an interval is over sets, which are independent; networks on one set are not

Accuracies = Sequence[Sequence[float]]


@dataclass(frozen=True, eq=False)
class Candidate:
    """Something to train on: one row for each architecture.

    Args:
        name: What the row is called.
        sets: Sets made alike with different seeds; set i of a candidate is compared with set i of the
            baseline. A whole data set (:class:`ClassImages`) is trained for the protocol's ``full_epochs``.
        ipc: Images per class; None takes what the first set says, and stays None for a whole data set.
    """

    name: str
    sets: tuple[CondensedSet | ClassImages, ...]
    ipc: int | None = None

    def __post_init__(self) -> None:
        refuse(None if self.sets else f"candidate {self.name!r} has no sets")


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Args:
        rows: One dictionary for each candidate and architecture; :func:`evaluate` says what is in it.
        protocol: The recipe.
        environment: Versions and hardware.
        seed: Of the first network; those of the others follow it.
    """

    rows: list[dict[str, Any]]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "rows": self.rows,
            "protocol": dict(self.protocol),
            "environment": dict(self.environment),
            "seed": self.seed,
        }

    def table(self) -> str:
        """The rows in Markdown; accuracies and differences in percent."""
        lines = [
            "| set | architecture | ipc | bytes | images | accuracy % | difference, 95 % interval | sets x networks "
            "| steps |",
            "|" + "---|" * 9,
        ]
        return "\n".join(lines + [_table_row(row) for row in self.rows])


def evaluate(
    candidates: Sequence[Candidate],
    test: ClassImages,
    *,
    networks: int = 5,
    architectures: Sequence[Network] = (ConvNet(),),
    protocol: TrainProtocol = SHORT,
    seed: int = 0,
    compute: Compute | None = None,
    baseline: str | None = "random",
    equal_steps: bool = True,
    progress: Progress = SILENT,
) -> Evaluation:
    """Train networks from scratch on each set and test the last iterate.

    A network's accuracy depends on its set, its seed, the architecture and the protocol, and not on what
    else is evaluated. On a CPU each network is trained on one worker.

    Args:
        candidates: What to train on.
        test: Real test images. Outputs stand for its classes in ascending order.
        networks: Networks trained on each set, with seeds ``seed``, ``seed + 1``, ...; the same for all sets.
        architectures: Each gives a row for every candidate.
        protocol: The recipe; a whole data set is trained for ``full_epochs``.
        seed: Of the first network.
        compute: Where to run; None makes the plan for the test images' size.
        baseline: Name of the candidate to compare the others of the same ipc with; None for none.
        equal_steps: Train on a set that decodes to more (or fewer) images than ipc x classes, as a packed one
            does, in as many steps of as many images as on ipc x classes images. Otherwise for as many epochs, which
            gives packed sets more training.
        progress: Told about each gradient step.

    Returns:
        Rows with these entries. Accuracies are fractions.
        ``set``, ``architecture``, ``ipc``: What was trained on what.
        ``nbytes``: Stored bytes of the first set (of a whole data set: its listed pixels and labels).
        ``images``: Into how many images the first set is decoded.
        ``accuracy_mean``: Over all networks.
        ``accuracy_std``: Sample standard deviation over the units; 0 for a single one.
        ``unit``, ``sets``, ``networks``, ``n``: The unit of spread and interval is the ``set`` (its networks'
        mean) where there are at least three sets, else the ``network``; n = sets x networks.
        ``difference_to_<baseline>``, ``ci95``: Mean paired difference and its t interval [lo, hi], see
        :func:`paired_interval`; None for the baseline itself and where none has the same ipc.
        ``wall_s``: Seconds for all of the row's networks, testing included.
        ``peak_mib``: Largest GPU memory of the row, or the process's largest resident memory so far.
        ``epochs``, ``steps``: Length of each training; ``epochs`` is fractional where the protocol gives steps.
        ``accuracies``: Each network's, a list for each set.

    Raises:
        ConfigError: No candidate, fewer than one network or no architecture.
        DataError: A set whose images or classes are not those of ``test``; the text names the candidate.
    """
    refuse(
        None if candidates else "nothing to evaluate: give at least one candidate",
        None if architectures else "nothing to train: give at least one architecture",
        whole("networks", networks, 1),
        whole("seed", seed),
    )
    lessons = [[_lesson(each, item, test, protocol, equal_steps) for item in each.sets] for each in candidates]
    total = sum(lesson.steps for made in lessons for lesson in made) * networks * len(architectures)
    rows = []
    opened = nullcontext(compute) if compute else Compute(make_plan(test.spec.shape[1:]))
    with opened as running, progress.stage("evaluate", total) as stage:
        bench = _Bench(test, range(seed, seed + networks), running, stage)
        for network, (candidate, made) in product(architectures, zip(candidates, lessons, strict=True)):
            rows.append({**_describe(candidate, made[0]), **bench.measure(made, network)})
    for row in rows:
        _compare(row, rows, baseline)
    return Evaluation(rows, describe(protocol), environment(), seed)


def paired_interval(ours: Accuracies, theirs: Accuracies) -> tuple[float, tuple[float, float] | None, str]:
    """Mean paired difference, its 95 % t interval, and the unit of that interval.

    Args:
        ours: A list of networks' accuracies for each set.
        theirs: The same of the baseline; paired set by set and network by network, as far as both reach.

    Returns:
        ``ours - theirs`` on average; (lo, hi), None for a single unit; ``set`` where there are at least three
        pairs of sets (their networks are averaged first), else ``network``.
    """
    pairs = [[a - b for a, b in zip(x, y, strict=False)] for x, y in zip(ours, theirs, strict=False)]
    values, unit = _units(pairs)
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None, unit
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, (mean - half, mean + half), unit


def _units(values: Accuracies) -> tuple[list[float], str]:
    """One value for each independent unit, and what the unit is."""
    if len(values) >= ENOUGH_SETS:
        return [statistics.fmean(networks) for networks in values], "set"
    return [value for networks in values for value in networks], "network"


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What one set comes to in training: its targets (see :func:`train_network`) and the recipe."""

    item: CondensedSet | ClassImages
    targets: Tensor
    protocol: TrainProtocol

    @property
    def steps(self) -> int:
        return self.protocol.steps_on(len(self.targets))

    def images(self) -> Tensor | ClassImages:
        return self.item if isinstance(self.item, ClassImages) else self.item.decode()[0]


def _lesson(
    candidate: Candidate, item: CondensedSet | ClassImages, test: ClassImages, protocol: TrainProtocol, equal: bool
) -> _Lesson:
    """The set, its labels turned into places in the test images' classes; raises DataError where it does not fit."""
    targets = targets_for(candidate.name, item, test)
    if isinstance(item, ClassImages):
        return _Lesson(item, targets, protocol.for_full())
    nominal = (candidate.ipc or item.ipc) * len(item.classes)
    if equal and protocol.steps is None and len(targets) != nominal:
        protocol = protocol.as_on(nominal)
    return _Lesson(item, targets, protocol)


def targets_for(name: str, item: CondensedSet | ClassImages, test: ClassImages) -> Tensor:
    """Targets for :func:`~condensekit.training.train.train_network`: one output for each class of ``test``.

    Args:
        name: What errors call the set.
        item: What is trained on.
        test: Real images.

    Raises:
        DataError: Images or classes that are not those of ``test``.
    """
    ours, theirs = item.spec, test.spec
    if (ours.shape, ours.mean, ours.std) != (theirs.shape, theirs.mean, theirs.std):
        raise DataError(
            f"{name!r} and the test images differ in shape or normalisation: {ours.shape}, mean {ours.mean}, "
            f"std {ours.std} against {theirs.shape}, mean {theirs.mean}, std {theirs.std}"
        )
    soft = None if isinstance(item, ClassImages) else item.soft_labels
    used = item.classes
    if soft is not None:  # a set of some classes has labels for all of its spec, and test images of its own may do
        mass = soft.sum(0) > 0
        used, soft = tuple(c for c, some in zip(ours.classes, mass.tolist(), strict=True) if some), soft[:, mass]
    missing = sorted(set(used) - set(test.classes))
    if missing:
        raise DataError(f"{name!r} has class {ours.name_of(missing[0])}, of which there are no test images")
    if isinstance(item, ClassImages):
        return class_indices(item.labels[item.order], test.classes)
    if soft is None:
        return class_indices(item.targets(), test.classes)
    targets = torch.zeros(len(soft), len(test.classes))
    targets[:, class_indices(torch.tensor(used), test.classes)] = soft
    return targets


class _Bench:
    """Trains and tests networks on the workers; all of them advance one stage, and all stop when one fails."""

    def __init__(self, test: ClassImages, seeds: range, compute: Compute, stage: Stage) -> None:
        self.test, self.seeds, self.compute = test, seeds, compute
        self.stage = Shared(stage)

    def measure(self, lessons: Sequence[_Lesson], network: Network) -> dict[str, Any]:
        """The measured part of a row."""
        on_gpu = self.compute.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.compute.device)
        start = time.perf_counter()
        tasks = product([(lesson, lesson.images()) for lesson in lessons], self.seeds)
        with self.stage.ending_all():
            flat = self.compute.map(lambda task: self._one(*task[0], task[1], network), tasks)
        accuracies = [flat[i : i + len(self.seeds)] for i in range(0, len(flat), len(self.seeds))]
        values, unit = _units(accuracies)
        peak = torch.cuda.max_memory_allocated(self.compute.device) if on_gpu else _resident_peak()
        return {
            "architecture": network.name,
            "accuracy_mean": statistics.fmean(flat),
            "accuracy_std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "n": len(flat),
            "unit": unit,
            "sets": len(lessons),
            "networks": len(self.seeds),
            "wall_s": round(time.perf_counter() - start, 3),
            "peak_mib": round(peak / 2**20, 1),
            "accuracies": accuracies,
        }

    def _one(self, lesson: _Lesson, images: Tensor | ClassImages, seed: int, network: Network) -> float:
        """One network's accuracy."""
        classes, compute, stage = self.test.classes, self.compute, self.stage
        with stage.ending_all():
            module = train_network(
                images, lesson.targets, network, lesson.protocol, Draw(seed), compute, len(classes), stage
            )
            found = accuracy(module, self.test, classes, compute)
            stage.advance(0, {"accuracy": found})
        return found


def _describe(candidate: Candidate, lesson: _Lesson) -> dict[str, Any]:
    """The part of a row that is known before training; sizes are those of the first set."""
    first, ipc = candidate.sets[0], candidate.ipc
    if isinstance(first, CondensedSet):
        nbytes, ipc = first.nbytes, ipc or first.ipc
    else:
        nbytes = len(first) * (first.images[0].numel() * first.images.element_size() + first.labels.element_size())
    images = len(lesson.targets)
    return {
        "set": candidate.name,
        "ipc": ipc,
        "nbytes": nbytes,
        "images": images,
        "epochs": round(lesson.protocol.passes_on(images), 2),
        "steps": lesson.steps,
    }


def _compare(row: dict[str, Any], rows: list[dict[str, Any]], baseline: str | None) -> None:
    """Add the paired difference to the baseline of the same architecture and ipc."""
    same = [r for r in rows if (r["set"], r["architecture"], r["ipc"]) == (baseline, row["architecture"], row["ipc"])]
    difference, interval = None, None
    if same and row["set"] != baseline:
        difference, interval, _ = paired_interval(row["accuracies"], same[0]["accuracies"])
    row[f"difference_to_{baseline or 'random'}"] = difference
    row["ci95"] = None if interval is None else list(interval)


def _table_row(row: Mapping[str, Any]) -> str:
    (difference,) = (value for key, value in row.items() if key.startswith("difference_to_"))
    shown = "" if difference is None else f"{100 * difference:+.1f}"
    if row["ci95"] is not None:
        shown += " [{:+.1f}, {:+.1f}]".format(*(100 * bound for bound in row["ci95"]))
    figures = (
        row["set"],
        row["architecture"],
        "all" if row["ipc"] is None else row["ipc"],
        f"{row['nbytes']:,}",
        f"{row['images']:,}",
        f"{100 * row['accuracy_mean']:.1f} ± {100 * row['accuracy_std']:.1f}",
        shown,
        f"{row['sets']} x {row['networks']}",
        row["steps"],
    )
    return f"| {' | '.join(map(str, figures))} |"


def _resident_peak() -> int:
    """Bytes: the process's largest resident memory so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
