"""Contracts of methods and selections, as test classes to subclass.

    class TestMine(MethodContract):
        def make(self):
            return MyMethod()

pytest then runs every ``test_`` function below against your object, on a small set of coloured shapes.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from pathlib import Path

import pytest
import torch

from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, Status, condense
from condensekit.errors import DataError
from condensekit.methods.base import Condenser, State, StepContext
from condensekit.methods.encoders import Encoder, Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.base import Noise, Selection

LABELS = (-3, 0, 7, 42)  # gaps and a negative label on purpose


def shapes(per_class: int = 12, size: int = 8, seed: int = 0) -> ClassImages:
    """Small uint8 colour images, one kind of noisy pattern for each of :data:`LABELS`; classes differ in size."""
    parts, labels = [], []
    draw = Draw(seed)
    for k, label in enumerate(LABELS):
        n = per_class + k
        noise = draw.uniform(f"shape/{label}", torch.arange(n), 3 * size * size).reshape(n, 3, size, size)
        pattern = torch.zeros(3, size, size)
        pattern[k % 3, : size // 2] = 1.0
        pattern[(k + 1) % 3, :, : size // (1 + k // 2)] = 0.5
        parts.append(((0.6 * pattern + 0.4 * noise) * 255).to(torch.uint8))
        labels += [label] * n
    return ClassImages.from_arrays(torch.cat(parts), torch.tensor(labels))


NARROW = Fresh(ConvNet(width=8))


def context(
    data: ClassImages, compute: Compute, seed: int = 0, step: int = 1, encoder: Encoder = NARROW
) -> StepContext:
    """A context of a step without augmentation; the module has random weights, or trained weights of ``encoder``."""
    draw = Draw(seed, step)
    prepared = encoder.prepare(data, Draw(seed), compute)
    module = encoder.network.new(data.spec.shape, len(data.classes), draw).requires_grad_(False)
    if prepared:
        encoder.load(module, draw, prepared)
    return StepContext(data, draw, module, compute, None, prepared=prepared, encoder=encoder)


class MethodContract(ABC):
    """Tests of a condensation method. Override :meth:`make`."""

    encoder: Encoder = NARROW

    @abstractmethod
    def make(self) -> Condenser:
        """The method under test."""

    def recipe(self, method: Condenser | None = None) -> Recipe:
        """The recipe of the runs below: the method, with noise as first images."""
        return Recipe(method or self.make(), encoder=self.encoder, init=Noise())

    def run(self, data: ClassImages, steps: int = 4, ipc: int = 2, seed: int = 0) -> torch.Tensor:
        """The images (K, ipc, C, H, W) after a short run from noise."""
        result = condense(data, self.recipe(), ipc=ipc, steps=steps, seed=seed, machine=Machine("cpu", workers=1))
        assert result.status is Status.FINISHED, result.message
        return result.set.images.reshape(len(data.classes), ipc, *data.spec.shape)

    def test_hyper_parameters_are_frozen(self) -> None:
        """A method is an immutable description."""
        parameters = getattr(type(self.make()), "__dataclass_params__", None)
        assert parameters is not None
        assert parameters.frozen

    def test_state_is_tensors_with_images(self) -> None:
        """A checkpoint needs no pickle, and the images keep their shape through a step."""
        data = shapes()
        with Compute(Machine("cpu", workers=0)) as compute:
            ctx = context(data, compute, encoder=self.encoder)
            start = Noise().images(data, 2, Draw(0))
            state = self.make().init(start, ctx)
            after, metrics = self.make().step(state, ctx)
        assert all(isinstance(v, torch.Tensor) for v in after.values())
        assert after["images"].shape == start.shape
        assert set(after) == set(state)
        assert "finite" in metrics
        assert all(v.ndim == 0 for v in metrics.values())

    def test_images_move_and_stay_finite(self) -> None:
        """A short run changes every class's images."""
        data = shapes()
        start = Noise().images(data, 2, Draw(0))
        images = self.run(data)
        assert torch.isfinite(images).all()
        assert all((images[k] - start[k]).abs().max() > 0 for k in range(len(data.classes)))

    def test_same_seed_same_images(self) -> None:
        """The seed decides the images; the global generator does not matter."""
        first = self.run(shapes())
        torch.rand(17)
        assert torch.equal(first, self.run(shapes()))
        assert not torch.equal(first, self.run(shapes(), seed=1))

    def test_one_image_per_class(self) -> None:
        """A single image per class works."""
        assert self.run(shapes(), ipc=1).shape[1] == 1

    def test_classes_apart_equal_classes_together(self) -> None:
        """A separable method gives each class the same images, whichever classes run beside it."""
        if not self.make().separable:
            return
        data = shapes()
        together = self.run(data)
        apart = torch.cat([self.run(data.select(part)) for part in (LABELS[:2], LABELS[2:])])
        assert torch.equal(together, apart)

    def test_resume_is_bit_identical(self, tmp_path: Path) -> None:
        """Stopping after a checkpoint and resuming gives the images of an uninterrupted run."""
        data, whole = shapes(), self.run(shapes(), steps=6)

        class Cut(type(self.make())):  # type: ignore[misc]
            """The same method, which fails in step 5."""

            def step(self, state: State, ctx: StepContext) -> tuple[State, dict[str, torch.Tensor]]:
                if ctx.draw.step == 5:
                    raise RuntimeError("plug pulled")
                return super().step(state, ctx)  # type: ignore[no-any-return]

        method = self.make()
        fields = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}  # type: ignore[arg-type]
        Cut.__name__ = type(method).__name__
        for broken in (True, False):
            current = Cut(**fields) if broken else method
            saving = Saving(tmp_path / "run", resume=not broken, every=2)
            try:
                machine = Machine("cpu", workers=1)
                result = condense(data, self.recipe(current), ipc=2, steps=6, machine=machine, saving=saving)
            except RuntimeError:
                assert broken
        assert torch.equal(whole.flatten(0, 1), result.set.images)

    def test_non_finite_step_changes_nothing(self) -> None:
        """A step with a NaN does not change the state, and reports it."""
        data = shapes()
        with Compute(Machine("cpu", workers=0)) as compute:
            ctx = context(data, compute, encoder=self.encoder)
            state = self.make().init(Noise().images(data, 2, Draw(0)), ctx)
            with torch.no_grad():
                next(iter(ctx.module.parameters())).fill_(float("nan"))
            after, metrics = self.make().step(state, ctx)
        assert not bool(metrics["finite"])
        assert all(torch.equal(after[name], state[name]) for name in state)


class SelectionContract(ABC):
    """Tests of a selection. Override :meth:`make`."""

    @abstractmethod
    def make(self) -> Selection:
        """The selection under test."""

    def choose(self, data: ClassImages, ipc: int, seed: int = 0) -> torch.Tensor:
        """(K, ipc) chosen source indices."""
        with Compute(Machine("cpu", workers=0)) as compute:
            chosen = self.make()(data, ipc, Draw(seed), compute)
        if chosen.weights is not None:
            assert chosen.weights.shape == chosen.indices.shape
        return chosen.indices.reshape(len(data.classes), ipc)

    def test_every_class_gets_its_own_distinct_images(self) -> None:
        """Row k holds ipc different images of the k-th class."""
        data = shapes()
        for label, row in zip(data.classes, self.choose(data, 3), strict=True):
            assert len(set(row.tolist())) == 3
            assert (data.labels[row] == label).all()

    def test_the_seed_decides(self) -> None:
        """Same seed, same choice, whatever the global generator does."""
        first = self.choose(shapes(), 3)
        torch.rand(17)
        assert torch.equal(first, self.choose(shapes(), 3))

    def test_whole_class(self) -> None:
        """As many images as the smallest class has are still distinct."""
        data = shapes(per_class=4)
        assert all(len(set(row.tolist())) == 4 for row in self.choose(data, 4))

    def test_classes_apart_equal_classes_together(self) -> None:
        """The choice in a class does not depend on the other classes."""
        data = shapes()
        apart = torch.cat([self.choose(data.select([label]), 2) for label in data.classes])
        assert torch.equal(self.choose(data, 2), apart)

    def test_too_small_class_is_refused_by_name(self) -> None:
        """The error names the class, its size and the way out."""
        with pytest.raises(DataError, match=r"class .* has \d+ images but ipc=40"):
            self.choose(shapes(), 40)
