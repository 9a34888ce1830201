"""Candidates of a contest: their costs and faults, found by the engine of the contest, once for each candidate."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import ConfigError
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.rankers import zero_cost
from condensekit.nas.rankers.base import Setting
from condensekit.nas.rankers.inspection import Inspection, cost_of
from condensekit.nas.spaces.architecture import Architecture
from condensekit.nas.study.checks import check
from condensekit.nas.study.notes import tallied
from condensekit.nas.trials.log import TrialLog
from condensekit.nas.trials.settings import Running
from condensekit.nas.trials.time_budget import TimeBudget
from condensekit.networks.cost import Cost
from condensekit.rng import Draw

log = logging.getLogger(__name__)

IMAGES = 16  # number of images that an inspected candidate sees
INSPECTION = "inspection"  # name in the log, where rankers have theirs
FILE = "candidates.jsonl"  # the log, in the folder of a contest
CONSTANT = "its outputs are the same for all images"


class Candidates:
    """Costs and faults of candidates. No candidate is built in this process, unless the engine is ``sequential``.

    Args:
        space: Space of the candidates.
        setting: Data and device on which they are trained.
        running: How trials are run.
        server: Fork server of the contest; None: the engine is ``sequential``.
        budget: Running time budget of the contest.
    """

    def __init__(
        self, space: ModelSpace, setting: Setting, running: Running, server: WarmServer | None, budget: TimeBudget
    ) -> None:
        train, held = setting.maker.train, setting.held
        images = zero_cost.batch(train, Draw(setting.seed))[:IMAGES]
        classes = len({*train.classes, *held.classes})
        self.space, self.running, self.server, self.budget = space, running, server, budget
        self.evaluator = Inspection(images, classes, setting.maker.machine, setting.seed)
        self.log = TrialLog(running.folder / FILE if running.folder else None)

    def inspect(self, some: Iterable[Architecture], *, late: bool = False) -> None:
        """Inspect candidates that are not known yet; after the end of the budget only if ``late``."""
        new = [a for a in some if self.log.get(INSPECTION, a) is None]
        if new and (late or not self.budget.spent()):
            check(
                INSPECTION,
                self.space,
                self.evaluator,
                new,
                self.running,
                self.server,
                log=self.log,
                budget=None if late else self.budget,
            )

    def refuse(self, some: Sequence[Architecture]) -> None:
        """Raise an error if no candidate can be trained; log a warning if some cannot.

        Raises:
            ConfigError: All candidates in ``some`` were inspected, and none can be trained; the text says why.
        """
        trials = [self.log.get(INSPECTION, a) for a in some]
        faults = [t.reason or CONSTANT for t in trials if t is not None and not t.score]
        if not faults or len(faults) < len(some):
            if failed := [reason for reason in faults if reason != CONSTANT]:
                share = f"{len(failed)} of {len(some)} candidates"
                log.warning("%s cannot be trained and are failed trials: %s", share, tallied(failed))
            return
        if self.log.path is not None:
            self.log.path.unlink()  # a mended space is inspected again
        raise ConfigError(f"no candidate of this space can be trained: {tallied(faults)}")

    def fault(self, architecture: Architecture) -> str:
        """Why a candidate, which is inspected if it is new, cannot be trained; empty: no reason is known."""
        self.inspect([architecture])
        trial = self.log.get(INSPECTION, architecture)
        return "" if trial is None else trial.reason

    def costs(self, some: Sequence[Architecture]) -> list[Cost | None]:
        """Parameters and FLOPs of candidates, which are inspected if they are new; None: it cannot be counted."""
        self.inspect(some, late=True)
        return [cost_of(self.log.get(INSPECTION, a)) for a in some]
