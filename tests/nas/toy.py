"""A tiny space and evaluators that misbehave on request, importable by worker processes."""

import contextlib
import logging
import os
import signal
import struct
import sys
import time
from typing import Any

import nni
import numpy as np
import torch
from nni.mutable import ExpressionConstraint, ensure_frozen
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear
from nni.runtime.trial_command_channel import get_default_trial_command_channel
from torch import nn


class Toy(ModelSpace):
    """12 networks for (1, 8, 8) images."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        width = ensure_frozen(self.add_mutable(nni.choice("width", [1, 2, 3, 4])))
        self.width = width
        self.first = nn.Linear(64, width)
        self.act = LayerChoice({"relu": nn.ReLU(), "tanh": nn.Tanh(), "none": nn.Identity()}, label="act")
        self.last = nn.Linear(width, classes)

    def forward(self, x):
        return self.last(self.act(self.first(x.flatten(1))))


class Constrained(ModelSpace):
    """Networks for (1, 8, 8) images: 10 of 16, because of a constraint. It logs as NNI's NasBench101 does."""

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("nni.toy").info("building")
        width, deep = nni.choice("width", [2, 4, 8, 16]), nni.choice("deep", [4, 8, 16, 32])
        self.add_mutable(ExpressionConstraint(width * deep <= 64, label="small"))
        self.first, self.next, self.last = MutableLinear(64, width), MutableLinear(width, deep), MutableLinear(deep, 10)

    def forward(self, x):
        return self.last(torch.relu(self.next(torch.relu(self.first(x.flatten(1))))))


def score(model, seconds=0.0, calls=None):
    """Deterministic: the width, and a random part that follows from the architecture. Each call is a line of a file."""
    if calls:
        with open(calls, "a") as file:
            file.write(f"{model.width} {type(model.act).__name__}\n")
    time.sleep(seconds)
    nni.report_intermediate_result(0.5)
    nni.report_final_result(model.width + torch.rand(()).item() / 2)


REPORTED: dict[str, dict[str, Any]] = {
    "set": {"scores": {"accuracy": {0.5}}},
    "listed": {"scores": [0.1, 0.2]},
    "named": {"scores": {"accuracy": "high"}},
    "infinite": {"scores": {"accuracy": float("inf")}},
    "untimed": {"seconds": None},
    "uncounted": {"image_steps": float("nan")},
    "negative": {"seconds": -1, "image_steps": float("inf")},
    "huge": {"default": 10**400},
    "failed": {"failed": "it told so"},
    "well": {"failed": 0},
}


def tear():
    """Die in the middle of a message, as when a large metric does not fit into the pipe at once."""
    os.write(get_default_trial_command_channel().pipe.fileno(), struct.pack("!i", 1000) + b"{")
    os.kill(os.getpid(), signal.SIGKILL)


DONE = {
    "memory": lambda: torch.empty(1 << 50),
    "exit": lambda: os._exit(7),
    "leave": lambda: sys.exit("enough"),
    "torn": lambda: tear(),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "nan": lambda: nni.report_final_result(float("nan")),
    "sleep": lambda: time.sleep(60),
}
RAISED = {"raise": ValueError("no good\nat all"), "unimplemented": NotImplementedError("not yet")}


def fail(model, how="raise", width=2):
    """What candidates of one width (None: all) do wrong; the others score their width."""
    told = {"default": float(model.width), "image_steps": 10}
    if width in (None, model.width):
        if how in RAISED:
            raise RAISED[how]
        DONE.get(how, lambda: None)()
        while how == "endless":
            nni.report_intermediate_result(0.5)
        while how == "stubborn":
            with contextlib.suppress(Exception):
                time.sleep(60)
        if how == "deaf":  # to the first interruption
            with contextlib.suppress(BaseException):
                time.sleep(60)
            time.sleep(60)
        if how in ("silent", "nan"):
            return
        told |= REPORTED.get(how, {})
    nni.report_final_result(told)


def measure(model):
    """Numbers of other libraries, nested."""
    nni.report_intermediate_result({"default": torch.tensor(0.5), "step": np.int64(3)})
    scores = {"accuracy": np.float32(0.25), "margin": torch.tensor(0.75, dtype=torch.float64)}
    nni.report_final_result({"default": np.float32(model.width), "scores": scores, "image_steps": np.int64(10)})


def diverge(model):
    """Tests of a training that diverges for some steps."""
    nni.report_intermediate_result({"default": 0.1, "cross-entropy": float("nan"), "margin": -float("inf")})
    nni.report_final_result(float(model.width))


def where_home_is(model, file):
    with open(file, "w") as note:
        note.write(os.path.expanduser("~"))
    nni.report_final_result(1.0)


def scoring(**options):
    return FunctionalEvaluator(score, **options)


def measuring():
    return FunctionalEvaluator(measure)


def diverging():
    return FunctionalEvaluator(diverge)


def failing(**options):
    return FunctionalEvaluator(fail, **options)


def count(model):
    nni.report_final_result(float(sum(p.numel() for p in model.parameters())))


def valued():
    """By the number of parameters."""
    return FunctionalEvaluator(count)
