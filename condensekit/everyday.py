"""Public functions: load, condense, select and evaluate accept names, paths, arrays and objects of other libraries.

Only this module converts them into condensekit's own objects; all other modules work on these objects.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from condensekit import driver
from condensekit.catalog import PUBLISHED, names, recipes, texts
from condensekit.compute import Compute, Machine, of_rank, usual_modes
from condensekit.data import datasets
from condensekit.data.arrays import check_layout
from condensekit.data.images import ClassImages
from condensekit.data.numbering import following
from condensekit.data.objects import RESIZED, as_images
from condensekit.driver import CondenseResult, Saving
from condensekit.errors import (
    ConfigError,
    Problems,
    choice,
    instance,
    path,
    quoted,
    refuse,
    unknown,
    unusable,
    whole,
)
from condensekit.methods.base import Condenser
from condensekit.methods.recipe import Recipe
from condensekit.networks.base import Network
from condensekit.progress import SILENT, Bars, Progress
from condensekit.ranks import launched
from condensekit.rng import Draw
from condensekit.selection.base import Choice, Selection, selected_set
from condensekit.selection.number import number_misfits
from condensekit.sets import found
from condensekit.sets.coding import plain_bytes
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import STORAGES, Formation
from condensekit.sets.matching import alike, check_classes, normalised, renumbered
from condensekit.training.evaluation import Candidate, Evaluation
from condensekit.training.evaluation import evaluate as evaluate_candidates
from condensekit.training.number import search_number
from condensekit.training.train import TrainProtocol

FULL = "full"  # the name in ``against`` for all training images
PARTS = (ClassImages, Dataset, DataLoader, tuple)  # types of a part in (train, test), unlike those of (images, labels)
ELSEWHERE = {"iterations": "steps", "per_class": "ipc", "out": "saving"}  # wrong name: the argument of condense()


@usual_modes()
def load(
    source: Any,
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    trust_local_copy: bool = False,
    mmap: str | Path | None = None,
    flippable: bool | None = None,
    splits: bool = True,
    layout: str | None = None,
    like: ClassImages | None = None,
    progress: Progress | None = None,
    **misplaced: Any,
) -> tuple[ClassImages, ClassImages]:
    """Load training and test images, both with the normalisation and class names of the training images.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> len(train), len(test), train.spec.shape
    (1438, 359, (1, 8, 8))

    Args:
        source: A name, a folder or a file of arrays, see :func:`condensekit.data.datasets.load`; or an object that
            :func:`condensekit.data.objects.as_images` accepts, of which a fixed 20 % of each class are held out as
            test images; or a pair of such objects, ``(train, test)``, of which nothing is held out.
        root: Folder of the named data sets. For names and files only, as are the next four arguments.
        image_size: Resize every image to this height and width in pixels.
        download: Download a named data set that is missing.
        trust_local_copy: Read the files of a named data set even if their checksums differ from the published ones.
        mmap: Folder for the decoded pixels; the images are then memory-mapped from there. Where a call was stopped, the
            next one goes on.
        flippable: Whether a mirrored image still shows its class; None: as known for the data set, else True.
        splits: Whether folders named ``train``, ``test`` or ``val`` are splits; False: they are classes.
        layout: ``NCHW`` or ``NHWC``, the axes of arrays; None: by their shape, and refused if that does not decide.
        like: Images read before, such as those of the last experience: their normalisation is used, a class name gets
            its label there, and a new name the next number. None: labels count from 0, in the order of the names.
        progress: Receives the number of images read; None shows a bar in a terminal.
        misplaced: Unknown arguments: the error names the one that is meant.

    Raises:
        DataError: Images that are missing, damaged or do not fit; the text names the file or item.
        ConfigError: An unknown name or layout, or an ``image_size`` below 1.
    """
    refuse(*(_misplaced(load, name) for name in misplaced))
    flags = {"download": download, "trust_local_copy": trust_local_copy, "splits": splits}
    flags |= {} if flippable is None else {"flippable": flippable}
    refuse(
        *(None if folder is None else path(name, folder) for name, folder in (("root", root), ("mmap", mmap))),
        *(instance(name, flag, bool, "True or False") for name, flag in flags.items()),
        None if image_size is None else whole("image_size", image_size, 1),
        None if like is None else instance("like", like, ClassImages, "the training images of the experience before"),
        _no_progress(progress),
    )
    check_layout(layout)
    if isinstance(source, str | Path):
        parts = datasets.load(
            source,
            root=root,
            image_size=image_size,
            download=download,
            trust_local_copy=trust_local_copy,
            mmap=None if mmap is None else Path(mmap),
            flippable=flippable,
            splits=splits,
            layout=layout,
            progress=progress or Bars(),
        )
        return following(parts, like)
    files = {"root": root, "image_size": image_size, "download": download, "mmap": mmap, "splits": not splits}
    outs = {"image_size": RESIZED}
    refuse(
        *(
            f"{name}= is for names and files, got source {quoted(source)}: {outs.get(name, 'leave it out')}"
            for name in files
            if files[name]
        )
    )
    change = {} if flippable is None else {"flippable": flippable}
    if isinstance(source, tuple) and len(source) == 2 and all(isinstance(part, PARTS) for part in source):
        train, test = (as_images(part, name, layout) for part, name in zip(source, ("train", "test"), strict=True))
        train = train.with_spec(**change)
        return following((train, alike(renumbered(test, train, "test"), train)), like)
    return following(datasets.held_out(as_images(source, "source", layout).with_spec(**change)), like)


@usual_modes()
def condense(
    data: Any,
    recipe: str | Recipe | Condenser,
    *,
    ipc: int,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    machine: Machine = Machine(precision="auto"),  # noqa: B008 - frozen
    saving: Saving | str | Path | None = None,
    record: Mapping[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
    **misplaced: Any,
) -> CondenseResult:
    """Learn ``ipc`` synthetic images for each class.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> ck.condense(train, "dm", ipc=1, steps=2).set
    CondensedSet(10 images of (1, 8, 8), 10 classes, 1 per class, 2,640 bytes: dm)

    Args:
        data: Training images: any object that :func:`load` accepts, but no name and no path.
        recipe: The text of a recipe (``"m3d lr=3"``), a :class:`Recipe`, or a method, which then uses the encoder,
            augmentation and start of DM. See :mod:`condensekit.catalog.recipes`.
        ipc: Images per class, at least 1.
        steps: Matching steps, at least 1. Give either ``steps`` or ``minutes``.
        minutes: Wall time of all steps, above 0.
        seed: Seed of all random numbers; the same seed gives the same images on a CPU.
        machine: Device and precision of the networks; by default the precision is :meth:`Machine.condensing`.
        saving: Run folder; or a :class:`Saving`, which also says how often to save and whether to resume.
        record: Further entries for ``config.json`` and the provenance of the set. JSON values.
        stop: Called after each step; the run ends when it returns True.
        progress: Receives each step; None shows a bar in a terminal.
        misplaced: Arguments of the recipe or the machine: the error names the call that accepts them.

    Returns:
        The set (``.set``), how the run ended, the metrics of each step, and the work of the networks. See
        :func:`condensekit.driver.condense`, also for the errors.
    """
    refuse(*(_misplaced(condense, name) for name in misplaced))
    problems = Problems()
    made, images = None, None
    with problems:
        refuse(
            None if record is None else instance("record", record, Mapping, '{"name": "mine"}'),
            _no_progress(progress),
            instance("machine", machine, Machine, "Machine('cpu')"),
        )
    with problems:
        made = recipes.as_recipe(recipe)
    images = as_images(data)
    problems.refuse()
    assert made is not None
    return driver.condense(
        images,
        made,
        ipc=ipc,
        steps=steps,
        minutes=minutes,
        seed=seed,
        machine=machine.condensing(made.method.features_only),
        saving=Saving(Path(saving)) if isinstance(saving, str | Path) else saving,
        record={"name": recipes.name_of(made), **(record or {})},
        stop=stop,
        progress=progress or Bars(),
    )


@usual_modes()
def select(
    data: Any,
    selection: str | Selection | Choice = "random",
    *,
    ipc: int | None = None,
    room: int | None = None,
    storage: str | None = None,
    search: bool = False,
    seed: int = 0,
    formation: Formation | None = None,
    machine: Machine = Machine(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    **misplaced: Any,
) -> CondensedSet:
    """Choose real images of each class: a baseline for a condensed set.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> len(ck.select(train, "kmeans", ipc=2))
    20
    >>> made = ck.select(train, "random", storage="webp-mosaic", room=1_000)
    >>> max(made.select([label]).nbytes for label in made.classes) <= 1_000
    True

    Args:
        data: Training images, as in :func:`condense`.
        selection: A name (``kmeans``, ``packed-random``), a :class:`~condensekit.selection.base.Selection`, or a
            function with the same arguments. ``avif-kmeans`` stores as many images as ``ipc`` plain images have bytes.
        ipc: Stored images per class, at least 1; None: as many as ``room`` holds at the usual quality.
        room: Bytes for each class, with labels: pictures get the highest quality at which they fit. None: no limit.
        storage: How values are stored, a name of :class:`Formation`; None: as the formation says.
        search: Whether the number of images is searched: see :func:`condensekit.training.number.search_number`, whose
            trials the provenance tells. Needs ``room``, and no ``ipc``.
        seed: Seed of all random numbers.
        formation: How the images are stored; None: as the name of the selection says.
        machine: Device and precision of the networks.
        progress: Receives the trainings of a search; None shows a bar in a terminal.
        misplaced: Unknown arguments: the error names the one that is meant.

    Raises:
        ConfigError: An unknown name, wrong options, or images that do not fit into ``room``.
        DataError: A class with too few images.
    """
    refuse(*(_misplaced(select, name) for name in misplaced))
    chosen_by, usual = names.baseline(selection)
    refuse(
        instance("formation", usual if formation is None else formation, Formation, "Formation(factor=2)"),
        None if storage is None else choice("storage", storage, STORAGES),
        instance("machine", machine, Machine, "Machine('cpu')"),
        whole("seed", seed),
        None if ipc is None else whole("ipc", ipc, 1),
        None if room is None else whole("room", room, 1),
        *number_misfits(ipc, room, search),
        _no_progress(progress),
    )
    formed = formation or usual
    formed = formed if storage is None else dataclasses.replace(formed, dtype=storage)
    images = as_images(data)
    if formed == usual and usual.coded and room is None:
        assert ipc is not None
        room, ipc = plain_bytes(images.spec.shape, ipc), None
    refuse(formed.misfit(images.spec.shape))
    with Compute(machine, _size(images)) as compute:
        found = None
        if search:
            assert room is not None
            found = search_number(
                images, chosen_by, formed, room, compute=compute, seed=seed, progress=progress or Bars()
            )
            ipc = found.number
        name = names.baseline_name(chosen_by, formed)
        made = selected_set(images, chosen_by, ipc, Draw(seed), compute, formed, room, name)
    told = {} if found is None else {"search": found.to_json()}
    return dataclasses.replace(made, provenance={**made.provenance, **told})


@usual_modes()
def evaluate(
    sets: Any,
    test: Any,
    *,
    train: Any = None,
    against: Any = "random",
    network: Any = "ConvNet",
    networks: int = 5,
    protocol: str | TrainProtocol = "short",
    seed: int = 0,
    machine: Machine = Machine(),  # noqa: B008 - frozen
    equal_steps: bool = True,
    progress: Progress | None = None,
    out: str | Path | None = None,
    **misplaced: Any,
) -> Evaluation:
    """Train networks from scratch on sets, test them, and compare the sets with equally many real images.

    >>> from dataclasses import replace
    >>> import condensekit as ck
    >>> from condensekit.catalog import protocol
    >>> train, test = ck.load("digits")
    >>> chosen = ck.select(train, "kmeans", ipc=1)
    >>> short = replace(protocol("short"), steps=5)
    >>> found = ck.evaluate({"kmeans": chosen}, test, train=train, network="ConvNet-w8", networks=1, protocol=short)
    >>> [row.set for row in found.rows]
    ['kmeans', 'random']

    Args:
        sets: A set, a result of :func:`condense`, the path of a run folder or of a set's file, or a list of these; the
            keys of a dictionary become the names of rows. Sets that differ only in the seed form one row.
        test: Test images in any form; they get the normalisation of the sets.
        train: Training images, from which baselines are chosen; None: the data of the sets are read again.
        against: Selections to compare with: a name, a selection, a list of these, or None. ``full`` is all training
            images. The first entry is the reference of the differences.
        network: The network to train and judge: a name, a function that makes a module, or a list of these.
        networks: Number of networks trained on each set.
        protocol: How networks are trained: ``short``, ``dc``, ``idc``, or a :class:`TrainProtocol`.
        seed: Seed of the first network.
        machine: Device and precision of the networks.
        equal_steps: Whether packed sets, which decode to more images, are trained on for the same number of steps.
        progress: Receives each gradient step; None shows a bar in a terminal.
        out: A folder, which may be the run folder of a set: it keeps each finished network, so that a repeated call
            goes on after an interruption, and gets the result as ``evaluation.json``; None: nothing is written.
        misplaced: Arguments of the protocol or the machine, and unknown ones: the error names what is meant.

    Returns:
        One row of accuracies for each set, with the difference to the reference; ``print`` shows a table.

    Raises:
        ConfigError: Unknown names, or a baseline without training images.
        DataError: Images that do not fit the sets.
        StoreError: ``out`` cannot be written, or a file in it is damaged.
    """
    refuse(*(_misplaced(evaluate, name) for name in misplaced))
    wanted: list[str] = []
    problems = Problems()
    architectures: list[Network] = []
    chosen: dict[str, tuple[Selection, Formation]] = {}
    for one in network if isinstance(network, list | tuple) else [network]:
        with problems:
            architectures.append(names.as_network(one))
    for one in against if isinstance(against, list | tuple) else [] if against is None else [against]:
        with problems:
            if not (isinstance(one, str) and one == FULL):
                selection, formation = names.baseline(one, "against")
                one = one if isinstance(one, str) else selection.name
                chosen[one] = selection, formation
            wanted.append(one)
    with problems:
        protocol = names.protocol(protocol) if isinstance(protocol, str) else protocol
        refuse(
            instance("protocol", protocol, TrainProtocol, '"short", "dc", "idc" or a TrainProtocol'),
            instance("machine", machine, Machine, "Machine('cpu')"),
            instance("equal_steps", equal_steps, bool, "True or False"),
            _no_progress(progress),
            None if out is None else _no_folder(out),
        )
    problems.refuse()
    groups = found.groups(sets)
    made_of = [one.spec for group in groups for one in group.sets]
    first = groups[0].sets[0]
    tested = normalised(renumbered(as_images(test, "test"), first, "test"), first)
    tested = tested.with_spec(flippable=all(spec.flippable for spec in [tested.spec, *made_of]))
    source = _training_images(train, first) if wanted else None
    here = launched()
    machine = of_rank(machine, here.local) if here.several else machine
    shown = (progress or Bars()) if here.first else SILENT
    with Compute(machine, _size(tested)) as compute:
        candidates = [Candidate(g.name, g.sets, g.ipc) for g in groups]
        if source is not None:
            check_classes(source, first)
            candidates += baselines(groups, chosen, source, compute)
            candidates += [Candidate(FULL, (source,))] if FULL in wanted else []
        return evaluate_candidates(
            candidates,
            tested,
            network=tuple(architectures),
            networks=networks,
            protocol=protocol,  # type: ignore[arg-type]
            seed=seed,
            compute=compute,
            reference=wanted[0] if wanted else None,
            equal_steps=equal_steps,
            progress=shown,
            out=None if out is None else Path(out),
        )


def baselines(
    groups: Sequence[found.Group],
    selections: Mapping[str, tuple[Selection, Formation]],
    train: ClassImages,
    compute: Compute,
) -> list[Candidate]:
    """For each ``ipc`` of ``groups``, the sets of each selection, with the seeds of the group with the most seeds.

    Coded images are as many as the bytes hold for which the groups were made, or else those of ``ipc`` plain images.
    """
    made = []
    for ipc in dict.fromkeys(g.ipc for g in groups):
        same = [g for g in groups if g.ipc == ipc]
        seeds = max((g.seeds for g in same), key=len)
        rooms = [g.room for g in same if g.room]
        for name, (selection, formation) in selections.items():
            if name in {g.name for g in same}:
                continue
            room = min(rooms, default=plain_bytes(train.spec.shape, ipc)) if formation.coded else None
            each = ipc if room is None else None
            sets = tuple(selected_set(train, selection, each, Draw(seed), compute, formation, room) for seed in seeds)
            made.append(Candidate(name, sets, ipc))
    return made


def _no_progress(given: object) -> str | None:
    """The problem of an argument ``progress``; None if there is no problem."""
    way_out = "a subclass of condensekit.progress.Progress, or nothing"
    return None if given is None else instance("progress", given, Progress, way_out)


def _size(images: ClassImages) -> tuple[int, int]:
    return images.spec.shape[1], images.spec.shape[2]


def _no_folder(out: str | Path) -> str | None:
    """The problem of ``out``; None if there can be such a folder."""
    if problem := path("out", out, "the folder as a text"):
        return problem
    return f"out={str(out)!r} is no path: {why}" if (why := unusable(out)) else None


def _misplaced(function: Callable[..., Any], name: str) -> str:
    """The error message for an argument that a public function does not accept: the call that accepts it."""
    call = f"{function.__name__}()"
    taken = [one for one in inspect.signature(function).parameters if one != "misplaced"]
    if "machine" in taken and name in {field.name for field in dataclasses.fields(Machine)}:
        return f"{call} takes no {name}=: pass machine=Machine({name}=...)"
    if "protocol" in taken and name in {field.name for field in dataclasses.fields(TrainProtocol)}:
        change = f"dataclasses.replace(ck.catalog.protocol('short'), {name}=...)"
        return f"{call} takes no {name}=: pass protocol={change}"
    if "recipe" in taken:
        of_methods = {option for one in PUBLISHED.values() for option in texts.options_of(one.recipe.method)}
        if name in {field.name for field in dataclasses.fields(Recipe)} | {*recipes.SHORT} | of_methods:
            return f"{call} takes no {name}=: it belongs to the recipe, as in {call[:-1]}train, recipes.dm({name}=...))"
        if name in ELSEWHERE:
            return f"{call} takes no {name}=: pass {ELSEWHERE[name]}="
    return str(unknown(f"argument of {call}", name, taken))


def _training_images(train: Any, made: CondensedSet) -> ClassImages:
    """The training images, from which baselines are chosen: the given images, or the data of the set read again.

    Raises:
        ConfigError: No images are given, and the data of the set cannot be read again.
    """
    if train is not None:
        return normalised(renumbered(as_images(train, "train"), made, "train"), made)
    source, wanted = made.provenance.get("source"), made.provenance.get("data")
    if not source:
        raise ConfigError(
            "a baseline needs the training images, and the set does not record where they are: pass train=, or "
            "against=None"
        )
    told = {name: source[name] for name in ("root", "image_size", "splits", "layout") if name in source}
    parts = [normalised(part, made) for part in datasets.load(source["name"], **told)]
    read = next((part for part in parts if part.fingerprint() == wanted), None)
    if read is None:
        raise ConfigError(
            f"the set was not made from the present images of {source['name']!r} (perhaps from a part): pass train="
        )
    return read
