"""NNI's own manager, portal and training service; every test starts a manager."""

import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import nni
import pytest
from nni.experiment import launcher
from nni.experiment.config.training_services import LocalConfig, RemoteConfig, RemoteMachineConfig
from nni.nas.evaluator import FunctionalEvaluator

from condensekit.errors import CondensekitError, ConfigError
from condensekit.nas import FixedList, Portal, TrialLog, search
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.names import STRATEGIES
from condensekit.nas.service.service import ServiceEngine, _await, _launching
from condensekit.nas.trials.strategies import strategy
from tests.nas.toy import Toy, failing, measuring, scoring, where_home_is

pytestmark = [
    pytest.mark.nni,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]  # sockets nni leaves open
ROOT = Path(__file__).parents[3]
TWO = min(2, len(os.sched_getaffinity(0)))
LIST = [{"width": w, "act": "tanh"} for w in (3, 1, 4)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def run(server, tmp_path):
    def call(evaluator, chosen, **options):
        portal = Portal(tmp_path / "nni", free_port())
        return search(
            Toy(), evaluator, chosen, engine="nni", portal=portal, server=server, **{"workers": TWO, **options}
        )

    return call


@pytest.mark.parametrize("name", [*STRATEGIES, "list"])
def test_all_strategies(run, name):
    chosen = FixedList(LIST) if name == "list" else strategy(name, 5, 6)
    trials = run(scoring(), chosen, trials=6)
    assert len(trials) == (3 if name == "list" else 6)
    for trial in trials:
        assert trial.architecture["width"] <= trial.score <= trial.architecture["width"] + 0.5
        assert trial.curve == (0.5,)
    here = search(Toy(), scoring(), FixedList([t.architecture for t in trials]), engine="sequential")
    assert [t.score for t in trials] == [t.score for t in here]


def test_metrics_that_the_manager_loses_are_read_from_the_trial(run, monkeypatch):
    monkeypatch.setattr(ServiceEngine, "_report_metric_data_callback", lambda engine, command: None)
    trials = run(measuring(), FixedList(LIST))
    assert [(trial.score, len(trial.curve)) for trial in trials] == [(3.0, 1), (1.0, 1), (4.0, 1)]


@pytest.mark.parametrize("how", ["raise", "exit", "sleep"])
def test_ends_that_the_manager_mixes_up_are_those_of_the_trials_that_ended(run, monkeypatch, how):
    end, swapped = ServiceEngine._trial_end_callback, {0: 1, 1: 0, 2: 2}

    def mixed(engine, command):
        command.parameter_ids = [swapped[number] for number in command.parameter_ids]
        end(engine, command)

    monkeypatch.setattr(ServiceEngine, "_trial_end_callback", mixed)
    trials = run(failing(how=how, width=1), FixedList(LIST), trial_limit_s=3 if how == "sleep" else 30)
    assert [trial.score for trial in trials] == [3.0, None, 4.0]
    told = {"raise": "ValueError: no good", "exit": "it crashed", "sleep": "over its limit of 3 s"}
    assert trials[1].reason.startswith(told[how])


def test_failures_are_marked_a_resume_repeats_nothing_and_no_file_lies_elsewhere(run, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    book = TrialLog(tmp_path / "trials.jsonl")
    first = run(failing(how="raise", width=1), FixedList(LIST), log=book)
    assert [trial.reason for trial in first] == ["", "ValueError: no good", ""]
    again = run(failing(how="raise", width=1), FixedList([*LIST, {"width": 2, "act": "relu"}]), log=book)
    assert again[:3] == first
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 4
    assert list(home.iterdir()) == list(here.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"home", "here", "nni", "trials.jsonl"}


def test_a_dead_fork_server_fails_no_candidate_even_where_their_ends_are_known_first(tmp_path, monkeypatch):
    monkeypatch.setattr(ServiceEngine, "grace_s", 0.0)
    book, portal = TrialLog(tmp_path / "trials.jsonl"), Portal(tmp_path / "nni", free_port())
    with WarmServer() as own:

        def kill(trial):
            own.process.kill()
            time.sleep(5)  # NNI's manager tells of the other trial meanwhile

        chosen, options = FixedList(LIST), {"server": own, "workers": TWO, "log": book, "on_trial": kill}
        with pytest.raises(CondensekitError, match=r"the fork server has ended: .*; start the search again"):
            search(Toy(), failing(how="sleep", width=1), chosen, engine="nni", portal=portal, **options)
    assert {trial.reason for trial in TrialLog(book.path).trials()} == {""}


def test_numbers_of_other_libraries_are_metrics(run):
    trials = run(measuring(), FixedList(LIST))
    assert [trial.score for trial in trials] == [3.0, 1.0, 4.0]
    assert all(trial.scores == {"accuracy": 0.25, "margin": 0.75} and trial.image_steps == 10 for trial in trials)
    assert all(trial.curve == ({"default": 0.5, "step": 3},) for trial in trials)


def test_a_metric_that_is_no_number_fails_its_trial(run):
    trials = run(failing(how="set", width=1), FixedList(LIST))
    assert [trial.score for trial in trials] == [3.0, None, 4.0]
    assert "not 'set'" in trials[1].reason


def test_limit_budget_and_loopback(run, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    seen = {}

    def look(trial):
        manifest = json.loads((tmp_path / "nni" / "nni-experiments" / ".experiment").read_text())
        seen["port"] = port = max(entry["port"] for entry in manifest.values())
        seen["addresses"] = listening(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/nni/check-status") as answer:
            seen["status"] = json.load(answer)["status"]

    start = time.monotonic()
    chosen = FixedList([LIST[0], {"width": 2, "act": "relu"}, LIST[1]])
    trials = run(failing(how="sleep"), chosen, workers=1, trial_limit_s=1, budget_s=60, on_trial=look)
    assert time.monotonic() - start < 50
    assert "Web portal URLs" not in caplog.text
    assert "${" not in caplog.text
    assert f"NNI's portal: http://127.0.0.1:{seen['port']}" in caplog.text
    assert [trial.reason for trial in trials] == ["", "over its limit of 1 s", ""]
    assert seen["addresses"] == {"127.0.0.1"}
    assert seen["status"] in ("RUNNING", "TUNER_NO_MORE_TRIAL")
    assert listening(seen["port"]) == set()  # the manager is gone


def listening(port):
    """The addresses on which anything on this machine listens at a port."""
    found = set()
    for table, size in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and int(local[size + 1 :], 16) == port:
                raw = bytes.fromhex(local[:size])
                found.add(".".join(map(str, raw[::-1])) if size == 8 else raw.hex())
    return found


def test_the_budget_ends_the_search(run, tmp_path):
    book = TrialLog(tmp_path / "trials.jsonl")
    start = time.monotonic()
    trials = run(scoring(seconds=2), "random", workers=1, budget_s=7, log=book)
    assert time.monotonic() - start < 20
    assert len(trials) == len(TrialLog(book.path)) < 4
    assert all(trial.status == "finished" for trial in trials)


def test_a_port_in_use(run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use: choose another port"):
            search(Toy(), scoring(), "random", engine="nni", portal=Portal(tmp_path / "nni", port))
    with pytest.raises(ConfigError, match="port must lie in"):
        search(Toy(), scoring(), "random", engine="nni", portal=Portal(tmp_path / "nni", 80))
    assert not (tmp_path / "nni").exists()


def test_a_manager_that_starts_slowly_is_waited_for(run, monkeypatch):
    start = launcher._start_rest_server

    def slowly(*args):
        process = start(*args)
        process.send_signal(signal.SIGSTOP)
        threading.Timer(6, process.send_signal, (signal.SIGCONT,)).start()
        return process

    monkeypatch.setattr(launcher, "_start_rest_server", slowly)
    assert [trial.score is not None for trial in run(scoring(), FixedList(LIST[:1]))] == [True]


def test_a_manager_that_ends_or_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("condensekit.nas.service.service.START_S", 0.2)
    port = free_port()
    with subprocess.Popen(["sleep", "60"]) as silent:
        with pytest.raises(RuntimeError, match=r"it did not answer at port \d+ within 0.2 s"):
            _await(silent, port, None)
        silent.kill()
    with pytest.raises(RuntimeError, match="it ended with exit code -9"):
        _await(silent, port, None)


def test_trials_without_the_warm_server(tmp_path, caplog, monkeypatch):
    """As on another machine: each starts a Python of its own, and the evaluator travels with it."""
    monkeypatch.chdir(ROOT)
    portal = Portal(tmp_path / "nni", free_port(), LocalConfig(use_active_gpu=False))
    with caplog.at_level(logging.WARNING):
        trials = search(Toy(), failing(), FixedList([LIST[0]]), engine="nni", portal=portal, workers=1)
    assert [trial.score for trial in trials] == [3.0]
    assert "listens on all interfaces" in caplog.text


def test_the_home_of_trials_and_keys_is_the_users_own(tmp_path, monkeypatch):
    """NNI's manager alone takes the run folder for it."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / ".ssh" / "id_rsa").touch()
    portal = Portal(tmp_path / "nni", free_port(), LocalConfig(use_active_gpu=False))
    asking = FunctionalEvaluator(where_home_is, file=str(tmp_path / "home.txt"))
    search(Toy(), asking, FixedList([LIST[0]]), engine="nni", portal=portal, workers=1)
    assert (tmp_path / "home.txt").read_text() == str(tmp_path / "home")
    assert not list((tmp_path / "home").rglob("*nni*"))
    with _launching(tmp_path / "nni", None):
        key = RemoteMachineConfig(host="127.0.0.1", user="me").canonical_copy().ssh_key_file
    assert Path(key) == tmp_path / "home" / ".ssh" / "id_rsa"


def test_another_service_gets_its_configuration_and_a_warning(tmp_path, caplog):
    """No machine is reached: that NNI is handed the configuration is all there is to see."""
    service = RemoteConfig(machine_list=[])
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="machine_list"):
        search(
            Toy(),
            scoring(),
            "random",
            engine="nni",
            portal=Portal(tmp_path / "nni", free_port(), service),
            workers=50,
        )
    assert "listens on all interfaces" in caplog.text


def ask(port, host, **headers):
    """The status that the portal answers a request with these headers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/nni/check-status")
    for name, value in {"Host": host, **headers}.items():
        request.add_header(name, value.format(port=port))
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def shake(port, **headers):
    """The first line of the answer to the handshake of a web socket; empty where it is refused."""
    asked = {"Host": "127.0.0.1", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    asked |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **headers}
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        text = "".join(f"{name}: {value}\r\n" for name, value in asked.items())
        client.sendall(f"GET /tuner HTTP/1.1\r\n{text}\r\n".encode())
        return client.recv(1000).decode().partition("\r\n")[0]


def test_no_web_page_reaches_the_portal(run, tmp_path):
    """DNS rebinding: a page's host name that points at this machine; and requests across origins."""
    seen = {}

    def look(trial):
        manifest = json.loads((tmp_path / "nni" / "nni-experiments" / ".experiment").read_text())
        port = max(entry["port"] for entry in manifest.values())
        seen.update(
            {host: ask(port, host) for host in ("localhost:{port}", "127.0.0.1", "[::1]:1", "evil.example", "1.evil.x")}
        )
        seen["own page"] = ask(port, "localhost:{port}", Origin="http://localhost:{port}")
        seen["page"] = ask(port, "localhost:{port}", Origin="http://evil.example")
        seen["file"] = ask(port, "localhost:{port}", Origin="null")
        seen["socket"] = shake(port, Host="evil.example"), shake(port, Origin="http://evil.example")

    run(scoring(), FixedList(LIST[:1]), workers=1, on_trial=look)
    assert seen == {
        **{"localhost:{port}": 200, "127.0.0.1": 200, "[::1]:1": 200, "own page": 200},
        **{"evil.example": 403, "1.evil.x": 403, "page": 403, "file": 403, "socket": ("", "")},
    }


class Marking:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_nnis_files_in_a_folder_of_somebody_else_run_no_code(run, tmp_path, monkeypatch):
    folder, ran = tmp_path / "nni", tmp_path / "ran"
    (folder / "config").mkdir(parents=True)
    (folder / "nni-experiments").mkdir()
    (folder / "config" / "training_services.json").write_text('{"brought_along": {}}')
    pickled = nni.dump({"x": Marking(str(ran))})
    assert "__nni_obj__" in pickled
    (folder / "nni-experiments" / ".experiment").write_text(pickled)
    (tmp_path / "brought_along.py").write_text(f"open({str(ran)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    assert [trial.score for trial in run(scoring(), FixedList(LIST[:1]))] != [None]
    assert not ran.exists()
