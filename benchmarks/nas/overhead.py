"""Overhead of trials for each engine: empty candidates, short candidates, and a kill (SIGKILL) with a resume.

    python benchmarks/nas/overhead.py --out benchmarks/results/nas-overhead.json

``empty``: candidates without work. ``start_s`` is the time to the first result; ``per_trial_s`` is the time between the
first and the last result, divided by the number of trials after the first. With two workers this is half of the time of
a trial. The engine ``nni-as-it-is`` is NNI's training service without warm workers and with its own polling. It is so
slow that it has only ``--reference-trials`` empty and short candidates.
``short``: candidates of ``--seconds``. ``kill``: the search is killed (SIGKILL) after 4 of 10 trials and resumed;
``repeated`` counts finished trials that ran again, ``left_behind`` counts processes that outlived the search.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.record import parser, start, write
from condensekit.errors import CondensekitError
from condensekit.nas import Portal, TrialLog, search, space

import nni  # isort: skip - after condensekit.nas, which silences its import
from nni.experiment.config.training_services import LocalConfig  # isort: skip
from nni.nas.evaluator import FunctionalEvaluator  # isort: skip

ENGINES = ("sequential", "pool", "nni", "nni-as-it-is")
KILLED_AFTER, OF = 4, 10  # number of finished trials at which a search is killed, and number of all its trials
WAIT_S = 120  # largest time until a search can be killed, in seconds


def idle(model: Any, seconds: float, calls: str | None) -> None:
    """Candidate that sleeps, and writes its architecture to the file ``calls``."""
    if calls:
        with open(calls, "a") as file:
            file.write(f"{nni.get_current_parameter().sample}\n")
    time.sleep(seconds)
    nni.report_final_result(0.0)


def run(engine: str, trials: int, workers: int, seconds: float, folder: Path, calls: Path | None = None) -> list[float]:
    """Run a search; returns the seconds from the start to each result, and to the end."""
    portal = None
    if engine.startswith("nni"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        portal = Portal(folder / "nni", port, LocalConfig(use_active_gpu=False) if engine == "nni-as-it-is" else None)
    start, known = time.perf_counter(), []
    search(
        space("convnet-small", (1, 8, 8)),
        FunctionalEvaluator(idle, seconds=seconds, calls=calls and str(calls)),
        "random",
        trials=trials,
        engine=engine.removesuffix("-as-it-is"),
        workers=workers,
        log=TrialLog(folder / "trials.jsonl"),
        portal=portal,
        on_trial=lambda _: known.append(time.perf_counter() - start),
    )
    return [*known, time.perf_counter() - start]


def timed(engine: str, trials: int, workers: int, seconds: float) -> dict[str, Any]:
    """Row of ``empty`` or ``short``."""
    with tempfile.TemporaryDirectory() as folder:
        *known, wall = run(engine, trials, workers, seconds, Path(folder))
    between = (known[-1] - known[0]) / (len(known) - 1)
    row = {"engine": engine, "workers": workers, "trials": len(known), "seconds": seconds}
    times = {"start_s": known[0], "per_trial_s": between, "wall_s": wall}
    return {**row, **{name: round(value, 4) for name, value in times.items()}}


@contextmanager
def child(engine: str, folder: Path, mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """Context with a search in its own process, which is killed at the end; its messages go to a file in ``folder``."""
    command = [sys.executable, __file__, "--child", engine, str(folder)]
    environment = {**os.environ, "NAS_OVERHEAD": mark}
    with (folder / "messages").open("wb") as messages:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=messages)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def wait_for_trials(process: subprocess.Popen[bytes], folder: Path, limit_s: float = WAIT_S) -> None:
    """Wait until the search in ``folder`` has finished :data:`KILLED_AFTER` trials.

    Raises:
        CondensekitError: The search ended before, or takes too long; the text quotes the end of its messages.
    """
    log, end = folder / "trials.jsonl", time.monotonic() + limit_s
    while not (log.exists() and log.read_bytes().count(b"\n") >= KILLED_AFTER):
        code = process.poll()
        if code is not None or time.monotonic() > end:
            why = f"took more than {limit_s:g} s" if code is None else f"ended with exit code {code}"
            told = (folder / "messages").read_text(errors="replace")[-2000:].strip() or "nothing"
            raise CondensekitError(f"the search {why} before {KILLED_AFTER} trials were finished; it said: {told}")
        time.sleep(0.02)


def left_behind(mark: str) -> int:
    """Number of running processes that inherited the mark."""
    alive = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            alive += f"NAS_OVERHEAD={mark}".encode() in (entry / "environ").read_bytes().split(b"\0") and not zombie
        except OSError:
            continue
    return alive


def killed(engine: str) -> dict[str, Any]:
    """Row of ``kill``."""
    with tempfile.TemporaryDirectory() as name:
        folder, mark = Path(name), name
        log, calls = folder / "trials.jsonl", folder / "calls"
        with child(engine, folder, mark) as process:
            wait_for_trials(process, folder)
        time.sleep(3)
        orphans = left_behind(mark)
        finished = {str(trial.architecture) for trial in TrialLog(log).trials()}
        called = calls.read_text().splitlines()
        if not finished <= set(called):
            raise CondensekitError("some finished trials are missing in the calls: repeats cannot be counted")
        run(engine, OF, 1, 0.5, folder, calls)
        again = calls.read_text().splitlines()[len(called) :]
        total = len(TrialLog(log))
    repeated = sum(line in finished for line in again)
    return {
        "engine": engine,
        "finished_before": len(finished),
        "ran_after": len(again),
        "repeated": repeated,
        "trials": total,
        "left_behind": orphans,
    }


def main() -> None:
    """Measure, print and write all rows."""
    options = parser(__doc__)
    options.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    options.add_argument("--cells", nargs="+", choices=("empty", "short", "kill"), default=("empty", "short", "kill"))
    options.add_argument("--workers", nargs="+", type=int, default=(1, 2))
    options.add_argument("--trials", type=int, default=40, help="number of empty candidates")
    options.add_argument("--reference-trials", type=int, default=5, help="number of candidates of nni-as-it-is")
    options.add_argument("--candidates", type=int, default=100, help="number of short candidates")
    options.add_argument("--seconds", type=float, default=2.0, help="seconds of a short candidate")
    options.add_argument("--out", type=Path, help="file to write")
    options.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # engine and folder of the search to be killed
    args = options.parse_args()
    if args.child:
        run(args.child[0], OF, 1, 0.5, Path(args.child[1]), Path(args.child[1]) / "calls")
        return
    record: dict[str, list[dict[str, Any]]] = {cell: [] for cell in args.cells}

    def note(cell: str, row: dict[str, Any]) -> None:
        record[cell].append(row)
        print(json.dumps({"cell": cell, **row}), flush=True)
        if args.out:
            write(args.out, record)

    for engine in args.engines:
        workers = (1,) if engine == "sequential" else args.workers
        few = args.reference_trials if engine == "nni-as-it-is" else None
        if "empty" in args.cells:
            for number in workers:
                note("empty", timed(engine, few or args.trials, number, 0.0))
        if "short" in args.cells:
            note("short", timed(engine, few or args.candidates, workers[-1], args.seconds))
        if "kill" in args.cells and engine != "nni-as-it-is":
            note("kill", killed(engine))


if __name__ == "__main__":
    start(main)
