"""Paths of set files: the check of a given path, and the ending of a file."""

from __future__ import annotations

import os
from pathlib import Path

from condensekit.errors import ConfigError, quoted


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


def with_ending(path: Path) -> Path:
    """The path with the ending ``.safetensors``, if its name has no ending."""
    return path if path.suffix or path.name in ("", "..") else path.with_name(f"{path.name}.safetensors")
