"""Run: the part of a report about one run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from condensekit.errors import ConfigError
from condensekit.html.numbers import seconds
from condensekit.nas.study import result as search_result
from condensekit.replay.study import results as replay_results
from condensekit.report import condensed, costs, evaluated, origin, replayed, searched
from condensekit.report.found import CONFIG, Found, Member
from condensekit.report.section import Section
from condensekit.report.words import capital, images_of
from condensekit.runs.folder import ENV
from condensekit.sets.found import SET

Sections = Iterable[Section | None] | Section | None


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


def of(found: Found, budget: int) -> Run:
    """The part of a report about one run.

    Args:
        found: What its folder holds.
        budget: Largest number of characters of its pictures.
    """
    lacks = list(dict.fromkeys([*found.lacks, *_unfinished(found)]))
    made: list[Section] = []

    def add(title: str, make: Callable[[], Sections]) -> None:
        """Add sections, or what kept them from being made: values that no file of ours has, but a foreign one may."""
        try:
            parts = make()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, ConfigError) as error:
            lacks.append(
                f"{title} cannot be shown: the file holds values that do not fit ({type(error).__name__}: {error})"
            )
            return
        made.extend(one for one in ([parts] if isinstance(parts, Section) else parts or ()) if one is not None)

    evaluation, replay, search = found.evaluation, found.replay, found.search
    verdict = ""
    try:
        verdict = sentence(found)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        lacks.append(
            f"the verdict cannot be told: the file holds values that do not fit ({type(error).__name__}: {error})"
        )
    add("the evaluation", lambda: evaluated.section(evaluation) if evaluation else None)
    add(
        "the replay",
        lambda: replayed.section(replay, found.matrices) if replay else replayed.matrix_section(None, found.matrices),
    )
    add("the search", lambda: searched.section(search, found.sizes) if search else None)
    add("the images", lambda: condensed.images_section(found, budget))
    add("the learning curves", lambda: condensed.curves_section(found))
    add("the cost", lambda: costs.section(found))
    add("the origin", lambda: origin.sections(found))
    return Run(str(found.path), verdict or "Nothing can be said of this run.", tuple(lacks), tuple(made))


def sentence(found: Found) -> str:
    """What a run found; of a run without a result, what it made."""
    told = (
        evaluated.verdict(found.evaluation) if found.evaluation else None,
        replayed.verdict(found.replay) if found.replay else None,
        searched.verdict(found.search) if found.search else None,
    )
    return " ".join(filter(None, told)) or _made(found) or "This folder holds no result yet."


def _made(found: Found) -> str | None:
    member = next((m for m in found.members if m.set is not None), None)
    if member is None or member.set is None:
        return None
    told = member.set.provenance
    images = images_of(member.set.name, len(member.set) * member.set.formation.factor**2)
    steps = f" in {told['steps']:,} steps" if isinstance(told.get("steps"), int) else ""
    time = f" and {seconds(told['elapsed_s'])}" if steps and isinstance(told.get("elapsed_s"), int | float) else ""
    return f"{capital(images)} were made{steps}{time}; condensekit evaluate measures how good they are."


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
