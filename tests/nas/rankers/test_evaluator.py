import pickle
from dataclasses import replace
from functools import partial

import nni
import pytest
from nni.nas.space import SimplifiedModelSpace

from condensekit.errors import ConfigError
from condensekit.nas import (
    ProxyData,
    ProxyEvaluator,
    ProxyProtocol,
    TrialLog,
    convnet_space,
    enumerate_architectures,
    search,
)
from condensekit.rng import Draw
from tests.nas.rankers.test_training import images

PROTOCOL = ProxyProtocol(epochs=3, batch=16)


def load(share=0.5):
    """What an evaluator that stays small loads where it is needed."""
    return ProxyData(*images().split(share, Draw(0)))


@pytest.fixture(scope="module")
def space():
    return convnet_space((1, 8, 8), 3, depths=(1,), widths=(4,), norms=("none", "batch"), poolings=("none", "max"))


def run(space, evaluator, **options):
    return search(space, evaluator, "grid", engine="sequential", trials=4, **options)


def test_scores_of_every_kind_and_the_curve_are_in_the_trial(space):
    trials = run(space, ProxyEvaluator(load(), PROTOCOL, score="cross-entropy", seed=7))
    for trial in trials:
        assert trial.status == "finished"
        assert trial.score == trial.scores["cross-entropy"] == pytest.approx(sum(_of(trial, "cross-entropy")) / 2)
        assert trial.seed == 7
        assert trial.image_steps == 9 * 16  # 3 passes over 45 images, in full batches
        assert trial.curve[-1]["default"] == trial.curve[-1]["cross-entropy"]
    assert len({trial.score for trial in trials}) == 4


def _of(trial, kind):
    """At steps 8 and 9 of 9, which are in the last tenth."""
    return [entry[kind] for entry in trial.curve if entry["step"] >= 8]


def test_several_seeds_are_averaged(space):
    one, two = (run(space, ProxyEvaluator(load(), PROTOCOL, seed=seed))[0] for seed in (1, 2))
    both = run(space, ProxyEvaluator(load(), PROTOCOL, seeds=2, seed=1))[0]
    assert both.score == pytest.approx((one.score + two.score) / 2)
    assert both.image_steps == 2 * one.image_steps


def test_workers_give_the_same_bits(space, server):
    evaluator = ProxyEvaluator(load, PROTOCOL)
    here = run(space, evaluator)
    there = search(space, evaluator, "grid", trials=4, workers=1, server=server)
    assert [t.scores for t in here] == [t.scores for t in there]


def test_a_diverging_candidate_is_a_failed_trial_and_the_search_goes_on(space):
    trials = run(space, ProxyEvaluator(load(), ProxyProtocol(epochs=5, lr=1e30)))
    assert len(trials) == 4
    assert all(trial.status == "failed" and trial.score is None for trial in trials)
    assert trials[0].reason.startswith("diverged by step")
    assert all(trial.image_steps >= 64 for trial in trials)  # they cost what had passed through by then


def test_a_hopeless_candidate_is_marked(space):
    protocol = ProxyProtocol(epochs=20, lr=1e-9, batch=16)
    trials = run(space, ProxyEvaluator(load(), protocol, last=1, checks=1, hopeless=2.9))
    assert any(trial.stopped and trial.status == "finished" for trial in trials)


@pytest.mark.parametrize("score", ["accuracy", "tse"])
def test_hopeless_candidates_stand_last_by_the_scores_that_allow_it(space, score):
    protocol = ProxyProtocol(epochs=20, lr=0.001, batch=16)
    trials = run(space, ProxyEvaluator(load(), protocol, score=score, last=1, checks=1, hopeless=2.9))
    ranked = sorted(trials, key=lambda trial: trial.score)
    assert [trial.stopped for trial in ranked] == [True, False, False, False]


def test_a_log_scored_with_another_recipe_is_refused(space, tmp_path):
    book = TrialLog(tmp_path / "trials.jsonl")
    run(space, ProxyEvaluator(load(), PROTOCOL), log=book)
    assert run(space, ProxyEvaluator(load(), PROTOCOL), log=TrialLog(book.path)) == book.trials()
    train, test = images().split(0.5, Draw(0))
    for other, message in (
        (ProxyEvaluator(load(), PROTOCOL, score="margin"), 'score: "accuracy" there, "margin" here'),
        (ProxyEvaluator(load(), replace(PROTOCOL, lr=0.1)), r"protocol\.lr: 0\.025 there, 0\.1 here"),
        (ProxyEvaluator(load(), PROTOCOL, seed=1), "seed: 0 there, 1 here"),
        (ProxyEvaluator(ProxyData(test, train), PROTOCOL), 'train: "'),
    ):
        with pytest.raises(ConfigError, match=message):
            run(space, other, log=TrialLog(book.path))


def test_the_recipe_is_the_same_before_and_after_loading():
    evaluator = ProxyEvaluator(load, PROTOCOL)
    before = evaluator.recipe
    evaluator.prepare()
    assert evaluator.recipe == before
    assert before["data"] == "tests.nas.rankers.test_evaluator.load"


def test_the_arguments_of_a_loader_are_part_of_the_recipe():
    recipes = [ProxyEvaluator(partial(load, share), PROTOCOL).recipe for share in (0.25, 0.5)]
    assert [recipe["data"] for recipe in recipes] == ["tests.nas.rankers.test_evaluator.load"] * 2
    assert [recipe["arguments"] for recipe in recipes] == [[[0.25], {}], [[0.5], {}]]


def test_an_evaluator_with_a_loader_stays_small():
    assert len(pickle.dumps(ProxyEvaluator(load, PROTOCOL))) < 2000


def test_nnis_own_dump_keeps_it():
    evaluator = ProxyEvaluator(load, PROTOCOL, score="tse", seeds=3)
    again = nni.load(nni.dump(evaluator))
    assert (again.score, again.seeds, again.protocol) == ("tse", 3, PROTOCOL)
    assert len(again.prepare().test) == 45


def test_it_runs_under_nnis_mock(space):
    evaluator = ProxyEvaluator(load, PROTOCOL)
    frozen = SimplifiedModelSpace.from_model(space, evaluator).freeze(next(enumerate_architectures(space)))
    with evaluator.mock_runtime(frozen):
        frozen.execute()
        first = frozen.metrics.final
        evaluator.evaluate(frozen.executable_model())  # as NNI's documentation does: a module in place of its maker
    assert 0 <= first <= 1
    assert 0 <= frozen.metrics.final <= 1
    assert len(frozen.metrics.intermediates) == 12


def test_bad_options():
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        ProxyEvaluator(load, score="acuracy")
    for score in ("cross-entropy", "margin"):
        with pytest.raises(ConfigError, match=f"hopeless=1.5 with score '{score}' .*; leave hopeless out, or use"):
            ProxyEvaluator(load, score=score, hopeless=1.5)
    with pytest.raises(ConfigError, match="seeds must be an integer of at least 1, got 0"):
        ProxyEvaluator(load, seeds=0)
