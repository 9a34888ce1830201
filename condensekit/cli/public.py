"""Files of other codes: the options that say what such a file does not tell, and the sets in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from condensekit.cli.kinds import Choice, Whole, option, packed, unused
from condensekit.data.arrays import LAYOUTS
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.found import find_one
from condensekit.sets.paths import FOREIGN
from condensekit.sets.public import PIXELS, Normalisation, read_sets


def is_public(path: Path) -> bool:
    """Whether a path is a file of another code, by its ending."""
    return path.suffix.lower() in FOREIGN


def converted(path: Path) -> tuple[object, ...]:
    """The words of the command that writes a file of another code as a set of condensekit."""
    return ("export", path, "--safetensors", path.with_suffix(".safetensors"))


@dataclass(frozen=True)
class Public:
    """Options for files of other codes; see :func:`condensekit.sets.public.read_sets`.

    Args:
        values: ``pixels``, or mean and std of each channel; None: found out.
        factor: Packing of the images; None: found out.
        layout: ``NCHW`` or ``NHWC``, the axes of the images; None: by their shape.
    """

    values: str | Normalisation | None
    factor: int | None
    layout: str | None

    def check(self, *paths: Path) -> None:
        """Raise ConfigError for options that do nothing, because none of the paths is a file of another code."""
        why = None if any(map(is_public, paths)) else f"it is for files of other codes ({', '.join(FOREIGN)})"
        unused(values=why, factor=why, layout=why)

    def sets(self, path: Path, like: ClassImages | None = None) -> tuple[CondensedSet, ...]:
        """The sets of a file of another code, for the data ``like``."""
        return read_sets(path, like, values=self.values, factor=self.factor, layout=self.layout)

    def one(self, path: Path, seed: int | None) -> tuple[Path, CondensedSet]:
        """The set of ``seed`` of a run or a file, or the first one, and its file.

        Raises:
            ConfigError: No set, or none of this seed.
        """
        self.check(path)
        if not is_public(path):
            file = find_one(path, seed)
            return file, CondensedSet.load(file)
        made = self.sets(path)
        if not 0 <= (seed or 0) < len(made):
            raise ConfigError(f"no set of seed {seed} in {path}: it holds {len(made)}, from seed 0 on")
        return path, made[seed or 0]


class _Values(click.ParamType):  # type: ignore[type-arg]
    """``pixels``, or mean and std of each channel: ``0.5,0.5,0.5/0.2,0.2,0.2``."""

    name = "values"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | Normalisation:
        """Read the numbers."""
        if value == PIXELS or not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        try:
            mean, std = (_numbers(part) for part in value.split("/"))
        except ValueError:
            self.fail(f"takes {PIXELS}, or MEAN/STD such as 0.5,0.5,0.5/0.2,0.2,0.2, got {value!r}.", param, ctx)
        return mean, std

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Both forms."""
        return "pixels|MEAN/STD"


def _numbers(text: str) -> Sequence[float]:
    return tuple(float(part) for part in text.split(","))


VALUES = option(
    "--values",
    type=_Values(),
    help="Of a .pt file: what its values are: pixels in [0, 1], or pixels normalised by mean and std of each channel, "
    "as 0.49,0.48,0.45/0.2,0.2,0.2.  [default: by its values, structure and name]",
)
FACTOR = option(
    "--factor",
    type=Whole(min=1),
    help="Of a .pt file: N x N smaller images are packed into each of its images.",
)
LAYOUT = option(
    "--layout",
    type=Choice(LAYOUTS),
    help="Of a .pt file: axes of its images, NCHW or NHWC.  [default: by their shape]",
)
public_options = packed(Public, "public", VALUES, FACTOR, LAYOUT)
