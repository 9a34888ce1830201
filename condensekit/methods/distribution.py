"""Distribution matching: make the embedded synthetic images of a class look like the embedded real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.errors import function, instance, positive, refuse, whole
from condensekit.methods.base import State, StepContext, Surroundings, all_finite, keep_if
from condensekit.methods.descent import Descending, misfits
from condensekit.methods.discrepancy import Discrepancy, mean, with_draw

Loss = Callable[[Tensor], Tensor]  # (L, m, D) embeddings of synthetic images -> (L,) losses
Group = tuple[slice, Tensor, Tensor]  # rows of L classes, their losses (L,), and the gradients of their images


@dataclass(frozen=True)
class DistributionMatching(Descending):
    """DM (Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023).

    Each step draws a network, and embeds ``batch_real`` real images and all synthetic images of each class
    under the same augmentation. Then it moves the synthetic images by gradient descent with momentum; the
    loss is the sum of the discrepancies of all classes.

    Departures from the authors' code: all classes go through the network together, in chunks (the authors
    loop over classes, which gives the same sum); networks and batches depend only on the seed; a step with
    a value that is not finite changes nothing.

    M3D (Zhang et al., AAAI 2024; arXiv 2312.15927, whose first version has the title ECHO) is this method
    with ``MMD()``, ``per_image``, ``space="pixel"``, ``batch_real=128``, a network kept for 5 steps, and two
    by two images packed into one: the recipe ``m3d`` of :mod:`condensekit.catalog`. ``echo`` is the same
    recipe under the name of the first version; :class:`~condensekit.methods.discrepancy.Moments` is its
    finite-order form. Departures from the code of M3D: one optimiser step moves all classes (the authors step
    after each class, so that momentum fades during the steps of other classes; the images move as far);
    one of colour, crop and cutout is drawn for each class, as in DM (the authors apply all three to every
    batch); packed images are shrunk with antialiasing (the authors use the nearest neighbour).

    DANCE (Zhang et al., "Dual-View Distribution Alignment for Dataset Condensation", IJCAI 2024) is this method with
    trained encoders (:class:`~condensekit.methods.trained_encoders.Trained`), ``calibration=1`` and
    ``calibration_step``: the recipe ``dance``. Departures from its code: as those from the code of M3D.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> method = ck.DistributionMatching(discrepancy=ck.MMD(), batch_real=16)
    >>> made = ck.condense(train, ck.Recipe(method, ck.Fresh(ck.ConvNet(width=8))), ipc=1, steps=2)
    >>> len(made.set), len(made.history)
    (10, 2)

    Args:
        discrepancy: The distance between embeddings; :func:`condensekit.methods.discrepancy.mean` gives DM.
        lr: Step size; the authors use 1 for 1 to 50 images per class and 10 above.
        momentum: Momentum of SGD, in [0, 1).
        batch_real: Real images of each class in a step.
        per_image: Multiply the step by the number of images of a class, as M3D does; the mean over the images
            divides the gradient of each image by this number.
        space: ``normalised`` moves the normalised images; ``pixel`` is SGD on pixels in [0, 1], clamped to
            that range after each step, as in IDC and M3D. Of images that are no pixels, the least and the greatest
            real value stand for 0 and 1.
        calibration: Weight, at least 0, of the cross-entropy of the synthetic images under a trained network, summed
            over the classes, as in DANCE. It needs an encoder of trained networks.
        calibration_step: Whether the cross-entropy has a descent step of its own, after the matching step, with its
            share of momentum. False: both gradients are added, for one descent step.
        optimiser: ``sgd`` or ``adamw``, see :class:`condensekit.methods.descent.Descent`; AdamW needs its own ``lr``.
        weight_decay: Weight decay of AdamW, at least 0.
        name: Name in run folders and tables.
    """

    discrepancy: Discrepancy = mean
    lr: float = 1.0
    momentum: float = 0.5
    batch_real: int = 256
    per_image: bool = False
    space: str = "normalised"
    calibration: float = 0.0
    calibration_step: bool = False
    optimiser: str = "sgd"
    weight_decay: float = 0.0
    name: str = "dm"
    separable: ClassVar[bool] = True
    features_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(
            *misfits(self),
            whole("batch_real", self.batch_real, 1),
            positive("calibration", self.calibration, zero=True),
            instance("per_image", self.per_image, bool, "True or False"),
            instance("calibration_step", self.calibration_step, bool, "True or False"),
            function("discrepancy", self.discrepancy, "MMD()"),
        )

    def misfits(self, data: ClassImages, recipe: Surroundings, machine: Machine) -> Sequence[str | None]:
        """Problems: calibration with untrained networks."""
        return (
            f"calibration={self.calibration} needs trained networks, and {type(recipe.encoder).__name__} draws "
            "untrained networks: use encoder=Trained()"
            if self.calibration and not recipe.encoder.trained
            else None,
        )

    def init(self, synthetic: Tensor, ctx: StepContext) -> State:
        """Images (K, ipc, C, H, W), and what their optimiser remembers."""
        return {"images": synthetic, **self.descent.start(synthetic)}

    def step(self, state: State, ctx: StepContext) -> tuple[State, dict[str, Tensor]]:
        """Draw a network and a real batch of each class, and update all images once, or once more for calibration."""
        total, slope = self._matching(state["images"], ctx)
        apart = bool(self.calibration) and self.calibration_step
        if self.calibration and not apart:
            ctx.load_expert()  # in place of the weights of ``ctx.module``
            extra, steeper = _together(self._calibrating(state["images"], ctx))
            total, slope = total + extra, slope.add_(steeper)
            del steeper
        norm, finite = slope.norm(), all_finite(total, slope)
        new = self._moved(state, slope, ctx.data.classes, ctx)
        del slope  # a set may be as large as the memory of a GPU allows
        if apart:
            extra, good = self._calibrate(new, ctx)
            total, finite = total + extra, finite & good
        finite = finite & all_finite(*new.values())
        return keep_if(finite, new, state), {"loss": total, "gradient_norm": norm, "finite": finite}

    def _moved(self, state: State, slope: Tensor, labels: Sequence[int], ctx: StepContext) -> State:
        """The state of some classes after one descent step along the gradient ``slope`` of their images."""
        if self.per_image:
            ipc = state["images"].shape[1]
            counts = torch.tensor([ctx.count(label, ipc) for label in labels], dtype=slope.dtype)
            slope.mul_(counts.to(slope.device, non_blocking=True)[:, None, None, None, None])
        return self.descent.step(state, slope, ctx)

    def _calibrate(self, state: State, ctx: StepContext) -> tuple[Tensor, Tensor]:
        """Make the calibration step in place, group by group of classes; its loss, and whether it is finite."""
        ctx.load_expert()
        losses, finite = [], []
        for rows, loss, slope in self._calibrating(state["images"], ctx):
            losses.append(loss.sum())
            finite.append(all_finite(loss, slope))
            part = {name: value[rows] for name, value in state.items()}
            for name, value in self._moved(part, slope, ctx.data.classes[rows], ctx).items():
                state[name][rows] = value
        return torch.stack(losses).sum(), torch.stack(finite).all()

    def _matching(self, images: Tensor, ctx: StepContext) -> tuple[Tensor, Tensor]:
        """The discrepancy of all classes, and its gradient with respect to the (K, ipc, C, H, W) images."""
        discrepancy = with_draw(self.discrepancy, ctx.draw)

        def matching(rows: slice) -> Loss:
            real, weights = ctx.real(ctx.data.classes[rows], self.batch_real)
            target = ctx.features(real)
            return lambda features: discrepancy(target, features, weights)

        return _together(_by_groups(images, ctx, self.batch_real, matching))

    def _calibrating(self, images: Tensor, ctx: StepContext) -> Iterator[Group]:
        """The weighted cross-entropies under the trained network in ``ctx.module``, and their gradients."""
        for rows, loss, slope in _by_groups(images, ctx, 0, lambda rows: _cross_entropies(rows, ctx)):
            yield rows, self.calibration * loss, slope.mul_(self.calibration)


def _by_groups(images: Tensor, ctx: StepContext, beside: int, loss_of: Callable[[slice], Loss]) -> Iterator[Group]:
    """The losses of each group of classes, and the gradients of their images.

    Args:
        images: (K, ipc, C, H, W).
        ctx: Forms the groups of classes; only one group is in memory at a time.
        beside: Real images of each class in memory.
        loss_of: Classes of a group -> their loss.
    """
    for rows in ctx.groups(beside + images.shape[1] * ctx.factor**2):
        yield rows, *ctx.gradient(images[rows], ctx.data.classes[rows], loss_of(rows))


def _together(groups: Iterable[Group]) -> tuple[Tensor, Tensor]:
    """The summed losses of all classes, and the gradient of all images."""
    _, losses, slopes = zip(*groups, strict=True)
    return torch.cat(losses).sum(), torch.cat(slopes)


def _cross_entropies(rows: slice, ctx: StepContext) -> Loss:
    """The mean cross-entropy of the images of each class of a group under the trained network in ``ctx.module``."""
    wanted = ctx.outputs(ctx.data.classes[rows])[:, None]

    def loss(features: Tensor) -> Tensor:
        logits = ctx.module.classifier(features)  # (L, m, K)
        return F.cross_entropy(logits.mT, wanted.expand(logits.shape[:2]), reduction="none").mean(1)

    return loss
