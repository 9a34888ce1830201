"""Run: the part of a report about one run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from condensekit.errors import CondensekitError
from condensekit.nas.study import result as search_result
from condensekit.replay.study import results as replay_results
from condensekit.report import condensed, costs, evaluated, origin, replayed, searched
from condensekit.report.found import CONFIG, Found, Member
from condensekit.report.section import Section
from condensekit.report.words import holds
from condensekit.runs.folder import ENV
from condensekit.sets.found import SET

Sections = Sequence[Section] | Section | None
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """What a page says of one run.

    Args:
        name: Its folder.
        verdict: What it found, in a sentence with its figure.
        lacks: What is missing, damaged or unfinished.
        sections: Its parts.
    """

    name: str
    verdict: str
    lacks: tuple[str, ...]
    sections: tuple[Section, ...]


def of(found: Found, budget: int, judged: Container[str] = ()) -> Run:
    """The part of a report about one run.

    Args:
        found: What its folder holds.
        budget: Largest number of characters of its pictures.
        judged: Names of the sets that an evaluation in the report judges.
    """
    lacks, made = list(dict.fromkeys([*found.lacks, *_unfinished(found)])), list[Section]()
    evaluation, replay, search = found.evaluation, found.replay, found.search
    told = tried("the verdict", lambda: sentence(found, judged), lacks)
    parts: dict[str, Callable[[], Sections]] = {
        "the evaluation": lambda: evaluated.section(evaluation) if evaluation else None,
        "the replay": lambda: replayed.sections(replay, found.matrices),
        "the search": lambda: searched.sections(search, found.sizes) if search else None,
        "the images": lambda: condensed.images_section(found, budget),
        "the learning curves": lambda: condensed.curves_section(found),
        "the cost": lambda: costs.section(found),
        "the origin": lambda: origin.sections(found),
    }
    for what, make in parts.items():
        some = tried(what, make, lacks)
        made += [some] if isinstance(some, Section) else some or ()
    return Run(str(found.path), told or "Nothing can be said of this run.", tuple(lacks), tuple(made))


def tried(what: str, make: Callable[[], T], lacks: list[str]) -> T | None:
    """What ``make`` gives; None, with the reason in ``lacks``, for values that no file of ours has, but an edited one.

    Args:
        what: Name of the part in ``lacks``.
        make: Makes a part of a report.
        lacks: What lacks in the report.
    """
    try:
        return make()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, CondensekitError) as error:
        lacks.append(f"{what} cannot be shown: a file holds values that do not fit ({type(error).__name__}: {error})")
    return None


def sentence(found: Found, judged: Container[str] = ()) -> str:
    """What a run found; of a run without a result, what it made."""
    told = (
        evaluated.verdict(found.evaluation) if found.evaluation else None,
        replayed.verdict(found.replay) if found.replay else None,
        searched.verdict(found.search) if found.search else None,
    )
    return " ".join(filter(None, told)) or _made(found, judged) or "This folder holds no result yet."


def _made(found: Found, judged: Container[str]) -> str | None:
    member = next((m for m in found.members if m.set is not None), None)
    if member is None or member.set is None:
        return None
    todo = "" if member.set.name in judged else "; condensekit evaluate measures how good they are"
    return f"{holds(member.set)}{todo}."


def _unfinished(found: Found) -> Iterator[str]:
    """What a run of its kind has in the end, and this one has not; damaged files are told where they are read."""
    for member in found.members:
        yield from _of_member(member)
    kinds = {name for member in found.members for name in member.config}
    if "making" in kinds and _absent(found.path / replay_results.FILE):
        yield f"{found.path} has no {replay_results.FILE}, the replay is unfinished: resume it"
    if "rankers" in kinds and _absent(found.path / search_result.FILE):
        yield f"{found.path} has no {search_result.FILE}, the search is unfinished: resume it"


def _of_member(member: Member) -> Iterator[str]:
    config, made = member.config, member.set
    if {"method", "selection"} & set(config) and _absent(member.path / SET):
        done, steps = (int(member.metrics[-1]["step"]) if member.metrics else 0), config.get("steps")
        so_far = f" after {done:,} of {steps:,} steps" if isinstance(steps, int) else ""
        yield f"{member.path} has no {SET}, the run is unfinished{so_far}: resume it"
    if made is not None and made.provenance.get("status") in ("interrupted", "diverged"):
        yield f"{member.path}: the run was {made.provenance['status']} after {made.provenance.get('steps')} steps"
    if (made is not None or member.metrics) and _absent(member.path / CONFIG):
        yield f"{member.path} has no {CONFIG}: the options are unknown"
    if config and _absent(member.path / ENV):
        yield f"{member.path} has no {ENV}: the command and the machine are unknown"


def _absent(path: Path) -> bool:
    return not os.path.lexists(path)
