"""Evaluation: accuracy of networks trained from scratch on sets, and paired differences to a reference."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from condensekit import tables
from condensekit.compute import TOLD, Compute, Spent
from condensekit.compute.work import resident_peak
from condensekit.data.images import ClassImages
from condensekit.errors import refuse, require, whole
from condensekit.networks.base import Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress, Shared, Stage
from condensekit.ranks import launched
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.files import fitting, keeping, read_json, write_json
from condensekit.runs.folder import environment
from condensekit.runs.sharing import each_once
from condensekit.sets.condensed import CondensedSet
from condensekit.stats import paired_interval, units
from condensekit.training.kept import Outcome, Shelf
from condensekit.training.lessons import Lesson, flops, lesson_on, outputs
from condensekit.training.train import SHORT, TrainProtocol, accuracy, train_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Candidate:
    """Sets to train on, which give a row for each network.

    Args:
        name: Name of the row.
        sets: Sets that differ only in the seed; set i is compared with set i of the reference. On a whole data
            set (:class:`ClassImages`), networks are trained for the protocol's ``full_epochs``.
        ipc: Images per class; None: the ipc of the first set, or None for a whole data set.
    """

    name: str
    sets: tuple[CondensedSet | ClassImages, ...]
    ipc: int | None = None

    def __post_init__(self) -> None:
        require(bool(self.sets), f"candidate {self.name!r} has no sets")


@dataclass(frozen=True)
class EvaluationRow:
    """The result of the trainings of one network on one candidate. Accuracies are fractions.

    Args:
        set: Name of the candidate.
        network: Name of the network.
        ipc: Stored images per class; None for a whole data set.
        ipc_min: Stored images of the smallest class of the first set; None for a whole data set.
        nbytes: Stored bytes of the first set (of a whole data set: its listed pixels and labels).
        images: Number of images after decoding the first set.
        epochs: Epochs of each training; may be fractional if the protocol gives steps.
        steps: Gradient steps of each training.
        accuracy_mean: Mean accuracy of all trainings.
        accuracy_std: Sample standard deviation over the units; 0 for a single unit.
        n: Number of trainings, ``sets`` times ``networks``.
        unit: The unit of ``accuracy_std`` and ``ci95``: ``set`` (the mean of its networks) if there are at least three
            sets, else ``network``.
        sets: Number of sets.
        networks: Number of trainings on each set.
        wall_s: Seconds for all trainings and tests of the row.
        peak_mib: Largest GPU memory of the row, or largest resident memory of the process so far; 0 if unknown.
        work: Work of the networks in images and operations, and in passes over the data if its size is known.
        accuracies: The accuracy of each network, a list for each set.
        difference: Mean paired difference to ``reference``; None for the reference itself, and without a reference.
        ci95: The t interval [lo, hi] of the difference, see :func:`condensekit.stats.paired_interval`.
        reference: The candidate of the same ipc with which this row is compared.
    """

    set: str
    network: str
    ipc: int | None
    nbytes: int
    images: int
    epochs: float
    steps: int
    accuracy_mean: float
    accuracy_std: float
    n: int
    unit: str
    sets: int
    networks: int
    wall_s: float
    peak_mib: float
    work: Mapping[str, float]
    accuracies: list[list[float]]
    difference: float | None = None
    ci95: list[float] | None = None
    reference: str | None = None
    ipc_min: int | None = None


FILE = "evaluation.json"
SETS = "sets x networks"  # a column of the table
WIDE, FEW = 0.2, 3  # an interval of a difference above this width is wide; units that are few
NARROWER = "networks or sets narrow it: networks=5, sets of 3 seeds"
FORMER = {"architecture": "network", "difference_to_random": "difference"}  # names of version 0.1 -> today's names


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The result of :func:`evaluate`; ``print`` shows the table.

    Args:
        rows: A row for each candidate and network.
        protocol: The training protocol.
        environment: Versions and hardware.
        seed: Seed of the first network; the next networks have the next seeds.
        notes: What its reader should know, such as classes without test images: one clause for each.
        test: The test images: ``name`` of the data, or None, and number of ``images``; empty in files of version 0.1.
    """

    rows: tuple[EvaluationRow, ...]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]
    seed: int
    notes: tuple[str, ...] = ()
    test: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read the result of a run folder, or an ``evaluation.json``; files of version 0.1 are read, too.

        Raises:
            DataError: The file does not exist.
            StoreError: The file is damaged.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        found = read_json(path, dict)
        rows = found.get("rows")
        if isinstance(rows, list):
            found["rows"] = [_renamed(row) if isinstance(row, dict) else row for row in rows]
        fitting(path, found, _File)
        return cls(
            tuple(
                EvaluationRow(**{f.name: row.get(f.name) for f in dataclasses.fields(EvaluationRow)})
                for row in found["rows"]
            ),
            found["protocol"],
            found["environment"],
            found["seed"],
            tuple(found.get("notes", ())),
            found.get("test", {}),
        )

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "protocol": dict(self.protocol),
            "environment": dict(self.environment),
            "seed": self.seed,
            "notes": list(self.notes),
            "test": dict(self.test),
        }

    def table(self, width: int | None = None) -> str:
        """The rows as text, with what they say: accuracies in percent, differences in percentage points.

        Args:
            width: Longest line in characters; None: that of the terminal, or 100.
        """
        return tables.text(
            *_table(self.rows),
            caption=_caption(self),
            notes=self.notes,
            settings=("network", SETS, "train steps"),
            width=width,
        )

    def to_pandas(self) -> Any:
        """The rows as a pandas data frame. Raises ConfigError without pandas."""
        return tables.as_frame(self.rows)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        found = ", ".join(f"{row.set} {100 * row.accuracy_mean:.1f} %" for row in self.rows[:3])
        return f"Evaluation({found}{', ...' * (len(self.rows) > 3)}; print it for the table)"

    def _repr_html_(self) -> str:
        from condensekit.html import standalone
        from condensekit.training.pieces import accuracies

        return standalone(*accuracies(self.rows, self.protocol, self.notes))

    def plot(self) -> Figure:
        """The accuracy of each set with its 95 % interval, a panel for each network, as a matplotlib figure."""
        from condensekit.figures.accuracies import Accuracy, accuracies
        from condensekit.training.pieces import spread

        return accuracies([Accuracy(r.network, r.set, r.accuracy_mean, *spread(r)) for r in self.rows])


class _Entries(TypedDict):
    """What every ``evaluation.json`` holds."""

    rows: list[EvaluationRow]
    protocol: dict[str, Any]
    environment: dict[str, Any]
    seed: int


class _File(_Entries, total=False):
    """What an ``evaluation.json`` of this version holds besides."""

    notes: list[str]
    test: dict[str, Any]


def _renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in today's words; rows of version 0.1 know no work, and their reference is random."""
    found = {FORMER.get(name, name): value for name, value in row.items()}
    return {"work": {}, "reference": None if found.get("difference") is None else "random", **found}


def _table(rows: Sequence[EvaluationRow]) -> tuple[list[str], list[list[object]]]:
    """Head and cells of the table; without a reference there is no difference."""
    reference = next((row.reference for row in rows if row.reference), None)
    compared = [f"difference to {reference}"] * bool(reference)
    head = ["set", "accuracy %", *compared, "ipc", "images", "bytes", "train steps", "network", SETS]
    return head, [_cells(row, bool(compared)) for row in rows]


def _cells(row: EvaluationRow, compared: bool) -> list[object]:
    spread = f" ± {100 * row.accuracy_std:.1f}" if row.n > 1 else ""
    return [
        row.set,
        f"{100 * row.accuracy_mean:.1f}{spread}",
        *([tables.signed(row.difference, row.ci95) or "-"] * compared),
        "all" if row.ipc is None else f"at most {row.ipc}" if (row.ipc_min or row.ipc) < row.ipc else row.ipc,
        f"{row.images:,}",
        f"{row.nbytes:,}",
        f"{row.steps:,}",
        row.network,
        f"{row.sets} x {row.networks}",
    ]


def _caption(found: Evaluation) -> str:
    """What the numbers of the table are."""
    images, name = found.test.get("images"), found.test.get("name")
    tested = f"{images:,} test images" if images else "test images"
    protocol = found.protocol.get("name")
    guessing = f"Guessing: {100 / found.test['classes']:.3g}. " if found.test.get("classes") else ""
    several = {row.unit for row in found.rows if row.n > 1}
    spread = f": mean ± standard deviation over {' or '.join(f'{unit}s' for unit in sorted(several))}"
    return (
        f"Accuracy in % on the {tested}{f' of {name}' if name else ''}{spread if several else ''}. "
        f"{guessing}{f'Protocol {protocol}. ' if protocol else ''}"
        + "Differences are paired, in points, with 95 % intervals."
        * any(row.ci95 for row in found.rows)
    ).strip()


def evaluate(
    candidates: Sequence[Candidate],
    test: ClassImages,
    *,
    network: Sequence[Network] = (ConvNet(),),
    networks: int = 5,
    protocol: TrainProtocol = SHORT,
    seed: int = 0,
    compute: Compute | None = None,
    reference: str | None = "random",
    equal_steps: bool = True,
    progress: Progress = SILENT,
    out: Path | None = None,
) -> Evaluation:
    """Train networks from scratch on each set, and test them after the last step.

    The accuracy of a network depends on its set, its seed, the architecture and the protocol, and not on the
    other candidates. On a CPU, each worker trains one network. Processes that ``torchrun`` started share the networks
    by the folder ``out``, and all get the whole result; without ``out``, each trains all of them.

    Args:
        candidates: The sets to train on.
        test: Real test images. A set may have classes that they lack: networks learn them and are tested on the other
            classes, which a warning and :attr:`Evaluation.notes` say. See
            :func:`condensekit.training.lessons.outputs`.
        network: Networks to train and judge; each gives a row for every candidate.
        networks: Number of trainings on each set, with seeds ``seed``, ``seed + 1``, ...; the same for all sets.
        protocol: How networks are trained; on a whole data set for ``full_epochs``. Images that are not flippable are
            never mirrored.
        seed: Seed of the first network.
        compute: Runs networks; None: the default machine.
        reference: Name of the candidate with which the others of the same ipc are compared; None: no comparison.
        equal_steps: Whether a set that decodes to more images than ``ipc`` of each class, as a packed set does, gets
            the same number of steps, and of images in a step, as ``ipc`` images of each class (of a class that decodes
            to fewer, as many as it has). False: it gets the same number of epochs, and thus more training.
        progress: Receives each gradient step.
        out: Folder that keeps each finished network, so that a repeated call trains only those that lack, and gets the
            result as ``evaluation.json``; None: nothing is written.

    Raises:
        ConfigError: No candidate, fewer than one network or no architecture.
        StoreError: ``out`` cannot be written, or a file in it is damaged; if the result alone cannot be written, it is
            the error's ``result``.
        DataError: A set whose images are not like those of ``test``, or with no class of theirs; the text names the
            candidate.
    """
    refuse(
        None if candidates else "nothing to evaluate: give at least one candidate",
        None if network else "nothing to train: give at least one network",
        whole("networks", networks, 1),
        whole("seed", seed),
    )
    lessons = [
        [lesson_on(item, test, protocol, each.name, each.ipc, equal_steps) for item in each.sets] for each in candidates
    ]
    notes = _untested(candidates, test)
    for note in notes:
        log.warning("%s", note)
    rows = []
    seeds = range(seed, seed + networks)
    opened = nullcontext(compute) if compute else Compute(size=(test.spec.shape[1], test.spec.shape[2]))
    with opened as running:
        shelf = Shelf(out, test, running)
        every = list(product(network, (lesson for made in lessons for lesson in made), seeds))
        total = sum(lesson.steps for _, lesson, _ in every)
        kept = [shelf.has(lesson, one, number) for one, lesson, number in every]
        done = sum(lesson.steps for (_, lesson, _), found in zip(every, kept, strict=True) if found)
        progress.tell(f"{len(every)} trainings, {total - done:,} gradient steps in all")
        if running.expect(sum(flops(one, lesson, test) for one, lesson, _ in every)):
            progress.tell(TOLD)
        with progress.stage("evaluate", total, done) as stage:
            bench = _Bench(shelf, seeds, stage)
            if shelf.shared:
                bench.share([task for task, found in zip(every, kept, strict=True) if not found])
            for one, (candidate, made) in product(network, zip(candidates, lessons, strict=True)):
                rows.append(bench.measure(candidate, made, one))
    compared = tuple(_compared(row, rows, reference) for row in rows)
    result = Evaluation(
        compared,
        describe(protocol),
        environment(),
        int(seed),
        (*notes, *_wide(compared)),
        {"name": (test.source or {}).get("name"), "images": len(test), "classes": _most(candidates, test)},
    )
    if out is not None and launched().first:
        with keeping(result):
            write_json(out / FILE, result.to_json())
    return result


def _most(candidates: Sequence[Candidate], test: ClassImages) -> int:
    """The largest number of classes among which a network chooses."""
    return max(len(outputs(item, test)) for each in candidates for item in each.sets)


def _untested(candidates: Sequence[Candidate], test: ClassImages) -> tuple[str, ...]:
    """The note about classes of the sets that have no test images."""
    lacking = {k: item.spec for each in candidates for item in each.sets for k in outputs(item, test)}
    names = [spec.name_of(k) for k, spec in sorted(lacking.items()) if k not in test.classes]
    if not names:
        return ()
    told = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return (f"no test images of {len(names)} of {len(lacking)} classes ({told}): accuracy is that of the others",)


class _Bench:
    """Trains and tests networks on the workers, which share one stage; if one fails, all stop."""

    def __init__(self, shelf: Shelf, seeds: range, stage: Stage) -> None:
        self.shelf, self.compute = shelf, shelf.compute
        self.test = shelf.test.near(shelf.compute)
        self.seeds, self.stage = seeds, Shared(stage)

    def share(self, tasks: Sequence[tuple[Network, Lesson, int]]) -> None:
        """Make the trainings, together with the other ranks."""

        def one(task: tuple[Network, Lesson, int]) -> Outcome | None:
            network, lesson, seed = task
            found = self._attempt(lesson, self._images(lesson), seed, network)
            if found and found.kept:  # by another rank
                self.stage.advance(lesson.steps)
            return found

        each_once(tasks, one, self.compute.map)

    def measure(self, candidate: Candidate, lessons: Sequence[Lesson], network: Network) -> EvaluationRow:
        """Make a row without its difference to the reference."""
        on_gpu = self.compute.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.compute.device)
        start = time.perf_counter()
        tasks = product([(lesson, self._images(lesson)) for lesson in lessons], self.seeds)
        with self.stage.ending_all():
            found = each_once(tasks, lambda task: self._attempt(*task[0], task[1], network), self.compute.map)
        seconds = 0.0 if self.shelf.shared else time.perf_counter() - start
        seconds += sum(one.seconds for one in found if one.kept) / (self.compute.machine.workers or 1)
        flat = [one.accuracy for one in found]
        accuracies = [flat[i : i + len(self.seeds)] for i in range(0, len(flat), len(self.seeds))]
        values, unit = units(accuracies)
        peak = torch.cuda.max_memory_allocated(self.compute.device) if on_gpu else resident_peak()
        first, images = lessons[0], len(lessons[0].targets)
        stored = candidate.sets[0]
        return EvaluationRow(
            set=candidate.name,
            network=network.name,
            ipc=candidate.ipc or stored.ipc,
            nbytes=stored.nbytes,
            images=images,
            epochs=round(first.protocol.passes_on(images), 2),
            steps=first.steps,
            accuracy_mean=statistics.fmean(flat),
            accuracy_std=statistics.stdev(values) if len(values) > 1 else 0.0,
            n=len(flat),
            unit=unit,
            sets=len(lessons),
            networks=len(self.seeds),
            wall_s=round(seconds, 3),
            peak_mib=round(peak / 2**20, 1),
            work=_work(sum((one.work for one in found), Spent()), first, self.test),
            accuracies=accuracies,
            ipc_min=None if stored.ipc is None else min(stored.counts),
        )

    def _images(self, lesson: Lesson) -> Tensor | ClassImages:
        """What networks are trained on."""
        images = lesson.item.training_images
        return images.near(self.compute) if isinstance(images, ClassImages) else images

    def _attempt(self, lesson: Lesson, images: Tensor | ClassImages, seed: int, network: Network) -> Outcome | None:
        """Train and test one network, unless it is finished; None: another rank is at it."""
        classes, compute, stage = outputs(lesson.item, self.test), self.compute, self.stage

        def train() -> Outcome:
            start, before = time.perf_counter(), compute.spent_here
            module = train_network(
                images, lesson.targets, network, lesson.protocol, Draw(seed), compute, len(classes), stage
            )
            found = accuracy(module, self.test, classes, compute)
            stage.advance(0, {"accuracy": found})
            return Outcome(found, round(time.perf_counter() - start, 3), compute.spent_here - before)

        with stage.ending_all():
            return self.shelf.outcome(lesson, network, seed, train)


def _work(spent: Spent, lesson: Lesson, test: ClassImages) -> dict[str, float]:
    """What networks did, testing included."""
    known = lesson.item.source_images
    passes = spent.passes(known, test.spec.shape) if known else {}
    return {**asdict(spent), **passes}


def _compared(row: EvaluationRow, rows: Sequence[EvaluationRow], reference: str | None) -> EvaluationRow:
    """The row with its paired difference to the reference of the same network and ipc."""
    place = (reference, row.network, row.ipc)
    same = [other for other in rows if (other.set, other.network, other.ipc) == place]
    if not same or row.set == reference:
        return row
    difference, interval, _ = paired_interval(row.accuracies, same[0].accuracies)
    bounds = None if interval is None else list(interval)
    return dataclasses.replace(row, difference=difference, ci95=bounds, reference=reference)


def _wide(rows: Sequence[EvaluationRow]) -> list[str]:
    """A note if the interval of a difference is wide, because there are few sets or networks."""
    for row in rows:
        count, width = len(units(row.accuracies)[0]), row.ci95[1] - row.ci95[0] if row.ci95 else 0.0
        if count <= FEW and width > WIDE:
            way = "sets narrow it: sets of 5 seeds" if row.unit == "set" else NARROWER
            return [f"the interval of {row.set} is {100 * width:.0f} points wide over {count} {row.unit}s: more {way}"]
    return []
