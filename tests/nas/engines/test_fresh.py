"""NNI's own evaluators in several trials of one process.

A Lightning evaluator keeps its trainer, which stops at once in the second trial of a process; NNI's documentation says
"The Lightning evaluator are stateful. If you try to use a previous Lightning evaluator, please note that the inner
lightning_module and trainer will be reused."
"""

import nni
import pytest
from nni.nas.evaluator import FunctionalEvaluator

from condensekit.errors import ConfigError
from condensekit.nas import enumerate_architectures, search
from condensekit.nas.trials.strategies import FixedList
from tests.nas import toy

pytestmark = [
    pytest.mark.nni,
    pytest.mark.filterwarnings("ignore"),  # Lightning's, about what it was not given
]
lightning = pytest.importorskip("tests.nas.engines.lightning")
MAKERS = ["classification", "regression", "own_module", "traced", "own_evaluator"]


def scores(evaluator, engine, server=None, architectures=None):
    some = FixedList(architectures or list(enumerate_architectures(toy.Toy()))[:3])
    found = search(toy.Toy(), evaluator, some, engine=engine, workers=1, server=server)
    assert [trial.reason for trial in found] == [""] * len(found)
    return [(trial.score, trial.curve) for trial in found]


@pytest.mark.parametrize("maker", MAKERS)
def test_a_later_trial_is_as_it_would_be_alone(maker):
    make = getattr(lightning, maker)
    every = list(enumerate_architectures(toy.Toy()))[:3]
    alone = [one for architecture in every for one in scores(make(), "sequential", None, [architecture])]
    assert scores(make(), "sequential") == alone
    evaluator = make()
    assert scores(evaluator, "sequential") == scores(evaluator, "sequential") == alone  # its user has it unchanged


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS)
def test_workers_do_the_same(server, maker):
    make = getattr(lightning, maker)
    assert scores(make(), "pool", server) == scores(make(), "sequential")


def test_a_function_gets_fresh_arguments():
    def score(model, counter, calls):
        counter.trials += 1
        calls.append(1)
        nni.report_final_result(float(counter.trials))

    calls: list[int] = []
    found = scores(FunctionalEvaluator(score, counter=lightning.traced(), calls=calls), "sequential")
    assert [score for score, _ in found] == [1.0, 1.0, 1.0]
    assert len(calls) == 3


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_what_cannot_be_made_again_is_refused_at_the_start(engine):
    with pytest.raises(ConfigError, match=r"^evaluator Undecorated has no trace, .* write @nni.trace above its class$"):
        search(toy.Toy(), lightning.undecorated(), "random", trials=2, engine=engine, workers=1)
    with pytest.raises(ConfigError, match=r"^evaluator Once cannot be made again for each trial \(StopIteration"):
        search(toy.Toy(), lightning.Once(iter([1.0])), "random", trials=2, engine=engine, workers=1)
