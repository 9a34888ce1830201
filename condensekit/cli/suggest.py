"""Suggestions for unknown commands and options: other words of the field first, then names close in spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

from condensekit import words
from condensekit.cli import COMMANDS, imported

COMMAND_WORDS = {
    "condense": "distill distil distillation condensation synthesize synthesise synthesis learn fit generate make",
    "select": "coreset subset sample choose pick selection baseline baselines",
    "code": "jpeg jpg compress encode quantize quantise",
    "list": "ls names available catalog",
    "evaluate": "eval test benchmark bench compare validate validation accuracy score measure",
    "replay": "cl continual continual-learning incremental class-incremental lifelong stream memory",
    "search": "nas automl hpo rank ranking architecture architectures",
    "report": "html summarize summarise plot visualize visualise figures dashboard",
    "export": "save png images convert dump write",
    "inspect": "show info describe view cat print summary stat stats",
    "demo": "example examples quickstart tutorial try start",
    "condense (learns a set) or evaluate (trains networks on it)": "train training trainer run",
    "--help": "help man usage",
    "--version": "version about",
}
"""For each command or option, the words by which others call it."""

OPTION_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "run runs run-dir rundir path file set input folder",
        ("evaluate code export inspect report: give RUN without an option",),
    ),
    ("steps iterations iters iteration iter it niter updates optimization-steps", ("--steps", "--protocol")),
    (
        "epochs epoch nepochs nepoch train-epochs training-epochs e ep",
        (
            "--train-epochs (of from-scratch) or --er-epochs (of er)",
            "--train-steps (of candidates) or --full-epochs (of full trainings)",
            "--protocol (it has the epochs)",
            "--steps",
        ),
    ),
    ("train-steps training-steps train-iterations", ("--train-epochs", "--protocol", "--steps")),
    (
        "lr learning-rate learningrate lr-img lr-image image-lr lr-syn eta step-size alpha l",
        (
            "--lr",
            "--set lr=X (of the images) or --er-lr (of the learner)",
            "--set lr=X",
            "--protocol (it has the rate)",
        ),
    ),
    (
        "lr-net net-lr train-lr lr-model lr-teacher er-learning-rate learner-lr",
        ("--er-lr", "--protocol (it has the rate)"),
    ),
    (
        "batch batch-size bs batchsize train-batch train-batch-size minibatch mini-batch batch-train b",
        (
            "--batch-real",
            "--er-batch (of new images) or --set batch_real=N (of a condensation)",
            "--set batch_real=N",
            "--protocol (it has the batch)",
        ),
    ),
    ("batch-real real-batch real-batch-size batch-size-real", ("--set batch_real=N",)),
    ("er-batch-size", ("--er-batch",)),
    ("batch-mem mem-batch batch-size-mem memory-batch replay-batch mem-batch-size", ("--er-batch-mem",)),
    ("momentum mom", ("--er-momentum (of the learner) or --set momentum=X (of the images)", "--set momentum=X")),
    ("weight-decay wd decay l2", ("--er-weight-decay", "--protocol (it has the weight decay)")),
    ("keep net-freq", ("--set keep=N",)),
    ("nested", ("--set nested=true",)),
    (
        "ipc per-class n-images num-images nimages perclass images-per-class image-per-class img-per-class "
        "imgs-per-class spc dpc samples-per-class examples-per-class n-per-class num-per-class exemplars-per-class "
        "shots shot n-images-per-class",
        ("--ipc", "evaluate: the baselines have the ipc of the sets"),
    ),
    (
        "mem-size memory-size mem-sz memsize buffer-size buffersize replay-size capacity exemplars exemplar-size "
        "n-memories mem-per-class memory-budget",
        ("replay: --ipc",),
    ),
    (
        "bytes nbytes byte-budget budget-bytes memory-bytes mem-bytes budget",
        ("replay: the bytes follow from --ipc; for images in equal bytes add random-equal-bytes to --memory",),
    ),
    (
        "buffer mem memories memory-strategy buffer-type memory-type replay-memory memory policy storage-policy",
        ("--memory",),
    ),
    (
        "experiences tasks classes-per-exp class-per-task classes-per-experience class-per-experience task stages "
        "sessions increments increment phases n-tasks n-stages n-steps-stream classes-per-task num-tasks task-num",
        ("--experiences",),
    ),
    ("classes class n-class nclass num-class", ("the classes are those of the data",)),
    (
        "out output outdir out-dir output-dir output-folder output-path outfile outpath o save save-dir save-path "
        "savedir save-to dest destination logdir log-dir exp-dir expdir run-dir rundir run folder dir result-dir "
        "results-dir results workdir work-dir name exp-name run-name to",
        ("--to", "--out", "evaluate: the results go into the first RUN"),
    ),
    ("png image picture plot figure fig", ("--grid",)),
    (
        "gpu gpus cuda gpu-id gpu-ids device-id use-gpu use-cuda accelerator cpu mps no-cuda cuda-device g",
        ("--device",),
    ),
    (
        "dataset datasets data-set data-name dataset-name input input-dir inputs image-folder imagefolder "
        "train-data train-dir images source root d",
        ("--data",),
    ),
    (
        "data-path datapath data-dir datadir data-folder dataset-path dataset-dir dataset-root dataroot",
        ("--data (a name or a folder) or --data-root (where the named sets are)",),
    ),
    ("split val-split train-split test-split", ("--splits",)),
    (
        "image-size img-size img-sz imgsize im-size imsize resolution res size resize input-size image-resolution",
        ("--image-size",),
    ),
    (
        "network model model-type net-type arch architecture net backbone cnn convnet model-name net-name "
        "arch-name network-name architectures archs models nets m",
        ("--network", "--space (of candidates) or --encoder-network (it embeds)", "--encoder-network"),
    ),
    ("eval-model eval-network eval-mode eval-net", ("evaluate: --network",)),
    ("search-space searchspace supernet", ("--space",)),
    (
        "encoder feature-extractor extractor embed embedding embedder features encoder-name",
        ("--encoder", "--encoder-network"),
    ),
    (
        "depth width norm activation pooling net-depth net-width net-norm net-act",
        ("--network", "--space", "--encoder-network"),
    ),
    (
        "time timeout runtime max-runtime time-limit hours max-time walltime duration seconds time-budget budget "
        "minute limit deadline t minutes",
        ("--minutes", "--budget"),
    ),
    ("trial-time trial-timeout timeout-per-trial max-trial-time", ("--trial-limit",)),
    ("verbose v verbosity debug loglevel log-level progress", ("it shows its progress; --quiet hides it",)),
    ("silent q no-progress noprogress no-bar nobar no-progress-bar disable-progress no-verbose", ("--quiet",)),
    (
        "augment augmentation augmentations aug augs transform transforms data-augmentation data-aug dsa-strategy "
        "no-augment no-aug no-augmentation use-aug flip no-flip hflip mirror",
        ("--augment",),
    ),
    (
        "workers threads thread n-jobs jobs job j cpus cores nproc procs processes parallel dataloader-workers "
        "concurrency",
        ("--workers",),
    ),
    ("algorithm algo approach recipe technique", ("--method", "--memory", "--rankers", "--selection")),
    ("method methods", ("--selection", "--memory", "--rankers", "--method")),
    ("selection selections coreset subset selector", ("--selection", "--init", "--memory", "--against")),
    (
        "baseline baselines compare compare-to compare-with versus vs reference references control controls",
        ("--against",),
    ),
    ("ranker ranking proxy proxies predictor predictors zero-cost score-by", ("--rankers",)),
    (
        "candidates candidate samples n-archs num-archs n-architectures num-architectures evaluations max-trials",
        ("--trials",),
    ),
    (
        "runs repeats repeat repetitions n-runs num-exp num-experiments experiments num-eval evals n-eval ensembles",
        ("evaluate: --networks", "search: --trainings (of each candidate)", "--orders", "--seeds"),
    ),
    (
        "seeds",
        (
            "evaluate: --networks (trained on each set) or --seed",
            "search: --trainings (of each candidate) or --seed",
            "--seed",
        ),
    ),
    ("truth-seeds truth-repeats", ("--truth-trainings",)),
    ("ground-truth groundtruth full true table", ("--truth",)),
    ("strategy scenario setting training-mode", ("--regime",)),
    ("search-strategy searcher sampler explorer tuner search-algorithm", ("--strategy",)),
    ("backend executor", ("--engine",)),
    ("class-order order permutations permutation shuffles shuffle", ("--orders",)),
    (
        "loss distance dis-metric criterion divergence metric kernel mmd",
        ("--discrepancy", "--set discrepancy=NAME"),
    ),
    ("metric scoring objective", ("--score",)),
    ("checkpoint ckpt save-every save-interval checkpoint-interval checkpoint-freq save-freq", ("--checkpoint-every",)),
    ("eval-interval log-interval log-every image-interval save-images snapshot snapshots", ("--snapshot-every",)),
    ("continue restart restore load from-checkpoint load-checkpoint resume-from ckpt-path", ("--resume",)),
    ("overwrite force f clobber replace", ("--overwrite", "give --out another folder, or --resume")),
    ("seed random-seed randomseed manual-seed rng random-state s", ("--seed",)),
    (
        "dtype half amp fp16 bf16 fp32 float16 bfloat16 mixed-precision mixed autocast use-amp",
        ("--precision",),
    ),
    ("quantize quantise store stored-as storage-type", ("--storage",)),
    ("compile torch-compile jit torchcompile", ("--compiled",)),
    ("pack packing packed multi-formation formation partition n-parts zoom", ("--factor",)),
    ("initial initialization initialisation init-method real-init start initialise initialize", ("--init",)),
    ("init", ("--set init=NAME",)),
    ("sampling sample-real real-sampling", ("--sampling", "--set sampling=NAME")),
    ("soft-label softlabel softlabels label-type", ("--soft-labels",)),
    ("distill kd distillation-weight distill-weight", ("--distillation",)),
    (
        "hyperparameter hyperparameters hparams hp params param option options opt opts kwargs define override",
        ("--set",),
    ),
    ("conf cfg config-file configuration yaml toml settings c", ("--config",)),
    ("tb wandb logger summary-writer", ("--tensorboard",)),
    ("numpy arrays", ("--npz",)),
    ("usage man", ("--help",)),
    ("all full-help help-full more advanced", ("--help-all",)),
)
"""Words by which others call an option, and what is offered: the first text whose options the command has.

A text that begins with commands and a colon is for these commands alone. A text that does not begin with an option is a
sentence that tells why there is no such option.
"""
AT_THE_TOP = "`condensekit --help` lists the commands."
COUNTING = re.compile(r"^(?:number-of|num-of|no-of|total|num|max|nb|nr|n)-(?=..)")  # --num-workers: workers
FLAG = re.compile(r"--[a-z-]+(?: \w+=\w+)?")


def for_command(name: str) -> str:
    """What to say of an unknown command: the question ``Did you mean ...?``, or where the commands are listed."""
    given = words.plain(name)
    meant = [ours for ours, others in COMMAND_WORDS.items() if given in map(words.plain, others.split())]
    if not meant and (given.rstrip("s") in COMMANDS or given in COMMANDS):
        meant = [given if given in COMMANDS else given.rstrip("s")]
    meant = meant or words.close(given, {one: one for one in COMMANDS})
    return _question(meant) if meant else AT_THE_TOP


def for_option(command: str, options: Iterable[str], name: str) -> str:
    """What to say of an unknown option of a command: a question, the reason, or where the options are listed.

    Args:
        command: Name of the command; empty: ``condensekit`` itself.
        options: Its options, such as ``--ipc``.
        name: The unknown option, with or without dashes.
    """
    known = [option for option in options if option.startswith("--")]
    text = name.lower().replace("_", "-").strip("-")
    bare = COUNTING.sub("", text)
    given, counted = words.plain(text), words.plain(bare)
    names = {words.plain(option): option for option in known}
    for exact in (given, counted):
        if exact in names:
            return _question([names[exact]])
    if (told := _called(command, known, {given, counted})) is not None:
        return told or _elsewhere(command, text)
    same = [option for option in known if words.plain(option).rstrip("s") == counted.rstrip("s")]
    if same:
        return _question(same[:1])
    if f"--{bare}" in (others := _others(command)) or f"--{text}" in others:
        return _elsewhere(command, text)
    if close := words.close(given, names):
        return _question(close)
    foreign = {words.plain(word): word for others, _ in OPTION_WORDS for word in others.split()}
    near = words.close(given, foreign)
    return (_called(command, known, set(map(words.plain, near))) if near else None) or _elsewhere(command, text)


def _called(command: str, known: list[str], given: set[str]) -> str | None:
    """What :data:`OPTION_WORDS` offers for a word; empty if nothing fits the command; None for a word it lacks."""
    found = None
    for others, offers in OPTION_WORDS:
        if given.isdisjoint(map(words.plain, others.split())):
            continue
        found = found or ""
        for offer in offers:
            only, colon, text = offer.partition(": ")
            text = text if colon else offer
            fits = not colon or command in only.split()
            if not found and fits and all(flag.split()[0] in known for flag in FLAG.findall(text)):
                found = _question([text]) if text.startswith("--") else f"{text[0].upper()}{text[1:]}."
    return found


def _question(meant: list[str]) -> str:
    """``Did you mean 'this' (of that) or 'these'?``; names in quotes, what stands in brackets as it is."""
    parts = [part for one in meant for part in one.split(" or ")]
    quoted = (re.sub(r"^(.*?)(?= \(|$)", lambda found: repr(found[1]), part) for part in parts)
    return f"Did you mean {' or '.join(quoted)}?"


def _others(command: str) -> dict[str, list[str]]:
    """The options of all other commands, each with the commands that have it."""
    found: dict[str, list[str]] = {}
    for other in COMMANDS:
        if other != command:
            for param in imported(other).params:
                for option in param.opts if isinstance(param, click.Option) else ():
                    found.setdefault(option, []).append(other)
    return found


def _elsewhere(command: str, text: str) -> str:
    """Which commands have the option; or where the options of this command are listed."""
    others = _others(command)
    having = others.get(f"--{text}") or others.get(f"--{COUNTING.sub('', text)}")
    if having:
        return f"It is an option of {', '.join(having)}."
    return f"`condensekit {command} --help-all` lists the options." if command else AT_THE_TOP
