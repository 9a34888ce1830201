"""Avalanche's own tests of replay, buffers and checkpoints, with condensed memories in place of its buffers.

They are run from a checkout of Avalanche that ``AVALANCHE`` names, of the version that is installed, and are skipped
without it:

    git clone --branch v0.6.0 https://github.com/ContinualAI/avalanche CHECKOUT
    AVALANCHE=CHECKOUT python -m pytest -m slow tests/replay/adapters/test_avalanches_own_tests.py

Those of its tests are here that store or replay samples and need no download. Its other tests of strategies, plugins,
accuracies and streams have no buffer.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = os.environ.get("AVALANCHE", "")
STRATEGIES = "tests/training/test_strategies.py::StrategyTest::test_"
LOADERS = "tests/benchmarks/utils/test_dataloaders.py::DataLoaderTests::test_dataload_"
TESTS = (
    "tests/training/test_replay.py",
    *(STRATEGIES + name for name in ("replay", "mer", "gdumb", "cope", "mir", "erace", "der", "feature_replay")),
    *(LOADERS + name for name in ("reinit", "batch_balancing")),
    "tests/benchmarks/utils/test_flat_data.py::FlatteningTests::test_flattening_replay_ocl",
    "tests/training/test_dictionary_mbatches.py::TestDictionaryDatasets::test_dictionary_train_replay",
)
LEFT_OUT = {
    "test_strategies.py::StrategyTest::test_bic": "BiC passes an argument to a scheduler that torch 2.7 removed",
    "test_strategies.py::StrategyTest::test_eraml": "its extractor of features takes vectors, not pictures",
}
"""Why tests fail with Avalanche's own buffers, too."""
DIFFERENCES = {
    "test_strategies.py::StrategyTest::test_der": (
        "samples of the stream have the fields logits",
        "DER stores logits as a field of its samples, computed before; DERpp computes those of condensed images",
    ),
    "test_strategies.py::StrategyTest::test_feature_replay": (
        "expected (C, H, W)",
        "FeatureReplay stores features of a layer, not images; a condensed memory holds images",
    ),
    "test_dictionary_mbatches.py::TestDictionaryDatasets::test_dictionary_train_replay": (
        "sample 0 of the stream is a dict",
        "samples without order have no place for image, label and task; Avalanche's plugins need (x, y, t), too",
    ),
}
"""What a condensed memory answers in tests that cannot hold with it, and the reason."""
SCRIPT = "tests/checkpointing/task_incremental_with_checkpointing.py"
CHECK = "tests/checkpointing/check_metrics_aligned.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKOUT, reason="AVALANCHE names no checkout of Avalanche"),
]


def swapped(folder, *arguments):
    """Run ``swapped.py`` in ``folder``, in which the tests of Avalanche leave files."""
    script, checkout = Path(__file__).with_name("swapped.py"), Path(CHECKOUT).resolve()
    command = [sys.executable, "-P", "-B", script, checkout, *arguments]
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def outcomes(folder, policy):
    """Why each test failed; None: it passed."""
    report = folder / f"{policy}.json"
    swapped(folder, policy, report, *TESTS)
    return json.loads(report.read_text())


def test_the_tests_hold_with_avalanches_buffers(tmp_path):
    found = outcomes(tmp_path, "stock")
    assert len(found) > len(TESTS)
    assert not {name: reason for name, reason in found.items() if reason}


def test_the_tests_hold_with_condensed_memories_but_for_named_differences(tmp_path):
    failed = {name: reason for name, reason in outcomes(tmp_path, "condensed").items() if reason}
    assert failed.keys() == DIFFERENCES.keys(), failed
    assert not {name: reason for name, reason in failed.items() if DIFFERENCES[name][0] not in reason}


@pytest.mark.parametrize("plugins", ["replay", "gdumb", "cwr replay"])
@pytest.mark.parametrize("policy", ["stock", "condensed"])
def test_a_run_from_a_checkpoint_has_the_metrics_of_a_whole_run(tmp_path, policy, plugins):
    fixed = ["--cuda", "-1", "--benchmark", "TestBenchmark", "--plugins", *plugins.split()]
    swapped(tmp_path, policy, SCRIPT, *fixed, "--checkpoint_at", "-1", "--log_metrics_to", "whole")
    (tmp_path / "checkpoint.pkl").unlink()
    for _ in range(2):  # to experience 1, and on from there
        swapped(tmp_path, policy, SCRIPT, *fixed, "--checkpoint_at", "1", "--log_metrics_to", "parts")
    assert len(list((tmp_path / "parts").iterdir())) == 5
    swapped(tmp_path, policy, CHECK, "whole", "parts")
