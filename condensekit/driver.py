"""Driver: the loop of every condensation, with its budget, log, checkpoints and rule for values that are not finite."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from condensekit.compute import TOLD, Compute, Machine, Spent, made_on, usual_modes
from condensekit.data.images import ClassImages
from condensekit.errors import Problems, StoreError, function, instance, positive, refuse, whole
from condensekit.interrupt import Stop, caught
from condensekit.methods.base import Condenser, State, StepContext
from condensekit.methods.encoders import Prepared
from condensekit.methods.recipe import Recipe, as_recipe
from condensekit.methods.result import CondenseResult as CondenseResult
from condensekit.methods.result import Status as Status
from condensekit.methods.sampling import Sampler
from condensekit.networks.base import separable
from condensekit.progress import SILENT, Progress, Stage
from condensekit.rng import Draw
from condensekit.runs.budget import ENTRIES, Budget, Pace, Seconds
from condensekit.runs.describe import describe
from condensekit.runs.files import load_tensors, save_tensors
from condensekit.runs.folder import RunDir, environment
from condensekit.runs.saving import Saving as Saving
from condensekit.selection.base import smaller_note, stored_each
from condensekit.sets.checks import escaped
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.sets.grid import SMALLEST

log = logging.getLogger(__name__)
PICTURED = 1 << 20  # pixels of the picture of the first images
READ_EVERY = {"cuda": 50, "mps": 50}  # steps between two reads of the metrics from a GPU; on a CPU every step
DECIDED = 2  # steps after which the work that is left is known, and with it whether the network is compiled


@usual_modes()
def condense(
    data: ClassImages,
    recipe: Recipe | Condenser,
    *,
    ipc: int,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    machine: Machine = Machine(),  # noqa: B008 - frozen
    saving: Saving | None = None,
    record: Mapping[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = SILENT,
) -> CondenseResult:
    """Learn ``ipc`` synthetic images for each class of ``data``.

    A class with fewer than ``ipc`` real images takes what it has: as many synthetic images as it has real ones (with a
    factor, as they fill stored images), wherever these start. So no class has more images than a selection of the same
    ``ipc`` can choose. Its images are learnt as those of a class of ``ipc`` images that repeats them.

    Args:
        data: The real images; every class of them is condensed.
        recipe: A recipe; or a method, which then uses the encoder, augmentation and start of DM.
        ipc: Images per class, at least 1; at least one class must have so many real ones.
        steps: Matching steps, at least 1. Give either ``steps`` or ``minutes``.
        minutes: Wall time of the run, above 0: trained encoders, first images, steps and files; a resumed run keeps
            the time it has used. Encoders are trained in at most a quarter of it, and the first images are chosen in a
            quarter, among fewer images if need be. At least one step is made.
        seed: Seed of all random numbers; the same seed gives the same images on a CPU.
        machine: Device and precision of the networks.
        saving: Run folder, checkpoints and resume; None keeps everything in memory. A resumed run may have more
            ``steps`` or ``minutes``, also after it has finished. No part of a recipe sees the number of steps, so the
            images are those of one long run.
        record: Further entries for ``config.json`` and the provenance of the set, such as ``name``. JSON values.
        stop: Called after each step; when it returns True, the run ends with a checkpoint, as after a signal.
        progress: Receives each step.

    Returns:
        The set and how the run ended. Ctrl-C, SIGTERM or SIGHUP ends the run after the current step, with a
        checkpoint. Before the first step there is nothing to save, and they end the program at once.

    Raises:
        ConfigError: Wrong options; a resume with other options (the text shows the difference), or with fewer steps
            or minutes than the run has used; or a resume on a machine that lacks the device of the run.
        DataError: No class has ``ipc`` images.
        StoreError: The run folder cannot be written; its attribute ``result`` holds the images learnt so far.
    """
    refuse(instance("machine", machine, Machine, "Machine('cpu')"))
    made, problems = as_recipe(recipe).on(data.spec), Problems()
    with problems:
        refuse(
            "give steps or minutes, exactly one of them, such as steps=1000 or minutes=5"
            if (steps is None) == (minutes is None)
            else None,
            None if steps is None else whole("steps", steps, 1),
            None if minutes is None else positive("minutes", minutes),
            whole("seed", seed),
            None if record is None else instance("record", record, Mapping, '{"name": "mine"}'),
            None if saving is None else instance("saving", saving, Saving, "a folder or Saving(folder)"),
            function("stop", stop, "lambda: False", 0),
            instance("progress", progress, Progress, "a subclass of condensekit.progress.Progress, or nothing"),
        )
    with problems:
        made.check(data, ipc, machine)
    problems.refuse()
    ipc, seed, steps = int(ipc), int(seed), None if steps is None else int(steps)  # they may be NumPy integers
    config = {
        **describe(made),
        "ipc": ipc,
        "steps": steps,
        "minutes": minutes,
        "seed": seed,
        "machine": machine.identity,
        **(record or {}),
    }
    with ExitStack() as stack:
        fingerprint = data.fingerprint()
        budget, run, found = Budget(steps, minutes), None, None
        if saving:
            run = stack.enter_context(RunDir.create(saving.out, config, saving.resume, fingerprint, ENTRIES))
            found = run.latest_checkpoint()
            if found:
                budget.check(run.path, found[0], found[2])
            if run.changed:
                run.keep_config()
        size = data.spec.shape[1], data.spec.shape[2]
        compute = stack.enter_context(Compute(made_on(found[2]["plan"]) if found else machine, size))
        provenance = {
            "config": config,
            "data": fingerprint,
            "source": data.source,
            "images": len(data),
            "environment": environment(),
        }
        each = stored_each(data, ipc, made.formation.factor)
        loop = _Loop(data, made, each, compute, Draw(seed), provenance, saving, run, budget, stop, progress)
        try:
            loop.prepare()
            if found:
                loop.restore(*found)
            else:
                loop.begin(ipc)
                loop.first_picture()
            with caught() as loop.stop:
                result = loop.complete()
            return replace(result, signum=loop.stop.signum)
        except StoreError as error:
            error.result = loop.result(Status.INTERRUPTED, str(error)) if loop.state else None
            raise


class _Loop:
    """One run of one recipe: its state, and the work before and after each step."""

    def __init__(
        self,
        data: ClassImages,
        recipe: Recipe,
        each: Mapping[int, int],
        compute: Compute,
        draw: Draw,
        provenance: dict[str, Any],
        saving: Saving | None,
        run: RunDir | None,
        budget: Budget,
        asked: Callable[[], bool],
        progress: Progress,
    ) -> None:
        self.data, self.recipe, self.compute, self.draw = data, recipe, compute, draw
        self.provenance, self.saving, self.run, self.progress = provenance, saving, run, progress
        self.each = each  # stored images of each class
        self.fewer = {label: count for label, count in each.items() if count < max(each.values())}
        self.budget, self.asked = budget, asked  # how long it goes on; whether the caller wants to stop
        network = recipe.encoder.network
        module = network.new(data.spec.shape, len(data.classes), draw, device=compute.device)
        self.module = module.requires_grad_(False)
        self.stop = Stop()
        self.prepared: Prepared = {}
        self.sampler: Sampler | None = None
        self.state: State = {}
        self.step = 0
        self.seconds = Seconds()
        self.shortened: list[str] = []  # what was done with less, because of the minutes
        self.extended: list[int] = []  # the steps after which the run had finished, and went on
        self.prepared_with = self.earlier = Spent()  # work before the first step; work of all steps before a resume
        self.history: list[dict[str, float]] = []
        self.pending: list[tuple[int, int, dict[str, Tensor], float]] = []
        self.failures = 0
        self.finished = False

    def prepare(self) -> None:
        """Make the tensors that the encoder needs and save them, or read them from the run folder."""
        path = self.run.path / "prepared.safetensors" if self.run else None
        found: Prepared
        if path and path.exists():
            found, manifest = load_tensors(path, "prepared")
            self.seconds.preparation = float(manifest["seconds"])
            self.prepared_with = Spent(**manifest["spent"])
            self.shortened = list(manifest.get("shortened", ()))
        else:
            start = time.perf_counter()
            encoder = self.recipe.encoder.within(self.budget.share, self.data, self.draw, self.compute)
            self._shorten(f"encoders are trained for {encoder.steps:,} steps", encoder is not self.recipe.encoder)
            found = encoder.prepare(self.data, self.draw, self.compute, self.progress)
            self.seconds.preparation = time.perf_counter() - start
            self.prepared_with = self.compute.spent
            if path and found:
                how = {"seconds": self.seconds.preparation, "spent": asdict(self.prepared_with)}
                spec = self.data.spec.to_json()  # of the images that the networks were trained on
                told = {**how, "shortened": self.shortened, "spec": spec}
                save_tensors(path, found, told, "prepared")
        self.prepared = {name: values.to(self.compute.device) for name, values in found.items()}
        self.before = self.compute.spent

    def context(self, step: int, attempt: int = 0) -> StepContext:
        draw, recipe = self.draw.at(step, attempt), self.recipe
        recipe.encoder.load(self.module, draw, self.prepared)
        prefix = None
        if recipe.nested and self.state:
            ipc = self.state["images"].shape[1]
            prefix = 1 + int(draw.integers("nested", torch.zeros(1, dtype=torch.int64), 1, ipc))
        return StepContext(
            self.data,
            draw,
            self.module,
            self.compute,
            recipe.augmentation,
            self._sampler(draw),
            recipe.formation.factor,
            prefix,
            self.prepared,
            recipe.encoder,
            self.fewer,
        )

    def begin(self, ipc: int) -> None:
        """Make the first state, from real images or noise."""
        start, init, factor = time.perf_counter(), self.recipe.init, self.recipe.formation.factor
        with self.progress.stage(f"initialise ({init.name})", 1) as stage:
            data = init.within(self.budget.share, self.data, ipc * factor**2, self.draw, self.compute)
            among = f"the first images ({init.name}) are chosen among {len(data):,} of {len(self.data):,} images"
            self._shorten(among, len(data) < len(self.data))
            images = init.first(data, ipc, factor, self.draw, self.compute)
            stage.advance()
        self.state = self.recipe.method.init(images.to(self.compute.device), self.context(1))
        self.seconds.preparation += time.perf_counter() - start
        self.prepared_with += self.compute.spent - self.before
        self.before = self.compute.spent

    def _shorten(self, how: str, shortened: bool) -> None:
        """Tell and note that something was done with less, if it was."""
        if shortened:
            self.shortened.append(how)
            self.progress.tell(f"{how}: all would take more than {self.budget.share:.0f} s of the time")

    def restore(self, step: int, tensors: State, manifest: Mapping[str, Any]) -> None:
        """Continue from a checkpoint, or beyond the end of a finished run.

        The sampler is made again here, so that its time does not count as a step.
        """
        start = time.perf_counter()
        self.state = {name: t.to(self.compute.device) for name, t in tensors.items()}
        self.step, self.seconds = step, Seconds.of(manifest)
        self.shortened, self.extended = (list(manifest.get(name, ())) for name in ("shortened", "extended"))
        self.prepared_with = Spent(**manifest["prepared_with"])
        self.earlier = Spent(**manifest["spent"])
        self.finished = bool(manifest["finished"]) and not self.budget.extends(step, manifest)
        if self.finished:
            return
        if manifest["finished"]:
            self.extended.append(step)
            self._checkpoint()  # from now on, metrics may have more rows than the checkpoint knows
        self._sampler(self.draw.at(step + 1))
        self.seconds.preparation += time.perf_counter() - start
        self.prepared_with += self.compute.spent - self.before
        self.before = self.compute.spent

    @property
    def spent(self) -> Spent:
        """The work of all steps, including the steps before a resume."""
        return self.earlier + self.compute.spent - self.before

    def _sampler(self, draw: Draw) -> Sampler:
        """The sampler of real images for the step of ``draw``; it is kept for the next step."""
        made = self.recipe.sampling.sampler(self.data, draw, self.compute, self.sampler, self.progress)
        self.sampler = made
        return made

    def complete(self) -> CondenseResult:
        """Run the loop until the budget is used up, the run diverges, or somebody stops it."""
        read_every = READ_EVERY.get(self.compute.device.type, 1)
        saved_step, saved_at = self.step, time.monotonic()
        pace = Pace()
        with self.progress.stage(f"condense ({self.recipe.method.name})", self.budget.steps, self.step) as stage:
            while not self._over():
                self._advance()
                if self.step == DECIDED:
                    self._expect()
                if len(self.pending) >= read_every or not pace.known:
                    self._read(stage)  # which waits for a GPU
                if pace.mark(self.spent.images):
                    pace.tell(self.budget, self.step, self.seconds, self.compute.machine.where, self.progress)
                if self.failures >= 2 or self.stop.signum is not None or self.asked():
                    break
                if self._due(saved_step, saved_at):
                    self._read(stage)
                    self._checkpoint()
                    saved_step, saved_at = self.step, time.monotonic()
                self._snapshot()
            self._read(stage)
        return self._end()

    def _over(self) -> bool:
        return self.finished or self.budget.over(self.step, self.seconds)

    def _advance(self) -> None:
        """Run one step; on a CPU, repeat a failed step once with new random numbers."""
        start = time.perf_counter()
        for attempt in (0, 1):
            self.state, metrics = self.recipe.method.step(self.state, self.context(self.step + 1, attempt))
            if self.compute.device.type in READ_EVERY or bool(metrics["finite"]):
                break
            log.warning("step %d gave a value that is not finite; nothing was changed", self.step + 1)
        self.step += 1
        self.seconds.last_step = seconds = time.perf_counter() - start
        self.seconds.steps += seconds
        self.pending.append((self.step, attempt, metrics, seconds))

    def _expect(self) -> None:
        """Decide whether the network is compiled for the steps that are left, if the machine leaves it open."""
        compiled = replace(self.compute.machine, compiled=True)
        fits = separable(self.module) and not any(self.recipe.method.misfits(self.data, self.recipe, compiled))
        left = self.budget.left(self.step, self.seconds, self.seconds.steps / self.step)
        if self.compute.expect(left * self.spent.flops / self.step if fits else 0):
            self.progress.tell(TOLD)

    def _read(self, stage: Stage) -> None:
        """Fetch the metrics of the steps since the last read, log them, and count failed steps in a row."""
        start = time.perf_counter()
        for step, attempt, metrics, seconds in self.pending:
            values = {name: float(value) for name, value in metrics.items() if name != "finite"}
            good = bool(metrics["finite"])
            on_device = self.compute.device.type in READ_EVERY
            self.failures = 0 if good else self.failures + (1 if on_device else 2)
            row = {"step": step, **values, "attempt": attempt, "seconds": round(seconds, 6)}
            self.history.append(row)
            if self.run:
                self.run.log(step, {k: v for k, v in row.items() if k != "step"})
            stage.advance(1, {**values, **self.budget.told(self.seconds)})
            if self.failures >= 2:
                break
        self.pending.clear()
        self.seconds.steps += time.perf_counter() - start

    def _due(self, saved_step: int, saved_at: float) -> bool:
        if self.saving is None:
            return False
        by_count = self.saving.every is not None and self.step - saved_step >= self.saving.every
        return by_count or time.monotonic() - saved_at >= 60 * self.saving.minutes

    def _checkpoint(self) -> None:
        if self.run:
            start = time.perf_counter()
            manifest = {
                **self.seconds.told(),
                "minutes": self.budget.minutes,
                "shortened": self.shortened,
                "extended": self.extended,
                "prepared_with": asdict(self.prepared_with),
                "spent": asdict(self.spent),
                "plan": self.compute.machine.to_json(),
                "finished": self.finished,
            }
            self.run.save_checkpoint(self.step, {k: v.cpu() for k, v in self.state.items()}, manifest)
            self.seconds.last_file = time.perf_counter() - start
            self.seconds.writing += self.seconds.last_file

    def _snapshot(self) -> None:
        every = self.saving.snapshot_every if self.saving else None
        if every and self.step % every == 0:
            self._picture()

    def first_picture(self) -> None:
        """A small picture of the first images, for reports; none if even one image of each class would be too much."""
        classes, ipc, channels, height, width = self.state["images"].shape
        columns = min(ipc, PICTURED // (classes * max(height, SMALLEST) * max(width, SMALLEST)))
        if channels in (1, 3) and columns:
            self._picture(min(10, columns))

    def _picture(self, per_class: int = 10) -> None:
        if self.run:
            from condensekit.sets.export import to_png_grid

            start = time.perf_counter()
            file = self.run.path / "snapshots" / f"step-{self.step:06d}.png"
            to_png_grid(self._set(Status.INTERRUPTED), file, per_class)
            self.seconds.writing += time.perf_counter() - start

    def _end(self) -> CondenseResult:
        """Save the last checkpoint and the set, and make the result."""
        total = f" of {self.budget.steps}" if self.budget.steps is not None else ""
        if self.failures >= 2:
            return self._close(
                Status.DIVERGED,
                f"step {self.step}{total} was not finite twice in a row: the last finite images are kept; "
                "lower the method's lr, or use precision='fp32'",
            )
        if not self._over():
            by = signal.Signals(self.stop.signum).name if self.stop.signum else "its caller"
            self._checkpoint()
            return self.result(
                Status.INTERRUPTED, f"interrupted by {by} after step {self.step}{total}: continue with resume=True"
            )
        self.finished = True
        self._checkpoint()
        far = escaped(self.state["images"].flatten(0, 1), self.data.spec)
        notes = [
            f"finished {self.step} step{'s' * (self.step != 1)} in {self.seconds}",
            *self.shortened,
            smaller_note(self.each.values()),
            far,
        ]
        return self._close(Status.FINISHED, "; ".join(filter(None, notes)))

    def _close(self, status: Status, message: str) -> CondenseResult:
        result = self.result(status, message)
        if self.run:
            result.set.save(self.run.path / "set.safetensors", overwrite=True)
        return result

    def _formation(self) -> Formation:
        """How the present images are stored: as the recipe says; as float32 if they have too large values for that."""
        wanted = self.recipe.formation
        return wanted if wanted.fits(self.state["images"].flatten(0, 1)) else replace(wanted, dtype="float32")

    def result(self, status: Status, message: str) -> CondenseResult:
        made = self._set(status)
        if made.formation != self.recipe.formation:
            message += f"; stored as float32, because values are too large for {self.recipe.formation.dtype}"
        if self.recipe.soft_labels:
            made = self.recipe.encoder.label(made, self.prepared, self.compute)
        work = self.work()
        made = replace(made, provenance={**made.provenance, "work": work})
        return CondenseResult(made, status, message, self.history, work=work)

    def work(self) -> dict[str, dict[str, float]]:
        """The work of networks before the first step, and in all steps; see :class:`Spent`."""
        size, shape = len(self.data), self.data.spec.shape
        parts = {"preparation": self.prepared_with, "condensing": self.spent}
        return {name: {**asdict(spent), **spent.passes(size, shape)} for name, spent in parts.items()}

    def _set(self, status: Status) -> CondensedSet:
        """The present images as a set, with the soft labels that the method learnt, if any."""
        images = self.state["images"]
        provenance = {
            **self.provenance,
            "status": status.value,
            "steps": self.step,
            "elapsed_s": round(self.seconds.steps, 3),
            "preparation_s": round(self.seconds.preparation, 3),
            **({"shortened": self.shortened} if self.shortened else {}),
            **({"extended": self.extended} if self.extended else {}),
            "plan": self.compute.machine.to_json(),
            "separable": self.recipe.separable and separable(self.module),
        }
        labels = torch.tensor(self.data.classes, dtype=torch.int64).repeat_interleave(images.shape[1])
        made = CondensedSet.from_images(
            images.flatten(0, 1), labels, self.data.spec, formation=self._formation(), provenance=provenance
        )
        soft = self.recipe.method.soft_labels(self.state)
        made = made if soft is None else made.with_soft_labels(soft, self.data.classes)
        ipc = images.shape[1]
        rows = [torch.arange(count) + k * ipc for k, count in enumerate(self.each.values())]
        return made.take(torch.cat(rows)) if self.fewer else made
