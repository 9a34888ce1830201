"""Found sets: the sets that a caller gives, as objects or paths, grouped if they differ only in the seed."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

from condensekit.errors import ConfigError, DataError, quoted, require
from condensekit.runs.files import fitting
from condensekit.runs.folder import RunDir
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.paths import FOREIGN, READ, own, with_ending
from condensekit.sets.public import read_sets

log = logging.getLogger(__name__)
SET = "set.safetensors"
OTHERS = {"search.json": "search", "replay.json": "replay"}  # results of runs that hold no set
CHOSEN = ("name", "selection", "options", "ipc", "room", "seed")  # entries of the provenance of a selection
APART = ("seed", "data_root", "source")  # entries of a configuration that may differ within a group


@runtime_checkable
class HasSet(Protocol):
    """A result that holds a set."""

    @property
    def set(self) -> CondensedSet:
        """The set."""


@dataclass(frozen=True, eq=False)
class Made:
    """One set and how it was made.

    Args:
        set: The set.
        config: The ``config.json`` of its run, or the same entries of its provenance.
        folder: The run folder; None for a set in memory.
    """

    set: CondensedSet
    config: Mapping[str, Any]
    folder: Path | None = None

    @property
    def seed(self) -> int:
        """The seed of the run; 0 if it is not recorded."""
        return int(self.config.get("seed", 0))


@dataclass(frozen=True, eq=False)
class Group:
    """Sets that differ only in the seed: one row of a table.

    Args:
        name: Name of the row.
        runs: The sets in the order of their seeds.
    """

    name: str
    runs: tuple[Made, ...]

    @property
    def sets(self) -> tuple[CondensedSet, ...]:
        """The sets."""
        return tuple(made.set for made in self.runs)

    @property
    def seeds(self) -> list[int]:
        """Their seeds."""
        return [made.seed for made in self.runs]

    @property
    def room(self) -> int | None:
        """The bytes of each class for which the sets were made, if the configuration has them."""
        return self.runs[0].config.get("room")

    @property
    def ipc(self) -> int:
        """The ``ipc`` of the configuration; coded sets may hold more images per class."""
        return int(self.runs[0].config.get("ipc") or self.runs[0].set.ipc)


class _Config(TypedDict, total=False):
    """What is read of the ``config.json`` of a run of condense or select."""

    seed: int
    ipc: int | None
    room: int | None


def find(path: Path) -> list[Path]:
    """The set file of a run folder, or the set files of its ``seed-*`` folders in the order of the seeds."""
    if (path / SET).is_file():
        return [path / SET]
    found = [folder / SET for folder in path.glob("seed-*") if (folder / SET).is_file()]
    if found:
        return sorted(found, key=lambda file: (len(file.parent.name), file.parent.name))
    if not path.exists():
        raise ConfigError(f"no run folder {path}: give one made by condense, select or demo")
    for name, kind in OTHERS.items():
        if (path / name).exists():
            raise ConfigError(
                f"{path} is a run of {kind}, which has no set of its own: condensekit report {path} shows it"
            )
    if own(path).is_file():
        raise ConfigError(
            f"{path} is a file, not a run: give a folder made by condense, select or demo, or load() it as data"
        )
    raise ConfigError(f"no finished set in {path}: finish its run with resume=True, or give another run")


def find_one(path: Path, seed: int | None) -> Path:
    """The set file of ``path``, or itself; if there are several, the file of ``seed``, or the first file.

    Raises:
        ConfigError: No set, or none of this seed.
    """
    if seed is None and path.suffix == ".safetensors" and path.is_file():
        return path
    found = find(path)
    if seed is None:
        return found[0]
    if found == [path / SET]:
        there = RunDir.read(path).config.get("seed")
        require(there == seed, f"the one set in {path} has seed {there}, got {seed}: leave out the seed")
        return found[0]
    if path / f"seed-{seed}" / SET not in found:
        raise ConfigError(f"no set of seed {seed} in {path}; there are {', '.join(f.parent.name for f in found)}")
    return path / f"seed-{seed}" / SET


def first_set(path: Path) -> CondensedSet:
    """The set from which a run starts: that of a run folder, of a set's file, or of a file of another code.

    Of several sets, it is the first, which is logged as a warning.

    Raises:
        ConfigError: There is no set.
        DataError: A file of another code that does not tell enough, see :func:`condensekit.sets.public.read_sets`.
        StoreError: A damaged file.
    """
    if path.suffix.lower() not in FOREIGN:
        if len(several := [path] if path.is_file() else find(path)) > 1:
            log.warning("%s holds %d sets: the first is taken", path, len(several))
        return CondensedSet.load(find_one(path, None))
    try:
        sets = read_sets(path)
    except DataError as error:
        if "values=" in str(error) or "factor=" in str(error):
            raise DataError(f"{path} does not tell enough to start from it: {READ}") from error
        raise
    if len(sets) > 1:
        log.warning("%s holds %d sets: the first is taken", path, len(sets))
    return sets[0]


def read(file: Path) -> Made:
    """The run that a set file belongs to."""
    config = RunDir.read(file.parent).config
    return Made(CondensedSet.load(file), fitting(file.with_name("config.json"), config, _Config), file.parent)


def groups(given: Any) -> list[Group]:
    """Group the given sets; sets that differ only in the seed form a group.

    Args:
        given: A :class:`CondensedSet`, a result with a set, the path of a run folder or of a set's file, a list of
            these, or a dictionary from names to these.

    Raises:
        ConfigError: No set, or another object; a run given twice, which would count as two independent sets.
        DataError: A missing file.
    """
    if isinstance(given, Mapping):
        named = [Group(str(name), tuple(_made(item))) for name, item in given.items()]
        if not named:
            raise ConfigError("no sets: pass at least one")
        return named
    parts: dict[str, dict[int, Made]] = {}
    for place, made in enumerate(_made(given)):
        same = {key: value for key, value in made.config.items() if key not in APART}
        kind = json.dumps(same, sort_keys=True) if same else f"unknown {place}"
        members = parts.setdefault(kind, {})
        if made.seed in members:
            twin = members[made.seed].folder or "another one"
            raise ConfigError(
                f"{made.folder or 'a set'} and {twin} are the same run (options and seed): give one of them"
            )
        members[made.seed] = made
    if not parts:
        raise ConfigError("no sets: pass at least one")
    return _named([tuple(members[seed] for seed in sorted(members)) for members in parts.values()])


def _made(given: Any) -> Iterator[Made]:
    """Each set with its configuration."""
    if isinstance(given, CondensedSet):
        yield Made(given, _config(given))
    elif isinstance(given, HasSet):
        yield Made(given.set, _config(given.set))
    elif isinstance(given, str | Path):
        path = own(Path(given))
        if not path.is_dir() and (path.suffix == ".safetensors" or path.exists() or with_ending(path).exists()):
            loaded = CondensedSet.load(path)
            yield Made(loaded, _config(loaded), path.parent)
        else:
            yield from map(read, find(path))
    elif isinstance(given, list | tuple):
        for item in given:
            yield from _made(item)
    else:
        raise ConfigError(
            f"sets must be a CondensedSet, a result, the path of a run, or a list of these, got {quoted(given)}: pass "
            "what condense() or select() returned"
        )


def _config(made: CondensedSet) -> dict[str, Any]:
    """The configuration in the provenance of a set, with the fingerprint of its data."""
    told = made.provenance
    chosen = {k: told[k] for k in CHOSEN if k in told}
    config = {**(told.get("config") or chosen), **{k: told[k] for k in ("storage",) if k in told}}
    return {**config, "data_fingerprint": told.get("data"), "formation": repr(made.formation)} if config else {}


def _named(found: Sequence[tuple[Made, ...]]) -> list[Group]:
    """Name each group; if two groups of the same ipc have the same name, the folder or a number is added."""
    plain = [Group(str(runs[0].config.get("name") or runs[0].set.name), runs) for runs in found]
    count = Counter((g.name, g.ipc) for g in plain)
    told = {id(g): str(g.runs[0].folder or place) for place, g in enumerate(plain, 1)}
    return [g if count[g.name, g.ipc] == 1 else Group(f"{g.name} ({told[id(g)]})", g.runs) for g in plain]
