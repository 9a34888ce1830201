"""Found sets: those of finished run folders, grouped where they differ in the seed alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from condensekit.errors import ConfigError
from condensekit.runs.folder import RunDir
from condensekit.sets.condensed import CondensedSet

SET = "set.safetensors"


@dataclass(frozen=True)
class Made:
    """One finished run.

    Args:
        folder: The run folder.
        config: What its ``config.json`` says.
        set: The set it made.
    """

    folder: Path
    config: Mapping[str, Any]
    set: CondensedSet

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["seed"])


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed: one row of a table.

    Args:
        name: The row's name.
        runs: In the order of their seeds.
    """

    name: str
    runs: tuple[Made, ...]

    @property
    def ipc(self) -> int:
        """Images per class, as asked for: coded ones may be more."""
        return int(self.runs[0].config.get("ipc") or self.runs[0].set.ipc)


def find(path: Path) -> list[Path]:
    """The set file of a run folder, or those of its ``seed-*`` folders in the order of the seeds."""
    if (path / SET).is_file():
        return [path / SET]
    found = [folder / SET for folder in path.glob("seed-*") if (folder / SET).is_file()]
    if found:
        return sorted(found, key=lambda file: (len(file.parent.name), file.parent.name))
    if not path.exists():
        raise ConfigError(f"no run folder {path}: give one made by condense, select or demo")
    raise ConfigError(f"no finished set in {path}: finish the run with resume=True, or give another folder")


def find_one(path: Path, seed: int | None) -> Path:
    """The set of ``path``; where there are several, the one of ``seed``, or the first."""
    found = find(path)
    if seed is None or found == [path / SET]:
        return found[0]
    if path / f"seed-{seed}" / SET not in found:
        raise ConfigError(f"no set of seed {seed} in {path}; there are {', '.join(f.parent.name for f in found)}")
    return path / f"seed-{seed}" / SET


def read(file: Path) -> Made:
    """The run that a set file belongs to."""
    return Made(file.parent, RunDir.read(file.parent).config, CondensedSet.load(file))


def group(paths: Sequence[Path]) -> list[Group]:
    """The runs in ``paths``, those that differ only in the seed together.

    Raises:
        ConfigError: A run given twice, which would count as two independent sets.
    """
    groups: dict[str, dict[int, Made]] = {}
    for made in (read(file) for path in paths for file in find(path)):
        same = {key: value for key, value in made.config.items() if key not in ("seed", "data_root")}
        members = groups.setdefault(json.dumps(same, sort_keys=True), {})
        if made.seed in members:
            twin = members[made.seed].folder
            raise ConfigError(f"{made.folder} and {twin} are the same run (options and seed): give one of them")
        members[made.seed] = made
    return _named([tuple(members[seed] for seed in sorted(members)) for members in groups.values()])


def _named(groups: Sequence[tuple[Made, ...]]) -> list[Group]:
    """Name each group; where two of one size share a name, the folder is added."""
    plain = [Group(str(runs[0].config.get("name") or runs[0].config["method"]["name"]), runs) for runs in groups]
    count = Counter((g.name, g.ipc) for g in plain)
    return [g if count[g.name, g.ipc] == 1 else Group(f"{g.name} ({g.runs[0].folder})", g.runs) for g in plain]
