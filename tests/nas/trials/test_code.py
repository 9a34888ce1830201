"""A log of trials by code that was edited since is refused: code of space, evaluator, strategy or ranker."""

import importlib
import json
import sys
import textwrap

import pytest

from condensekit.errors import ConfigError
from condensekit.nas import TrialLog, search

pytestmark = pytest.mark.nni

FILES = {
    "ourblocks.py": """
        from torch import nn
        SLOPE = 0.1
        class Act(nn.LeakyReLU):
            def __init__(self):
                super().__init__(SLOPE)
        """,
    "ourspace.py": """
        import nni
        from nni.nas.nn.pytorch import LayerChoice, ModelSpace
        from torch import nn
        from ourblocks import Act
        class Root(ModelSpace):
            def forward(self, x):
                return self.last(self.act(x.flatten(1)))
        class Ours(Root):
            def __init__(self):
                super().__init__()
                self.act = LayerChoice({"ours": Act(), "none": nn.Identity(), "tanh": nn.Tanh()}, label="act")
                self.last = nn.Linear(64, 10)
        """,
    "ourtrials.py": """
        import nni
        from nni.nas.evaluator import FunctionalEvaluator
        from nni.nas.strategy import Random
        BONUS = 1
        def score(model):
            nni.report_final_result(BONUS)
        def evaluator():
            return FunctionalEvaluator(score)
        class Ordered(Random):
            first = 1
        """,
    "ourmethod.py": """
        from condensekit.methods.distribution import DistributionMatching
        class Ours(DistributionMatching):
            usual = 1
        """,
}


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """Modules of a user, and the function that edits one of them and imports it again."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def edit(name, before, after):
        text = (tmp_path / name).read_text()
        assert before in text
        (tmp_path / name).write_text(text.replace(before, after))
        forget()

    def forget():
        for name in FILES:
            sys.modules.pop(name.removesuffix(".py"), None)
        importlib.invalidate_caches()

    yield edit
    forget()


EDITS = [
    ("ourspace.py", 'label="act"', 'label="act", weights=None', "ourspace.Ours differs"),
    ("ourspace.py", "x.flatten(1)", "-x.flatten(1)", "ourspace.Root differs"),
    ("ourblocks.py", "SLOPE = 0.1", "SLOPE = 0.2", "ourblocks.SLOPE differs"),
    ("ourtrials.py", "BONUS = 1", "BONUS = 2", "ourtrials.BONUS differs"),
    ("ourtrials.py", "first = 1", "first = 2", "ourtrials.Ordered differs"),
]


@pytest.mark.parametrize(("file", "before", "after", "told"), EDITS)
def test_a_log_by_other_code_is_refused(ours, tmp_path, file, before, after, told):
    path = tmp_path / "trials.jsonl"

    def run(trials):
        space, theirs = importlib.import_module("ourspace").Ours(), importlib.import_module("ourtrials")
        return search(
            space, theirs.evaluator(), theirs.Ordered(seed=0), trials=trials, engine="sequential", log=TrialLog(path)
        )

    first = run(1)
    assert len(run(2)) == 2
    assert [bool(json.loads(line)["code"]) for line in path.read_text().splitlines()] == [True, True]
    assert first[0].score == 1.0
    ours(file, before, after)
    way_out = rf"that were scored, by code that was edited or replaced since \({told}\): undo the edit, or use another"
    with pytest.raises(ConfigError, match=way_out):
        run(3)
    ours(file, after, before)
    assert len(run(3)) == 3


WORDS = "--data digits --space ourspace:Ours --ipc 1 --steps 1 --train-steps 1 --trials 2 --engine sequential"


@pytest.mark.parametrize(
    ("rankers", "file", "before", "after", "told"),
    [
        ("params", "ourblocks.py", "SLOPE = 0.1", "SLOPE = 0.2", "ourblocks.SLOPE differs"),
        ("ourmethod:Ours", "ourmethod.py", "usual = 1", "usual = 2", "ourmethod.Ours differs"),
    ],
)
def test_a_run_by_other_code_is_refused(cli, ours, tmp_path, rankers, file, before, after, told):
    words = ("search", *WORDS.split(), "--rankers", rankers, "--out", tmp_path / "out")
    code, _, err = cli(*words)
    assert code == 0, err
    code, _, err = cli(*words, "--resume")
    assert code == 0, err
    ours(file, before, after)
    code, _, err = cli(*words, "--resume")
    assert code == 2
    assert (
        f"holds a run, by code that was edited or replaced since ({told}): undo the edit, or use another --out" in err
    )
    assert "Traceback" not in err
