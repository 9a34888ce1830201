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
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.engines.engine import POLL_S, Engine
from condensekit.nas.engines.worker import METRICS, Inherited
from condensekit.nas.service import trialclient
from condensekit.nas.service.guardian import Guardian

log = logging.getLogger(__name__)
HERE = Path(__file__).parent
EXPERIMENTS = "nni-experiments"  # folder of NNI's list of experiments
START_S = 60  # that the manager may take to answer; NNI gives it 3 s


class ServiceEngine(Engine, TrainingServiceExecutionEngine):  # type: ignore[misc]
    """NNI's engine for its training service, which notices when what it needs is gone, and when a metric was lost.

    The manager drops metrics of a trial that it has seen end, as happens to short ones on a busy machine, and of
    trials that start together it may tell the end of one as another's. Warm trials keep their number and their metrics
    in a file of their own, where those not passed on are found.
    """

    grace_s = 5.0  # where the trials are elsewhere, metrics may come later than their end

    def __init__(self, service: Service) -> None:
        self._told: Counter[int] = Counter()  # metrics passed on, by the number of the trial
        self._read: set[int] = set()  # trials whose file has been read
        super().__init__(service, fetch_intermediates=False)

    def _report_metric_data_callback(self, command: ReportMetricData) -> None:
        if command.parameter_id not in self._read:
            self._told[command.parameter_id] += 1
            super()._report_metric_data_callback(command)

    def _trial_end_callback(self, command: TrialEnd) -> None:
        trials = self.nodejs_binding.folder / self.nodejs_binding.id / "environments" / "local-env" / "trials"
        with contextlib.suppress(FileNotFoundError, ValueError):  # elsewhere, or ended before it had a parameter
            number, *kept = map(nni.load, (trials / command.trial_job_id / METRICS).read_text().splitlines())
            command.parameter_ids = [number]
            for line in kept[self._told[number] :]:
                super()._report_metric_data_callback(ReportMetricData(number, **line))
            self._read.add(number)
        super()._trial_end_callback(command)

    def check(self) -> None:
        """See :meth:`Engine.check`: the fork server or NNI's manager may be gone."""
        server, process = self.nodejs_binding.server, self.nodejs_binding._proc
        if server is not None and server.process.poll() is not None:
            raise CondensekitError("the fork server has ended: its messages stand above; start the search again")
        if process is None or process.poll() is not None or not self._channel_listen_thread.is_alive():
            raise CondensekitError("NNI's manager has ended before the search: see the log in its folder")

    def pump(self, timeout_s: float) -> None:
        """Wait a moment: events come in on NNI's own thread."""
        self.check()
        super().pump(timeout_s)


class Service(NasExperiment):  # type: ignore[misc]
    """One search as an NNI experiment, all files of which lie in one folder.

    NNI's checkpoints are not written: the log of trials is what a search resumes from.

    Args:
        space: Where to search.
        evaluator: Of every candidate.
        strategy: Runs in this thread.
        folder: For NNI's files.
        workers: Trials at a time.
        limit_s: Seconds for one trial.
        journal: Makes the layer above the engine.
        server: Whose job is this search's; None for a service on other machines.
        training_service: NNI's configuration of another service than the local one.
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
        training_service: Any = None,
    ) -> None:
        self.folder, self.server, self.journal = folder.absolute(), server, journal
        with _launching(self.folder, None):  # NNI writes a list of services as soon as it is configured
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
        """NNI's engine below our journal."""
        return self.journal(ServiceEngine(self))

    def save_checkpoint(self) -> None:
        """Nothing, see the class."""

    def explore(self, port: int) -> None:
        """Run the strategy to its end, and what it asked for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / EXPERIMENTS / ".experiment").unlink(missing_ok=True)  # NNI would unpickle it
        if self.server is not None:
            self.server.listen(self.folder / "trials.sock")
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
        with contextlib.suppress(CondensekitError):  # of a fork server that is gone
            guard.guard(0)
        if self._engine is not None:
            self._engine.shutdown()
        handler = nni.runtime.log._handlers.get(self.id)
        self._stop_logging()
        if handler is not None:
            handler.close()  # NNI forgets to


@contextlib.contextmanager
def _launching(folder: Path, guard: WarmServer | Guardian | None) -> Iterator[None]:
    """What NNI keeps in the user's home goes into ``folder``; a manager that starts is guarded.

    The folder may come from somebody else. So the list of training services, which NNI imports, is the one of its
    package, and Pythons that the manager starts search the folder in which they start for no module.

    With a warm server it listens on loopback only, so what NNI logs about its other addresses is left out.
    """
    launcher = nni.experiment.launcher
    start, check, manifest = launcher._start_rest_server, launcher._check_rest_server, launcher.Experiments
    started: list[subprocess.Popen[bytes]] = []

    def guarded(*args: Any) -> Any:
        started.append(start(*args))
        if guard is not None:
            guard.guard(started[-1].pid)  # before anything else can go wrong
        return started[-1]

    def patient(port: int, retry: int = 0, url_prefix: str | None = None) -> None:
        _await(started[-1], port, url_prefix)

    loaded = ["home.cjs", "hosts.cjs", *(["manager.cjs"] if isinstance(guard, WarmServer) else [])]
    changes = {
        "NNI_CONFIG_DIR": str(Path(nni.__path__[0], "runtime", "default_config")),
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
    """Return when the manager answers; raise RuntimeError where it ends, or does not answer in time."""
    end = time.monotonic() + START_S
    while process.poll() is None:
        with contextlib.suppress(OSError):  # of requests: nobody listens yet
            nni.experiment.rest.get(port, "/check-status", prefix)
            return
        if time.monotonic() >= end:
            raise RuntimeError(f"it did not answer at port {port} within {START_S:g} s")
        time.sleep(5 * POLL_S)
    raise RuntimeError(f"it ended with exit code {process.returncode}")


def _readable(record: logging.LogRecord) -> bool:
    """Without NNI's names of colours, and its list of this machine's addresses: :meth:`Service.explore` gives one."""
    record.msg = re.sub(r"\$\{[A-Z_]+\}", "", str(record.msg))
    return not record.msg.startswith("Web portal URLs")


def _quoted(path: Path) -> str:
    """A path as NODE_OPTIONS takes it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_port(port: int) -> None:
    """Raise ConfigError where the portal cannot have this port."""
    if not 1024 <= port <= 65535:
        raise ConfigError(f"port must lie in 1024..65535, got {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"port {port} is in use: choose another port ({error.strerror})") from error
