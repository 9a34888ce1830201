"""Kernel ridge regression: synthetic images whose linear fit in feature space predicts the labels of real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.errors import choice, positive, refuse, whole
from condensekit.methods.base import State, StepContext, Surroundings, all_finite, keep_if
from condensekit.methods.descent import Descending, Descent
from condensekit.methods.descent import misfits as descent_misfits

LABELS = ("fixed", "learned", "soft")
JITTERS = (
    0.0,
    1e-10,
    1e-8,
    1e-6,
    1e-4,
)  # multiples of the mean diagonal, tried in this order until the Gram matrix is regular


@dataclass(frozen=True)
class KernelRidge(Descending):
    """Condensation through kernel ridge regression with random features.

    KIP (Nguyen, Chen and Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021) minimises the
    squared error, on real images, of a kernel ridge regression that is fitted to the synthetic images in closed
    form. As in RFAD (Loo et al., "Efficient Dataset Distillation using Random Feature Approximation", NeurIPS
    2022), the kernel is the inner product of the features of a few random networks, which are new in each step.
    Images and learned labels move by Adam (Kingma and Ba, ICLR 2015), as in both papers.

    Departures from both papers: the features are those of the run's encoder (ConvNets with instance norm by
    default), not of an infinitely wide network; the loss is the squared error, not RFAD's scaled cross-entropy;
    images are not whitened; a step has equally many real images of each class. Gram matrix and solution are
    float64 if the device has float64. All classes share one Gram matrix: the method is not separable.

    A Gram matrix that is singular in float64 (equal images, or fewer features than images, with ``ridge=0``)
    gets the smallest of :data:`JITTERS` that makes it regular. If no jitter does, or a feature is not finite, the
    step changes nothing and reports this.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> made = ck.condense(train, ck.Recipe(ck.KernelRidge(batch_real=4), augmentation=None), ipc=1, steps=2)
    >>> len(made.set), len(made.history)
    (10, 2)

    Args:
        lr: Step size of images and labels.
        ridge: Regularisation, at least 0, as a multiple of the mean diagonal of the Gram matrix.
        networks: Random networks whose features are joined in a step.
        batch_real: Real images of each class in a step.
        labels: ``fixed``: centred one-hot labels. ``learned``: labels move, too, but the set keeps its hard
            labels. ``soft``: labels move, and the set stores them as soft labels: shifted back by 1 / K, clipped
            below at a millionth and scaled to sum to 1. They add to the bytes of the set.
        momentum: Momentum of ``optimiser="sgd"``, in [0, 1).
        space: ``normalised``, or ``pixel``: steps on pixels in [0, 1], clamped after each step.
        optimiser: ``adamw`` (without weight decay, it is Adam) or ``sgd``, see
            :class:`condensekit.methods.descent.Descent`.
        weight_decay: Weight decay of the images by AdamW, at least 0.
        name: Name in run folders and tables.
    """

    lr: float = 0.05
    ridge: float = 1e-6
    networks: int = 1
    batch_real: int = 32
    labels: str = "fixed"
    momentum: float = 0.5
    space: str = "normalised"
    optimiser: str = "adamw"
    weight_decay: float = 0.0
    name: str = "krr"
    separable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        refuse(
            *descent_misfits(self),
            positive("ridge", self.ridge, zero=True),
            whole("networks", self.networks, 1),
            whole("batch_real", self.batch_real, 1),
            choice("labels", self.labels, LABELS),
        )

    @property
    def gives_soft_labels(self) -> bool:
        """See :class:`Condenser`."""
        return self.labels == "soft"

    def misfits(self, data: ClassImages, recipe: Surroundings, machine: Machine) -> Sequence[str | None]:
        """Problems: a single class, whose centred labels are all 0; soft labels that would replace learned labels."""
        return (
            None if len(data.classes) > 1 else "kernel ridge regression needs at least 2 classes: for 1, use dm",
            f"{self.name} with labels='soft' takes no soft_labels: it learns its own"
            if recipe.soft_labels and self.labels == "soft"
            else None,
        )

    def init(self, synthetic: Tensor, ctx: StepContext) -> State:
        """Images (K, ipc, C, H, W), labels (K, ipc, f * f, K), and what the optimisers of both remember."""
        classes, ipc = synthetic.shape[:2]
        labels = centred_one_hot(torch.arange(classes, device=synthetic.device), classes)
        state = {"images": synthetic, "labels": labels[:, None, None].repeat(1, ipc, ctx.factor**2, 1)}
        for name, descent in self._moved.items():
            state |= descent.start(state[name], name)
        return state

    def step(self, state: State, ctx: StepContext) -> tuple[State, dict[str, Tensor]]:
        """Draw a few networks and one real batch of all classes, and update images and labels once."""
        loss, slopes, jitter = self._gradients(state, ctx)
        new = dict(state)
        for name, descent in self._moved.items():
            new |= descent.step(state, slopes[name], ctx, name)
        finite = all_finite(loss, *slopes.values(), *new.values())
        metrics = {"loss": loss, "gradient_norm": slopes["images"].norm(), "jitter": jitter, "finite": finite}
        return keep_if(finite, new, state), metrics

    def soft_labels(self, state: State) -> Tensor | None:
        """See :meth:`Condenser.soft_labels`."""
        if self.labels != "soft":
            return None
        learned = state["labels"].flatten(0, 2)
        return F.normalize((learned + 1 / learned.shape[1]).clamp(min=1e-6), p=1.0)

    @property
    def averaged(self) -> tuple[str, ...]:
        """See :class:`Condenser`."""
        return ("images", "labels") if self.labels == "soft" else ("images",)

    @property
    def _moved(self) -> dict[str, Descent]:
        """What moves, and how."""
        images = {"images": self.descent}
        labels = {"labels": replace(self.descent, space="normalised", weight_decay=0.0)}
        return images if self.labels == "fixed" else images | labels

    def _gradients(self, state: State, ctx: StepContext) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss, its gradients with respect to images and labels, and the jitter of the Gram matrix.

        The gradient goes back to the features first, and then through each network in turn.
        """
        classes = ctx.data.classes
        leaf, labels = (state[name].detach().requires_grad_() for name in ("images", "labels"))
        shown = ctx.shown(ctx.taking_part(leaf, classes), classes)
        fitted = ctx.taking_part(labels, classes)
        flat = shown.detach().flatten(0, 1)
        synthetic, real = [], []
        for i in range(self.networks):
            if i:
                ctx.load(i)
            target, weights = self._target(ctx)  # before the graph: batch norm writes its buffers
            real.append(target)
            features, pull = ctx.compute.pullback(ctx.module, flat)  # valid until the module is refilled
            synthetic.append(features)
        embedded = torch.cat(synthetic, 1).requires_grad_()
        loss, jitter = self._loss(embedded, fitted.flatten(0, 2), torch.cat(real, 1), weights)
        wanted, slope = torch.autograd.grad(loss, [embedded, labels])
        *earlier, last = wanted.split([f.shape[1] for f in synthetic], 1)
        back = pull(last)
        for i, part in enumerate(earlier):
            ctx.load(i)
            back = back + ctx.compute.pullback(ctx.module, flat)[1](part)
        (moved,) = torch.autograd.grad(shown, leaf, back.reshape(shown.shape))
        return loss.detach(), {"images": moved, "labels": slope}, jitter

    def _target(self, ctx: StepContext) -> tuple[Tensor, Tensor | None]:
        """Features (K * batch_real, D) of this step's real images, the same for each network, and their weights."""
        features, weights = [], []
        for rows in ctx.groups(self.batch_real):
            images, importance = ctx.real(ctx.data.classes[rows], self.batch_real)
            features.append(ctx.features(images).flatten(0, 1))
            if importance is not None:
                weights.append(importance.flatten())
        return torch.cat(features), torch.cat(weights) if weights else None

    def _loss(self, synthetic: Tensor, labels: Tensor, real: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Half the mean squared error of the predicted real labels, 0-dim float32, and the jitter."""
        classes = labels.shape[1]
        wanted = torch.arange(classes, device=labels.device).repeat_interleave(len(real) // classes)
        predicted, jitter = ridge_predict(synthetic, labels, real, self.ridge)
        errors = (predicted - centred_one_hot(wanted, classes).to(predicted)).square().sum(1) / 2
        if weights is not None:
            errors = errors * weights.to(errors)
        return errors.mean().to(labels), jitter.to(labels)


def centred_one_hot(classes_N: Tensor, count: int) -> Tensor:  # noqa: N803
    """(N, count) float32: 1 - 1/count at the class, -1/count elsewhere, so that each row sums to 0."""
    return F.one_hot(classes_N, count).float() - 1 / count


def ridge_predict(x_MD: Tensor, y_MK: Tensor, new_ND: Tensor, ridge: float) -> tuple[Tensor, Tensor]:  # noqa: N803
    """Predictions of a linear ridge regression in its dual form, differentiable in the three tensors.

    Args:
        x_MD: (M, D) features of the points to fit.
        y_MK: (M, K) their values.
        new_ND: (N, D) features of the points to predict.
        ridge: Regularisation, at least 0, in units of the Gram matrix's mean diagonal.

    Returns:
        (N, K) float64 predictions (float32 on a device without float64), NaN if no jitter makes the Gram matrix
        regular; the 0-dim jitter that was added to ``ridge``, 0 for a regular Gram matrix. Features of 0 predict 0.
    """
    dtype = torch.float32 if x_MD.device.type == "mps" else torch.float64
    x, y, new = x_MD.to(dtype), y_MK.to(dtype), new_ND.to(dtype)
    gram = x @ x.mT
    scale = gram.diagonal().mean()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    eye = torch.eye(len(x), dtype=dtype, device=x.device)
    with torch.no_grad():  # decided on the device, so the CPU does not wait
        jitters = torch.tensor(JITTERS, dtype=dtype).to(x.device, non_blocking=True)
        tried = gram + (ridge + jitters)[:, None, None] * scale * eye
        factors, info = torch.linalg.cholesky_ex(tried)
        pivots = factors.diagonal(dim1=1, dim2=2).square().amin(1)
        regular = (info == 0) & (pivots > len(x) * torch.finfo(dtype).eps * scale)
        jitter = jitters.take(regular.int().argmax())  # jitters[...] would wait
    factor = torch.linalg.cholesky_ex(gram + (ridge + jitter) * scale * eye)[0]
    predicted = (new @ x.mT) @ torch.cholesky_solve(y, factor)
    return torch.where(regular.any(), predicted, torch.nan), jitter
