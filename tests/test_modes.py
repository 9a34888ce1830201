"""Results do not depend on torch's modes and defaults: PyTorch scripts often set them for the whole program."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

import condensekit as ck
from condensekit.compute import Machine, usual_modes
from condensekit.replay import Images
from condensekit.training.train import SHORT
from tests.replay.worlds import buffer, stream

CPU = Machine("cpu", workers=2)


@contextmanager
def default(setter, value, usual):
    """A default of torch, for a while."""
    setter(value)
    try:
        yield
    finally:
        setter(usual)


MODES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "inference_mode": torch.inference_mode,
    "float64": lambda: default(torch.set_default_dtype, torch.float64, torch.float32),
    "autocast": lambda: torch.autocast("cpu"),
    "meta": lambda: default(torch.set_default_device, "meta", None),
    "with meta": lambda: torch.device("meta"),
    "deterministic": lambda: default(torch.use_deterministic_algorithms, True, False),
}


def condensed(recipe):
    """Images of the digits, loaded and condensed."""
    train, _ = ck.load("digits")
    return ck.condense(train, recipe, ipc=2, steps=2, machine=CPU).set.decode()[0]


def selected(name):
    train, _ = ck.load("digits")
    return ck.select(train, name, ipc=2, machine=CPU).decode()[0]


def accuracies():
    train, test = ck.load("digits")
    made = ck.select(train, "random", ipc=1, machine=CPU)
    protocol = replace(SHORT, epochs=2)
    return [
        row.accuracies
        for row in ck.evaluate(
            made, test, train=train, against="kmeans", networks=1, protocol=protocol, machine=CPU
        ).rows
    ]


def replayed():
    """The memory of an experience, and what it replays."""
    memory = buffer(Images(per_class=2))
    memory.post_adapt(None, EXPERIENCE)
    return memory.core.images()[0]


EXPERIENCE = stream().train_stream[0]
JOBS = {
    "dm": lambda: condensed("dm batch_real=8"),
    "m3d": lambda: condensed("m3d batch_real=8"),
    "dc": lambda: condensed("dc batch_real=8"),
    "trained": lambda: condensed("dm batch_real=8 encoder=trained encoder.count=1 encoder.steps=2"),
    "kmeans": lambda: selected("kmeans"),
    "herding": lambda: selected("herding"),
    "evaluate": accuracies,
    "replay": replayed,
}


@pytest.mark.parametrize("job", JOBS)
def test_a_result_is_the_same_in_every_mode(job):
    usual = JOBS[job]()
    for name, mode in MODES.items():
        with mode():
            found = JOBS[job]()
        if isinstance(usual, list):
            assert found == usual, name
        else:
            assert found.dtype == torch.float32, name
            assert found.device.type == "cpu", name
            assert torch.equal(found, usual), name


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_anomaly_detection_changes_nothing():
    usual = condensed("dm batch_real=8")
    with torch.autograd.set_detect_anomaly(True):
        assert torch.equal(condensed("dm batch_real=8"), usual)


@pytest.mark.parametrize("mode", MODES)
def test_modes_hold_again_afterwards(mode):
    def present():
        return (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_default_dtype(),
            torch.get_default_device(),
        )

    usual = present()
    with MODES[mode]():
        before = present()
        with usual_modes():
            assert present() == usual
        assert present() == before
