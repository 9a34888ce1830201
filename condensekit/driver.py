"""Driver: the loop of every condensation, with its budget, log, checkpoints and rule for values that are not finite."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condensekit.compute import TOLD, Abandoned, Compute, Machine, Spent, usual_modes
from condensekit.data.images import ClassImages
from condensekit.errors import Problems, StoreError, function, instance, positive, refuse, whole
from condensekit.interrupt import Stop, caught
from condensekit.methods.base import Condenser, State, StepContext
from condensekit.methods.encoders import Prepared
from condensekit.methods.preparation import Preparation
from condensekit.methods.recipe import Recipe, as_recipe
from condensekit.methods.result import CondenseResult as CondenseResult
from condensekit.methods.result import Status as Status
from condensekit.methods.result import set_of, stored
from condensekit.methods.sampling import Sampler
from condensekit.methods.schedule import Course, averaged
from condensekit.methods.shares import Shares, check_shared, machine_of
from condensekit.networks.base import separable
from condensekit.progress import SILENT, Progress, Stage
from condensekit.ranks import joined
from condensekit.rng import Draw
from condensekit.runs.budget import ENTRIES, Budget, Pace, Seconds
from condensekit.runs.describe import describe
from condensekit.runs.folder import RunDir, environment
from condensekit.runs.saving import Saving as Saving
from condensekit.selection.base import smaller_note, stored_each
from condensekit.sets.checks import escaped
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.grid import columns_of

log = logging.getLogger(__name__)
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

    Processes that ``torchrun`` started share the classes: all of them call this function alike, and all get the whole
    set. On CPUs, with equally many threads for each, it is the set of one process, bit for bit. Rank 0 alone writes and
    shows progress. Inside :func:`condensekit.ranks.alone`, each process condenses for itself.

    Args:
        data: The real images; every class of them is condensed.
        recipe: A recipe; or a method, which then uses the encoder, augmentation and start of DM.
        ipc: Images per class, at least 1; at least one class must have so many real ones.
        steps: Matching steps, at least 1. Give either ``steps`` or ``minutes``.
        minutes: Wall time of the run, above 0: trained encoders, first images, steps and files; a resumed run keeps
            the time it has used. Encoders that the cache lacks are trained in at most a third of it, and the first
            images are chosen in a quarter, among fewer images if need be. At least one step is made.
        seed: Seed of all random numbers; the same seed gives the same images on a CPU.
        machine: Device and precision of the networks.
        saving: Run folder, checkpoints and resume; None keeps everything in memory. A resumed run may have more
            ``steps`` or ``minutes``, also after it has finished: its images are those of one long run. A recipe with
            ``schedule=Cosine()`` or an ``average`` depends on them, so that they must stay.
        record: Further entries for ``config.json`` and the provenance of the set, such as ``name``. JSON values.
        stop: Called after each step, and all the time while the network is compiled; when it returns True, the run ends
            with a checkpoint, as after a signal.
        progress: Receives each step.

    Returns:
        The set and how the run ended. Ctrl-C, SIGTERM or SIGHUP ends the run after the current step, with a
        checkpoint. Before the first step there is nothing to save, and they end the program at once.

    Raises:
        ConfigError: Wrong options; a resume with other options (the text shows the difference), or with fewer steps
            or minutes than the run has used; a resume on a machine that lacks the device of the run; more ranks than
            classes, ranks with different data or options, or a method whose classes ranks cannot share.
        DataError: No class has ``ipc`` images.
        StoreError: The run folder cannot be written; its attribute ``result`` holds the images learnt so far, unless
            several ranks share them.
        RankError: Another rank has ended.
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
    options = {
        **describe(made),
        "ipc": ipc,
        "steps": steps,
        "minutes": minutes,
        "seed": seed,
        "machine": machine.identity,
    }
    config = {**options, **(record or {})}
    with ExitStack() as stack:
        fingerprint, ranks = data.fingerprint(), stack.enter_context(joined())
        saved = saving and replace(saving, out=Path(), resume=False)
        check_shared(ranks, made, data, {**options, "data_fingerprint": fingerprint, "saving": describe(saved)})
        budget, runs = Budget(steps, minutes), list[RunDir]()

        def opened() -> tuple[int, State, dict[str, Any]] | None:
            """Open the run folder; its newest checkpoint."""
            if saving is None:
                return None
            run = stack.enter_context(RunDir.create(saving.out, config, saving.resume, fingerprint, ENTRIES))
            runs.append(run)
            found = run.latest_checkpoint()
            if found:
                budget.check(run.path, found[0], found[2], made.sees_end)
            if run.changed:
                run.keep_config()
            return found

        found = ranks.from_first(opened)
        size = data.spec.shape[1], data.spec.shape[2]
        compute = stack.enter_context(Compute(machine_of(ranks, machine, found and found[2]["plan"]), size))
        provenance = {
            "config": config,
            "data": fingerprint,
            "source": data.source,
            "images": len(data),
            "environment": environment(),
            **({"ranks": ranks.count} if ranks.several else {}),
        }
        each = stored_each(data, ipc, made.formation.factor)
        shares = Shares(ranks, made, data.near(compute))
        run, shown = next(iter(runs), None), progress if ranks.first else SILENT
        loop = _Loop(shares, each, compute, Draw(seed), provenance, saving, run, budget, stop, shown)
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
            known = loop.state and not ranks.several
            error.result = loop.result(Status.INTERRUPTED, str(error)) if known else None
            raise


class _Loop:
    """One run of one recipe: its state, and the work before and after each step."""

    def __init__(
        self,
        shares: Shares,
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
        self.shares, self.ranks, self.compute, self.draw = shares, shares.ranks, compute, draw
        self.data, self.recipe = data, recipe = shares.data, shares.recipe
        self.provenance, self.saving, self.run, self.progress = provenance, saving, run, progress
        self.each = each  # stored images of each class
        self.fewer = {label: count for label, count in each.items() if count < max(each.values())}
        self.budget, self.asked = budget, asked  # how long it goes on; whether the caller wants to stop
        compute.patience.seconds, compute.patience.tell = budget.share, progress.tell
        if not self.ranks.several:  # which finish a step together
            compute.patience.asked = self._stopped
        module = recipe.encoder.network.new(data.spec.shape, len(data.classes), draw, device=compute.device)
        self.module = module.requires_grad_(False)
        self.stop = Stop()
        self.prepared: Prepared = {}
        self.sampler: Sampler | None = None
        self.state: State = {}
        averages = recipe.average, recipe.method.averaged
        self.course = Course(recipe.schedule, *averages, shares.turns, compute.device, recipe.through)
        self.step = 0
        self.seconds = Seconds()
        self.preparation = Preparation(shares, compute, draw, budget, progress)
        self.extended: list[int] = []  # the steps after which the run had finished, and went on
        self.prepared_with = self.earlier = Spent()  # work before the first step; work of all steps before a resume
        self.history: list[dict[str, float]] = []
        self.pending: list[tuple[int, int, dict[str, Tensor], float]] = []
        self.failures, self.finished = 0, False

    def prepare(self) -> None:
        """Make the tensors that the encoder needs and save them, or read them from the run folder."""
        found, self.seconds.preparation = self.preparation.encoders(self.run.path if self.run else None)
        self.prepared = {name: values.to(self.compute.device) for name, values in found.items()}
        self.before = self.compute.spent

    def context(self, step: int, attempt: int = 0, **further: Any) -> StepContext:
        draw, recipe = self.draw.at(step, attempt), self.recipe
        recipe.encoder.load(self.module, draw, self.prepared)
        prefix = None
        if recipe.nested and self.state:
            ipc = self.state["images"].shape[1]
            prefix = 1 + int(draw.integers("nested", torch.zeros(1, dtype=torch.int64), 1, ipc))
        return StepContext(
            self.shares.mine,
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
            self.data.classes,
            self.ranks,
            **further,
        )

    def begin(self, ipc: int) -> None:
        """Make the first state, from real images or noise."""
        start = time.perf_counter()
        images = self.preparation.images(ipc)
        self.state = self.shares.checked(self.recipe.method.init(images.to(self.compute.device), self.context(1)))
        self.seconds.preparation += time.perf_counter() - start
        self.prepared_with += self.compute.spent - self.before
        self.before = self.compute.spent

    def restore(self, step: int, tensors: State, manifest: Mapping[str, Any]) -> None:
        """Continue from a checkpoint, or beyond the end of a finished run.

        The sampler is made again here, so that its time does not count as a step.
        """
        start = time.perf_counter()
        self.state = self.course.restore({k: self.shares.own(t).to(self.compute.device) for k, t in tensors.items()})
        self.step, self.seconds = step, Seconds.of(manifest)
        self.preparation.shortened, self.extended = (list(manifest.get(k, ())) for k in ("shortened", "extended"))
        self.prepared_with = self.shares.counted(Spent(**manifest["prepared_with"]))
        self.earlier = self.shares.counted(Spent(**manifest["spent"]))
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
        """The work of all ranks in all steps, including the steps before a resume."""
        return self.shares.total(self.earlier + self.compute.spent - self.before)

    @property
    def whole(self) -> State:
        """The state of all classes, with that of the course."""
        return self.shares.whole(self.state | self.course.state)

    def _sampler(self, draw: Draw) -> Sampler:
        """The sampler of real images for the step of ``draw``; it is kept for the next step."""
        data = self.shares.mine if self.recipe.sampling.separable else self.data
        self.sampler = self.recipe.sampling.sampler(data, draw, self.compute, self.sampler, self.progress)
        return self.sampler

    def complete(self) -> CondenseResult:
        """Run the loop until the budget is used up, the run diverges, or somebody stops it."""
        read_every = READ_EVERY.get(self.compute.device.type, 1)
        saved_step, saved_at = self.step, time.monotonic()
        pace = Pace()
        with self.progress.stage(f"condense ({self.recipe.method.name})", self.budget.steps, self.step) as stage:
            while not self._over():
                try:
                    self._advance()
                except Abandoned:  # nothing was changed
                    break
                if self.step == DECIDED:
                    self._expect()
                if len(self.pending) >= read_every or not pace.known:
                    self._read(stage)  # which waits for a GPU
                if pace.mark((self.compute.spent - self.before).images * self.ranks.count):
                    pace.tell(self.budget, self.step, self.seconds, self.compute.machine.where, self.progress)
                ends, due = self._agreed(self._due(saved_step, saved_at))
                if ends:
                    break
                if due:
                    self._read(stage)
                    self._checkpoint()
                    saved_step, saved_at = self.step, time.monotonic()
                self._snapshot()
            self._read(stage)
        return self._end()

    def _over(self) -> bool:
        over = self.finished or self.budget.over(self.step, self.seconds)
        return over if self.budget.minutes is None else self.ranks.from_first(lambda: over)

    def _stopped(self) -> bool:
        return self.stop.signum is not None or self.asked()

    def _agreed(self, due: bool) -> tuple[bool, bool]:
        """Whether the run ends after this step, if a rank says so, and whether rank 0 says that a checkpoint is due."""
        ends = self.failures >= 2 or self._stopped()
        ended, signum, saves = self.ranks.most(ends, self.stop.signum or 0, due and self.ranks.first)
        self.stop.signum = signum or None
        return bool(ended), bool(saves)

    def _advance(self) -> None:
        """Run one step; on a CPU, repeat a failed step once with new random numbers."""
        start, waited = time.perf_counter(), self.compute.patience.used
        done = self.ranks.from_first(lambda: self.budget.done(self.step, self.seconds)) if self.recipe.sees_end else 0.0
        gap = self.course.gap(self.step + 1, self.state["images"], self.data.spec)
        for attempt in (0, 1):
            context = self.context(self.step + 1, attempt, rate=self.course.rate(done), gap=gap)
            self.state, metrics = self.shares.step(self.state, context)
            if self.compute.device.type in READ_EVERY or bool(metrics["finite"]):
                break
            log.warning("step %d gave a value that is not finite; nothing was changed", self.step + 1)
        self.step += 1
        metrics = self.course.after(self.step, done, self.state, metrics)
        seconds = time.perf_counter() - start
        self.seconds.last_step = seconds - (self.compute.patience.used - waited)  # the next one needs no compiler
        self.seconds.steps += seconds
        self.pending.append((self.step, attempt, metrics, seconds))

    def _expect(self) -> None:
        """Decide whether the network is compiled for the steps that are left, if the machine leaves it open."""
        left = self.budget.left(self.step, self.seconds, self.seconds.steps / self.step)
        flops = sum(self.ranks.objects(left * self.spent.flops / self.step))
        if self.compute.machine.compiled is not None:
            return
        compiled = replace(self.compute.machine, compiled=True)
        fits = separable(self.module) and not any(self.recipe.method.misfits(self.data, self.recipe, compiled))
        if self.compute.expect(flops if fits else 0):
            self.progress.tell(TOLD)

    def _read(self, stage: Stage) -> None:
        """Fetch the metrics of the steps since the last read, log them, and count failed steps in a row."""
        start = time.perf_counter()
        for step, attempt, metrics, seconds in self.pending:
            values = {name: float(value) for name, value in metrics.items() if name != "finite"}
            good = bool(metrics["finite"])
            self.failures = 0 if good else self.failures + (1 if self.compute.device.type in READ_EVERY else 2)
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
        if self.saving is None:
            return
        start = time.perf_counter()
        manifest = {
            **self.seconds.told(),
            "steps": self.budget.steps,
            "minutes": self.budget.minutes,
            "shortened": self.preparation.shortened,
            "extended": self.extended,
            "prepared_with": asdict(self.shares.total(self.prepared_with)),
            "spent": asdict(self.spent),
            "plan": self.compute.machine.to_json(),
            "finished": self.finished,
        }
        whole = self.whole
        if self.run:
            self.run.save_checkpoint(self.step, {k: v.cpu() for k, v in whole.items()}, manifest)
        self.seconds.last_file = time.perf_counter() - start
        self.seconds.writing += self.seconds.last_file

    def _snapshot(self) -> None:
        every = self.saving.snapshot_every if self.saving else None
        if every and self.step % every == 0:
            self._picture()

    def first_picture(self) -> None:
        """A small picture of the first images, for reports; none if even one image of each class would be too much."""
        if columns := columns_of(self.state["images"].shape):
            self._picture(columns)

    def _picture(self, per_class: int = 10) -> None:
        if self.saving is None:
            return
        from condensekit.sets.export import to_png_grid

        start = time.perf_counter()
        made = self._set(Status.INTERRUPTED)
        if self.run:
            to_png_grid(made, self.run.path / "snapshots" / f"step-{self.step:06d}.png", per_class)
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
        notes = [
            f"finished {self.step} step{'s' * (self.step != 1)} in {self.seconds}",
            *self.preparation.shortened,
            smaller_note(self.each.values()),
            escaped(averaged(self.whole)["images"].flatten(0, 1), self.data.spec),
        ]
        return self._close(Status.FINISHED, "; ".join(filter(None, notes)))

    def _close(self, status: Status, message: str) -> CondenseResult:
        result = self.result(status, message)
        if self.run:
            result.set.save(self.run.path / "set.safetensors", overwrite=True)
        return result

    def result(self, status: Status, message: str) -> CondenseResult:
        made = self._set(status)
        if self.recipe.soft_labels:
            made = self.recipe.encoder.label(made, self.prepared, self.compute)
        made, message = stored(made, self.recipe, message)
        work = self.work()
        made = replace(made, provenance={**made.provenance, "work": work})
        return CondenseResult(made, status, message, self.history, work=work)

    def work(self) -> dict[str, dict[str, float]]:
        """The work of the encoders' trainings, made now or earlier, before the first step, and in all steps."""
        size, shape = len(self.data), self.data.spec.shape
        trained, before = self.recipe.encoder.work(self.prepared), self.shares.total(self.prepared_with)
        parts = {"encoders": trained, "preparation": before, "condensing": self.spent}
        told = {name: spent for name, spent in parts.items() if spent.images or name != "encoders"}
        return {name: {**asdict(spent), **spent.passes(size, shape)} for name, spent in told.items()}

    def _set(self, status: Status) -> CondensedSet:
        provenance = {
            **self.provenance,
            "status": status.value,
            "steps": self.step,
            "elapsed_s": round(self.seconds.steps, 3),
            "preparation_s": round(self.seconds.preparation, 3),
            **({"shortened": self.preparation.shortened} if self.preparation.shortened else {}),
            **({"extended": self.extended} if self.extended else {}),
            "plan": self.compute.machine.to_json(),
            "separable": self.recipe.separable and separable(self.module),
        }
        return set_of(averaged(self.whole), self.recipe, self.data, self.each, provenance)
