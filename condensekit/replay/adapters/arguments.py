"""Arguments that the plugins and strategies share: their checks before a stream begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from avalanche.core import BasePlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import nn, optim

from condensekit.errors import function, instance, positive, quoted, several, whole
from condensekit.training.augment import Augmentation

LEAST = {"train_mb_size": 1, "eval_mb_size": 1, "train_epochs": 0}  # of Avalanche's own arguments


def policy_problem(given: object) -> str | None:
    """The problem of a ``storage_policy``; None if there is no problem."""
    return instance("storage_policy", given, ExemplarsBuffer, "CondensedBuffer(Images(200), classes=10)")


def augmentation_problem(given: object) -> str | None:
    """The problem of an augmentation of batches; None if there is no problem."""
    if given is None or isinstance(given, Augmentation):
        return None
    return function("augmentation", given, "Augmentation(('crop', 'flip')), a function of images, or None", 1)


def strategy_problems(storage_policy: object, plugins: object, others: Mapping[str, Any]) -> Iterator[str | None]:
    """The problems of the arguments of a strategy, None for each argument without a problem.

    Args:
        storage_policy: The memory.
        plugins: Further plugins; None: there are none.
        others: Arguments that go to Avalanche, by name.
    """
    yield policy_problem(storage_policy)
    if plugins is not None:
        yield several("plugins", plugins, "[plugin]")
    odd = [one for one in plugins if not isinstance(one, BasePlugin)] if isinstance(plugins, list | tuple) else []
    yield from (
        f"plugins must be plugins of Avalanche, got {quoted(one)}: pass such as [Distillation()]" for one in odd
    )
    yield from _problems_of_avalanches(others)


def _problems_of_avalanches(others: Mapping[str, Any]) -> Iterator[str | None]:
    if "model" in others:
        yield instance("model", others["model"], nn.Module, "a network, such as SimpleMLP(num_classes=10)")
    if "optimizer" in others:
        way_out = "torch.optim.SGD(model.parameters(), lr=0.05)"
        yield instance("optimizer", others["optimizer"], optim.Optimizer, way_out)
    if others.get("criterion") is not None:
        yield function("criterion", others["criterion"], "torch.nn.CrossEntropyLoss()", 2)
    yield from (whole(name, others[name], least) for name, least in LEAST.items() if name in others)
    yield from (positive(name, others[name], zero=True) for name in ("alpha", "beta") if name in others)
