"""What the scripts that rank architectures share: a cell, the recipe of its candidates, and what its file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from condensekit.nas.training import FLIP_CROP, ProxyProtocol
from condensekit.nas.trials import Trial, key

FREE = ("params", "flops", "synflow", "nwot", "jacov", "zen")  # rankers that train nothing
TRAINED = ("dm", "random", "kmeans", "packed-random")  # on a small set, in equally many full batches
EQUAL = ("random-equal", "early-stop")  # in so many more that they cost as much as dm, its condensation included
SEVERAL = ("dm", "random", "random-equal")  # get a set of each seed; the others one, early stopping has no set at all
PUBLISHED = tuple(f"published-{name}" for name in (*FREE, "12-epochs"))  # columns of tables for NAS-Bench-201
TRUTHS = ("truth-0", "truth-1")  # full trainings with these seeds


@dataclass(frozen=True)
class Training:
    """How candidates are trained, the same for every ranker of a task.

    Args:
        ipc: Images per class of a set.
        epochs: Passes over such a set; every ranker passes as many images, in full batches.
        iterations: Matching steps of a condensation.
        batch_real: Real images of each class in such a step.
        factor: Packing of condensed images.
        lr: Learning rate at the start, cosine from there.
        batch: Images in a step.
    """

    ipc: int = 10
    epochs: int = 40
    iterations: int = 300
    batch_real: int = 64
    factor: int = 1
    lr: float = 0.05
    batch: int = 50

    def protocol(self) -> ProxyProtocol:
        """As the truths are trained: SGD with Nesterov's momentum, crop and flip, cosine."""
        return ProxyProtocol(self.epochs, self.lr, self.batch, FLIP_CROP, nesterov=True)


@dataclass(frozen=True)
class Cell:
    """Some architectures, scored by one ranker.

    Args:
        task: ``nb201``, ``convnet`` or ``grid``.
        sample: ``tune``, ``all`` or ``top``.
        ranker: Its name; ``truth-0`` and so on is a full training of seed 0.
        set_seed: Of the set that candidates are trained on; 0 for rankers without one.
        changes: Options that are not the task's, as text.
    """

    task: str
    sample: str
    ranker: str
    set_seed: int = 0
    changes: str = ""

    @property
    def stem(self) -> str:
        """The cell's file name, without suffix."""
        return f"{self.task}-{self.sample}-{self.ranker}-set{self.set_seed}{self.changes}"

    @property
    def full(self) -> bool:
        """Whether it measures the truth."""
        return self.ranker.startswith("truth-")


def changed(options: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not as usual."""
    return {name: value for name, value in options.items() if value != usual[name]}


def record(
    cell: Cell,
    trials: Sequence[Trial],
    *,
    recipe: Mapping[str, Any] | None,
    space: Mapping[str, str],
    held: int,
    preparation: Mapping[str, float],
    about: Mapping[str, Mapping[str, Any]],
    wall_s: float,
    workers: int,
    command: str,
) -> dict[str, Any]:
    """What a cell's file holds.

    Args:
        cell: Which.
        trials: Its trials.
        recipe: How its candidates were trained; None for a ranker that trains none.
        space: ``trained``: the space whose candidates were; ``real``: that of the truth.
        held: Images on which they were scored.
        preparation: What it cost before its first candidate.
        about: By key of the architecture: ``group``, ``params``, ``truth``, and ``flops`` of a forward pass of the
            network that was scored.
        wall_s: Seconds of this run.
        workers: Trials at a time.
        command: What made it, with all options that matter and without this machine's folders.
    """
    kept = ("architecture", "score", "cost_s", "image_steps", "reason")
    lines = [
        {**{name: getattr(t, name) for name in kept}, "scores": dict(t.scores), **about[key(t.architecture)]}
        for t in trials
    ]
    return {
        "nas": asdict(cell),
        "recipe": recipe,
        "held": held,
        "space": space,
        "preparation": preparation,
        "trials": lines,
        "trials_s": sum(trial.cost_s for trial in trials),
        "wall_s": wall_s,
        "workers": workers,
        "command": command,
    }
