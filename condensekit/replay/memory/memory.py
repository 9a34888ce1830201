"""Memory: a replay memory of condensed or selected images, without a framework."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, MutableMapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condensekit.catalog import own
from condensekit.compute import Machine, Spent, usual_modes
from condensekit.data.arrays import channels_last
from condensekit.data.images import ClassImages, ImageSpec, normalisation
from condensekit.data.labels import as_labels
from condensekit.errors import CondensekitError, ConfigError, DataError, instance, path, refuse, require, whole
from condensekit.methods.base import Condenser
from condensekit.methods.recipe import Recipe
from condensekit.progress import SILENT, Bars, Progress
from condensekit.replay.memory import budget as budgets
from condensekit.replay.memory.base import Filler, Job
from condensekit.replay.memory.budget import Budget
from condensekit.replay.memory.content import Content, Group
from condensekit.replay.memory.decoded import DecodedImages
from condensekit.replay.memory.names import as_filler
from condensekit.replay.memory.rules import Rules
from condensekit.replay.memory.scale import Scale
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.files import failure, load_tensors, save_tensors
from condensekit.selection.base import Choice, Selection
from condensekit.sets.condensed import TENSORS, CondensedSet
from condensekit.sets.formation import Formation

MEMORY = "replay memory"  # the kind that the manifest of a memory's file names

Sample = tuple[Tensor, Tensor, Tensor]
"""Images (n, C, H, W), class labels (n,) int64 and task labels (n,) int64."""


class Memory:
    """Replay memory that condenses the classes of each experience, or selects images of them: tensors in, tensors out.

    >>> from condensekit.replay import Images, Memory
    >>> memory = Memory(Images(10), "random")
    >>> memory.observe(torch.rand(20, 1, 8, 8), torch.arange(20) % 2, task=0)
    >>> images, labels, tasks = memory.sample(4)
    >>> images.shape, len(memory)
    (torch.Size([4, 1, 8, 8]), 10)

    Images are kept for each class of each task; the budget is shared among these pairs. If a pair appears again, new
    and old images share its part in proportion to the real images that they represent. If a total budget is divided by
    the classes seen so far, each class loses its last images when more classes appear; then the recipe makes nested
    sets.

    With a packing factor f, each stored image is decoded to f * f replayed images.

    Attributes:
        condense_s: Seconds that were spent on each observation, including the seconds before a kill and those of sets
            that were read from a cache.
        work: Images and FLOPs of the networks for each observation, counted in the same way.
        wall_s: Wall seconds of the last observation in this process.

    Args:
        budget: Largest size of the memory, :class:`Images` or :class:`Bytes`.
        recipe: How the memory is filled: the text of a recipe (``"m3d lr=3"``), of a selection (``"herding"``) or of
            another filler (``"hybrid-m3d-25"``, see :mod:`condensekit.replay.memory.names`); a
            :class:`~condensekit.methods.recipe.Recipe`; a bare method, with the other parts of DM's recipe; a
            selection, or a function with the same arguments; or a :class:`~condensekit.replay.memory.base.Filler`.
        classes: Number of classes of the whole stream, a label in two tasks counted twice: a total budget is divided by
            it from the start. None: unknown.
        steps: Number of matching steps of each condensation; None: as many as fit the data, at most 500, see
            :func:`condensekit.replay.memory.base.usual_steps`.
        seed: Seed of all random numbers, the same in each observation.
        machine: Device, precision and workers of the networks that fill the memory.
        storage: Type of the stored values: ``uint8``, ``float16`` or ``float32``; None: that of the recipe. Coded
            images are stored as their codes, and decoded when they are sampled.
        spec: Normalisation and class names of the images. None: that of float32 images is unknown (they are kept in
            their scale); that of uint8 images is computed from the first observation.
        out: Folder of condensations, from which a killed condensation is resumed; None: nothing is saved.
        progress: Progress display, which names each condensation and is updated after each step; None shows bars in a
            terminal.
        cache: Sets of single classes, read and written; see :func:`condensekit.replay.memory.fillers.filled`.

    Raises:
        ConfigError: Wrong options, or a budget of less than one image for each announced class.
    """

    def __init__(
        self,
        budget: Budget,
        recipe: str | Recipe | Condenser | Selection | Choice | Filler = "m3d",
        *,
        classes: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        machine: Machine = Machine(),  # noqa: B008 - frozen
        storage: str | None = "uint8",
        spec: ImageSpec | None = None,
        out: str | Path | None = None,
        progress: Progress | None = None,
        cache: MutableMapping[str, CondensedSet] | None = None,
    ) -> None:
        filler = as_filler(recipe)
        number = 2000 if whole("budget", budget, 1) else budget
        refuse(
            instance("budget", budget, Budget, f"Images({number}), or Bytes(2_000_000)"),
            None if classes is None else whole("classes", classes, 1),
            None if steps is None else whole("steps", steps, 1),
            whole("seed", seed),
            None if spec is None else instance("spec", spec, ImageSpec, "ImageSpec((3, 32, 32), mean, std)"),
            instance("machine", machine, Machine, "Machine('cpu')"),
            None if out is None else path("out", out, "the folder of the condensations"),
            None if progress is None else instance("progress", progress, Progress, "a Progress, or nothing"),
            None if cache is None else instance("cache", cache, MutableMapping, "a dictionary, or nothing"),
        )
        uneven = budget.total is not None and (classes is None or budget.total % classes > 0)
        if filler.recipe and uneven:
            filler = filler.with_recipe(filler.recipe.replace(nested=True))
        filler = filler if storage is None else filler.with_storage(storage)
        self.text = recipe if isinstance(recipe, str) else None
        job = Job(seed, steps, machine, progress=progress or Bars())
        self.rules = Rules(budget, classes, filler, job, text=self.text)
        self.spec, self.storage = spec, storage
        self.out, self.cache = None if out is None else Path(out), cache
        self.condense_s: list[float] = []
        self.work: list[Spent] = []
        self.wall_s = 0.0
        self.content = Content()
        self.scale: Scale | None = None
        self._bytes: bool | None = None  # whether the observed images are uint8; None: none was observed
        self._decoded: DecodedImages | None = None
        self._passes, self._queue = 0, torch.empty(0, dtype=torch.int64)  # of sample()

    def __len__(self) -> int:
        """Number of stored images."""
        return len(self.content)

    def __repr__(self) -> str:
        replayed = len(self) * self.rules.filler.stored.factor**2
        images = f"{len(self)} stored, {replayed} replayed" if replayed > len(self) else f"{len(self)}"
        held = f"{images} images of {len(self.groups)} classes, {self.nbytes:,} bytes" if len(self) else "empty"
        return f"Memory({self.rules.budget}, {self.rules.name}: {held})"

    @property
    def nbytes(self) -> int:
        """All stored bytes, as :attr:`CondensedSet.nbytes` counts them."""
        return self.content.nbytes

    @property
    def groups(self) -> tuple[Group, ...]:
        """Task label and class label of each group of stored images, ascending."""
        return self.content.groups

    @property
    def stored(self) -> CondensedSet | None:
        """The stored images of all groups, in their order; None: the memory is empty.

        Soft labels have a column for each class of the memory; the memory itself stores fewer columns.
        """
        return self.content.joined() if self.content.parts else None

    @property
    def decoded(self) -> DecodedImages:
        """The replayed images in the space of the networks, by row.

        Raises:
            DataError: The memory is empty.
        """
        if not self.content.parts:
            raise DataError("the memory is empty: observe an experience first")
        if self._decoded is None:
            self._decoded = DecodedImages(self.content)
        return self._decoded

    @usual_modes()
    def observe(self, images: Tensor | ClassImages, labels: Tensor | None = None, task: int = 0) -> None:
        """Store images of an experience. A call with further images of the same classes adds to them.

        Args:
            images: (N, C, H, W) float32, all normalised in the same way in each call; or uint8 pixels. Or the images of
                :func:`condensekit.load`: the memory then knows their class names, and normalises pixels itself.
            labels: (N,) integers of at least 0; None: the images bring their own.
            task: Task label of all images, at least 0.

        Raises:
            DataError: Images that cannot be stored: of another type, shape or scale than before, or not finite; or
                a label whose class has another name than before.
            ConfigError: More classes than announced, or a budget below one image.
            Interrupted: A signal ended the condensation.
            DivergedError: The condensation met values that are not finite.

        An error leaves the memory unchanged.
        """
        refuse(whole("task", task, 0))
        require(task < 2**63, f"task must be below 2**63, got {task}")
        data = self._named(images, labels) if isinstance(images, ClassImages) else self._as_images(images, labels)
        self.store(data, torch.full((len(data.labels),), task))
        self._bytes = (images.images if isinstance(images, ClassImages) else images).dtype == torch.uint8

    def store(self, data: ClassImages, tasks: Tensor) -> None:
        """Store the real images ``data``, whose task labels are ``tasks`` (N,), by index; see :meth:`observe`."""
        start, scale = time.perf_counter(), Scale.of(data)
        if self.scale is not None and (problem := self.scale.misfit(scale)):
            raise DataError(problem)
        content, rules = self.content, self.rules
        of_order = tasks[data.order]
        for task in torch.unique(of_order).tolist():
            part = data if bool((of_order == task).all()) else data.subset(data.order[of_order == task])
            content = rules.taken(content, part, task, len(self.condense_s), self.out, self.cache)
        if rules.filler.recipe:
            rules.filler.recipe.encoder.forget()
        before = self.content
        self._set(content)
        self.scale = scale if self.scale is None else self.scale.joined(scale)
        self.wall_s = time.perf_counter() - start
        seconds, spent = content.spent_since(before)
        self.condense_s.append(max(self.wall_s, seconds))
        self.work.append(spent)

    @usual_modes()
    def sample(self, n: int) -> Sample:
        """Draw ``n`` images at random: each image once before any image twice; a small memory repeats its images.

        Returns:
            Images (n, C, H, W), of the type and in the scale of the observed images; class labels (n,) int64; task
            labels (n,) int64.

        Raises:
            ConfigError: ``n`` is below 1.
            DataError: The memory is empty.
        """
        refuse(whole("n", n, 1))
        count, draw = len(self.decoded), Draw(Draw(self.rules.job.seed).key("sample"))
        while len(self._queue) < n:
            self._queue = torch.cat([self._queue, draw.at(self._passes).permutation("order", count)])
            self._passes += 1
        rows, self._queue = self._queue[:n], self._queue[n:]
        return self._at(rows)

    @usual_modes()
    def images(self) -> Sample:
        """All replayed images with their labels, as :meth:`sample` returns them.

        Raises:
            DataError: The memory is empty.
        """
        return self._at(torch.arange(len(self.decoded)))

    def resize(self, size: int) -> None:
        """Store at most ``size`` images from now on; a budget in bytes or per class stays in force, too.

        Raises:
            ConfigError: ``size`` is less than one image for each class; then the memory is unchanged.
        """
        rules = self.rules.resized(size, self.content)
        content = rules.trimmed(self.content)
        self.rules = rules
        self._set(content)

    def state_dict(self) -> dict[str, Any]:
        """The memory as tensors and plain values, which ``torch.load(weights_only=True)`` can read."""
        seen = self.content.seen
        return {
            "memory": [
                {"task": task, "label": label, "seen": seen[task, label], **self.content.parts[task, label].to_state()}
                for task, label in seen
                if (task, label) in self.content.parts
            ],
            "groups": [[*group, count] for group, count in seen.items()],
            "formation": [self.rules.filler.stored.factor, self.rules.filler.stored.dtype],
            "limit": self.rules.limit,
            "bytes": self._bytes,
            "scale": None if self.scale is None else self.scale.to_json(),
            "sampled": [self._passes, self._queue.tolist()],
            "condense_s": list(self.condense_s),
            "work": [asdict(spent) for spent in self.work],
        }

    @usual_modes()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the content by that of a :meth:`state_dict`; images that exceed the budget are dropped.

        Raises:
            DataError: ``state`` is not the state of a memory.
            ConfigError: The state has another formation, or the budget is below one image of each class.
        """
        wanted = self.rules.filler.stored
        try:
            factor, dtype = state["formation"]
            form = Formation(factor, dtype)
            require(form == wanted, f"the state holds {form}, the memory stores {wanted}: use the same formation")
            parts = {(int(record["task"] or 0), int(record["label"])): _part(record) for record in state["memory"]}
            groups = state.get("groups") or [
                [*group, r["seen"]] for group, r in zip(parts, state["memory"], strict=True)
            ]
            content = Content(parts, {(int(task), int(label)): int(seen) for task, label, seen in groups})
            limit, told = state["limit"], state.get("scale")
            scale = None if told is None else Scale.from_json(told)
            passes, queue = state.get("sampled") or (0, [])
            passes, queue = int(passes), torch.tensor(queue, dtype=torch.int64)
            seconds, work = [float(s) for s in state["condense_s"]], [Spent(**told) for told in state.get("work", ())]
            require(parts.keys() <= content.seen.keys(), "it holds a class that it has not seen")
        except ConfigError as error:
            if "formation" in str(error):
                raise
            raise DataError(f"this is not the state of a memory ({error})") from error
        except (CondensekitError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"this is not the state of a memory ({type(error).__name__}: {error})") from error
        rules = self.rules if limit is None else self.rules.resized(limit, content)
        self._set(rules.cut(content))
        self.rules, self.scale, self._bytes = rules, scale, state.get("bytes")
        self._passes, self._queue = passes, queue
        self.condense_s, self.work = seconds, work

    def save(self, path: str | Path) -> None:
        """Write the memory to one file, atomically; an existing file is replaced.

        Raises:
            StoreError: The file cannot be written.
        """
        state, rules = self.state_dict(), self.rules
        records = state.pop("memory")
        tensors = {
            f"{i}.{name}": record.pop(name) for i, record in enumerate(records) for name in TENSORS if name in record
        }
        made = {
            "budget": [type(rules.budget).__name__, rules.budget.total, rules.budget.per_class],
            "recipe": self.text,
            "filler": json.loads(json.dumps(describe(rules.filler))),
            "classes": rules.classes,
            "steps": rules.job.steps,
            "seed": rules.job.seed,
            "storage": self.storage,
            "spec": None if self.spec is None else self.spec.to_json(),
        }
        save_tensors(Path(path), tensors, {"state": {**state, "memory": records}, "made": made}, MEMORY)

    @classmethod
    def load(
        cls,
        path: str | Path,
        recipe: str | Recipe | Condenser | Selection | Choice | Filler | None = None,
        *,
        machine: Machine = Machine(),  # noqa: B008 - frozen
        out: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Memory:
        """Read a memory from a file of :meth:`save`.

        Args:
            path: The file.
            recipe: See :class:`Memory`; None: the text with which the saved memory was made.
            machine: See :class:`Memory`.
            out: See :class:`Memory`.
            progress: See :class:`Memory`.

        Raises:
            ConfigError: The saved memory was not made from a text, and ``recipe`` is None.
            DataError: There is no such file.
            StoreError: The file is damaged or not that of a memory.
        """
        tensors, manifest = load_tensors(Path(path), MEMORY)
        try:
            made, state = manifest["made"], manifest["state"]
            for name, tensor in tensors.items():
                place, _, field = name.partition(".")
                state["memory"][int(place)][field] = tensor
            kind, total, per_class = made["budget"]
            budget = {"Images": budgets.Images, "Bytes": budgets.Bytes}[kind](total, per_class=per_class)
            spec = None if made["spec"] is None else ImageSpec.from_json(made["spec"])
            options = {name: made[name] for name in ("classes", "steps", "seed", "storage")}
            text = made["recipe"]
        except (CondensekitError, IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise failure(Path(path), "read", error) from error
        require(
            recipe is not None or text is not None,
            f"the memory in {path} was not filled by a recipe that has a name: pass recipe=",
        )
        given = text if recipe is None else recipe
        with own.only() if recipe is None else nullcontext():  # the file may come from somebody else: it names no code
            memory = cls(budget, given, **options, machine=machine, spec=spec, out=out, progress=progress)
        memory.text = text
        try:
            memory.load_state_dict(state)
        except DataError as error:
            raise failure(Path(path), "read", error) from error
        return memory

    def __getstate__(self) -> dict[str, Any]:
        """State for a checkpoint, without decoded images, progress display and cache."""
        job = self.rules.job
        kept = job.progress if type(job.progress) is Bars else SILENT
        rules = replace(self.rules, job=replace(job, progress=kept))
        return {**self.__dict__, "rules": rules, "cache": None, "_decoded": None}

    def _set(self, content: Content) -> None:
        if content is not self.content:
            self._queue = torch.empty(0, dtype=torch.int64)
        self.content, self._decoded = content, None

    def _at(self, rows: Tensor) -> Sample:
        found, images = self.decoded, self.decoded.at(rows)
        if self._bytes:
            images = (self.content.spec.to_pixels(images) * 255).round().to(torch.uint8)
        return images, found.labels[rows], found.tasks[rows]

    def _named(self, data: ClassImages, labels: Tensor | None) -> ClassImages:
        """Images with class names; pixels get the normalisation of the memory."""
        require(labels is None, "images bring their labels: leave out labels, or pass two tensors")
        self._check_type(data.images)
        _check_labels(torch.tensor(data.classes))
        spec = self.content.spec if self.content.parts else self.spec or data.spec
        ours = spec if spec.pixels and data.spec.pixels else data.spec
        names = {label: data.spec.class_names.get(label, str(label)) for label in data.classes}
        return data.with_spec(mean=ours.mean, std=ours.std, class_names=names).to("cpu")

    def _check_type(self, images: Tensor) -> None:
        if self._bytes is not None and self._bytes != (images.dtype == torch.uint8):
            raise DataError(
                f"images are {images.dtype}, those before were {'uint8' if self._bytes else 'float32'}: convert them"
            )

    def _as_images(self, images: Tensor, labels: Tensor | None) -> ClassImages:
        """The images of an observation, checked; uint8 images without a spec get a normalisation."""
        refuse(
            instance("images", images, Tensor, "(N, C, H, W) float32 or uint8, or a part of what load() returns"),
            instance("labels", labels, Tensor, "(N,) integers"),
        )
        assert labels is not None
        _check_shapes(images, labels)
        _check_labels(labels)
        if images.dtype not in (torch.float32, torch.uint8):
            raise DataError(f"images must be normalised float32, or uint8 pixels, got {images.dtype}: convert them")
        self._check_type(images)
        found, _ = as_labels(labels.detach().cpu())
        names = {label: str(label) for label in torch.unique(found).tolist()}
        images = images.detach().cpu()
        shape = (images.shape[1], images.shape[2], images.shape[3])
        if self.spec is None and self.content.parts:
            spec = replace(self.content.spec, class_names=names)
        elif self.spec is not None:
            spec = replace(self.spec, class_names={k: self.spec.class_names.get(k, name) for k, name in names.items()})
        elif images.dtype == torch.uint8:
            spec = ImageSpec(shape, *normalisation(images), names)
        else:
            spec = ImageSpec(shape, (0.0,) * shape[0], (1.0,) * shape[0], names)
        if spec.shape != shape:
            raise DataError(f"images have shape {shape}, those in the memory {spec.shape}")
        told = self.spec is not None or any(spec.mean) or set(spec.std) != {1.0}  # else 0 and 1 stand for unknown
        if images.dtype == torch.float32 and spec.pixels and told:
            images = spec.to_bytes(images)
        return ClassImages(images, found, spec)


def _check_shapes(images: Tensor, labels: Tensor) -> None:
    """Raise DataError unless images are (N, C, H, W), as far as their shape tells, and labels (N,) integers."""
    shape = tuple(images.shape)
    if images.ndim != 4 or not len(images):
        raise DataError(f"images must be (N, C, H, W) with N >= 1, got shape {shape}")
    if channels_last(shape[1:]):
        raise DataError(f"images must be (N, C, H, W), got shape {shape}: pass images.permute(0, 3, 1, 2)")
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        way_out = ""
        if labels.ndim == 2:
            way_out = ": pass labels[:, 0]" if labels.shape[1] == 1 else ": pass labels.argmax(1) if they are one-hot"
        raise DataError(f"labels must be (N,) integers, got {labels.dtype} of shape {tuple(labels.shape)}{way_out}")


def _check_labels(labels: Tensor) -> None:
    if len(labels) and int(labels.min()) < 0:
        raise DataError(f"labels must be at least 0, got {int(labels.min())}: leave out images without a class")


def _part(record: Mapping[str, Any]) -> CondensedSet:
    formation = record["formation"]
    if isinstance(formation, list):  # written by version 0.1
        formation = dict(zip(("factor", "dtype"), formation, strict=True))
    part = CondensedSet.from_state({**record, "formation": formation})
    if part.classes != (int(record["label"]),):
        raise DataError(f"class {record['label']} holds images of {list(part.classes)}")
    return part
