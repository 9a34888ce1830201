"""Trained networks of the cache: trained once on a data set, used by all encoders and teachers that ask for them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from condensekit.compute import TOLD, Compute, Spent
from condensekit.compute.cache import cache_folder
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, StoreError, unknown
from condensekit.networks.base import FeatureNetwork, Network, separable
from condensekit.networks.cost import PASSES
from condensekit.progress import SILENT, Progress, Shared, Stage
from condensekit.ranks import present
from condensekit.rng import Draw
from condensekit.runs.code import code_of
from condensekit.runs.describe import describe
from condensekit.runs.files import failure, load_tensors, read_json, save_tensors, staged, write_json
from condensekit.runs.kept import plain
from condensekit.runs.lock import trying
from condensekit.runs.sharing import each_once
from condensekit.training.train import Standing, TrainProtocol, class_indices, train_network, untrained

log = logging.getLogger(__name__)
START, END = "initial/", "final/"  # prefixes of the tensors of a network
ABOUT, NETWORK, UNFINISHED = "about.json", "network", "unfinished network"  # a file, and the kinds of two others
SAVED_EVERY = 60.0  # seconds of a training between two files of where it stands


@dataclass(frozen=True)
class Course:
    """Which networks are trained, and how: all that decides them besides the data.

    Args:
        network: The architecture.
        protocol: How each is trained.
        seed: Seed of all random numbers. Network i is the same whatever the number of networks.
    """

    network: Network
    protocol: TrainProtocol
    seed: int = 0

    def draw(self, i: int) -> Draw:
        """The random numbers of network ``i``."""
        return Draw(Draw(self.seed).key(f"encoder/{i}"))


@dataclass(frozen=True, eq=False)
class Graduate:
    """A trained network.

    Args:
        tensors: Its state before (``initial/NAME``) and after (``final/NAME``) the training, on the CPU.
        spent: The work of its training.
        seconds: The time of its training.
    """

    tensors: Mapping[str, Tensor]
    spent: Spent
    seconds: float

    def fill(self, module: FeatureNetwork) -> FeatureNetwork:
        """Give a module of the same architecture the trained weights, in place."""
        module.load_state_dict({name: self.tensors[END + name] for name in module.state_dict()})
        return module


@dataclass(frozen=True, eq=False)
class Shelf:
    """The networks of a course on a data set, each in a file of the cache; see :meth:`of`.

    Args:
        course: The networks.
        data: The real images; the networks know their classes and no others.
        folder: The folder of the files; None: nothing is kept.
        about: What the networks are, JSON values.
    """

    course: Course
    data: ClassImages
    folder: Path | None
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, course: Course, data: ClassImages) -> Shelf:
        """The shelf in the cache, whose folder is named by all that decides its networks."""
        layers = repr(course.network.build(data.spec.shape, len(data.classes)))
        about = plain(
            {
                "data": data.fingerprint(),
                "spec": data.spec.to_json(),
                "classes": list(data.classes),
                "network": course.network.name,
                "layers": hashlib.sha256(layers.encode()).hexdigest(),
                "code": code_of(course.network),
                "protocol": describe(replace(course.protocol, name="")),
                "seed": course.seed,
            }
        )
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        told = {"images": len(data), "source": (data.source or {}).get("name")}
        return cls(course, data, folder() / f"{course.network.name}-{key}", {**about, **told})

    def has(self, i: int) -> bool:
        """Whether network ``i`` is in the cache."""
        return self.folder is not None and _file(self.folder, i).exists()

    def steps(self) -> int:
        """Gradient steps of each training."""
        return self.course.protocol.steps_on(len(self.data))

    def networks(self, count: int, compute: Compute, progress: Progress = SILENT) -> list[Graduate]:
        """The first ``count`` networks, from the cache or trained now; on a CPU, each worker trains one network.

        A stopped training goes on where it stood, at most a minute before it was stopped. Several processes share the
        trainings through the cache, and ranks share them in any case.

        Raises:
            ConfigError: A training ended with values that are not finite.
            StoreError: A file of the cache is damaged.
        """
        ranks = present()
        mine = range(count)[ranks.part(count)]
        missing = [i for i in mine if not self.has(i)]
        if not missing:
            made = [self._read(i) for i in mine]
        else:
            with (
                self._compute(len(missing), compute, progress) as own,
                progress.stage(f"train {count} encoders", len(mine) * self.steps()) as stage,
            ):
                shared = Shared(stage)
                with shared.ending_all():
                    made = each_once(mine, lambda i: self._attempt(i, own, shared), own.map)
        return [one for part in ranks.objects(made) for one in part]

    def _compute(self, missing: int, compute: Compute, progress: Progress) -> Compute:
        """What trains so many networks: compiled if that pays, whatever is decided for the run that needs them."""
        own = Compute(compute.machine, self.data.spec.shape[1:])
        own.patience.asked, own.patience.seconds = compute.patience.asked, compute.patience.seconds
        own.patience.tell = progress.tell
        module = self.course.network.build(self.data.spec.shape, len(self.data.classes))
        images = missing * self.steps() * min(self.course.protocol.batch, len(self.data))
        if own.expect(images * PASSES * module.flops if separable(module) else 0):
            progress.tell(TOLD)
        return own

    def _attempt(self, i: int, compute: Compute, stage: Shared) -> Graduate | None:
        """Network ``i``; None: another process trains it."""
        with stage.ending_all():
            if self.folder is None:
                return self._train(i, compute, stage)
            path = _file(self.folder, i)
            try:
                with nullcontext(True) if path.exists() else trying(path.with_suffix(".lock")) as held:
                    if not held:
                        return None
                    if path.exists():
                        stage.advance(self.steps())
                        return self._read(i)
                    write_json(self.folder / ABOUT, self.about)
                    return self._train(i, compute, stage, path)
            except StoreError as error:
                if path.exists():
                    raise
                log.warning("%s; the encoders are not kept", error)
            return self._train(i, compute, stage)

    def _train(self, i: int, compute: Compute, stage: Shared, path: Path | None = None) -> Graduate:
        """Train network ``i``; keep where it stands beside ``path``, and in the end the network in ``path``."""
        data, course, own = self.data, self.course, self.course.draw(i)
        desk = _Desk(path and path.with_suffix(".part"), self.key(i), stage, compute)
        start = untrained(data.spec.shape, course.network, own, compute, len(data.classes))
        before = _state(start, START)
        targets = class_indices(data.labels[data.order], data.classes)
        with desk:
            end = train_network(
                *(data, targets, course.network, course.protocol, own, compute, len(data.classes)),
                stage=desk,
                standing=desk.standing,
            )
        made = Graduate({**before, **_state(end, END)}, desk.spent, desk.seconds)
        bad = [name for name, values in made.tensors.items() if not torch.isfinite(values).all()]
        if bad:
            desk.clear()
            raise ConfigError(
                f"training the encoders with lr={course.protocol.lr} ended with values that are not finite "
                f"({bad[0]}): lower the lr of their protocol"
            )
        if path:
            told = {"key": self.key(i), "spent": asdict(made.spent), "seconds": round(made.seconds, 3)}
            save_tensors(path, made.tensors, told, NETWORK)
            desk.clear()
        return made

    def _read(self, i: int) -> Graduate:
        assert self.folder is not None
        path = _file(self.folder, i)
        tensors, manifest = load_tensors(path, NETWORK)
        if manifest.get("key") != self.key(i):
            raise failure(path, "read", "it holds the network of other data or options: remove it")
        with suppress(OSError):
            os.utime(self.folder)  # its last use
        return Graduate(tensors, Spent(**manifest["spent"]), float(manifest["seconds"]))

    def key(self, i: int) -> str:
        """What the file of network ``i`` is known by."""
        return f"{self.folder.name if self.folder else ''}/{i}"


class _Desk(Stage):
    """The stage of one training, which keeps where the training stands: now and then, and when it is stopped.

    Args:
        path: The file; None: nothing is kept.
        key: What the file is known by; another file is overwritten.
        stage: Receives the steps, those of an earlier call at once.
        compute: Counts the work.
    """

    def __init__(self, path: Path | None, key: str, stage: Stage, compute: Compute) -> None:
        self.path, self.key, self.stage, self.compute = path, key, stage, compute
        self.standing, self.earlier, self.before = Standing(), Spent(), compute.spent_here
        self.began = self.saved = time.monotonic()
        if path and path.exists():
            try:
                tensors, manifest = load_tensors(path, UNFINISHED)
                if manifest["key"] == key:
                    self.standing, self.earlier = Standing(tensors, manifest["step"]), Spent(**manifest["spent"])
                    self.began -= manifest["seconds"]
            except StoreError as error:
                log.warning("%s; this network is trained from its beginning", error)
        stage.advance(self.standing.step)

    @property
    def spent(self) -> Spent:
        """The work of the training so far."""
        return self.earlier + self.compute.spent_here - self.before

    @property
    def seconds(self) -> float:
        """Its time so far."""
        return time.monotonic() - self.began

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """See :meth:`Stage.advance`."""
        self.stage.advance(steps, values)
        if self.path and time.monotonic() - self.saved >= SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Keep where the training stands."""
        if self.path and self.standing.step:
            told = {"key": self.key, "step": self.standing.step, "seconds": self.seconds, "spent": asdict(self.spent)}
            save_tensors(self.path, self.standing.tensors(), told, UNFINISHED)
        self.saved = time.monotonic()

    def __enter__(self) -> _Desk:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            with suppress(StoreError):  # what stopped the training matters more
                self.save()

    def clear(self) -> None:
        """Remove the file."""
        if self.path:
            self.path.unlink(missing_ok=True)


def folder() -> Path:
    """The folder of all networks in the cache."""
    return cache_folder("networks")


def shelves() -> Iterator[tuple[Path, dict[str, Any], int]]:
    """Each folder of networks in the cache, what its networks are, and how many are finished."""
    for path in sorted(folder().glob(f"*/{ABOUT}")):
        yield path.parent, read_json(path, dict), len(list(path.parent.glob("network-*.safetensors")))


def remove(name: str) -> Path:
    """Remove a folder of networks from the cache.

    Args:
        name: The name of the folder, see :func:`shelves`.

    Raises:
        ConfigError: There is no such folder.
        StoreError: It cannot be removed.
    """
    known = [path.name for path, _, _ in shelves()]
    if name not in known:
        raise unknown("folder of networks", name, known)
    with staged(folder() / name, "remove"):
        shutil.rmtree(folder() / name)
    return folder() / name


def _file(shelf: Path, i: int) -> Path:
    return shelf / f"network-{i}.safetensors"


def _state(module: FeatureNetwork, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
