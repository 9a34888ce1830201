"""500 mutations of the files of run folders: each is refused by name, or changes no result.

Before JSON files had checksums, a flipped digit of a cell turned 18.7 % into 20.9 %, and a fifth of such changes ended
in a traceback.
"""

import contextlib
import io
import json
import random
import re
import shlex
import shutil
import signal
import traceback
from pathlib import Path

import pytest

from condensekit.cli import main
from condensekit.errors import CondensekitError
from condensekit.replay.study.results import ReplayResult
from condensekit.runs.folder import RunDir
from tests.cases.command import CONDENSE, EVALUATE, REPLAY, SEARCH
from tests.cases.reliability.mutations import mutate

SHORT, ALL = 60, 500  # mutations with and without the mark slow
TRAINED = shlex.split("--encoder trained --set encoder.count=1 --set encoder.steps=2 --checkpoint-every 1")
COMMANDS = {
    "condense": (*CONDENSE, *TRAINED),
    "replay": (*REPLAY, "--experiences", "2", "--memory", "random,dm", "--set", "batch_real=4"),
    "learner": (*REPLAY, *shlex.split("--experiences 2 --regime er --er-epochs 1")),
    "search": (*SEARCH, *shlex.split("--rankers random,dm --steps 2")),
}
UNREAD = (".lock", ".md", ".png")  # endings of files that nothing reads
MEASURED = re.compile(r".*_s|seconds|message|peak_mib|environment")  # entries of results that differ from call to call


class Run:
    """A finished run, of which changed copies are made."""

    def __init__(self, name, folder):
        self.name, self.folder, self.whole = name, folder / name, folder / f"{name}-whole"
        self.words = (*COMMANDS[name], "--out", self.folder)
        code, _, err = told(*self.words)
        if code != 0:
            raise RuntimeError(err)
        if name == "condense":
            told(*EVALUATE, self.folder)
        shutil.copytree(self.folder, self.whole)
        self.kinds: dict[str, list[Path]] = {}
        for file in sorted(self.whole.rglob("*")):
            if file.is_file() and not file.name.endswith(UNREAD):
                kind = re.sub(r"[0-9a-f]{20,}|\d+", "N", str(file.relative_to(self.whole)))
                self.kinds.setdefault(kind, []).append(file.relative_to(self.whole))
        self.before = {reader: reader(self) for reader in READERS[name]}

    def restore(self):
        """Undo what a mutation and a command did."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.whole, self.folder)


def told(*words):
    """Exit code, result and messages of a command in this process; a traceback has code 1."""
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(word) for word in words])
    except SystemExit as end:
        return end.code, out.getvalue(), err.getvalue()
    except BaseException:
        return 1, "", traceback.format_exc()
    finally:
        signal.signal(signal.SIGTERM, before)


def called(function):
    """The same of a function of the library."""
    try:
        return 0, json.dumps(function()), ""
    except CondensekitError as error:
        return error.exit_code, "", str(error)
    except BaseException:
        return 1, "", traceback.format_exc()


def resume(run):
    return told(*run.words, "--resume", "--json")


def inspect(run):
    return told("inspect", run.folder, "--json")


def export(run):
    code, _, err = told("export", run.folder, "--to", run.folder / "images", "--grid", run.folder / "grid.png")
    return code, [file.read_bytes().hex() for file in sorted(run.folder.rglob("*.png"))] if code == 0 else "", err


def evaluate(run):
    return told(*EVALUATE, run.folder, "--json")


def metrics(run):
    return called(lambda: RunDir.read(run.folder).metrics())


def load(run):
    return called(lambda: ReplayResult.load(run.folder).to_json())


READERS = {
    "condense": (resume, inspect, export, evaluate, metrics),
    "replay": (resume, load),
    "learner": (resume, load),
    "search": (resume,),
}


def figures(out):
    """A result without times and memory."""

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items() if not MEASURED.fullmatch(name)}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    return plain(json.loads(out)) if isinstance(out, str) and out else out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run of each command, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name not in made:
            made[name] = Run(name, folder)
        return made[name]

    return run


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[pytest.mark.slow] if n >= SHORT else []) for n in range(ALL)]
)
def test_a_changed_file_is_refused_by_name_or_changes_no_result(runs, number):
    run = runs(tuple(COMMANDS)[number % len(COMMANDS)])
    kinds = list(run.kinds)
    file = random.Random(number).choice(run.kinds[kinds[number // len(COMMANDS) % len(kinds)]])
    for reader in READERS[run.name]:
        if reader is evaluate and file.name != "config.json":
            continue  # it trains; inspect reads the same set
        run.restore()
        change = mutate(run.folder / file, random.Random(number))
        code, out, err = reader(run)
        what = f"{change} of {file}: {reader.__name__} ends with {code}, {err}"
        if code in (2, 4):
            assert file.name in err or str(run.folder) in err, what
            assert "Traceback" not in err, what
        else:
            expected = run.before[reader]
            assert code == expected[0] == 0, what
            assert figures(out) == figures(expected[1]), what
