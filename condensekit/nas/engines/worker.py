"""Worker: the code that runs in processes forked by :mod:`condensekit.nas.engines.forkserver`."""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nni
import torch
from nni.nas.evaluator import Evaluator
from nni.nas.space import ExecutableModelSpace
from nni.runtime.trial_command_channel import (
    TrialCommandChannel,
    get_default_trial_command_channel,
    set_default_trial_command_channel,
)

PRELOADED = (
    "nni.nas.execution.training_service",
    "nni.nas.hub.pytorch",
    "nni.nas.nn.pytorch",
    "nni.nas.space",
    "nni.nas.strategy",
    "condensekit.nas.engines.guarded",
    "condensekit.nas.rankers.evaluator",
    "condensekit.nas.spaces.convnets",
    "condensekit.nas.spaces.nasbench201",
)  # modules that trials need
METRICS = "metrics.jsonl"  # file in the folder of a trial of NNI's training service


@dataclass
class Job:
    """Space and evaluator that all trials of a search share.

    Args:
        space: The simplified space without its evaluator, as text from ``nni.dump``.
        evaluator: Evaluator of every candidate.
    """

    space: str
    evaluator: Evaluator
    model: ExecutableModelSpace = field(init=False)

    def prepare(self) -> None:
        """Rebuild the space and load the evaluator's data, before the workers are forked."""
        self.model = nni.load(self.space)
        self.model.evaluator = self.evaluator
        if hasattr(self.evaluator, "prepare"):
            self.evaluator.prepare()


JOB: Job | None = None  # the job of this process, if it runs a trial of NNI's training service


class Inherited(Evaluator):  # type: ignore[misc]
    """Placeholder of the job's evaluator in the files that NNI's manager stores for each trial."""

    def _execute(self, model: Any) -> Any:
        assert JOB is not None
        return JOB.evaluator._execute(model)

    def _dump(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def _load(**_: Any) -> Inherited:
        return Inherited()


def preload() -> None:
    """Import the modules that every trial needs."""
    nni.silence_stdout()
    for name in PRELOADED:
        importlib.import_module(name)
    torch.set_num_threads(1)


class _Pipe(TrialCommandChannel):  # type: ignore[misc]
    """Channel that sends the metrics of one trial to the search through a pipe."""

    def __init__(self, pipe: Connection, model: ExecutableModelSpace) -> None:
        self.pipe, self.model = pipe, model

    def receive_parameter(self) -> Any:
        return {"parameter_id": 0, "parameters": self.model}

    def send_metric(self, type: str, parameter_id: Any, trial_job_id: Any, sequence: int, value: Any) -> None:
        _tell(self.pipe, {"type": type, "value": value})


class _Kept(TrialCommandChannel):  # type: ignore[misc]
    """Channel that sends the metrics of one trial to NNI's manager and writes them to a file.

    The manager drops some late metrics. The first line of the file is the number of the parameter. NNI gives parameters
    to trials in the order in which they ask; its manager assumes that this is the order in which it started them.
    """

    def __init__(self, channel: TrialCommandChannel, path: Path) -> None:
        self.channel, self.path = channel, path

    def receive_parameter(self) -> Any:
        given = self.channel.receive_parameter()
        self.path.write_text(f"{given['parameter_id']}\n")
        return given

    def send_metric(self, type: str, parameter_id: Any, trial_job_id: Any, sequence: int, value: Any) -> None:
        with self.path.open("a") as file:
            file.write(nni.dump({"type": type, "sequence": sequence, "value": value}) + "\n")
        self.channel.send_metric(type, parameter_id, trial_job_id, sequence, value)


def work(job: Job, descriptor: int) -> None:
    """Run trials in a row: read an architecture from the socket ``descriptor``, send its metrics and its end."""
    pipe = Connection(descriptor)
    while True:
        try:
            sample = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        model = job.model.freeze(sample)
        set_default_trial_command_channel(_Pipe(pipe, model))
        nni.trial.overwrite_intermediate_seq(0)
        nni.get_next_parameter()
        try:
            model.execute()
        except Exception:
            ended = False  # the guarded evaluator has reported the reason
        else:
            ended = True
        _tell(pipe, {"type": "END", "value": ended})


def _tell(pipe: Connection, message: dict[str, Any]) -> None:
    try:
        pipe.send_bytes(json.dumps(message, default=float).encode())
    except BrokenPipeError:
        os._exit(1)  # the search has ended


def nni_trial(job: Job, request: dict[str, Any], streams: list[int]) -> None:
    """Run one trial of NNI's training service in this process, instead of a new Python process.

    Args:
        job: Job of the trial.
        request: Working directory ``cwd`` and environment ``env`` of the trial.
        streams: Descriptors of the trial's standard input, output and error.
    """
    global JOB
    JOB = job
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.chdir(request["cwd"])
    told = ("NNI_", "CUDA_VISIBLE_DEVICES", "MULTI_PHASE", "REUSE_MODE")
    os.environ.update({name: value for name, value in request["env"].items() if name.startswith(told)})
    _adopt_environment()
    path = Path(os.environ["NNI_OUTPUT_DIR"], METRICS)
    set_default_trial_command_channel(_Kept(get_default_trial_command_channel(), path))
    model = nni.get_next_parameter()
    model.execute()


def _adopt_environment() -> None:
    """Let NNI, which is imported already, read its environment variables again: the trial, and where to report."""
    from nni.runtime import env_vars, log

    importlib.reload(env_vars)
    for name, module in list(sys.modules.items()):
        if name.startswith("nni.") and hasattr(module, "trial_env_vars"):
            module.trial_env_vars = env_vars.trial_env_vars  # type: ignore[attr-defined]
    importlib.reload(nni.trial)
    log._init_logger()
