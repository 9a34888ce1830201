"""Paths of set files: the check of a given path, and the endings of files."""

from __future__ import annotations

import os
from pathlib import Path

from condensekit.errors import ConfigError, quoted, require

FOREIGN = (".pt", ".pth")  # endings of files that torch.save wrote: other codes keep their sets in them
READ = "read it with condensekit.read_sets, and save the set that it gives"


def a_path(path: object) -> Path:
    """The path of a set's file that a caller gave.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(path, str | os.PathLike):
        return Path(path)
    raise ConfigError(
        f"path must be a path, got {quoted(path)}: pass the path of a file, such as 'run/set.safetensors'"
    )


def own(path: Path) -> Path:
    """The path unchanged. Raises ConfigError if it is a file of another code, by its ending."""
    require(path.suffix.lower() not in FOREIGN or path.is_dir(), f"{path} is a file of another code: {READ}")
    return path


def with_ending(path: Path) -> Path:
    """The path with the ending ``.safetensors``, if its name has no ending."""
    return path if path.suffix or path.name in ("", "..") else path.with_name(f"{path.name}.safetensors")
