"""Shares: the classes of each rank and of each step in a condensation, and the exchange of what belongs to all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from condensekit.compute import Machine, Spent, made_on, of_rank
from condensekit.data.images import ClassImages
from condensekit.errors import refuse
from condensekit.methods.base import State, StepContext, keep_if
from condensekit.methods.recipe import Recipe
from condensekit.networks.base import separable
from condensekit.ranks import Ranks
from condensekit.rng import Draw
from condensekit.runs.sharing import check_alike


class Shares:
    """The classes of this rank: all of them with one rank, and for a method that is not separable.

    Args:
        ranks: The ranks of the run.
        recipe: The recipe of the run.
        data: The images of all classes.

    Attributes:
        apart: Whether the state of this rank has its own classes only.
        mine: The images whose classes are those of the state.
    """

    def __init__(self, ranks: Ranks, recipe: Recipe, data: ClassImages) -> None:
        self.ranks, self.recipe, self.data = ranks, recipe, data
        self.apart = ranks.several and recipe.method.separable
        self._part = ranks.part(len(data.classes)) if self.apart else slice(None)
        self.mine = data.select(data.classes[self._part]) if self.apart else data

    @property
    def turns(self) -> int:
        """The steps in which each class takes part once."""
        total = len(self.data.classes)
        return -(-total // min(self.recipe.classes_per_step or total, total))

    def own(self, values: Tensor) -> Tensor:
        """The rows of (K, ...) values that belong to the classes of this rank; 0-dim values belong to all."""
        return values[self._part].clone() if self.apart and values.ndim else values

    def whole(self, state: State) -> State:
        """The state of all classes, on the CPU, from those of all ranks."""
        if not self.apart:
            return state
        total = len(self.data.classes)
        return {name: self.ranks.rows(value.cpu(), total) if value.ndim else value for name, value in state.items()}

    def step(self, state: State, ctx: StepContext) -> tuple[State, State]:
        """State and metrics after a step of the classes whose turn it is; ``ctx`` has all classes of this rank.

        The rows of other classes stay as they are. A step that is not finite on one rank changes nothing on the others.
        """
        rows = self._turn(ctx.draw)
        if rows is None:
            new, metrics = self.recipe.method.step(state, ctx)
            return self._agreed(new, state, metrics)
        idle = not len(rows)  # this rank makes the step for a class of its own, and drops what it made
        rows = torch.zeros(1, dtype=torch.int64) if idle else rows
        data = ctx.data.select([ctx.data.classes[row] for row in rows.tolist()])
        rows = rows.to(ctx.compute.device, non_blocking=True)
        part = replace(ctx, data=data, gap=None if ctx.gap is None else ctx.gap.index_select(0, rows))
        former = {name: value.index_select(0, rows) if value.ndim else value for name, value in state.items()}
        new, metrics = self.recipe.method.step(former, part)
        if idle:
            metrics = {name: torch.full_like(value, name == "finite") for name, value in metrics.items()}
        new, metrics = self._agreed(new, former, metrics)
        for name, value in new.items():
            if not value.ndim:
                state[name] = value
            elif not idle:
                state[name].index_copy_(0, rows, value)
        return state, metrics

    def _agreed(self, new: State, former: State, metrics: State) -> tuple[State, State]:
        """The state and the metrics of a step on which all ranks agree."""
        if not self.apart:
            return new, metrics
        combined = self.ranks.combined(metrics)
        return keep_if(combined["finite"], new, former), combined

    def _turn(self, draw: Draw) -> Tensor | None:
        """The rows of this rank whose turn it is in the step of ``draw``, ascending; None: all rows."""
        most, total = self.recipe.classes_per_step, len(self.data.classes)
        if most is None or most >= total:
            return None
        rows, mine = turn(total, most, draw), range(total)[self._part]
        return rows[(rows >= mine.start) & (rows < mine.stop)] - mine.start

    def checked(self, state: State) -> State:
        """The first state, in memory of its own if steps change some rows of it.

        Raises:
            ConfigError: A tensor does not belong to classes.
        """
        some = self.recipe.classes_per_step is not None
        wrong = [name for name, value in state.items() if value.ndim and len(value) != len(self.mine.classes)]
        refuse(
            f"{'ranks cannot share' if self.apart else 'classes_per_step does not fit'} {self.recipe.method.name}: the "
            f"first axis of {wrong[0]!r} in its state must be the classes"
            if wrong and (self.apart or some)
            else None
        )
        return {name: value.clone() for name, value in state.items()} if some else state

    def counted(self, spent: Spent) -> Spent:
        """The part of this rank in earlier work of the whole run, which rank 0 counts."""
        return spent if self.ranks.first else Spent()

    def total(self, spent: Spent) -> Spent:
        """The work of all ranks together."""
        return sum(self.ranks.objects(spent), Spent())


def turn(total: int, most: int, draw: Draw) -> Tensor:
    """The classes of one step: rows of ``total``, ascending, at most ``most``.

    Each class has one turn in a round of steps, as few as that takes; each round has a new order. A step takes one of
    each few neighbours, so that ranks, which have neighbours, get equally many.

    >>> [turn(5, 2, Draw(0, step)).tolist() for step in (1, 2, 3)]
    [[2, 3], [0, 4], [1]]
    """
    turns = -(-total // most)
    number, place = divmod(draw.step - 1, turns)
    order = Draw(draw.seed, number).permutation("classes", total)
    return order[(order // turns).argsort(stable=True)][place::turns]


def check_shared(ranks: Ranks, recipe: Recipe, data: ClassImages, options: Mapping[str, Any]) -> None:
    """Check on all ranks that they can share a run.

    Args:
        ranks: The ranks.
        recipe: The recipe of this rank.
        data: The images of this rank.
        options: All that decides the result on this rank, such as the fingerprint of the data; JSON values.

    Raises:
        ConfigError: Ranks that differ in the data or options, more ranks than classes, or a recipe whose steps ranks
            cannot share.
    """
    if ranks.several:
        check_alike(ranks, options)
        ranks.from_first(lambda: _refuse(ranks.count, recipe, data))


def _refuse(count: int, recipe: Recipe, data: ClassImages) -> None:
    method, network, classes = recipe.method, recipe.encoder.network, len(data.classes)
    way_out = "start it without torchrun"
    refuse(
        f"{count} ranks cannot share {classes} classes: start at most {classes}" if count > classes else None,
        f"ranks cannot share a step of {method.name}, which takes all classes at once: {way_out}"
        if not method.separable and not method.by_class
        else None,
        f"ranks cannot share a network with batch norm, which mixes the classes: use norm='instance', or {way_out}"
        if method.separable and not separable(network.build(data.spec.shape, classes))
        else None,
    )


def machine_of(ranks: Ranks, machine: Machine, plan: Mapping[str, Any] | None) -> Machine:
    """The machine of this rank.

    Args:
        ranks: The ranks.
        machine: The machine that was asked for.
        plan: That of the run which is resumed; only the number of its GPU may differ, and with several ranks its
            workers.

    Raises:
        ConfigError: A device that is not here, or more ranks than GPUs.
    """
    if plan:
        asked, there = machine.resolved().device, plan["device"]
        same = asked.partition(":")[0] == there.partition(":")[0]  # on another GPU the run goes on, too
        made = made_on({**plan, "device": asked if same else there})
        machine = replace(made, workers=machine.workers) if ranks.several else made
    return of_rank(machine, ranks.local) if ranks.several else machine
