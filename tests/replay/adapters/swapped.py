"""Avalanche's own tests with condensed memories in place of its buffers; started by test_avalanches_own_tests.py.

    python swapped.py CHECKOUT stock|condensed REPORT TEST...      # REPORT: file of the outcomes, as JSON
    python swapped.py CHECKOUT stock|condensed SCRIPT [OPTION...]  # SCRIPT: a script of the checkout, ending in .py

Avalanche itself and the package ``tests`` come from the checkout. The samples of the tests' benchmarks, 6 numbers
or more each, become pictures of one row, for stock buffers as well: a condensed memory holds pictures.
"""

import json
import runpy
import sys
from pathlib import Path

BUFFERS = ("ClassBalancedBuffer", "ExperienceBalancedBuffer", "ParametricBuffer", "ReservoirSamplingBuffer")


def condensed(max_size, adaptive_size=True, total_num_classes=None, **kwargs):
    """The memory in place of each buffer; it keeps classes apart, whatever the buffer keeps apart."""
    from condensekit.replay import CondensedBuffer, Images

    return CondensedBuffer(Images(max_size), "random", classes=total_num_classes)


def swap():
    """Put the memory in the place of the buffers, in every module of Avalanche that has named them."""
    from avalanche.training import storage_policy

    buffers = {id(getattr(storage_policy, name)) for name in BUFFERS}
    for name, module in list(sys.modules.items()):
        if name.startswith("avalanche."):
            for attribute, value in list(vars(module).items()):
                if id(value) in buffers:
                    setattr(module, attribute, condensed)


def with_pictures():
    """Let the benchmarks of the tests have pictures (1, 1, N)."""
    import sklearn.datasets

    make = sklearn.datasets.make_classification

    def pictures(**kwargs):
        features, labels = make(**kwargs)
        return features[:, None, None], labels

    sklearn.datasets.make_classification = pictures


class Outcomes:
    """Plugin of pytest that notes, for each test, why it failed; None: it passed."""

    def __init__(self):
        self.found = {}

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.rpartition("/")[2]
        if report.failed:
            self.found[name] = report.longrepr.reprcrash.message
        elif report.when == "call":
            self.found.setdefault(name, None)


def main(checkout, policy, target, *arguments):
    sys.path[:0] = [checkout, str(Path(__file__).resolve().parents[3])]
    if policy == "condensed":
        swap()
    with_pictures()
    if target.endswith(".py"):
        sys.argv[:] = [target, *arguments]
        runpy.run_path(str(Path(checkout) / target), run_name="__main__")
        return
    import pytest

    outcomes = Outcomes()
    options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "-W", "ignore", "--rootdir", checkout]
    pytest.main([*options, *(str(Path(checkout) / test) for test in arguments)], plugins=[outcomes])
    Path(target).write_text(json.dumps(outcomes.found))


if __name__ == "__main__":
    main(*sys.argv[1:])
