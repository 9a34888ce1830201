"""Recipes by name: the recipe of each published paper, and recipes from text.

``recipes.m3d(lr=3)`` and ``recipes.parse("m3d lr=3")`` are the same recipe. An option is a hyper-parameter of the
method, a field of the :class:`~condensekit.methods.recipe.Recipe`, or a name in :data:`SHORT`. An option with a dot
belongs to a part: ``init.candidates=1000``. Values may be text or objects: ``init="kmeans"``, ``init=KMeans()``.
With a set, a result, or the path of a run or a set as ``init``, a run goes on from these images.

>>> from condensekit import recipes
>>> recipes.m3d(lr=3) == recipes.parse("m3d lr=3")
True
>>> recipes.name_of(recipes.dm(init="kmeans", factor=2))
'dm init=kmeans factor=2'
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from condensekit.catalog import names, texts
from condensekit.catalog.published import PUBLISHED, Published
from condensekit.errors import ConfigError, Problems, instance, quoted, refuse, require, unknown
from condensekit.methods.base import Condenser
from condensekit.methods.descent import LR
from condensekit.methods.encoders import Encoder
from condensekit.methods.recipe import Recipe
from condensekit.methods.storing import Storing
from condensekit.networks.base import Network
from condensekit.selection.base import Start
from condensekit.selection.saved import Saved
from condensekit.sets.formation import Formation

PARTS = ("init", "sampling", "encoder", "schedule", "through")  # parts of a recipe that have options
SHORT = {
    "encoder_network": "network of the encoder",
    "keep": "steps for which the encoder keeps one network",
    "augment": "none, or a comma-separated list of operations",
    "factor": "packing of the stored images",
    "storage": "how values are stored: float32, float16 or uint8",
}
"""Options that set one part of a field of the recipe, each with its meaning."""
PLAIN = {
    field.name: texts.PLAIN[kind]
    for field in dataclasses.fields(Recipe)
    if (kind := str(field.type).removesuffix(" | None")) in texts.PLAIN
}
"""Fields of a recipe that hold a number, a text, or True or False, each with its type."""


def dm(**options: Any) -> Recipe:
    """Distribution matching: the recipe of :class:`~condensekit.methods.distribution.DistributionMatching`."""
    return recipe("dm", **options)


def m3d(**options: Any) -> Recipe:
    """Distribution matching by maximum mean discrepancy, two by two images packed into each stored one.

    Images below 12 x 12 pixels are not packed, unless ``factor`` is given.
    """
    return recipe("m3d", **options)


def echo(**options: Any) -> Recipe:
    """The first version of :func:`m3d`."""
    return recipe("echo", **options)


def dance(**options: Any) -> Recipe:
    """Mean embeddings under trained networks, and a calibration step: the images are recognised by a trained network.

    Its networks come from the cache; where they lack, they are trained before the first step, for 60 epochs.
    """
    return recipe("dance", **options)


def ncfm(**options: Any) -> Recipe:
    """Distribution matching by characteristic functions, under trained networks that classify the images, too.

    Images below 12 x 12 pixels are not packed, unless ``factor`` is given.
    """
    return recipe("ncfm", **options)


def dc(**options: Any) -> Recipe:
    """Gradient matching from noise, without augmentation."""
    return recipe("dc", **options)


def dsa(**options: Any) -> Recipe:
    """Gradient matching under siamese augmentation."""
    return recipe("dsa", **options)


def krr(**options: Any) -> Recipe:
    """Kernel ridge regression on features of untrained networks."""
    return recipe("krr", **options)


def parse(text: str) -> Recipe:
    """Read a recipe written ``METHOD NAME=VALUE ...``: ``m3d lr=3 init=kmeans sampling.refresh=100``.

    Raises:
        ConfigError: Unknown names, a word without ``=``, an option given twice, or wrong values; all of them listed.
    """
    refuse(_text(text))
    name, options = texts.named(text, "recipe")
    return recipe(name, **options)


def as_recipe(given: Any) -> Recipe:
    """Make a recipe of a recipe, of a method (with the other parts of DM), or of the text of a recipe.

    Raises:
        ConfigError: Another object (the text shows a call that would work), or a text that cannot be read.
    """
    if isinstance(given, str):
        return parse(given)
    if isinstance(given, Recipe):
        return given
    if isinstance(given, Condenser):
        return Recipe(given)
    call = (
        f"{given.__name__}()"
        if isinstance(given, type) or inspect.isfunction(given)
        else '"m3d", recipes.m3d(lr=3) or DistributionMatching()'
    )
    raise ConfigError(f"recipe must be a name, a Recipe or a method, got {quoted(given)}: pass {call}")


def recipe(name: str, /, **options: Any) -> Recipe:
    """Make the recipe of a method by its name, with some options changed.

    Args:
        name: A key of :data:`PUBLISHED`, an entry point of the group ``condensekit.methods``, or ``module:object``. A
            method that is not in :data:`PUBLISHED` gets the other parts of DM.
        options: See the module. Texts are converted.

    Raises:
        ConfigError: Unknown names (with the nearest match), options that do not fit the method, and wrong values; all
            of them listed.
    """
    refuse(_text(name))
    published = PUBLISHED.get(name)
    unfit = published.unfit if published else {}
    strange = [option for option in options if _part(option) in unfit]
    problems = [f"{name} takes no {o}: {unfit[_part(o)]}" for o in strange if not _idle(options[o])]
    fitting = {option: value for option, value in options.items() if option not in strange}
    gathered = Problems()
    own: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    base = published.recipe if published else PUBLISHED["dm"].recipe
    with gathered:
        refuse(*problems)
    with gathered:
        own, fields = _sorted(fitting)
    with gathered:
        base = _base(name, published, own)
    changes: dict[str, Any] = {}
    for part in _CHANGES:
        with gathered:
            changes |= part(base, fields)
    gathered.refuse()
    return base.replace(**changes)


def _text(given: object) -> str | None:
    return instance("name", given, str, '"dm" or "m3d lr=3", or give an object to condense() itself')


def name_of(made: Recipe) -> str:
    """The shortest text of a recipe: the name of the method, and the options that differ from their defaults."""
    method = made.method
    published = PUBLISHED.get(method.name)
    usual = published.recipe if published else Recipe(method)
    base = usual.method if published and type(usual.method) is type(method) else type(method)
    changed = texts.changed(method, base)
    tables: dict[str, Mapping[str, Any]] = {
        "init": names.SELECTIONS,
        "sampling": names.SAMPLINGS,
        "schedule": names.SCHEDULES,
    }
    for part, table in tables.items():
        ours, theirs = getattr(made, part), getattr(usual, part)
        if ours.name != theirs.name:
            changed[part] = ours.name
        default = theirs if type(ours) is type(theirs) else table.get(ours.name, type(ours))
        changed |= {f"{part}.{k}": v for k, v in texts.changed(ours, default).items()}
    if made.through:
        changed["through"] = made.through.storage
        changed |= {f"through.{k}": v for k, v in texts.changed(made.through, Storing(made.through.storage)).items()}
    changed |= _encoder_name(made.encoder, usual.encoder)
    if made.augmentation != usual.augmentation:
        changed["augment"] = "none" if made.augmentation is None else ",".join(made.augmentation.ops)
    given, default = made.formation, usual.formation
    changed |= {"factor": given.factor} if (type(given), given.factor) != (type(default), default.factor) else {}
    changed |= {"storage": given.dtype} if given.dtype != default.dtype else {}
    changed |= {k: getattr(made, k) for k in PLAIN if getattr(made, k) != getattr(usual, k)}
    return texts.written(method.name, changed)


def _encoder_name(ours: Encoder, theirs: Encoder) -> dict[str, Any]:
    """The options in which the encoder ``ours`` differs from ``theirs``, the default."""
    changed: dict[str, Any] = {}
    kind = names.encoder_name(ours)
    if kind != names.encoder_name(theirs):
        changed["encoder"] = kind
    default = theirs if kind == names.encoder_name(theirs) else names.ENCODERS.get(kind, type(ours))
    options = texts.changed(ours, default)
    if "keep" in options:
        changed["keep"] = options.pop("keep")
    changed |= {f"encoder.{k}": v for k, v in options.items()}
    if ours.network.name != theirs.network.name:
        changed["encoder_network"] = ours.network.name
    return changed


def _part(option: str) -> str:
    """``init.candidates`` -> ``init``, ``augmentation`` -> ``augment``; other options are unchanged."""
    part = option.partition(".")[0]
    return "augment" if part == "augmentation" else part


def _idle(value: Any) -> bool:
    """Whether a value has no effect; then it is accepted by methods that do not have the option."""
    if isinstance(value, str):
        return value in ("auto", "none") or texts.FLAGS.get(value.lower()) is False
    return value is None or value is False


def _sorted(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the options into those of the method, and those of the recipe and its parts.

    Raises:
        ConfigError: A dotted option of a field that has no options.
    """
    known = {*(f.name for f in dataclasses.fields(Recipe)), *SHORT} - {"method"}
    own: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    problems = []
    for option, value in options.items():
        part, dot, _ = option.partition(".")
        if dot and part not in PARTS:
            problems.append(f"{option}: only {', '.join(PARTS)} have options")
        (fields if part in known else own)[option] = value
    refuse(*problems)
    return own, fields


def _base(name: str, published: Published | None, own: Mapping[str, Any]) -> Recipe:
    """The recipe called ``name``, with the options ``own`` of its method."""
    kind = f"option of method {name!r}"
    if published is not None:
        method = published.recipe.method
        own = {**_step_size(method, own), **own}
        return published.recipe.replace(method=texts.configured(kind, method, own, _hidden(name)))
    found = names.find("method", name, PUBLISHED)
    made = texts.configured(kind, found, own) if callable(found) or isinstance(found, Condenser) else found
    if isinstance(made, Recipe):
        refuse(
            *(
                f"{option}: method {name!r} is a whole recipe, which does not have this option"
                for option in own
                if made is found
            )
        )
        return made
    if not isinstance(made, Condenser):
        raise ConfigError(f"method {name!r} gives a {type(made).__name__}: expected a Condenser or a Recipe")
    return Recipe(made)


def _step_size(method: Condenser, own: Mapping[str, Any]) -> dict[str, float]:
    """The step size that another optimiser than that of the method brings along."""
    wanted = own.get("optimiser", "")
    return {"lr": LR[wanted]} if wanted in LR and wanted != getattr(method, "optimiser", wanted) else {}


def _hidden(name: str) -> tuple[str, ...]:
    return tuple(PUBLISHED[name].unfit)


def _options(fields: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The options of one part: ``{"candidates": 1000}`` from ``init.candidates=1000``."""
    return {k.partition(".")[2]: v for k, v in fields.items() if k.startswith(f"{part}.")}


def _init(base: Recipe, fields: Mapping[str, Any]) -> dict[str, Any]:
    given, options = fields.get("init"), _options(fields, "init")
    if given is None and not options:
        return {}
    if (made := names.saved(given)) is not None:
        refuse(*(f"a start from a set has no option {option!r}: leave it out" for option in options))
        return {"init": Saved(made, base.init)}
    if given is None or isinstance(given, str):
        return {"init": names.initialiser(given or base.init.name, **options)}
    found = given if isinstance(given, Start) else names.as_selection(given, "init")
    return {"init": texts.configured("option of init", found, options) if options else found}


def _named(part: str, make: Callable[..., Any]) -> Callable[[Recipe, Mapping[str, Any]], dict[str, Any]]:
    """The change of a part that ``make`` makes from its name and options."""

    def change(base: Recipe, fields: Mapping[str, Any]) -> dict[str, Any]:
        given, options = fields.get(part), _options(fields, part)
        if given is None and not options:
            return {}
        if given is None or isinstance(given, str):
            return {part: make(given or getattr(base, part).name, **options)}
        return {part: texts.configured(f"option of {part}", given, options) if options else given}

    return change


def _through(base: Recipe, fields: Mapping[str, Any]) -> dict[str, Any]:
    given, options = fields.get("through"), _options(fields, "through")
    if given is None and not options:
        return {}
    if isinstance(given, str):
        return {
            "through": None if given == "none" else texts.configured("through", Storing, {"storage": given, **options})
        }
    made = base.through if given is None else given
    require(
        made is not None, f"{', '.join(f'through.{name}' for name in options)}: name a storage, through=avif-mosaic"
    )
    return {"through": texts.configured("option of through", made, options) if options else made}


def _encoder(base: Recipe, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder of the base with the given changes; a network given as ``encoder`` replaces only its network."""
    given, options, keep = fields.get("encoder"), _options(fields, "encoder"), fields.get("keep")
    wanted = fields.get("encoder_network")
    require(keep is None or "keep" not in options, "keep and encoder.keep are the same: leave out one of them")
    usual = names.encoder_name(base.encoder)
    if given is None or (isinstance(given, str) and given == usual):
        found = texts.configured("option of encoder", base.encoder, options) if options else base.encoder
    elif isinstance(given, str) and (given in names.ENCODERS or ":" in given):
        found = names.encoder(given, **options).replace(network=base.encoder.network)
    elif isinstance(given, Encoder):
        found = texts.configured("option of encoder", given, options) if options else given
    elif isinstance(given, str) and not _is_network(given):
        raise unknown("encoder", given, names.ENCODERS)
    else:  # a network, in any form
        found = base.encoder.replace(network=names.as_network(given, "encoder"))
        found = texts.configured("option of encoder", found, options) if options else found
    if wanted is not None:
        found = found.replace(network=names.as_network(wanted, "encoder_network"))
    if keep is not None:
        number = texts.convert("keep", keep, int)
        require(
            given != "fresh" or number <= 1,
            f"encoder=fresh draws a network for each step: leave out keep={number}, or use encoder=kept",
        )
        found = found.replace(keep=number)
    return {"encoder": found} if found is not base.encoder else {}


def _is_network(text: str) -> bool:
    try:
        return isinstance(names.network(text), Network)
    except ConfigError:
        return False


def _augmentation(base: Recipe, fields: Mapping[str, Any]) -> dict[str, Any]:
    require(
        "augment" not in fields or "augmentation" not in fields,
        "augment and augmentation are the same: leave out one of them",
    )
    given = fields.get("augment", fields.get("augmentation", "auto"))
    if isinstance(given, str):
        return {} if given == "auto" else {"augmentation": names.augmentation(given)}
    return {"augmentation": given}


def _formation(base: Recipe, fields: Mapping[str, Any]) -> dict[str, Any]:
    made = fields.get("formation", base.formation)
    factor, storage = fields.get("factor"), fields.get("storage")
    refuse(instance("formation", made, Formation, "Formation(factor=2)"))
    if factor is not None:
        made = Formation(texts.convert("factor", factor, int), made.dtype)
    if storage is not None:
        made = dataclasses.replace(made, dtype=storage)
    return {"formation": made}


def _plain(base: Recipe, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The given ones of :data:`PLAIN`."""
    return {name: texts.convert(name, fields[name], kind) for name, kind in PLAIN.items() if name in fields}


_CHANGES: tuple[Callable[[Recipe, Mapping[str, Any]], dict[str, Any]], ...] = (
    _init,
    _named("sampling", names.sampling),
    _named("schedule", names.schedule),
    _through,
    _encoder,
    _augmentation,
    _formation,
    _plain,
)

Recipe.parse = staticmethod(parse)
