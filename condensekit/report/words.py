"""Words of the verdicts: what images a set holds, and how sure a difference is."""

from __future__ import annotations

from collections.abc import Sequence

from condensekit.catalog.names import PACKED, SELECTIONS, STORED
from condensekit.everyday import FULL
from condensekit.html.numbers import seconds
from condensekit.sets.condensed import CondensedSet


def images_of(name: str, count: int, learnt: bool = True) -> str:
    """The images of a row of a table; if they are not ``learnt``, they are real ones whatever their name is.

    >>> images_of("dm lr=3", 10), images_of("random", 1), images_of("kmeans", 20)
    ('10 images condensed by dm lr=3', '1 random image', '20 images chosen by kmeans')
    """
    kind = name.split()[0] if name.split() else name
    plural = "" if count == 1 else "s"
    if name == FULL:
        return f"all {count:,} training images"
    if name in ("random", "random-equal-bytes"):
        return f"{count:,} random image{plural}"
    if name.startswith((PACKED, *STORED)):
        return f"{count:,} {name} image{plural}"
    if kind in SELECTIONS:
        return f"{count:,} image{plural} chosen by {name}"
    return f"{count:,} image{plural} condensed by {name}" if learnt else f"{count:,} real image{plural} ({name})"


def holds(made: CondensedSet, sets: int = 1) -> str:
    """What a set, or each of some sets, is; a clause: ``The set holds 10 images condensed by dm, made in 20 steps``."""
    told = made.provenance
    images = images_of(made.name, len(made) * made.formation.factor**2)
    plural = "" if told.get("steps") == 1 else "s"
    steps = f", made in {told['steps']:,} step{plural}" if isinstance(told.get("steps"), int) else ""
    time = f" and {seconds(told['elapsed_s'])}" if steps and isinstance(told.get("elapsed_s"), int | float) else ""
    whose = "The set" if sets == 1 else f"Each of the {sets} sets"
    return f"{whose} holds {images}{steps}{time}"


def points(difference: float) -> str:
    """A difference of fractions: ``+17.5 points``."""
    return f"{100 * difference:+.1f} points"


def sure(interval: Sequence[float] | None, unit: str | None, n: int) -> str:
    """What an interval of a difference of fractions over ``n`` units says."""
    if interval is None:
        return "from a single pair, so that there is no interval"
    low, high = (100 * end for end in interval)
    among = f" over {n} {unit}{'s' if n != 1 else ''}" if unit else ""
    doubt = "; it holds 0, so that this run shows no difference" if low <= 0 <= high else ""
    return f"95 % interval {low:+.1f} to {high:+.1f}{among}{doubt}"


def capital(text: str) -> str:
    """A text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]
