"""Rows, contrasts, table and plot of a class-incremental run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from condensekit.replay.study.memories import EQUAL_BYTES, MemoryKind
from condensekit.replay.study.protocol import Record, Settings
from condensekit.training.evaluation import paired_interval

Cell = list[list[Record]]  # of each order, of each step: scores of the networks, bytes, seconds
RANDOM = "random"
K = TypeVar("K")
Pair = tuple[str, str]  # a condensed memory, and the real one it is compared with


def row(kind: MemoryKind, regime: str, cell: Cell, random: Cell | None, settings: Settings) -> dict[str, Any]:
    """One row of ``replay.json``. Accuracies are fractions; those of all classes seen weigh each test image alike.

    Args:
        kind: The memory.
        regime: How it was used.
        cell: What was found.
        random: The same of random images in equal number, or None.
        settings: The protocol.

    Returns:
        ``memory``, ``learnt`` (condensed or not), ``regime``, ``per_class``: what was asked for; ``images``,
        ``nbytes``: stored at the end; ``packed``: real or synthetic images in each stored one.
        ``final_accuracy_mean``, ``final_accuracy_std``: after the last step; over orders, each the mean of its
        networks. ``average_accuracy_mean``: over the steps. ``forgetting_mean``: how far the accuracy on an
        experience's classes lies below its best, over all experiences but the last. ``n``: orders x networks.
        ``old_accuracy_mean``, ``new_accuracy_mean``, ``old_to_new_mean``: after the last step, see
        :meth:`condensekit.replay.study.protocol.Bench.score`.
        ``difference_to_random``, ``ci95``: paired by order and network; t interval over ``unit``, which is the
        ``set`` (one seed of condensation) where there are at least three of them, else the ``network``.
        ``sets``: different seeds; ``condense_s``, ``train_s``: seconds of a whole order, on average; where classes
        are reused from an order with the same seed, ``condense_s`` is what making them took there. It is wall time;
        of what was read from a cache, or begun before a kill, it is that of the process that made it, on whatever
        else that machine did then. ``condense_s_per_step``: of one experience. ``gradient_steps``: of a whole order,
        fine-tuning on the memory included. ``memory_passes``: how often
        each image of the memory was seen in the training of the last step: equal steps are unequal epochs where
        memories hold different numbers of images. ``note``: what is not equal to the others, if anything.
        ``finals``: every final accuracy, a list for each order. What nothing is known of is None.
    """
    finals = final_accuracies(cell)
    means = [statistics.fmean(networks) for networks in finals]
    last = [step["scores"] for step in (order[-1] for order in cell)]
    difference, interval, unit = None, None, None
    if random is not None and kind.name != RANDOM:
        difference, interval, unit = paired_interval(
            by_seed(finals, settings), by_seed(final_accuracies(random), settings)
        )
    return {
        "memory": kind.name,
        "learnt": kind.learnt,
        "regime": regime,
        "per_class": settings.per_class,
        "images": cell[0][-1]["images"],
        "nbytes": cell[0][-1]["nbytes"],
        "packed": kind.how.formation.factor**2,
        "final_accuracy_mean": statistics.fmean(means),
        "final_accuracy_std": statistics.stdev(means) if len(means) > 1 else 0.0,
        "average_accuracy_mean": _mean(_averages(cell)),
        "forgetting_mean": _mean(_forgettings(cell)),
        "n": sum(map(len, finals)),
        "old_accuracy_mean": _mean(_share(score, slice(0, -1)) for scores in last for score in scores),
        "new_accuracy_mean": _mean(_share(score, slice(-1, None)) for scores in last for score in scores),
        "old_to_new_mean": _mean(score["old_to_new"] for scores in last for score in scores),
        "difference_to_random": difference,
        "ci95": None if interval is None else list(interval),
        "unit": unit,
        "sets": len({settings.set_seed(order) for order in settings.order_numbers()}),
        "condense_s": statistics.fmean(sum(step["condense_s"] for step in order) for order in cell),
        "train_s": statistics.fmean(sum(step["train_s"] for step in order) for order in cell),
        "condense_s_per_step": statistics.fmean(step["condense_s"] for order in cell for step in order),
        "gradient_steps": statistics.fmean(sum(step["steps"] for step in order) for order in cell),
        "memory_passes": _mean(order[-1]["passes"] for order in cell),
        "note": _note(kind, settings),
        "finals": finals,
    }


def _note(kind: MemoryKind, settings: Settings) -> str:
    """What is not equal to the others: the kind's own note, and terms of replay that a strategy goes without."""
    given = {"distillation": settings.online.distillation, "fine-tune": settings.online.fine_tune}
    missing = [f"no {name}" for name, value in given.items() if value and kind.filler is None and not kind.control]
    return "; ".join([kind.note] * bool(kind.note) + missing)


def steps_of(cell: Cell) -> dict[str, Any]:
    """``mean``, ``std`` (over orders) and ``orders`` (each one's) of the accuracy after each step; None: unknown."""
    orders = [[_mean(_share(score) for score in step["scores"]) for step in order] for order in cell]
    columns = [[value for value in column if value is not None] for column in zip(*orders, strict=True)]
    return {
        "mean": [statistics.fmean(column) if column else None for column in columns],
        "std": [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns],
        "orders": orders,
    }


def named_pair(memories: Sequence[MemoryKind]) -> Pair | None:
    """The primary contrast of a run, from the order in which its memories were named.

    The first condensed memory against random images at equal bytes, or in equal number where those are not there, or
    else against the first memory of real images; None where one kind is missing. What was found plays no part.
    """
    learnt = [kind.name for kind in memories if kind.learnt]
    real = [kind.name for kind in memories if kind.control]
    if not learnt or not real:
        return None
    return learnt[0], next((name for name in (EQUAL_BYTES, RANDOM) if name in real), real[0])


def contrasts(
    finals: Mapping[str, Sequence[Sequence[float]]], learnt: Sequence[str], real: Sequence[str], primary: Pair
) -> Iterator[dict[str, Any]]:
    """Each condensed memory against each kind of real images; first the pair that was named beforehand.

    Args:
        finals: Final accuracies by memory, a list for each independent set, paired between memories.
        learnt: The condensed ones.
        real: The real ones.
        primary: The contrast that was named before anything was measured, see :func:`named_pair`.

    Yields:
        ``memory``, ``against``, ``difference`` and ``ci95`` of the final accuracies, ``p`` (paired t test over
        sets) and ``primary``, true for one at most. The others' ``p_holm`` is corrected for their number by Holm's
        procedure. ``same``: further real memories that did exactly the same, as random images in equal number and at
        equal bytes often are: they are one comparison and count once.
    """
    twins = _twins(finals, [name for name in (primary[1], *real) if name in finals])
    first = [name for name in (primary[0], *learnt) if name in finals]
    pairs = list(product(dict.fromkeys(first), twins))
    p = {pair: _p_value(finals[pair[0]], finals[pair[1]]) for pair in pairs}
    corrected = holm({pair: value for pair, value in p.items() if pair != primary and value is not None})
    for pair in pairs:
        difference, interval, unit = paired_interval(finals[pair[0]], finals[pair[1]])
        yield {
            "memory": pair[0],
            "against": pair[1],
            "same": twins[pair[1]],
            "difference": difference,
            "ci95": None if interval is None else list(interval),
            "unit": unit,
            "p": p[pair],
            "p_holm": corrected.get(pair),
            "primary": pair == primary,
        }


def _twins(finals: Mapping[str, Sequence[Sequence[float]]], names: Sequence[str]) -> dict[str, list[str]]:
    """The first of the names that have equal accuracies, and with it the others."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        same = next((known for known in found if finals[known] == finals[name]), None)
        if same is None:
            found[name] = []
        else:
            found[same].append(name)
    return found


def final_accuracies(cell: Cell) -> list[list[float]]:
    """Each network's accuracy on all classes after the last step, a list for each order."""
    return [[_accuracy(score) for score in order[-1]["scores"]] for order in cell]


def by_seed(values: Sequence[Sequence[float]], settings: Settings) -> list[list[float]]:
    """The values of orders that share a condensation seed together: they come from the same images."""
    groups: dict[int, list[float]] = {}
    for order, found in zip(settings.order_numbers(), values, strict=True):
        groups.setdefault(settings.set_seed(order), []).extend(found)
    return list(groups.values())


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Holm's step-down correction (1979): adjusted p values, by name."""
    adjusted, worst = dict[K, float](), 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = worst
    return adjusted


def table(result: Mapping[str, Any]) -> str:
    """The rows in Markdown, and the notes on them; accuracies and differences in percent."""
    lines = [
        "| memory | regime | images | bytes | final accuracy % | average % | forgetting % "
        "| above random, 95 % interval | n | condense s | train s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in result["rows"]:
        difference = "-" if found["difference_to_random"] is None else f"{100 * found['difference_to_random']:+.1f}"
        if found["ci95"] is not None:
            difference += " [{:+.1f}, {:+.1f}]".format(*(100 * bound for bound in found["ci95"]))
        cells = (
            found["memory"],
            found["regime"],
            f"{found['images']:,}",
            f"{found['nbytes']:,}",
            f"{100 * found['final_accuracy_mean']:.1f} ± {100 * found['final_accuracy_std']:.1f}",
            _percent(found["average_accuracy_mean"]),
            _percent(found["forgetting_mean"]),
            difference,
            found["n"],
            f"{found['condense_s']:.0f}",
            f"{found['train_s']:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    notes = {found["memory"]: found["note"] for found in result["rows"] if found["note"]}
    return "\n".join([*lines, *([""] if notes else []), *(f"- {name}: {note}." for name, note in notes.items())])


def plot(result: Mapping[str, Any], path: Path, source: str = "") -> None:
    """Accuracy after each step, a panel for each regime, a line for each memory, bands of one standard deviation.

    Args:
        result: ``rows`` and ``accuracy_by_step`` of a run.
        path: A PNG file.
        source: What the file shall say of where it comes from.
    """
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    regimes = list(dict.fromkeys(found["regime"] for found in result["rows"]))
    figure = Figure(figsize=(6 * len(regimes), 4.5), layout="constrained")
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    names = list(dict.fromkeys(found["memory"] for found in result["rows"]))
    steps = len(next(iter(result["accuracy_by_step"].values()))["mean"])
    for axes, regime in zip(figure.subplots(1, len(regimes), squeeze=False)[0], regimes, strict=True):
        for name in names:
            found = result["accuracy_by_step"].get(f"{regime}/{name}")
            if found is None:
                continue
            points = [
                (i + 1, 100 * m, 100 * s)
                for i, (m, s) in enumerate(zip(found["mean"], found["std"], strict=True))
                if m is not None
            ]
            at, means, spreads = zip(*points, strict=True)
            colour = colours[names.index(name) % len(colours)]
            axes.plot(at, means, marker="o", color=colour, label=name)
            low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
            axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set(
            title=regime,
            xlabel="step",
            ylabel="accuracy on all classes seen, %",
            xticks=range(1, steps + 1),
        )
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Source": source})


def _accuracy(score: Record) -> float:
    return float(sum(score["right"]) / sum(score["count"]))


def _share(score: Record, which: slice = slice(None)) -> float | None:
    """Accuracy on the test images of some of the experiences."""
    total = sum(score["count"][which])
    return float(sum(score["right"][which]) / total) if total else None


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _averages(cell: Cell) -> Iterator[float | None]:
    """Of each order, the mean accuracy over the steps; None where a step's is not known."""
    for order in steps_of(cell)["orders"]:
        yield None if None in order else statistics.fmean(order)


def _forgettings(cell: Cell) -> Iterator[float | None]:
    """Of each network: how far each experience but the last has fallen from its best before the end, on average."""
    for order in cell:
        if any(not step["scores"] for step in order) or len(order) < 2:
            yield None
            continue
        for network in range(len(order[-1]["scores"])):
            parts = [step["scores"][network] for step in order]
            now = parts[-1]
            falls = [
                max(part["right"][i] / part["count"][i] for part in parts[i:-1]) - now["right"][i] / now["count"][i]
                for i in range(len(order) - 1)
            ]
            yield statistics.fmean(falls)


def _p_value(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float | None:
    """Two-sided paired t test over sets; None below three of them, or where nothing varies."""
    if len(ours) < 3:
        return None
    from scipy.stats import ttest_rel

    x, y = ([statistics.fmean(values) for values in found] for found in (ours, theirs))
    if len({a - b for a, b in zip(x, y, strict=True)}) == 1:
        return None
    return float(ttest_rel(x, y).pvalue)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
