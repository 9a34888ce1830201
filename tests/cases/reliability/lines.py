"""Command lines with hostile values: a generator with a fixed seed, and their outcome without any computing."""

import io
import random
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import click

from condensekit.cli import COMMANDS, imported, main
from condensekit.cli.kinds import Location, Number, Whole

DIGITS = "9" * 5000
LONG = "x" * 5000
BLANK = ("", " ", "\t")
TEXTS = (
    *BLANK,
    ",",
    ",,,",
    " , ",
    "-",
    "--",
    "a\0b",
    "\udcff",
    "\x1b[2J",
    LONG,
    "x " * 3000,
    DIGITS,
    ":",
    "a:b:c",
    "::",
)
NUMBERS = (
    *BLANK, DIGITS, "-" + DIGITS, str(2**63), str(-(2**63) - 1), "1e400", "nan", "inf", "-inf", "٣", "²", "0x10", "1,",
    ",", "-", "one", "\udcff", "a\0b", LONG,
)  # fmt: skip
PATHS = (*BLANK, "-", "a\0b", "x" * 300, "a/" * 3000, "\ud800")
RECIPES = (
    *(
        f"dm {option}={value}"
        for option in ("lr", "batch_real", "momentum", "keep", "factor")
        for value in ("", DIGITS + "e", "nan", "1e400", "-1", LONG)
    ),
    *(
        "dm =",
        "dm lr",
        "dm lr=1 lr=2",
        "dm lr==1",
        "=",
        "dm encoder_network=" + LONG,
        "dm discrepancy=moments-" + DIGITS,
    ),
)
NETWORKS = ("ConvNet-w" + DIGITS, "ConvNet-w0", "ConvNet-w-1", "ConvNet-w٣", "ConvNet-" + LONG, "MLP width=" + DIGITS)
LISTS = ("random,", "dm@" + DIGITS, "dm@0", "dm@٣", "dm ipc=-1", "dm+", "+", "ridge:", "random,random", "early-stop@x")
KINDS = {
    "--method": RECIPES,
    "--network": NETWORKS,
    "--encoder-network": NETWORKS,
    "--rankers": tuple(one for one in LISTS if one not in ("random,",)),
    "--memory": ("dm+", "hybrid-dm-" + DIGITS, "hybrid-dm-101", "jpeg-dm-0", "downscaled-" + DIGITS, "random,random"),
    "--against": ("packed-", "random" + LONG, "jpeg-random quality=" + DIGITS),
    "--device": ("cuda:" + DIGITS, "cpu:1", "cuda:-1", "cuda:x", "meta"),
    "--set": ("lr", "=", "=1", "lr=", "lr=" + DIGITS + "x", "lr=nan", "sampling.x=1", ".=1", "lr.=1", "a\0b=1"),
    "--augment": ("flip,", ",flip", "flip,flip", "none,flip", "auto,flip"),
    "--discrepancy": ("moments-" + DIGITS, "moments-0", "moments--1", "moments-٣"),
    "--budget": ("0", "0s", "1d", "-1h", DIGITS, "9" * 400 + "h", "1e400", "٣s", "nan"),
    "--truth": ("/dev/null", "/"),
}
KINDS["--trial-limit"] = KINDS["--budget"]
TINY = {
    "condense": "--data digits --encoder-network ConvNet-w8-d1 --ipc 1 --steps 3 --batch-real 8 --out {out}",
    "select": "--data digits --ipc 1 --out {out}",
    "encoders": "--data digits --encoder-network ConvNet-w8-d1 --count 1 --epochs 1",
    "code": "{run} --ipc 30 --out {out}",
    "list": "methods",
    "methods": "",
    "evaluate": "{run} --networks 1 --network ConvNet-w8-d1 --against none",
    "replay": "--data digits --ipc 1 --memory random --orders 1 --network ConvNet-w8-d1 --out {out}",
    "search": "--data digits --space convnet-small --rankers random --ipc 2 --train-steps 5 --trials 3 "
    "--engine sequential --out {out}",
    "export": "{run} --to {out}",
    "inspect": "{run}",
    "report": "{run} --out {out}",
    "demo": "--out {out}",
}
"""A line of each command that is valid."""


class ReachedError(Exception):
    """The line is valid: here the command would begin to compute or to write."""


@dataclass(frozen=True)
class Line:
    """A command line, and the words in it that no command may accept."""

    words: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a line ended: the exit code (None: it was valid), standard error, and the error that is none of ours."""

    code: int | None
    err: str
    crash: BaseException | None = None


def options(command):
    """The options of a command with a value, by flag."""
    found = imported(command).params
    return {p.opts[0]: p for p in found if isinstance(p, click.Option) and not p.is_flag}


def hostile(option):
    """Values that an option must refuse."""
    flag = option.opts[0]
    values: tuple[str, ...]
    if isinstance(option.type, Location):
        values = PATHS if option.type.made else PATHS[:3] + PATHS[4:]
    elif isinstance(option.type, Whole | Number):
        values = NUMBERS
    else:
        values = TEXTS
    return (*values, *KINDS.get(flag, ()))


def lines(seed, number, run, out):
    """``number`` command lines; ``run`` is a finished run, ``out`` a folder that does not exist."""
    draw = random.Random(seed)
    commands = [name for name in COMMANDS if options(name)]
    for _ in range(number):
        command = draw.choice(commands)
        words = [word.format(run=run, out=out) for word in TINY[command].split()]
        known = options(command)
        wrong = []
        for flag in draw.sample(sorted(known), k=min(len(known), draw.choice((1, 1, 1, 2, 3)))):
            value = draw.choice(hostile(known[flag]))
            wrong += [flag, value]
        if draw.random() < 0.1:
            wrong += [
                draw.choice(("--nothing", "--" + LONG, "--\x1b[2J", "-9", "surplus", "\udcff", "--steps=", "--=1"))
            ]
        if draw.random() < 0.1:
            place = draw.choice((__file__, __file__ + "/below", "/dev/null"))
            wrong += ["--out" if "--out" in known else "--to" if "--to" in known else "--data-root", place]
        if draw.random() < 0.05 and "--out" in known:
            wrong += ["--out"]  # without its value
        yield Line((command, *words, *wrong), tuple(wrong))


def outcome(words):
    """Run a command line in this process; the caller has stopped computing by :class:`ReachedError`."""
    err = io.StringIO()
    before = signal.getsignal(signal.SIGTERM), list(sys.path)
    try:
        with redirect_stderr(err), redirect_stdout(io.StringIO()):
            main(words)
    except SystemExit as end:
        return Outcome(int(end.code or 0), err.getvalue())
    except ReachedError:
        return Outcome(None, err.getvalue())
    except Exception as error:
        return Outcome(None, err.getvalue(), error)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        sys.path[:] = before[1]
    raise AssertionError("main() returned")


def stop_computing(patch):
    """Make every command end with :class:`ReachedError` where it would compute or write."""

    def reached(*_, **__):
        raise ReachedError

    for name in (
        "condensekit.runs.folder.RunDir.create",
        "condensekit.everyday.evaluate_candidates",
        "condensekit.cli.export.to_folder",
        "condensekit.cli.export.picture",
        "condensekit.report.page.page",
        "condensekit.cli.show.emit",
    ):
        patch.setattr(name, reached)


def tried(seed, number, folder):
    """Each line with its outcome; ``folder`` must be empty."""
    run, out = Path(folder) / "run", Path(folder) / "out"
    for line in lines(seed, number, run, out):
        yield line, outcome(list(line.words))
