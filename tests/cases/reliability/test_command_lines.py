"""Every command line ends as told: hostile values, and options that would do nothing, with exit 2 and a short message.

Tracebacks for a path that is too long, for numbers of more digits than Python converts (CVE-2020-10735) or of more than
64 bits, and for an empty path were found by a generator of command lines; it is :mod:`tests.cases.reliability.lines`.
"""

import shlex

import pytest

from tests.cases.reliability import lines

SHORT = 5_000  # characters of a message with several problems; one lists more than a hundred networks


@pytest.fixture
def run(tmp_path, cli):
    assert cli("select", "--data", "digits", "--ipc", 1, "--out", tmp_path / "run")[0] == 0
    return tmp_path / "run"


def words(command, run, more=""):
    return [command, *lines.TINY[command].format(run=run, out=run.parent / "out").split(), *shlex.split(more)]


def check(seed, number, folder, monkeypatch):
    """Try lines that must be refused."""
    lines.stop_computing(monkeypatch)
    before = sorted(folder.rglob("*"))
    wrong = []
    for line, ended in lines.tried(seed, number, folder):
        good = ended.code == 2 and ended.crash is None and len(ended.err) < SHORT and "Traceback" not in ended.err
        if not good or not ended.err.replace("\n", "").isprintable():
            wrong.append((line.words[0], [word[:80] for word in line.wrong], ended))
    assert wrong == []
    assert sorted(folder.rglob("*")) == before


def test_hostile_lines_are_refused(run, monkeypatch):
    check(7, 100, run.parent, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_hostile_lines_are_refused(run, monkeypatch, seed):
    check(seed, 250, run.parent, monkeypatch)


def test_the_lines_without_hostile_words_are_valid(run, monkeypatch):
    lines.stop_computing(monkeypatch)
    ends = {command: lines.outcome(words(command, run)) for command in lines.TINY}
    assert {command: (end.code, end.crash) for command, end in ends.items()} == dict.fromkeys(lines.TINY, (None, None))


IDLE = [
    ("condense", "--download"),
    ("condense", "--data-root ."),
    ("condense", "--trust-local-copy"),
    ("condense", "--data ./photos --download"),
    ("select", "--augment none"),
    ("select", "--selection jpeg-random --storage float16"),
    ("select", "--selection jpeg-random --factor 2"),
    ("evaluate", "--download"),
    ("evaluate", "--equal-epochs"),
    ("evaluate", "--against none,random"),
    ("replay", "--er-lr 0.1"),
    ("replay", "--own-encoder"),
    ("replay", "--distillation 1"),
    ("replay", "--regime er --own-encoder"),
    ("replay", "--storage float32"),
    ("replay", "--orders 2 --seeds 3"),
    ("search", "--encoder-network ConvNet-w8"),
    ("search", "--init kmeans"),
    ("search", "--set lr=3"),
    ("search", "--port 9000"),
    ("search", "--workers 2"),
    ("search", "--truth-trainings 2"),
    ("search", "--full-epochs 3"),
    ("search", "--rankers params --score margin"),
    ("search", "--rankers params --trainings 2"),
    ("export", "--seed 5"),
    ("inspect", "--seed 5"),
    ("code", "--seed 5"),
]


@pytest.mark.parametrize(("command", "more"), IDLE)
def test_an_option_that_would_do_nothing_is_refused(run, monkeypatch, command, more):
    lines.stop_computing(monkeypatch)
    ended = lines.outcome(words(command, run, more))
    assert (ended.code, ended.crash) == (2, None)
    assert "does nothing" in ended.err or "leave out" in ended.err


BUSY = [
    ("condense", "--data fashionmnist --data-root . --download"),
    ("condense", "--workers 2"),
    ("evaluate", "--equal-epochs --against packed-random"),
    ("replay", "--regime er --er-lr 0.1"),
    ("replay", "--er-lr 0.1 --resume"),
    ("replay", "--memory herding --encoder-network ConvNet-w8"),
    ("replay", "--memory dm --storage float32"),
    ("search", "--rankers dm --steps 3 --set lr=3"),
    ("search", "--rankers start-dm --init kmeans"),
    ("search", "--engine pool --workers 1"),
    ("search", "--retrain --full-epochs 3"),
    ("search", "--truth full --truth-trainings 2"),
    ("inspect", "--seed 0"),
]


@pytest.mark.parametrize(("command", "more"), BUSY)
def test_an_option_that_does_something_is_taken(run, monkeypatch, command, more):
    lines.stop_computing(monkeypatch)
    ended = lines.outcome(words(command, run, more))
    assert "does nothing" not in ended.err


@pytest.mark.parametrize(
    ("flag", "text"), [("--rankers", "dm augment='color,crop', random"), ("--memory", '"dm augment=color,crop",random')]
)
def test_a_comma_between_quotes_belongs_to_the_name(run, monkeypatch, flag, text):
    lines.stop_computing(monkeypatch)
    command = "search" if flag == "--rankers" else "replay"
    ended = lines.outcome([*words(command, run), flag, text])
    assert (ended.code, ended.crash) == (None, None)
    assert ended.err.startswith("Data: ")


def test_seeds_of_a_search_are_called_trainings(run, monkeypatch):
    for former, present in (("--seeds", "--trainings"), ("--truth-seeds", "--truth-trainings")):
        ended = lines.outcome(words("search", run, f"{former} 2"))
        assert ended.code == 2
        assert f"No such option '{former}'. Did you mean '{present}'" in ended.err
