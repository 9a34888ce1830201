"""Command ``search``: rank architectures by training them on a small proxy set."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.flags import as_flags
from condensekit.cli.kinds import MANY, Choice, Command, Data, List, Positive, Whole, gathered, option, unused
from condensekit.cli.next import ending, page
from condensekit.cli.options import (
    DEVICE,
    DISCREPANCY,
    ENCODER,
    ENCODER_NETWORK,
    FACTOR,
    INIT,
    JSON,
    PRECISION,
    QUIET,
    RUN,
    SAMPLING,
    SEED,
    SET,
    TENSORBOARD,
    Source,
    settings_of,
    source_options,
    together,
)
from condensekit.compute import Machine
from condensekit.errors import ConfigError, unknown
from condensekit.nas.names import SCORES, STRATEGIES, needing_nni
from condensekit.runs.files import read_json, write_json
from condensekit.runs.folder import RunDir

if TYPE_CHECKING:
    from condensekit.nas.rankers.base import Combination, Ranker
    from condensekit.nas.study.full_training import FullTraining
    from condensekit.nas.study.result import SearchResult
    from condensekit.nas.study.truth import Truth

MAX_HELD = 5_000  # training images held out to score candidates, at most a fifth of them
RECIPE = ("discrepancy", "init", "sampling", "encoder", "encoder_network", "factor", "augment")  # options of recipes
DECIDING = (
    "space_name",
    "ipc",
    "steps",
    "augment",
    "train_steps",
    "score",
    "seeds",
    "hopeless",
    "strategy",
    "trials",
    "truth_name",
    "trial_limit",
    "precision",
)  # options that decide the results; they must not change on --resume
TRIALS, SMALL = 48, 28  # usual number of architectures; pixels below which images are small, and a search is, too
UNSCORED = 3  # exit code of a search that scored no candidate
COUNT, STEPS = Whole(min=1, max=MANY), Whole(min=1)  # types of options: numbers of things, and of steps
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}  # seconds of each unit of time


class _Best(TypedDict):
    """The best candidate in ``search.json``."""

    architecture: dict[str, Any]


class _Retrained(TypedDict):
    """Its training on all images."""

    accuracy: float
    epochs: int
    file: str


class _Earlier(TypedDict):
    """What a resumed search reads of its ``search.json``."""

    best: _Best | None
    retrained: _Retrained | None


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A time such as ``90s``, ``30m`` or ``2h``, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert a time to seconds; a number without unit is an error."""
        text = str(value).strip()
        if re.fullmatch(r"[0-9.]+", text):
            self.fail(
                f"{value!r} has no unit: write {text}s (seconds), {text}m (minutes) or {text}h (hours).", param, ctx
            )
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])", text)
        if not found or not float(found[1]):
            self.fail(f"{value!r} is not a time: write 90s, 30m or 2h.", param, ctx)
        return float(found[1]) * UNITS[found[2]]


HELP = """Rank architectures by training them on a small proxy set, and measure how good each ranker is.

Candidates are trained on a condensed or selected set, and scored on held-out training images. The set is made from
the other training images. RUN/search.json gets the best architecture, all trials and a row for each ranker;
RUN/ranking.png shows the scores against the truth.

\b
Examples:
  condensekit search --data digits --space convnet-small --trials 20 \\
      --rankers dm,random,params --out runs/nas
  condensekit search --data cifar10 --download --truth full --budget 4h \\
      --rankers dm,random,synflow,params,early-stop --out runs/nas
  condensekit search --resume --retrain --out runs/nas
\f
Each finished trial is written to RUN/trials.jsonl at once: after an interruption, --resume --out RUN runs only
unfinished trials. The best architecture is the top choice of the first ranker that scored one.

\b
Rankers (--rankers):
  dm, m3d lr=3, ...      the set condensed by this recipe
  half-dm, start-dm      half of the images are real; the start of dm
  random, kmeans, ...    the set of a selection
  dm ipc=50, random@250  with this ipc instead of --ipc, in as many steps
  params, synflow, ...   scores without training
  dm+synflow+jacov       the sum of the ranks
  ridge:dm+params        a regression on 10 truths
\b
Further examples:
  condensekit search --data cifar10 --rankers m3d,random --init kmeans \\
      --factor 1 --encoder-network ConvNet-w32 --trainings 2 --out runs/nas
"""


@click.command(
    "search",
    cls=Command,
    help=HELP,
    common="data image-size download space rankers truth ipc trials steps train-steps set retrain device workers "
    "budget out resume",
)
@source_options
@option(
    "--space",
    "space_name",
    help="convnet (720 ConvNets), convnet-small, nasbench201, or module:Class of your own ModelSpace.  [default: "
    f"convnet; convnet-small for images below {SMALL} pixels]",
)
@option(
    "--rankers",
    type=List(),
    default="dm,random,params",
    help="Rankers, the first decides (see `condensekit list rankers`).",
)
@option("--ipc", default=10, type=COUNT, help="Images per class.")
@option("--steps", default=300, type=STEPS, help="Matching steps of each condensation.")
@SET
@DISCREPANCY
@INIT
@SAMPLING
@ENCODER
@ENCODER_NETWORK
@FACTOR
@option(
    "--train-steps",
    default=150,
    type=STEPS,
    help="Gradient steps on each candidate, each with a full batch of 64 images.",
)
@option(
    "--score",
    default="accuracy",
    help="Score of a trained candidate: accuracy, cross-entropy or margin (the mean of the tests in the last tenth of "
    "the steps), or tse (the sum of training losses).",
)
@option(
    "--trainings",
    "seeds",
    default=1,
    type=COUNT,
    help="Trainings of each candidate by each ranker; their scores are averaged.",
)
@option(
    "--hopeless",
    type=Positive(),
    help="Give up candidates whose accuracy is below X times chance at a check; with --score accuracy or tse.",
)
@option(
    "--engine",
    default="pool",
    help="pool: trials in worker processes; nni: the same with NNI's portal; sequential: trials in this process, which "
    "a candidate can end or change.",
)
@option("--workers", type=Whole(), help="Trials at a time.  [default: 2, or 1 on a single core]")
@option("--port", type=Whole(min=1, max=65_535), default=8080, help="Port of NNI's portal.")
@option(
    "--strategy",
    type=Choice(STRATEGIES),
    default="random",
    help="random and grid: all rankers score the same architectures; evolution and tpe: a search for each ranker.",
)
@option(
    "--trials",
    type=COUNT,
    help=f"Number of architectures.  [default: {TRIALS}; half as many for images below {SMALL} pixels]",
)
@option(
    "--truth",
    "truth_name",
    type=Data(),
    default="none",
    help="Accuracies that measure the rankers: full: train on all images; FILE: a table (CSV: net_str or a column for "
    "each label, and val_accs or accuracy* in percent); none: rankers are not measured.",
)
@option("--full-epochs", default=10, type=STEPS, help="Epochs over all images for --truth full and --retrain.")
@option(
    "--truth-trainings",
    "truth_seeds",
    default=1,
    type=COUNT,
    help="Full trainings of each architecture; two also measure the noise of the truth.",
)
@option(
    "--budget",
    type=Duration(),
    help="Time for the whole search, including resumes: 30m, 2h. Trials that do not fit are left out.",
)
@option(
    "--trial-limit",
    type=Duration(),
    help="Time for one trial; a longer trial is stopped and counts as failed. A training of --truth full or --retrain "
    "has longer, as many times as it has more images than a trial. Every candidate is tried before its first trial, "
    "within this time and a minute.",
)
@RUN
@option("--resume", is_flag=True, help="Continue an interrupted run: --resume --out RUN.")
@option("--retrain", "retrained", is_flag=True, help="Train the best architecture on all images at the end.")
@SEED
@DEVICE
@PRECISION
@TENSORBOARD
@QUIET
@JSON
def command(
    source: Source,
    out: Path,
    resume: bool,
    retrained: bool,
    seed: int,
    tensorboard: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Check the options, load the data, run the search, and write the results."""
    progress, options["augment"] = show.progress(quiet, out if tensorboard else None), source.augment
    with needing_nni("condensekit search"):
        import nni

        from condensekit.nas.engines.client import serving
        from condensekit.nas.rankers.base import Setting
        from condensekit.nas.rankers.batch_norm import STATISTICS_IMAGES
        from condensekit.nas.rankers.by_name import ranker
        from condensekit.nas.rankers.sets import Maker
        from condensekit.nas.rankers.training import ProxyProtocol, check_score
        from condensekit.nas.study import winner
        from condensekit.nas.study.building import built
        from condensekit.nas.study.contest import Contest
        from condensekit.nas.study.full_training import FullTraining, how_to_feed
        from condensekit.nas.study.networks import identifying
        from condensekit.nas.study.plots import scatter
        from condensekit.nas.trials.settings import Running, usual_workers
        from condensekit.nas.trials.time_budget import OutOfTimeError

    nni.silence_stdout()  # spaces may log while they are built
    logging.getLogger("nni").setLevel(logging.WARNING)
    problems = gathered()
    rankers = []
    for name in dict.fromkeys(options["rankers"]):
        with problems:
            rankers.append(ranker(name))
    with problems:
        running = Running(
            options["engine"],
            usual_workers() if options["workers"] is None else options["workers"],
            options["trial_limit"],
            out,
            options["port"],
            options["budget"],
            progress,
        )
    with problems:
        machine = Machine(options["device"], options["precision"])
    with problems:
        if options["score"] not in SCORES:
            raise unknown("--score", options["score"], SCORES)
        check_score(options["score"], options["hopeless"])
    with problems:
        recipes = _recipe_options(options)
    with problems:
        augmentation = _augmentation(options["augment"])
    with problems:
        if len(rankers) == len(dict.fromkeys(options["rankers"])):
            unused(**_idle([part for one in rankers for part in one.parts], options, retrained))
    with problems:
        if options["truth_name"] not in ("none", "full") and not Path(options["truth_name"]).is_file():
            raise ConfigError(f"cannot read the truth table {options['truth_name']}: there is no such file")
    problems.refuse()
    server = click.get_current_context().with_resource(serving(running.engine))
    train, test = source.load(quiet, *[out] * resume)
    small = max(train.spec.shape[1:]) < SMALL
    options["space_name"] = options["space_name"] or ("convnet-small" if small else "convnet")
    options["trials"] = options["trials"] or (TRIALS // 2 if small else TRIALS)
    made = built(options["space_name"], train.spec.shape, len(train.classes), server)
    config = {
        **{name.removesuffix("_name"): options[name] for name in DECIDING},
        **({name: options[name] for name in ("full_epochs", "truth_seeds")} if options["truth_name"] == "full" else {}),
        "recalibrate": STATISTICS_IMAGES,
        "options": recipes,
        "seed": seed,
        "rankers": [r.name for r in rankers],
        **source.record(out),
    }
    protocol = ProxyProtocol(augmentation=augmentation, steps=options["train_steps"])
    rest, held = train.split(min(0.2, MAX_HELD / len(train)), seed)
    setting = Setting(
        Maker(rest, options["steps"], recipes, seed, out / "sets", machine, progress),
        held,
        protocol,
        options["ipc"],
        options["score"],
        options["seeds"],
        seed,
        hopeless=options["hopeless"],
    )
    longer = replace(protocol, epochs=options["full_epochs"], steps=None)
    full = FullTraining(train, test, longer, options["truth_seeds"], machine)
    contest = Contest(
        made,
        rankers,
        setting,
        strategy=options["strategy"],
        trials=options["trials"],
        truth=_truth(options["truth_name"], made, full),
        seed=seed,
        identify=identifying(running, server),
    )
    contest.check(running)
    with RunDir.create(out, config, resume, train.fingerprint()):
        file = out / "search.json"
        before: _Earlier | None = read_json(file, _Earlier) if os.path.lexists(file) else None
        found = contest.run(running, server)
        record, drawn = {**found.to_json(), "retrained": None}, False
        try:
            record["retrained"] = _earlier(before, found.best)
            write_json(file, record)
            drawn = scatter(found.trials, found.values, out / "ranking.png")
            if retrained and found.best and not _retrained(record["retrained"], full):
                try:
                    weights = out / "retrained.safetensors"
                    limit_s = full.limit_s(running.trial_limit_s, setting)
                    best = found.best["architecture"]
                    accuracy = winner.retrained(
                        made, best, full, seed, weights, running, limit_s=limit_s, server=server
                    )
                    done = {"accuracy": accuracy, "epochs": full.protocol.epochs, "file": str(weights)}
                    record["retrained"] = {**done, **how_to_feed(full)}
                except OutOfTimeError as error:
                    record["notes"].append(
                        f"the winner is not retrained: {error}; --resume --retrain with a larger --budget does it"
                    )
                write_json(file, record)
        finally:  # also where the disk is full
            more = _larger(found, running.budget_s)
            for one in found.late:
                begin = f"{one.ranker} scored no candidate"
                show.tell(f"Warning: {next(note for note in found.notes if note.startswith(begin))}")
            show.emit(as_json, record, _text(found, record, out, drawn, more))
    return 0 if found.best and _as_asked(rankers, found) else UNSCORED


def _as_asked(rankers: Sequence[Ranker | Combination], found: SearchResult) -> bool:
    """Whether a ranker that trains candidates scored one, if any was asked for."""
    trained = {one.name for one in rankers if not all(part.free for part in one.parts)}
    return not trained or any(trial.ranker in trained and trial.score is not None for trial in found.trials)


def _larger(found: SearchResult, budget_s: float | None) -> str | None:
    """A budget in which late rankers may score candidates, as ``--budget`` takes it; None: no ranker was late."""
    if not found.late or budget_s is None:
        return None
    needed = sum(one.needed_s or 0 for one in found.late)
    return f"{math.ceil(2 * (budget_s + needed) / 60)}m"


def _idle(rankers: Sequence[Ranker], options: Mapping[str, Any], retrained: bool) -> dict[str, str | None]:
    """Why options do nothing with these rankers, which are no combinations; see :func:`unused`.

    ``--ipc``, ``--steps`` and ``--train-steps`` are the setting of a search: they may stand with every ranker.
    """
    from condensekit.nas.rankers.trained import Condensed, Started

    started = [one for one in rankers if isinstance(one, Condensed)]
    learnt = None if any(not isinstance(one, Started) for one in started) else "no ranker condenses"
    trained = "no ranker trains candidates" if all(one.free for one in rankers) else None
    full = None if options["truth_name"] == "full" else "it is for --truth full"
    once = options["engine"] == "sequential" and options["workers"] != 1
    return {
        **dict.fromkeys(("settings", "discrepancy", "sampling", "encoder", "encoder_network"), learnt),
        **dict.fromkeys(("init", "factor"), None if started else "no ranker condenses"),
        **dict.fromkeys(("score", "seeds", "hopeless"), trained),
        "augment": trained if full and not retrained else None,
        "truth_seeds": full,
        "full_epochs": None if retrained or not full else "it is for --truth full and --retrain",
        "port": None if options["engine"] == "nni" else "it is for --engine nni",
        "workers": "--engine sequential has one" if once else None,
    }


def _recipe_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of all recipes among the rankers."""
    flags = {name: options[name] for name in RECIPE if options[name] != "auto"}
    return together(flags, settings_of(options["settings"]))


def _augmentation(text: str) -> Any:
    """The augmentation of candidates and of full trainings."""
    from condensekit.nas.rankers.training import FLIP_CROP

    return FLIP_CROP if text == "auto" else catalog.augmentation(text)


def _earlier(before: _Earlier | None, best: Mapping[str, Any] | None) -> Any:
    """The result of an earlier ``--retrain`` of the same architecture, or None."""
    if best is None or before is None or before["best"] is None:
        return None
    return before["retrained"] if before["best"]["architecture"] == best["architecture"] else None


def _retrained(earlier: Mapping[str, Any] | None, full: FullTraining) -> bool:
    """Whether an earlier retraining had as many epochs, and its weights still exist."""
    return earlier is not None and earlier["epochs"] == full.protocol.epochs and Path(earlier["file"]).is_file()


def _truth(name: str, space: Any, full: FullTraining) -> Truth | FullTraining | None:
    """The truth that ``--truth`` names."""
    from condensekit.nas.study.truth import read_table

    if name == "none":
        return None
    return full if name == "full" else read_table(Path(name), space)


def _number(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"


def _text(found: SearchResult, record: Mapping[str, Any], out: Path, drawn: bool, more: str | None) -> str:
    """The result as text; ``more`` is a budget in which late rankers may score candidates, too."""
    from condensekit.report.searched import verdict

    retrained = record["retrained"]
    longer = ("score candidates by all rankers", "search", "--resume", "--budget", more, "--out", out)
    late = tuple(f"{one.ranker} scored no candidate" for one in found.late)  # a warning says why
    lines = [f"Note: {as_flags(note)}" for note in record["notes"] if found.best or not note.startswith(late)]
    if found.best is None:
        return "\n".join([*lines, "No candidate was scored.", *([ending(out, None, *longer)] if more else [])])
    lines = [found.table(), "", *lines]
    if found.truth and found.truth["retest"] is not None:
        lines.append(
            f"The truth was measured {found.truth['repeats']} times; two measurements correlate with "
            f"{found.truth['retest']:.2f}, so that no ranker can be expected above {found.truth['ceiling']:.2f}."
        )
    if drawn:
        lines.append(f"Scores against the truth: {out / 'ranking.png'}")
    lines.append(
        f"Best by {found.best['ranker']}: {found.best['architecture']}, {_number(found.best['params'])} parameters"
    )
    if more:
        return "\n".join([*lines, ending(out, verdict(found), *longer)])
    if not retrained:
        again = ("search", "--resume", "--retrain", "--out", out)
        return "\n".join([*lines, ending(out, verdict(found), "train the best one on all images", *again)])
    share = f"{100 * retrained['accuracy']:.1f} % of the test images are right"
    lines.append(f"Retrained on all images for {retrained['epochs']} epochs: {share}; {retrained['file']}")
    lines.append("To use it: condensekit.nas.load_winner reads the file, which also says how to feed the network")
    return "\n".join([*lines, ending(out, verdict(found), "see scores, front and cost on one page", *page(out, out))])
