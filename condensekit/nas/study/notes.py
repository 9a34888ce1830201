"""Notes on a contest: what was left out or failed, and the way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nni.nas.nn.pytorch import ModelSpace

from condensekit.nas.rankers.base import Combination, Ranker
from condensekit.nas.spaces.equivalence import counted
from condensekit.nas.study.ranking import MIN_CANDIDATES
from condensekit.nas.trials.log import Trial

MAX_REASONS = 3  # largest number of reasons of failures in a text


@dataclass(frozen=True)
class Late:
    """A ranker that scored no candidate because the time was over.

    Args:
        ranker: Its name.
        why: What it did when the time was over.
        needed_s: Seconds that its condensation needs, as far as that is known.
    """

    ranker: str
    why: str
    needed_s: float | None = None

    def note(self, condenses: bool) -> str:
        """What happened, and the way out; a search that ``condenses`` has more of them."""
        less = ", or begin a search with fewer steps, a smaller ipc or a narrower encoder_network" if condenses else ""
        return f"{self.ranker} scored no candidate: {self.why}; resume with a larger budget{less}"


def merged(space: ModelSpace) -> list[str]:
    """A note on architectures that are the same network."""
    combinations, different = counted(space)
    said = f"{combinations} combinations of choices are {different} different networks, and each network counts once"
    return [said] if different < combinations else []


def too_few(there: int, asked: int) -> str | None:
    """The problem of too few architectures for a comparison with a truth; None if there are enough."""
    if there >= MIN_CANDIDATES:
        return None
    way = f"ask for {MIN_CANDIDATES} or more" if asked < MIN_CANDIDATES else "take a larger space"
    return f"a truth compares at least {MIN_CANDIDATES} architectures, got {there}: {way}, or leave out the truth"


def shortfall(
    one: Ranker | Combination, found: Mapping[str, Sequence[Trial]], scored: int, wanted: int, told: int, fitted: int
) -> str:
    """A note on why a combination did not score all architectures, and the way out.

    Args:
        one: The combination.
        found: Trials of each ranker, by name.
        scored: Number of architectures that it scored.
        wanted: Number of architectures to score.
        told: Number of architectures to which it could be fitted.
        fitted: Number of architectures to which it should be fitted.
    """
    short = [part.name for part in one.parts if len(found[part.name]) < wanted]
    if short:
        why, out = f"{' and '.join(short)} did not score all of them", "combine other rankers"
    else:
        why = f"only {told} of the {fitted} architectures to which it is fitted have a truth and all scores"
        out = "give a truth that has them"
    return (
        f"{one.name}: only {scored} of {wanted} architectures were scored, because {why}: resume with a larger "
        f"budget, or {out}"
    )


def left_out(
    found: Mapping[str, Sequence[Trial]], unmade: Mapping[str, str], late: Mapping[str, str], wanted: int
) -> list[str]:
    """Notes on the rankers that did not score all candidates; ``late`` has those of rankers without time."""
    notes = []
    for name, ours in found.items():
        if name in unmade:
            notes.append(f"{name} failed: {unmade[name]}")
            continue
        if name in late:
            notes.append(late[name])
            continue
        if failed := [t.reason for t in ours if t.score is None]:
            notes.append(f"{name}: {len(failed)} of {len(ours)} trials failed and rank last: {tallied(failed)}")
        notes += [f"{name}: only {len(ours)} of {wanted} architectures were scored"] * (len(ours) < wanted)
    return notes


def tallied(reasons: Sequence[str]) -> str:
    """The most frequent reasons of failures, with their numbers; the log of trials has all reasons."""
    found = Counter(reasons).most_common()
    if len(found) == 1:
        return found[0][0]
    more = f"; {len(found) - MAX_REASONS} more" if len(found) > MAX_REASONS else ""
    return "; ".join(f"{reason} ({n})" for reason, n in found[:MAX_REASONS]) + more
