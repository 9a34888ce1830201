"""Rankers by name: the texts that name rankers, and the ranker that each text gives."""

from __future__ import annotations

from condensekit import catalog
from condensekit.catalog.texts import written
from condensekit.errors import ConfigError, refuse, require, unknown
from condensekit.methods.base import Condenser
from condensekit.methods.recipe import Recipe
from condensekit.nas.names import ADDITIVE, COUNTS, EARLY, EQUAL, HALF, RIDGE, START, ZERO_COST
from condensekit.nas.rankers.base import Combination, Ranker
from condensekit.nas.rankers.trained import Condensed, EarlyStop, Half, Selected, Started
from condensekit.nas.rankers.untrained import ZeroCost

AT_EQUAL_COST = (f"random{EQUAL}", f"{catalog.PACKED}random{EQUAL}")  # selections without a preparation, at equal cost
BY_PREFIX = {HALF: Half, START: Started, "": Condensed}


def ranker(given: str | Recipe | Condenser) -> Ranker | Combination:
    """Make a ranker from its name, written ``NAME key=value ...``, or from the recipe of its set.

    >>> ranker("dm ipc=50 lr=3").ipc
    50

    Args:
        given: A recipe, whose condensed set candidates are trained on; or a text:

            - a method and options of its recipe (``dm``, ``m3d lr=3 init=kmeans``): trains on its condensed set. With
              the prefix ``half-``, half of the images are real. With the prefix ``start-``, the images are the real
              images from which the condensation starts;
            - a selection and its options (``random``, ``packed-random``, ``kmeans candidates=1000``);
            - ``random-equal`` or ``packed-random-equal``: longer trainings, which cost as much as the most expensive
              preparation of another ranker;
            - each of these with ``ipc=N``, or short ``@N``: N images per class;
            - ``early-stop``, with ``epochs=N``, or short ``@N``: trains on all images for N epochs;
            - ``params``, ``flops``, ``synflow``, ``nwot``, ``jacov``, ``zen``: scores without training;
            - several rankers joined by ``+``: the sum of their ranks; with the prefix ``ridge:``, a regression;
            - ``additive``: a regression on the choices of the architecture.

    Raises:
        ConfigError: An unknown name, or wrong options.
    """
    if not isinstance(given, str):
        recipe = catalog.as_recipe(given)
        return Condensed(catalog.name_of(recipe), recipe)
    if given == ADDITIVE:
        return Combination(given, fitted=True)
    if given.startswith(RIDGE) or "+" in given:
        parts = tuple(_single(part.strip()) for part in given.removeprefix(RIDGE).split("+"))
        return Combination(given, parts, given.startswith(RIDGE))
    return _single(given)


def _single(text: str) -> Ranker:
    kind, options = catalog.named(text, "ranker")
    kind, at, number = kind.partition("@")
    counted = "epochs" if kind == EARLY else "ipc"
    if at:
        require(counted not in options, f"ranker {text!r}: @{number} is short for {counted}={number}: give only one")
        options[counted] = number
    if kind in (*COUNTS, *ZERO_COST):
        refuse(*(f"ranker {text!r}: {kind} takes no {option}" for option in options))
        return ZeroCost(kind)
    count = _count(text, counted, options.pop(counted, None))
    if kind in (EARLY, *AT_EQUAL_COST):
        refuse(*(f"ranker {text!r}: {kind} takes no {option}" for option in options))
        return EarlyStop(text, count) if kind == EARLY else Selected(text, kind.removesuffix(EQUAL), count, equal=True)
    if kind in (*catalog.SELECTIONS, *catalog.PACKED_SELECTIONS):
        source = written(kind, options)
        catalog.baseline(source)
        return Selected(text, source, count)
    prefix = next(before for before in BY_PREFIX if kind.startswith(before))
    method = kind.removeprefix(prefix)
    if method not in catalog.PUBLISHED and ":" not in method:
        raise unknown("ranker", kind, _known())
    catalog.recipe(method, **options)
    return BY_PREFIX[prefix](text, written(method, options), count)


def _count(text: str, option: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and int(value)):
        raise ConfigError(f"ranker {text!r}: {option} must be an integer of at least 1, got {value!r}")
    return int(value)


def _known() -> list[str]:
    methods = [f"{before}{name}" for before in BY_PREFIX for name in catalog.PUBLISHED]
    sets = [*methods, *catalog.SELECTIONS, *catalog.PACKED_SELECTIONS, *AT_EQUAL_COST]
    return [EARLY, ADDITIVE, *COUNTS, *ZERO_COST, *sets]
