"""Service engine: NNI's training service and portal, with trials forked from a warm server."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nni
import nni.experiment.launcher
import nni.experiment.rest
import nni.runtime.log
from nni.nas.evaluator import Evaluator
from nni.nas.execution import TrainingServiceExecutionEngine
from nni.nas.execution.engine import Middleware
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.strategy import Strategy
from nni.runtime.tuner_command_channel.command_type import ReportMetricData, TrialEnd
from nni.tools.nnictl.config_utils import Experiments

from condensekit.errors import CondensekitError, ConfigError
from condensekit.nas.engines.client import WarmServer, search_path
from condensekit.nas.engines.engine import POLL_S, Engine
from condensekit.nas.engines.worker import METRICS, Inherited
from condensekit.nas.service import trialclient
from condensekit.nas.service.guardian import Guardian

log = logging.getLogger(__name__)
HERE = Path(__file__).parent
EXPERIMENTS = "nni-experiments"  # folder of NNI's list of experiments
START_S = 60  # largest time until the manager answers, in seconds; NNI waits for 3 s


class ServiceEngine(Engine, TrainingServiceExecutionEngine):  # type: ignore[misc]
    """NNI's engine for its training service; it also finds lost metrics, and processes that have ended.

    NNI's manager drops metrics that arrive after the end of their trial, which happens to short trials on a busy
    machine. If trials start together, it may report the end of one trial as that of another. Warm trials therefore
    write their number and their metrics to a file, from which this engine reads the lost metrics.
    """

    grace_s = 5.0  # metrics of trials on other machines may arrive after the end of the trial

    def __init__(self, service: Service) -> None:
        self._told: Counter[int] = Counter()  # number of metrics from the manager, by the number of the trial
        self._read: set[int] = set()  # numbers of the trials whose file was read
        super().__init__(service, fetch_intermediates=False)

    def _report_metric_data_callback(self, command: ReportMetricData) -> None:
        if command.parameter_id not in self._read:
            self._told[command.parameter_id] += 1
            super()._report_metric_data_callback(command)

    def _trial_end_callback(self, command: TrialEnd) -> None:
        trials = self.nodejs_binding.folder / self.nodejs_binding.id / "environments" / "local-env" / "trials"
        with contextlib.suppress(FileNotFoundError, ValueError):  # trial on another machine, or without a parameter
            number, *kept = map(nni.load, (trials / command.trial_job_id / METRICS).read_text().splitlines())
            command.parameter_ids = [number]
            for line in kept[self._told[number] :]:
                super()._report_metric_data_callback(ReportMetricData(number, **line))
            self._read.add(number)
        super()._trial_end_callback(command)

    def check(self) -> None:
        """See :meth:`Engine.check`: the fork server or NNI's manager may have ended."""
        server, process = self.nodejs_binding.server, self.nodejs_binding._proc
        if server is not None and server.process.poll() is not None:
            raise CondensekitError("the fork server has ended: its messages stand above; start the search again")
        if process is None or process.poll() is not None or not self._channel_listen_thread.is_alive():
            raise CondensekitError("NNI's manager has ended before the search: see the log in its folder")

    def pump(self, timeout_s: float) -> None:
        """Wait; NNI's own thread receives the events."""
        self.check()
        super().pump(timeout_s)


class Service(NasExperiment):  # type: ignore[misc]
    """One search as an NNI experiment with all its files in one folder.

    NNI writes no checkpoints here, because a search resumes from the log of trials.

    Args:
        space: The search space.
        evaluator: Evaluator of every candidate.
        strategy: Strategy, which runs in this thread.
        folder: Folder of NNI's files.
        workers: Number of trials at the same time.
        limit_s: Seconds for one trial; None: no limit.
        journal: Function that makes the layer above the engine.
        server: Fork server; None: the trials run on other machines.
        job: Number of the server's job of this search.
        training_service: NNI's configuration of a training service on other machines; None: the local service.
    """

    def __init__(
        self,
        space: ModelSpace,
        evaluator: Evaluator,
        strategy: Strategy,
        *,
        folder: Path,
        workers: int,
        limit_s: float | None,
        journal: Callable[[Engine], Middleware],
        server: WarmServer | None,
        job: int = 0,
        training_service: Any = None,
    ) -> None:
        self.folder, self.server, self.job, self.journal = folder.absolute(), server, job, journal
        with _launching(self.folder, None):  # the constructor of the configuration writes a list of services
            config = NasExperimentConfig("ts", "simplified", None if training_service else "local")
        if training_service is not None:
            config.training_service = training_service
        config.trial_concurrency = workers
        config.experiment_working_directory = str(self.folder)
        config.max_trial_duration = None if limit_s is None else f"{math.ceil(limit_s)}s"
        if server is not None:
            client = [sys.executable, "-I", "-S", str(Path(trialclient.__file__)), str(self.folder / "trials.sock")]
            config._trial_command_params = {"python": shlex.join(client)}
        super().__init__(space, evaluator if server is None else Inherited(), strategy, config)

    def execution_engine_factory(self, config: Any) -> Middleware:
        """The journal, with NNI's engine below it."""
        return self.journal(ServiceEngine(self))

    def save_checkpoint(self) -> None:
        """Do nothing, see the class."""

    def explore(self, port: int) -> None:
        """Run the strategy and all its trials to the end; NNI's portal is at ``port``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / EXPERIMENTS / ".experiment").unlink(missing_ok=True)  # NNI would unpickle it
        if self.server is not None:
            self.server.listen(self.job, self.folder / "trials.sock")
            self._explore(port, self.server)
            return
        with Guardian() as guardian:
            self._explore(port, guardian)

    def _explore(self, port: int, guard: WarmServer | Guardian) -> None:
        try:
            self._start(port, guard)
            self._start_engine_and_strategy()
            self._engine.wait_models()
        finally:
            with _launching(self.folder, guard):
                self._end(guard)

    def _start(self, port: int, guard: WarmServer | Guardian) -> None:
        try:
            with _launching(self.folder, guard):
                self._start_logging(False)
                self._start_nni_manager(port, False)
        except (OSError, RuntimeError) as error:
            raise CondensekitError(f"NNI's manager did not start: {error}; its log is in {self.folder}") from error
        log.info("NNI's portal: http://127.0.0.1:%d", port)

    def _end(self, guard: WarmServer | Guardian) -> None:
        if isinstance(self._engine, Middleware):
            self._engine.close()
        self._stop_nni_manager()
        with contextlib.suppress(CondensekitError):  # the fork server may have ended
            guard.guard(0)
        if self._engine is not None:
            self._engine.shutdown()
        handler = nni.runtime.log._handlers.get(self.id)
        self._stop_logging()
        if handler is not None:
            handler.close()  # NNI does not close it


@contextlib.contextmanager
def _launching(folder: Path, guard: WarmServer | Guardian | None) -> Iterator[None]:
    """Context in which NNI uses ``folder`` instead of the user's home, and ``guard`` guards a started manager.

    The folder may come from another person. Therefore the list of training services, which NNI imports, is the list of
    NNI's package, and a Python that the manager starts does not import modules from the folder in which it starts.

    With a warm server the manager listens on the loopback address only; NNI's message with other addresses is dropped.
    """
    launcher = nni.experiment.launcher
    start, check, manifest = launcher._start_rest_server, launcher._check_rest_server, launcher.Experiments
    started: list[subprocess.Popen[bytes]] = []

    def guarded(*args: Any) -> Any:
        started.append(start(*args))
        if guard is not None:
            guard.guard(started[-1].pid)  # first, because the following steps may fail
        return started[-1]

    def patient(port: int, retry: int = 0, url_prefix: str | None = None) -> None:
        _await(started[-1], port, url_prefix)

    loaded = ["home.cjs", "hosts.cjs", *(["manager.cjs"] if isinstance(guard, WarmServer) else [])]
    changes = {
        "NNI_CONFIG_DIR": str(Path(nni.__path__[0], "runtime", "default_config")),
        "PYTHONPATH": os.pathsep.join(search_path()),  # code of the evaluator may lie here
        "PYTHONSAFEPATH": "1",
        "CONDENSEKIT_NNI_FOLDER": str(folder),
        "NODE_OPTIONS": " ".join(f"--require {_quoted(HERE / name)}" for name in loaded),
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    launcher._start_rest_server, launcher._check_rest_server = guarded, patient
    launcher.Experiments = lambda: Experiments(str(folder / EXPERIMENTS))
    told = logging.getLogger("nni.experiment")
    told.addFilter(_readable)
    try:
        yield
    finally:
        told.removeFilter(_readable)
        launcher._start_rest_server, launcher._check_rest_server, launcher.Experiments = start, check, manifest
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _await(process: subprocess.Popen[bytes], port: int, prefix: str | None) -> None:
    """Wait until the manager answers. Raises RuntimeError if it ends or does not answer in time."""
    end = time.monotonic() + START_S
    while process.poll() is None:
        with contextlib.suppress(OSError):  # the request fails until the manager listens
            nni.experiment.rest.get(port, "/check-status", prefix)
            return
        if time.monotonic() >= end:
            raise RuntimeError(f"it did not answer at port {port} within {START_S:g} s")
        time.sleep(5 * POLL_S)
    raise RuntimeError(f"it ended with exit code {process.returncode}")


def _readable(record: logging.LogRecord) -> bool:
    """Filter that removes NNI's colour names, and drops its list of addresses: :meth:`Service._start` logs one."""
    record.msg = re.sub(r"\$\{[A-Z_]+\}", "", str(record.msg))
    return not record.msg.startswith("Web portal URLs")


def _quoted(path: Path) -> str:
    """A path, quoted for NODE_OPTIONS."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_port(port: int) -> None:
    """Raise ConfigError if the portal cannot use this port."""
    if not 1024 <= port <= 65535:
        raise ConfigError(f"port must lie in 1024..65535, got {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"port {port} is in use: choose another port ({error.strerror})") from error
