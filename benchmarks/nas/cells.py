"""Cells of ``run.py`` and ``grid.py``: rankers and samples, the training of candidates, and the file of a cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import Record, read
from condensekit import Recipe
from condensekit.errors import ConfigError, refuse, whole
from condensekit.nas.rankers.base import Combination, Ranker
from condensekit.nas.rankers.batch_norm import STATISTICS_IMAGES
from condensekit.nas.rankers.by_name import ranker
from condensekit.nas.rankers.trained import Condensed, EarlyStop, Started
from condensekit.nas.rankers.training import FLIP_CROP, ProxyProtocol
from condensekit.nas.spaces.architecture import key
from condensekit.nas.trials.log import Trial
from condensekit.runs.kept import refuse_other

CONDENSED, ITS_START = "condensed", "start"  # rankers of the set of --condense, and of its first images
PLAIN = "early-stop-plain"  # ranker early-stop with the usual steps, not at equal cost
FREE = ("params", "flops", "synflow", "nwot", "jacov", "zen")  # rankers without training
TRAINED = (CONDENSED, "random", ITS_START, "random@250", PLAIN)  # rankers with the same number of full batches
EQUAL = ("random-equal", "early-stop")  # rankers with more steps, which cost as much as CONDENSED with its preparation
PUBLISHED = tuple(f"published-{name}" for name in (*FREE, "12-epochs"))  # rankers from columns of NAS-Bench-201 tables
TRUTHS = ("truth-0", "truth-1")  # full trainings, with their seeds
OPTIONS = {"batch_real": 64}  # options of recipes that are ranker names; the recipe of CONDENSED has its own
FULL_IMAGES = 10_000  # training images of a full training of a ConvNet
FULL = ProxyProtocol(10, 0.05, 100, FLIP_CROP, nesterov=True)  # protocol of a full training
IN_NAMES = {"train_steps": "steps", "steps": "iterations"}  # option -> its name in file names
HELD = 5_000  # largest number of held-out training images on which candidates are scored


@dataclass(frozen=True)
class Training:
    """Settings of sets and of trainings of candidates, the same for all rankers of a task.

    Args:
        ipc: Images per class of a set.
        train_steps: Gradient steps of a training, each with a full batch.
        steps: Matching steps of a condensation.
        condense: Recipe of the ranker ``condensed``, see :meth:`condensekit.Recipe.parse`.
        lr: Learning rate at the start of a cosine schedule.
        batch: Images in a gradient step.
        held: Held-out images on which candidates are scored, at most :data:`HELD`.
        last: Tests in the last tenth of the steps, over which scores are averaged.
        seeds: Trainings of each candidate on its set.
        recalibrate: Real training images from which batch norm gets its statistics in a test.
        sets: Sets of each kind, with seeds 0, 1, ...; each candidate is trained on one of them, see :func:`shares`.
            Trainings on the same set are not independent, so that a set is one replicate.

    Raises:
        ConfigError: Values out of range, or a wrong recipe.
    """

    ipc: int = 50
    train_steps: int = 150
    steps: int = 300
    condense: str = "m3d batch_real=64 init=kmeans init.candidates=1000 encoder_network=ConvNet-w32 factor=2"
    lr: float = 0.05
    batch: int = 50
    held: int = HELD
    last: int = 1
    seeds: int = 1
    recalibrate: int = STATISTICS_IMAGES
    sets: int = 5

    def __post_init__(self) -> None:
        lengths = {
            name: getattr(self, name)
            for name in ("ipc", "train_steps", "steps", "held", "last", "seeds", "recalibrate", "sets")
        }
        refuse(
            *(whole(name, value, 1) for name, value in lengths.items()),
            None if self.held <= HELD else f"held must be at most {HELD:,}, got {self.held}",
        )
        self.protocol()
        Recipe.parse(self.condense)

    def protocol(self) -> ProxyProtocol:
        """Training protocol of candidates: SGD with Nesterov's momentum, crop and flip, cosine, as for truths."""
        return ProxyProtocol(1, self.lr, self.batch, FLIP_CROP, nesterov=True, steps=self.train_steps)


def named(name: str, recipe: Training) -> Ranker:
    """Make the ranker with this name.

    Raises:
        ConfigError: An unknown name, or the name of a combination of rankers.
    """
    if name in (CONDENSED, ITS_START):
        return (Condensed if name == CONDENSED else Started)(name, Recipe.parse(recipe.condense))
    if name == PLAIN:
        return EarlyStop(name)
    found = ranker(name)
    if isinstance(found, Combination):
        where = "condensekit search" if found.fitted else "SUMS of sheets.py, from the cells of its parts"
        raise ConfigError(f"no cell is made for {name!r}: it is computed by {where}")
    return found


@dataclass(frozen=True)
class Cell:
    """The scores of one ranker for one sample of architectures.

    Args:
        task: ``nb201``, ``convnet`` or ``grid``.
        sample: ``all``, or the name of another sample of the task.
        ranker: Name of the ranker; ``truth-N`` is full training with seed N.
        changes: Unusual options, as part of the file name.
    """

    task: str
    sample: str
    ranker: str
    changes: str = ""

    @property
    def stem(self) -> str:
        """Name of the cell's file, without suffix."""
        return f"{self.task}-{self.sample}-{self.ranker}{self.changes}"

    @property
    def full(self) -> bool:
        """Whether the cell measures the truth."""
        return self.ranker.startswith("truth-")


def shares(sample: Sequence[Any], sets: int) -> list[Sequence[Any]]:
    """Parts of a sample, one for each set; also of each prefix of the sample every set gets an equal part."""
    return [sample[seed::sets] for seed in range(min(sets, len(sample)))]


def changed(options: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The options whose values differ from the usual values."""
    return {name: value for name, value in options.items() if value != usual[name]}


def suffix(options: Mapping[str, Any]) -> str:
    """Options as part of a file name, with the names of version 0.1; a text becomes a short digest."""
    spelt = {IN_NAMES.get(name, name): value for name, value in options.items()}
    return "".join(f"-{name}{_letters(value) if isinstance(value, str) else value}" for name, value in spelt.items())


def _letters(recipe: str) -> str:
    return digest(recipe.replace(" encoder_network=", " network="))


def digest(value: object) -> str:
    """Digest of a value, 8 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def check(path: Path, options: Mapping[str, Any]) -> None:
    """Raise an error for a file that was made with other options.

    Raises:
        ConfigError: The options differ; the text names the differences.
    """
    found = read(path).get("options", {})
    refuse_other(f"{path} was made with other options", found, dict(options), "move it away to make it anew")


def record(
    cell: Cell,
    trials: Sequence[Trial],
    *,
    recipe: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    shared: int,
    space: Mapping[str, str],
    held: int,
    data: Mapping[str, Any],
    preparation: Mapping[str, float],
    about: Mapping[str, Mapping[str, Any]],
    wall_s: float,
    workers: int,
    command: str,
) -> Record:
    """Make the record of a cell, which is the contents of its file.

    Args:
        cell: The cell.
        trials: Trials of the cell.
        recipe: Settings of the trainings of candidates; None: the ranker trains no candidates.
        options: All settings that decide the scores; cells with different settings are not compared.
        shared: Number of candidates that share the cost of the preparation, also if fewer were scored.
        space: Descriptions of two spaces: ``trained``, whose candidates were scored, and ``real``, of the truth.
        held: Number of images on which candidates were scored.
        data: ``images``, the number of training images from which sets are made, and the ``shape`` of each.
        preparation: Mean cost of the preparation of a set.
        about: Further entries by key of the architecture: ``group``, ``params``, ``truth``, ``flops`` of a forward pass
            of the scored network, and ``set``, the seed of the set on which it was trained, or None.
        wall_s: Wall seconds of this run.
        workers: Number of trials at the same time.
        command: Command that repeats the cell, without folders of this machine.
    """
    kept = ("architecture", "score", "cost_s", "image_steps", "reason", "curve")
    lines = [
        {**{name: getattr(t, name) for name in kept}, "scores": dict(t.scores), **about[key(t.architecture)]}
        for t in trials
    ]
    return {
        "nas": asdict(cell),
        "recipe": recipe,
        "options": options,
        "shared": shared,
        "held": held,
        "data": data,
        "space": space,
        "preparation": preparation,
        "trials": lines,
        "trials_s": sum(trial.cost_s for trial in trials),
        "wall_s": wall_s,
        "workers": workers,
        "command": command,
    }
