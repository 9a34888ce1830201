import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nni.nas.strategy import TPE, PolicyBasedRL, Random, RegularizedEvolution

from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.nas import FixedList, Portal, TrialLog, key, sample_architectures, search
from condensekit.nas.names import STRATEGIES
from condensekit.nas.trials.log import Trial
from condensekit.nas.trials.strategies import strategy
from tests.nas.toy import Constrained, Toy, diverging, failing, measuring, scoring, valued

TWO = min(2, len(os.sched_getaffinity(0)))
FINISHED = ("finished", "")
LIST = [{"width": w, "act": a} for w in (3, 1, 4) for a in ("tanh", "relu")]
ENGINES = [("sequential", 1), ("pool", 1), ("pool", TWO)]


def named(name):
    return FixedList(LIST) if name == "list" else strategy(name, 5, 8)


@pytest.fixture
def run(server):
    """search() on the shared server."""

    def call(evaluator, chosen, engine="pool", **options):
        given = {"server": server} if engine == "pool" else {}
        return search(Toy(), evaluator, chosen, engine=engine, **{"workers": TWO, **given, **options})

    return call


@pytest.mark.parametrize(("engine", "workers"), ENGINES)
@pytest.mark.parametrize("name", [*STRATEGIES, "list"])
def test_all_strategies_through_engines(run, name, engine, workers):
    trials = run(scoring(), named(name), engine, workers=workers, trials=8)
    assert len(trials) == (6 if name == "list" else 8)
    assert len({key(trial.architecture) for trial in trials}) == len(trials)
    for trial in trials:
        assert trial.status == "finished"
        assert trial.architecture["width"] <= trial.score <= trial.architecture["width"] + 0.5
        assert trial.curve == (0.5,)
        assert trial.cost_s < 2
    if name == "list":
        assert [trial.architecture for trial in trials] == LIST
    if workers == 1:
        same = run(scoring(), named(name), "sequential", trials=8)
        assert [(t.architecture, t.score) for t in trials] == [(t.architecture, t.score) for t in same]


def test_one_core_has_one_worker(server, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert len(search(Toy(), scoring(), FixedList(LIST), server=server)) == len(LIST)


@pytest.mark.parametrize("name", ["random", "grid", "evolution", "list"])
def test_a_constrained_network_has_one_name_whatever_strategy_asks_for_it(server, name):
    made = Constrained()
    chosen = FixedList(sample_architectures(made, 6, 0)) if name == "list" else strategy(name, 5, 8)
    for engine in ("sequential", "pool"):
        trials = search(made, valued(), chosen, trials=6, engine=engine, workers=1, server=server)
        assert len(trials) == 6
        assert all(set(t.architecture) == {"width", "deep"} and t.score for t in trials)
        chosen = FixedList([t.architecture for t in trials])


def test_other_nni_strategies_pass_through(run):
    assert len(run(scoring(), Random(dedup=False, seed=1), trials=9)) == 9
    crossing = RegularizedEvolution(population_size=4, sample_size=2, crossover=True, seed=1)
    assert len(run(scoring(), crossing, trials=8)) == 8
    assert len(run(scoring(), TPE(optimize_mode="maximize", seed=1), "sequential", trials=2)) == 2


FAILURES = {
    "raise": "ValueError: no good",
    "memory": "out of memory: RuntimeError",
    "nan": "no finite number",
    "silent": "reported no final result",
    "set": "TypeError: float() argument must be a string or a real number, not 'set'",
    "sleep": "over its limit of 0.3 s",
    "listed": "has [0.1, 0.2] as 'scores': report a dictionary of finite numbers, or leave it out",
    "named": "has {'accuracy': 'high'} as 'scores': report a dictionary",
    "infinite": "has {'accuracy': inf} as 'scores': report a dictionary of finite numbers",
    "untimed": "has None as 'seconds': report a finite number, 0 or more",
    "uncounted": "has nan as 'image_steps': report a finite number",
    "negative": "has inf as 'image_steps'",
    "huge": "no finite number: 1000",
    "failed": "it told so",
    "leave": "SystemExit: enough",
}
ENDS = {
    "exit": "its worker ended with exit code 7",
    "kill": "killed by signal 9",
    "torn": "killed by signal 9",
}  # of the process that trains it


@pytest.mark.parametrize(
    ("engine", "workers", "how", "reason"),
    [(*engine, *way) for engine in ENGINES for way in FAILURES.items()]
    + [(*engine, *way) for engine in ENGINES if engine[0] == "pool" for way in ENDS.items()],
)
def test_a_candidate_that_fails_is_marked_and_the_search_goes_on(run, engine, workers, how, reason, tmp_path):
    book = TrialLog(tmp_path / "trials.jsonl")
    trials = run(
        failing(how=how), "grid", engine, workers=workers, trial_limit_s=0.3 if how == "sleep" else 30, log=book
    )
    failed = [trial for trial in trials if trial.status == "failed"]
    assert len(trials) == 12
    assert [trial.architecture["width"] for trial in failed] == [2, 2, 2]
    assert all(reason in trial.reason and "\n" not in trial.reason and trial.score is None for trial in failed)
    assert {trial.image_steps for trial in trials if trial.score} == {10}
    assert len(TrialLog(book.path)) == 12


def test_what_ended_in_time_is_not_over_its_limit_however_late_it_is_looked_at(run):
    def busy(trial):
        if trial.architecture == LIST[0]:
            time.sleep(1.5)

    trials = run(scoring(), FixedList(LIST), trial_limit_s=1, on_trial=busy)
    assert [trial.reason for trial in trials] == [""] * len(LIST)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # hypothesis watches the collector
@pytest.mark.parametrize("engine", ["sequential", "pool"])
@pytest.mark.parametrize("how", ["endless", "stubborn", "deaf"])
def test_a_trial_that_never_stops_is_ended_at_its_limit(run, engine, how):
    trials = run(failing(how=how), FixedList([{"width": 2, "act": "relu"}]), engine, trial_limit_s=0.3)
    assert [trial.reason for trial in trials] == ["over its limit of 0.3 s"]


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_only_a_text_tells_of_a_failure(run, engine):
    trials = run(failing(how="well"), FixedList([{"width": 2, "act": "relu"}]), engine)
    assert [(trial.score, trial.reason) for trial in trials] == [(2.0, "")]


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_numbers_of_other_libraries_are_metrics(run, engine, tmp_path):
    book = TrialLog(tmp_path / "trials.jsonl")
    trials = run(measuring(), FixedList(LIST), engine, log=book)
    assert [trial.score for trial in trials] == [trial.architecture["width"] for trial in trials]
    assert all(trial.scores == {"accuracy": 0.25, "margin": 0.75} and trial.image_steps == 10 for trial in trials)
    assert all(trial.curve == ({"default": 0.5, "step": 3},) for trial in trials)
    assert sorted(map(str, TrialLog(book.path).trials())) == sorted(map(str, trials))


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_numbers_that_are_not_finite_are_left_out_of_curves(run, engine, tmp_path):
    log = TrialLog(tmp_path / "trials.jsonl")
    trials = run(diverging(), FixedList(LIST), engine, log=log)
    assert [t.score for t in trials] == [architecture["width"] for architecture in LIST]
    assert trials[0].curve == ({"default": 0.1, "cross-entropy": None, "margin": None},)
    assert {key(t.architecture): t for t in TrialLog(log.path).trials()} == {key(t.architecture): t for t in trials}


@pytest.mark.parametrize("engine", ["sequential", "pool"])
@pytest.mark.parametrize("name", [*STRATEGIES, "list"])
def test_an_architecture_with_a_fault_is_a_failed_trial_that_is_not_run(run, name, engine, caplog):
    def fault(architecture):
        return "too narrow" if architecture["width"] < 3 else ""

    trials = run(scoring(), named(name), engine, workers=1, trials=8, fault=fault)
    assert {t.architecture["width"] < 3 for t in trials} == {False, True}
    for trial in trials:
        assert (trial.status, trial.reason) == (("failed", "too narrow") if fault(trial.architecture) else FINISHED)
        assert trial.curve == (() if trial.reason else (0.5,))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", STRATEGIES)
def test_where_all_fail_the_search_still_ends(run, name):
    trials = run(failing(width=None), name, "sequential", trials=8)
    assert [trial.status for trial in trials] == ["failed"] * 8


@pytest.mark.parametrize("name", [*STRATEGIES, "list"])
@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_resume_repeats_nothing_and_ends_as_an_uninterrupted_search(run, tmp_path, name, engine):
    calls = tmp_path / "calls"
    whole = run(scoring(), named(name), engine, workers=1, trials=6)
    book = TrialLog(tmp_path / "trials.jsonl")
    heard: list[Trial] = []
    for trials in (2, 4, 6, 6):
        again = TrialLog(book.path)
        resumed = run(
            scoring(calls=str(calls)), named(name), engine, workers=1, trials=trials, log=again, on_trial=heard.append
        )
    assert [(t.architecture, t.score) for t in resumed] == [(t.architecture, t.score) for t in whole]
    done = calls.read_text().splitlines()
    assert len(done) == len(set(done)) == 6
    assert len(heard) == 2 + 4 + 6 + 6


def test_failed_trials_are_not_run_again(run, tmp_path):
    first, again = (run(failing(), "grid", log=TrialLog(tmp_path / "trials.jsonl"), trials=12) for _ in range(2))
    assert sorted(map(str, first)) == sorted(map(str, again))


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_the_budget_ends_the_search_and_what_ran_is_run_again(run, tmp_path, engine):
    book = TrialLog(tmp_path / "trials.jsonl")
    start = time.monotonic()
    trials = run(scoring(seconds=0.35), "random", engine, workers=1, budget_s=1.0, log=book)
    assert time.monotonic() - start < 3
    assert 1 <= len(trials) == len(TrialLog(book.path)) <= 2
    assert all(trial.status == "finished" for trial in trials)
    assert len(run(scoring(), "random", engine, workers=1, trials=5, log=book)) == 5


def elsewhere(work):
    """What work gives in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_a_limit_that_no_signal_can_keep_is_refused(run):
    def limited(engine):
        return lambda: run(failing(how="sleep"), FixedList([{"width": 2, "act": "relu"}]), engine, trial_limit_s=0.3)

    with pytest.raises(ConfigError, match=r"outside the main thread, got trial_limit_s=0\.3: use engine 'pool'"):
        elsewhere(limited("sequential"))
    assert elsewhere(limited("pool"))[0].reason == "over its limit of 0.3 s"


def test_a_budget_that_no_signal_can_keep_ends_the_search_between_trials_and_says_so(run, caplog):
    trials = elsewhere(lambda: run(scoring(seconds=1.5), "random", "sequential", budget_s=1.0))
    assert [trial.status for trial in trials] == ["finished"]
    assert caplog.text.count("the budget cannot cut off") == 1


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_the_budget_counts_over_all_calls_with_the_same_log(run, tmp_path, engine):
    found, start = [], time.monotonic()
    for _ in range(4):
        book = TrialLog(tmp_path / "trials.jsonl")
        found.append(len(run(scoring(seconds=0.3), "random", engine, workers=1, budget_s=1.0, log=book)))
    assert time.monotonic() - start < 3.9  # four budgets of their own would take 4
    assert found == [found[0], 0, 0, 0]
    assert 1 <= len(TrialLog(tmp_path / "trials.jsonl")) <= 3


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_ctrl_c_keeps_what_is_finished(run, tmp_path, engine):
    book = TrialLog(tmp_path / "trials.jsonl")

    def interrupt(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(scoring(), "random", engine, trials=5, log=book, on_trial=interrupt)
    assert len(TrialLog(book.path)) == 1
    assert len(run(scoring(), "random", engine, trials=5, log=book)) == 5


def test_data_that_cannot_be_loaded_is_an_error_and_no_failed_trial(run):
    from condensekit.nas import ProxyEvaluator

    for engine in ("sequential", "pool"):
        with pytest.raises((ConfigError, DataError), match="no such set"):
            run(ProxyEvaluator(missing), "random", engine)


def missing():
    raise DataError("no such set")


def test_a_repeating_strategy_ends(run):
    from nni.nas.strategy import Strategy

    class Stubborn(Strategy):
        def _run(self):
            while self.wait_for_resource():
                self.engine.submit_models(self.model_space.freeze(LIST[0]))

    assert len(run(scoring(), Stubborn(), trials=5)) == 1


def test_a_strategy_that_submits_more_than_there_are_workers(run):
    from nni.nas.strategy import Strategy

    class Greedy(Strategy):
        def _run(self):
            models = [self.model_space.freeze(architecture) for architecture in [*LIST, LIST[0]]]
            self.engine.submit_models(*models)
            self.engine.wait_models(*models)
            self.scores = [model.metric for model in models]

    greedy = Greedy()
    trials = run(scoring(), greedy)
    assert len(trials) == 6
    assert greedy.scores == [*(trial.score for trial in trials), trials[0].score]


def test_the_seed_of_a_named_strategy_counts(run):
    drawn = [[t.architecture for t in run(scoring(), "random", "sequential", trials=5, seed=s)] for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "pol"}, "Did you mean 'pool'"),
        ({"workers": 0}, "workers must lie in 1 to"),
        ({"engine": "pool", "workers": 999}, "workers must lie in 1 to .* got 999"),
        ({"trials": 0}, "trials must be"),
        ({"budget_s": 0.0}, "budget_s must be positive"),
        ({"trial_limit_s": -1.0}, "trial_limit_s must be positive"),
        ({"engine": "nni"}, "needs portal="),
        ({"portal": Portal(Path("x"))}, "for engine='nni' only"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        search(Toy(), scoring(), "random", **{"engine": "sequential", **options})


def test_a_small_population_is_refused():
    with pytest.raises(ConfigError, match="population above its 1 workers, got 1: use fewer workers, or at least 8"):
        search(Toy(), scoring(), RegularizedEvolution(population_size=1, sample_size=1), engine="sequential")


def test_an_unknown_strategy():
    with pytest.raises(ConfigError, match="Did you mean 'evolution'"):
        search(Toy(), scoring(), "evolutoin", engine="sequential")


def test_an_evaluator_with_choices_of_its_own_is_refused():
    import nni

    with pytest.raises(ConfigError, match="its own choices"):
        search(Toy(), scoring(seconds=nni.choice("s", [0.0, 0.1])), "random", engine="sequential")


def test_choices_that_json_changes_are_refused():
    import nni
    from nni.mutable import ensure_frozen
    from nni.nas.nn.pytorch import ModelSpace

    class Kernels(ModelSpace):
        def __init__(self, values):
            super().__init__()
            self.kernel = ensure_frozen(self.add_mutable(nni.choice("kernel", values)))

    for values, named in (
        ([(3, 3), (5, 5)], r"\(3, 3\), which JSON changes to \[3, 3\]"),
        ([1, len], "built-in function len"),
    ):
        for engine in ("sequential", "pool"):
            with pytest.raises(ConfigError, match=f"choice 'kernel' has the value .*{named}"):
                search(Kernels(values), scoring(), "random", engine=engine)


def test_a_foreign_architecture_in_a_list(run):
    with pytest.raises(DataError, match="not an architecture of this space"):
        run(scoring(), FixedList([{"width": 99, "act": "relu"}]))


def test_a_log_of_another_space(run, tmp_path):
    book = TrialLog(tmp_path / "trials.jsonl")
    run(scoring(), "random", trials=1, log=book)
    with pytest.raises(ConfigError, match="another space"):
        search(Toy(classes=5), scoring(), "random", log=book, engine="sequential")
    assert len(search(Toy(classes=5), scoring(), "random", log=book, engine="sequential", ranker="b", trials=2)) == 2


def test_a_log_that_cannot_be_written_ends_the_search(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot append"):
        run(scoring(), "random", trials=2, log=TrialLog(tmp_path / "file" / "trials.jsonl"))


def test_what_cannot_be_sent_to_workers(run):
    import threading

    with pytest.raises(ConfigError, match="cannot be sent to workers"):
        run(scoring(seconds=threading.Lock()), "random")


def test_what_cannot_be_loaded_in_a_worker(run):
    class Breaks:
        def __reduce__(self):
            return (int, ("no number",))

    with pytest.raises(ConfigError, match="cannot be loaded in a worker: ValueError"):
        run(scoring(seconds=Breaks()), "random")


def test_a_strategy_that_cannot_search_this_space_says_so():
    from nni.nas.nn.pytorch import InputChoice, ModelSpace

    class Inputs(ModelSpace):
        def __init__(self):
            super().__init__()
            self.choice = InputChoice(n_candidates=3, n_chosen=2, label="inputs")

    with pytest.raises(ConfigError, match=r"TPE cannot search this space \(.*use another strategy"):
        search(Inputs(), scoring(), "tpe", engine="sequential", trials=2)


@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_what_an_evaluator_does_not_implement_fails_its_trial_and_is_not_laid_to_the_strategy(run, engine):
    workers = {"workers": 1} if engine == "sequential" else {}
    trials = run(failing(how="unimplemented"), "random", engine, trials=6, **workers)
    assert {trial.reason for trial in trials if trial.score is None} == {"NotImplementedError: not yet"}


def test_what_a_callback_does_not_implement_is_not_laid_to_the_strategy(run):
    def told(trial):
        raise NotImplementedError("not yet")

    with pytest.raises(NotImplementedError, match="not yet"):
        run(scoring(), "random", "sequential", trials=2, workers=1, on_trial=told)


def test_nothing_is_printed(run, capfd):
    run(scoring(), "evolution", trials=6)
    run(failing(), "random", trials=6)
    assert capfd.readouterr() == ("", "")


def test_a_space_of_the_main_script_reaches_the_workers(tmp_path):
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(
        "import nni\nfrom nni.mutable import ensure_frozen\nfrom nni.nas.evaluator import FunctionalEvaluator\n"
        "from nni.nas.nn.pytorch import ModelSpace\nfrom condensekit.nas import search\n"
        "class Mine(ModelSpace):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.width = ensure_frozen(self.add_mutable(nni.choice('width', [1, 2, 3])))\n"
        "def evaluate(model):\n"
        "    nni.report_final_result(model.width)\n"
        "print([t.score for t in search(Mine(), FunctionalEvaluator(evaluate), 'grid', workers=1)])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert sorted(ran.stdout) == sorted("[1.0, 2.0, 3.0]\n")
    assert list(tmp_path.iterdir()) == [script]


def test_rl_where_its_dependency_is_there(run):
    pytest.importorskip("tianshou")
    assert run(scoring(), PolicyBasedRL(max_collect=2, trial_per_collect=2), trials=4)


def test_messages_of_nni_reach_logging(run, caplog):
    with caplog.at_level(logging.INFO, "nni"):
        run(scoring(), "grid", trials=2)
    assert "nni.nas.strategy" in {record.name.rpartition(".")[0] for record in caplog.records}
