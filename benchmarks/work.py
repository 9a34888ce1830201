"""Work of condensations and selections: passes over the training images, counted for results that do not have them.

    python benchmarks/work.py --data-root PATH
    python benchmarks/tables.py

The work of a run depends neither on the machine nor on the values of weights and pixels. So the script repeats the run
with small networks, each of whose images counts as many operations as in the network of the run. Where all steps do the
same work, short runs tell that of a long run. The script writes ``results/work.json`` entry by entry, and skips entries
that are there. New results have their own work, which is counted while they are made.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

import condensekit as ck
from benchmarks.continual.cells import Cell
from benchmarks.continual.run import recipe_options, room
from benchmarks.nas.sheets import MADE, OLD_DATA
from benchmarks.passes import counted, first_experience, key, memory_key, texts, told
from benchmarks.record import RESULTS, Record, data_parser, read, start, write
from condensekit import catalog
from condensekit.catalog import names
from condensekit.compute import Compute, Machine, Spent
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.driver import Status
from condensekit.errors import DataError
from condensekit.methods.distribution import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.gradient import GradientMatching
from condensekit.methods.kernel import KernelRidge
from condensekit.methods.recipe import Recipe
from condensekit.methods.sampling import Clustered, Importance, Uniform
from condensekit.networks.base import FeatureNetwork, Network, separable
from condensekit.networks.cost import Shape
from condensekit.replay.memory.base import Job
from condensekit.replay.memory.content import spent_on
from condensekit.replay.memory.fillers import filled
from condensekit.replay.study.memories import AVALANCHE, DER, ER, Making, memory
from condensekit.replay.study.protocol import Settings
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.classic import Random
from condensekit.selection.embeddings import RandomEmbedding

FILE = RESULTS / "work.json"
SIDE, WIDTH = 4, 4  # pixels of a side and channels of the only layer of a network that stands in for another one
Parts = Mapping[str, Spent]
"""Work by part of a run: ``encoders``, ``preparation`` and ``condensing``; ``filling`` of a memory."""
Count = Callable[[ClassImages], Parts]
T = TypeVar("T")


@dataclass(frozen=True)
class StandIn(Network):
    """A small network of which each image counts as many operations as in another network.

    Args:
        counted: The other network.
    """

    counted: Network

    @property
    def name(self) -> str:
        """Name of the other network."""
        return self.counted.name

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        with torch.device("meta"):
            body = nn.Sequential(nn.AdaptiveAvgPool2d(SIDE), nn.Conv2d(shape[0], WIDTH, 1), nn.ReLU())
            made = FeatureNetwork(body, nn.Linear(WIDTH * SIDE**2, classes), shape)
        made.flops = self.counted.build(shape, classes).flops
        return made


def standing_in(part: T) -> T:
    """The same recipe, selection or filler with small networks in all its parts."""
    if isinstance(part, Network):
        return StandIn(part)  # type: ignore[return-value]
    if not is_dataclass(part) or isinstance(part, type):
        return part
    values = {entry.name: getattr(part, entry.name) for entry in fields(part) if entry.init}
    small = {name: standing_in(value) for name, value in values.items()}
    return replace(part, **{name: value for name, value in small.items() if value is not values[name]})


def of_recipe(data: ClassImages, recipe: Recipe, ipc: int, steps: int) -> Parts:
    """The work of a condensation with seed 0.

    Raises:
        DataError: A step was repeated, or the run diverged, so that its work is not that of other runs.
    """

    def run(how: Recipe, length: int) -> Parts:
        result = ck.condense(data, how, ipc=ipc, steps=length)
        if result.status is Status.DIVERGED or any(row["attempt"] for row in result.history):
            raise DataError(f"a step of the counted run failed: {result.message}")
        return {part: Spent(int(told["images"]), int(told["flops"])) for part, told in result.work.items()}

    return extended(run, standing_in(recipe), ipc, steps)


def extended(run: Callable[[Recipe, int], Parts], recipe: Recipe, ipc: int, steps: int) -> Parts:
    """The work of ``run`` with the recipe and a number of steps, from short runs if all turns do the same work."""
    turn, refreshed = period(recipe, ipc, steps)
    if turn is None or steps <= 2 * turn + steps % turn:
        return run(recipe, steps)
    first = turn + steps % turn
    quick = recipe.replace(init=Random(), sampling=recipe.sampling if refreshed else Uniform())
    whole, short, longer = run(recipe, first), run(quick, first), run(quick, first + turn)
    turns = (steps - first) // turn

    def more(part: str) -> Spent:
        each = longer[part] - short[part]
        return whole[part] + Spent(each.images * turns, each.flops * turns)

    return {part: more(part) for part in whole}


def period(recipe: Recipe, ipc: int, steps: int) -> tuple[int | None, bool]:
    """After how many of ``steps`` steps the work repeats, and whether the sampling is made anew among them.

    The number is None where the work depends on random numbers or on the length of the run, or is not known.
    """
    method, sampling = recipe.method, recipe.sampling
    refresh = sampling.refresh if isinstance(sampling, Clustered | Importance) else steps
    known = isinstance(method, DistributionMatching | KernelRidge | GradientMatching)
    if recipe.nested or recipe.classes_per_step or recipe.sees_end or not known:
        return None, refresh < steps
    loop = method.loops_of(ipc)[0] if isinstance(method, GradientMatching) else 1
    return (math.lcm(loop, refresh) if refresh < steps else loop), refresh < steps


def of_selection(data: ClassImages, name: str, ipc: int) -> Parts:
    """The work of a selection of real images."""
    chosen_by, formation = names.baseline(name)
    with Compute(Machine("cpu"), (data.spec.shape[1], data.spec.shape[2])) as compute:
        selected_set(data, standing_in(chosen_by), ipc, Draw(0), compute, formation)
        return {"preparation": compute.spent}


def of_memory(cell: Cell, train: ClassImages) -> Parts:
    """The work that fills a memory in all experiences of the first class order.

    A learner without batch norm is the encoder of a condensed memory, and chooses its first images.
    """
    kind, there = memory(cell.memory, Making(cell.steps, recipe_options(cell))), room(cell, train)
    filler, learner = kind.filler, catalog.network(cell.network)
    assert filler is not None
    recipe, count = filler.recipe, kind.images(cell.ipc, train, there)
    if (
        recipe
        and cell.regime in (ER, DER)
        and kind.embeds_with_learner
        and separable(learner.build(train.spec.shape, 1))
    ):
        first = recipe.init.with_embedding(RandomEmbedding(learner))
        filler = filler.with_recipe(recipe.replace(encoder=Fresh(learner), init=first))
    stream = Settings(experiences=cell.experiences).stream(0, len(train.classes))
    equal = len({train.count(label) for label in train.classes}) == 1  # each experience is the same work
    times = len(stream) if equal else 1
    small, job = standing_in(filler), Job(machine=Machine("cpu"), room=kind.room(train, there))

    def run(how: Recipe | None, length: int) -> Parts:
        made = small.with_recipe(how) if how else small
        each = replace(job, steps=length)
        sets = [filled(made, train.select(classes), count, each).values() for classes in stream[::times]]
        spent = sum((spent_on(parts)[1] for parts in sets), Spent())
        return {"filling": Spent(times * spent.images, times * spent.flops)}

    return extended(run, small.recipe, count, cell.steps) if small.recipe else run(None, cell.steps)


def missing(records: list[Record]) -> Iterator[tuple[str, str, Count]]:
    """Name, data set and function of the work of each run whose record does not have it."""
    for record in records:
        if "cell" in record and "work" not in record and record["cell"]["ipc"]:
            cell = record["cell"]
            yield _of_run(
                cell["data"], cell.get("condensed") or cell["ipc"], cell["steps"], cell["recipe"], cell["name"]
            )
        for row in record.get("pace", ()):
            if "work" not in row and row["steps_in_60_s"]:
                asked = record["settings"]
                yield _of_run(asked["data"], asked["ipc"], row["steps_in_60_s"], row["recipe"])
        if "continual" in record and not record["continual"]["tuning"] and not record["row"].get("work"):
            memory_cell = Cell(**record["continual"])
            if memory_cell.memory not in AVALANCHE:
                yield memory_key(memory_cell), memory_cell.data, partial(of_memory, memory_cell)
        for row in record.get("experience", ()):
            if "work" not in row:
                memory_cell = first_experience(row["memory"], record["settings"])
                yield memory_key(memory_cell), memory_cell.data, partial(of_memory, memory_cell)
        if "nas" in record and record["nas"]["ranker"] in MADE and "images" not in record["preparation"]:
            asked = record["recipe"]
            yield _of_run(OLD_DATA[record["nas"]["task"]].name, asked["ipc"], asked["steps"], asked["condense"])


def _of_run(data: str, ipc: int, steps: int, recipe: str, selection: str = "") -> tuple[str, str, Count]:
    count = (
        partial(of_recipe, recipe=Recipe.parse(recipe), ipc=ipc, steps=steps)
        if recipe
        else partial(of_selection, name=selection, ipc=ipc)
    )
    return key(data, ipc, steps, recipe or selection), data, count


def main() -> None:
    """Count what no result has."""
    args = data_parser(__doc__).parse_args()

    @lru_cache(maxsize=1)
    def load(name: str) -> ClassImages:
        return datasets.load(name, root=args.data_root, trust_local_copy=args.trust_local_copy)[0]

    records = [read(path) for path in sorted(RESULTS.rglob("*.json"))]
    found = dict(counted(records))
    for name, data, count in sorted(missing(records), key=lambda asked: asked[:2]):
        if name in found:
            continue
        train = load(data)
        found[name] = told(count(train), train)
        write(FILE, {"counted": dict(sorted(found.items()))})
        print(name, *texts([found[name]]), flush=True)


if __name__ == "__main__":
    start(main)
