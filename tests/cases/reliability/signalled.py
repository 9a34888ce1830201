"""Condenses four sets and sends itself signals in the last step of the first; driven by test_signals.py.

    python -m tests.cases.reliability.signalled SIGNAL OUT [SIGNAL...]

It prints how many steps it took and ends with the exit code of the command.
"""

import os
import signal
import sys

from condensekit.cli import main
from condensekit.methods import DistributionMatching
from tests.cases.command import CONDENSE

STEPS = 3  # of one set


real, taken = DistributionMatching.step, 0


def step(self, *arguments, **options):
    """A step of the method; the last of the first set comes with the signals."""
    global taken
    taken += 1
    if taken == STEPS:
        for name in (sys.argv[1], *sys.argv[3:]):
            os.kill(os.getpid(), signal.Signals[name])
    return real(self, *arguments, **options)


if __name__ == "__main__":
    DistributionMatching.step = step  # type: ignore[method-assign]
    try:
        main([*CONDENSE, "--seeds", "4", "--out", sys.argv[2]])
    finally:
        print("steps:", taken)
