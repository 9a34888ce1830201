"""Cells: what ``run.py`` and ``grid.py`` score, how candidates are trained, and what a cell's file holds."""

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

CONDENSED, ITS_START = "condensed", "start"  # by the recipe of --condense; the real images that it starts from
PLAIN = "early-stop-plain"  # at the usual steps, not at equal cost
FREE = ("params", "flops", "synflow", "nwot", "jacov", "zen")  # rankers that train nothing
TRAINED = (CONDENSED, "random", ITS_START, "random@250", PLAIN)  # in equally many full batches
EQUAL = ("random-equal", "early-stop")  # in so many more that they cost as much as CONDENSED, its making included
PUBLISHED = tuple(f"published-{name}" for name in (*FREE, "12-epochs"))  # columns of tables for NAS-Bench-201
TRUTHS = ("truth-0", "truth-1")  # full trainings with these seeds
OPTIONS = {"batch_real": 64}  # of recipes that rankers are called by; that of CONDENSED has its own
FULL_IMAGES = 10_000  # of a full training in a ConvNet grid
FULL = ProxyProtocol(10, 0.05, 100, FLIP_CROP, nesterov=True)  # of it, whatever is chosen for candidates
IN_NAMES = {"train_steps": "steps", "steps": "iterations"}  # options, and what files are called after them
HELD = 5_000  # held-out training images at most, on which candidates are scored


@dataclass(frozen=True)
class Training:
    """How candidates are trained, the same for every ranker of a task.

    Args:
        ipc: Images per class of a set.
        train_steps: Gradient steps on a candidate, each with a full batch, whatever the set.
        steps: Matching steps of a condensation.
        condense: How the ranker ``condensed`` makes its set, see :meth:`condensekit.Recipe.parse`.
        lr: Learning rate at the start, cosine from there.
        batch: Images in a step.
        held: Held-out images on which candidates are scored, at most :data:`HELD`.
        last: Tests in the last tenth of the steps, over which scores are averaged.
        seeds: Trainings of each candidate on its set.
        recalibrate: Real training images whose statistics batch norm has in a test.
        sets: Sets of a kind, with seeds 0, 1, ...: each candidate is trained on one of them, see :func:`shares`. What
            is trained on one set is not independent; a set is one replicate.

    Raises:
        ConfigError: Values out of range, or a recipe that makes no sense.
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
        """As the truths are trained: SGD with Nesterov's momentum, crop and flip, cosine."""
        return ProxyProtocol(1, self.lr, self.batch, FLIP_CROP, nesterov=True, steps=self.train_steps)


def named(name: str, recipe: Training) -> Ranker:
    """The ranker called ``name``.

    Raises:
        ConfigError: An unknown name, or the name of a ranker that is made of others' scores.
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
    """Some architectures, scored by one ranker.

    Args:
        task: ``nb201``, ``convnet`` or ``grid``.
        sample: ``all``, or another list of architectures of the task.
        ranker: Its name; ``truth-0`` and so on is a full training of seed 0.
        changes: Options that are not the task's, as text.
    """

    task: str
    sample: str
    ranker: str
    changes: str = ""

    @property
    def stem(self) -> str:
        """The cell's file name, without suffix."""
        return f"{self.task}-{self.sample}-{self.ranker}{self.changes}"

    @property
    def full(self) -> bool:
        """Whether it measures the truth."""
        return self.ranker.startswith("truth-")


def shares(sample: Sequence[Any], sets: int) -> list[Sequence[Any]]:
    """Those that are trained on each of the sets: every set gets a fair part of any start of the sample."""
    return [sample[seed::sets] for seed in range(min(sets, len(sample)))]


def changed(options: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not as usual."""
    return {name: value for name, value in options.items() if value != usual[name]}


def suffix(options: Mapping[str, Any]) -> str:
    """Options as a part of a file's name, in the words of version 0.1; of a text a few letters."""
    spelt = {IN_NAMES.get(name, name): value for name, value in options.items()}
    return "".join(f"-{name}{_letters(value) if isinstance(value, str) else value}" for name, value in spelt.items())


def _letters(recipe: str) -> str:
    return digest(recipe.replace(" encoder_network=", " network="))


def digest(value: object) -> str:
    """A few letters that tell a value from others."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def check(path: Path, options: Mapping[str, Any]) -> None:
    """Refuse a file that is there already and was made with other options than those asked for.

    Raises:
        ConfigError: The text names them.
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
    preparation: Mapping[str, float],
    about: Mapping[str, Mapping[str, Any]],
    wall_s: float,
    workers: int,
    command: str,
) -> Record:
    """What a cell's file holds.

    Args:
        cell: Which.
        trials: Its trials.
        recipe: How its candidates were trained; None for a ranker that trains none.
        options: All that decides the scores but the cell: cells with others are not compared.
        shared: Candidates among which the cost of its preparation is shared, however many were scored.
        space: ``trained``: the space whose candidates were; ``real``: that of the truth.
        held: Images on which they were scored.
        preparation: What one of its sets cost before the first candidate, on average.
        about: By key of the architecture: ``group``, ``params``, ``truth``, ``flops`` of a forward pass of the network
            that was scored, and ``set``, the seed of the set it was trained on, or None.
        wall_s: Seconds of this run.
        workers: Trials at a time.
        command: What made it, with all options that matter and without this machine's folders.
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
        "space": space,
        "preparation": preparation,
        "trials": lines,
        "trials_s": sum(trial.cost_s for trial in trials),
        "wall_s": wall_s,
        "workers": workers,
        "command": command,
    }
