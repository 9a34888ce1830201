"""Gradient matching: synthetic images that give the weights of a network the same gradients as real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.errors import function, positive, refuse, whole
from condensekit.methods.base import State, StepContext, Surroundings, all_finite, keep_if
from condensekit.methods.descent import Descending, misfits
from condensekit.networks.base import FeatureNetwork
from condensekit.networks.cost import PASSES
from condensekit.sets.packing import unpack

Gradients = Sequence[Tensor]  # the gradients of a network's parameters, in the order of the parameters
Distance = Callable[[Gradients, Gradients], Tensor]
"""(synthetic gradients, real gradients) -> 0-dim distance; only the synthetic gradients have a graph."""

EPSILON = 1e-6  # added to products of norms
NORM_IMAGES = 16  # real images of each class for the statistics of batch norms
NET = "net."  # prefix of the network's tensors in a state
UNFIT = {
    "encoder": "it trains the networks it matches gradients of",
    "keep": "it trains the networks it matches gradients of",
    "compiled": "a compiled network has no second derivative",
    "soft_labels": "its networks are trained on the condensed images, not on real ones",
    "classes_per_step": "it trains a network on the images of all classes",
}
"""Options of a recipe that do not fit the method, each with the reason."""
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}  # ipc: (outer, inner)


def layerwise(synthetic: Gradients, real: Gradients) -> Tensor:
    """The authors' distance: the sum of 1 - cosine over the output rows of all weights; 1-D parameters are left out.

    The gradient of a convolution is flattened to (outputs, others).
    """
    pairs = zip(synthetic, real, strict=True)
    return torch.stack([_apart(s.flatten(1), r.flatten(1)).sum() for s, r in pairs if s.ndim > 1]).sum()


def mse(synthetic: Gradients, real: Gradients) -> Tensor:
    """The sum of squared differences over all parameters (the sum, although the authors' option is called mse)."""
    return torch.stack([(s - r).square().sum() for s, r in zip(synthetic, real, strict=True)]).sum()


def cosine(synthetic: Gradients, real: Gradients) -> Tensor:
    """1 - cosine of the gradients of all parameters, joined to one vector."""
    joined = [torch.cat([g.flatten() for g in gradients]) for gradients in (synthetic, real)]
    return _apart(*joined)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """(...,) 1 - cosine along the last dimension; 1 for a vector of zeros."""
    lengths: Tensor = a.norm(dim=-1) * b.norm(dim=-1)
    return 1 - (a * b).sum(-1) / (lengths + EPSILON)


DISTANCES: dict[str, Distance] = {"layerwise": layerwise, "mse": mse, "cosine": cosine}


def loops(ipc: int) -> tuple[int, int]:
    """(outer, inner): matching steps with one network, and epochs of its training between two of these steps.

    The authors give values for 1, 10, 20, 30, 40 and 50 images per class, and (100, 2) for 100; their code
    stops at other numbers. For other numbers there are ``ipc`` matching steps and about 500 epochs in all;
    above 50 images, fewer epochs in proportion, so that training takes no longer.
    """
    return LOOPS.get(ipc, (ipc, max(1, int(500 / ipc * min(1, 50 / ipc)))))


@dataclass(frozen=True)
class GradientMatching(Descending):
    """DC and DSA: matching of the gradients that real and synthetic images give to a network.

    Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021; Zhao and Bilen, "Dataset
    Condensation with Differentiable Siamese Augmentation", ICML 2021.

    In each step, a network gets the gradient of its cross-entropy on ``batch_real`` real images of a class,
    and the gradient on the synthetic images of this class. The synthetic images move down the gradient of
    the distances, summed over the classes. Then the network is trained on them. A new network starts every
    ``outer`` steps; no training follows its last step.

    DSA is DC with an augmentation. For the gradients, real and synthetic images of a class get the same
    augmentation; for the training of the network, each batch gets one operation. DC has
    ``augmentation=None``. The authors start DC from noise, and DSA from real images.

    The ``steps`` of a run are matching steps: the authors' 1,000 networks are 1,000 steps at one image per
    class and 10,000 steps at ten. The encoder must give a new network in each step.

    Departures from the authors' code: classes are computed in parallel, and images in chunks; the graph of a
    second derivative is kept only for one chunk; a class with fewer than ``batch_real`` images repeats them;
    a step with a value that is not finite, also in the training, changes nothing. As in their code, the batch
    norms see 16 real images of each class before each comparison, in one update of the running statistics,
    which stay fixed during the comparison.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> method = ck.GradientMatching(batch_real=8, outer=2, inner=1)
    >>> made = ck.condense(train, ck.Recipe(method, ck.Fresh(ck.ConvNet(width=8))), ipc=1, steps=2)
    >>> len(made.set), len(made.history)
    (10, 2)

    Args:
        distance: :func:`layerwise`, :func:`mse`, :func:`cosine` or your own function.
        lr: Step size for normalised images. (The authors use 0.01 for an MLP.)
        momentum: Momentum of SGD on the images, in [0, 1).
        space: ``normalised``, or ``pixel``: steps on pixels in [0, 1], clamped after each step.
        batch_real: Real images of each class in a step.
        outer: Matching steps with one network; None: see :func:`loops`.
        inner: Epochs of training after a matching step, may be 0; None: see :func:`loops`.
        lr_net: Step size of the training of the network, which is plain SGD.
        batch_net: Batch size of this training.
        optimiser: ``sgd`` or ``adamw`` for the images, see :class:`condensekit.methods.descent.Descent`.
        weight_decay: Weight decay of AdamW, at least 0.
        name: ``dsa``, or ``dc`` for a run without augmentation; ``condense`` checks that the name fits.
    """

    distance: Distance = layerwise
    lr: float = 0.1
    momentum: float = 0.5
    space: str = "normalised"
    batch_real: int = 256
    outer: int | None = None
    inner: int | None = None
    lr_net: float = 0.01
    batch_net: int = 256
    optimiser: str = "sgd"
    weight_decay: float = 0.0
    name: str = "dsa"
    separable: ClassVar[bool] = False
    by_class: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(
            *misfits(self),
            whole("batch_real", self.batch_real, 1),
            function("distance", self.distance, "layerwise or mse"),
            None if self.outer is None else whole("outer", self.outer, 1),
            None if self.inner is None else whole("inner", self.inner, 0),
            positive("lr_net", self.lr_net),
            whole("batch_net", self.batch_net, 1),
        )

    def misfits(self, data: ClassImages, recipe: Surroundings, machine: Machine) -> Sequence[str | None]:
        """See :meth:`Condenser.misfits`.

        Problems: a single class; a compiled network, which has no second derivative; an encoder other than ``Fresh()``;
        soft labels; the name ``dc`` with an augmentation, or ``dsa`` without an augmentation.
        """
        encoder = recipe.encoder
        return (
            f"{self.name} needs the encoder Fresh(), got {type(encoder).__name__}, keep={encoder.keep}: "
            f"{UNFIT['encoder']}"
            if encoder.trained or encoder.keep > 1
            else None,
            f"{self.name} takes no soft_labels: {UNFIT['soft_labels']}" if recipe.soft_labels else None,
            None if len(data.classes) > 1 else "gradient matching needs at least 2 classes: for 1, use dm",
            f"{self.name} takes no compiled network: {UNFIT['compiled']}" if machine.compiled else None,
            "dc takes no augmentation, with which it is dsa: give augmentation=None, or name the method dsa"
            if self.name == "dc" and recipe.augmentation is not None
            else None,
            "dsa needs an augmentation (without it, it is dc): leave out augmentation=None, or name the method dc"
            if self.name == "dsa" and recipe.augmentation is None
            else None,
        )

    def init(self, synthetic: Tensor, ctx: StepContext) -> State:
        """Make the first state.

        It holds the images (K, ipc, C, H, W) and what their optimiser remembers; the network's parameters and buffers,
        with the prefix ``net.``; and the 0-dim number of the outer loop of this network.
        """
        loop = torch.zeros((), dtype=torch.int64, device=synthetic.device)
        return {"images": synthetic, **self.descent.start(synthetic), "loop": loop, **_copied(ctx.module)}

    def loops_of(self, ipc: int) -> tuple[int, int]:
        """(outer, inner) for ``ipc`` images per class."""
        outer, inner = loops(ipc)
        return self.outer or outer, inner if self.inner is None else self.inner

    def step(self, state: State, ctx: StepContext) -> tuple[State, dict[str, Tensor]]:
        """Compare the gradients of all classes, update all images, and train the network."""
        images, module = state["images"], ctx.module
        outer, inner = self.loops_of(images.shape[1])
        number, turn = divmod(ctx.draw.step - 1, outer)
        loop = torch.full((), number, dtype=torch.int64, device=images.device)
        if turn > 0:  # where the loop's first step was not finite, its network is not kept: a fresh one goes on
            ours = state["loop"] == loop
            fresh = module.state_dict()
            module.load_state_dict({name: torch.where(ours, state[NET + name], fresh[name]) for name in fresh})
        module.requires_grad_(True)
        _freeze_norms(ctx)

        def match(row: int) -> tuple[Tensor, Tensor]:
            return self._match(images[row : row + 1], row, ctx)

        losses, slope = ctx.by_class(match)
        total, moved = losses.sum(), self.descent.step(state, slope, ctx)
        module.train()
        if turn < outer - 1:
            self._train(moved["images"], inner, ctx)
        module.requires_grad_(False)
        new = {**moved, "loop": loop, **_copied(module)}
        finite = all_finite(total, *new.values())
        return keep_if(finite, new, state), {"loss": total, "gradient_norm": slope.norm(), "finite": finite}

    def _match(self, synthetic: Tensor, row: int, ctx: StepContext) -> tuple[Tensor, Tensor]:
        """The distance of one class, and its gradient with respect to its images, (ipc, C, H, W).

        The gradient goes back to the synthetic gradients first, then chunk by chunk through the second
        derivative, and then once through the augmentation, which needs no second derivative.
        """
        label, precision = ctx.data.classes[row], ctx.compute.machine.precision
        real, weights = ctx.real([label], self.batch_real)
        ctx.compute.count(ctx.module, self.batch_real, PASSES)
        pull = _Pull(ctx.module, row, precision != "fp32")
        target = _total(pull, _parts(real[0], None if weights is None else weights[0], ctx))

        images = synthetic.detach().requires_grad_()
        shown = ctx.shown(ctx.taking_part(images, [label]), [label])
        ctx.compute.count(ctx.module, shown.shape[1], 2 * PASSES)  # a second derivative costs another two passes
        pull = _Pull(ctx.module, row, precision == "bf16")
        parts = [(chunk.detach().requires_grad_(), share) for chunk, share in _parts(shown[0], None, ctx)]
        kept = pull(*parts[0], second=True) if len(parts) == 1 else None
        leaves = [g.detach().requires_grad_() for g in kept or _total(pull, parts)]
        loss = self.distance(leaves, target)
        wanted = torch.autograd.grad(loss, leaves, allow_unused=True)
        used = [i for i, gradient in enumerate(wanted) if gradient is not None]

        def back(part: tuple[Tensor, Tensor]) -> Tensor:
            pulled = kept or pull(*part, second=True)
            return torch.autograd.grad([pulled[i] for i in used], part[0], [wanted[i] for i in used])[0]

        gradient = torch.cat([back(part) for part in parts])[None]
        return loss.detach(), torch.autograd.grad(shown, images, gradient)[0][0]

    def _train(self, images: Tensor, epochs: int, ctx: StepContext) -> None:
        """Train the network in place for ``epochs`` on the (K, ipc, C, H, W) images of this step."""
        decoded = unpack(ctx.taking_part(images, ctx.data.classes).flatten(0, 1), ctx.factor)
        targets = torch.arange(len(images), device=images.device).repeat_interleave(len(decoded) // len(images))
        optimiser = torch.optim.SGD(ctx.module.parameters(), lr=self.lr_net)
        for epoch in range(epochs):
            order = ctx.draw.permutation(f"net/{epoch}", len(decoded))
            for number, rows in enumerate(order.split(int(self.batch_net))):
                there = rows.to(images.device, non_blocking=True)
                batch = decoded[there]
                if ctx.augmentation is not None:
                    batch = ctx.augmentation.apply_batch(batch, ctx.draw, f"net/{epoch}/{number}")
                optimiser.zero_grad()
                ctx.compute.backprop(ctx.module, batch, targets[there], _cross_entropy)
                optimiser.step()
        optimiser.zero_grad()


@dataclass(frozen=True)
class _Pull:
    """The gradient of a network's cross-entropy on images of one class with respect to its parameters."""

    module: FeatureNetwork
    row: int
    low: bool  # whether to compute in bfloat16

    def __call__(self, images_nCHW: Tensor, shares: Tensor, second: bool = False) -> tuple[Tensor, ...]:  # noqa: N803
        """The gradient of the sum of the losses times their (n,) shares; with a graph for ``second`` derivatives."""
        with torch.autocast(images_nCHW.device.type, torch.bfloat16, enabled=self.low):
            logits = self.module(images_nCHW)
        targets = torch.full((len(logits),), self.row, device=logits.device)
        loss = (_cross_entropy(logits.float(), targets) * shares).sum()
        return torch.autograd.grad(loss, list(self.module.parameters()), create_graph=second)


def _parts(images_NCHW: Tensor, weights: Tensor | None, ctx: StepContext) -> list[tuple[Tensor, Tensor]]:  # noqa: N803
    """Chunks of images, each with the shares of its images in the (weighted) mean over all images."""
    count = len(images_NCHW)
    shares = (torch.ones(count, device=images_NCHW.device) if weights is None else weights) / count
    size = ctx.compute.chunk or count
    return list(zip(images_NCHW.split(size), shares.split(size), strict=True))


def _total(pull: _Pull, parts: Sequence[tuple[Tensor, Tensor]]) -> Gradients:
    """The sum of the chunks' gradients, without a graph."""
    total: Gradients = pull(*parts[0])
    for part in parts[1:]:
        total = [a + b for a, b in zip(total, pull(*part), strict=True)]
    return total


def _freeze_norms(ctx: StepContext) -> None:
    """Put one batch of real images of all classes through the network, and then fix the statistics of batch norms."""
    norms = [part for part in ctx.module.modules() if isinstance(part, _BatchNorm)]
    if not norms:
        return
    ctx.module.train()
    real = ctx.data.sample(ctx.data.classes, NORM_IMAGES, ctx.draw, ctx.compute.device, "norm").flatten(0, 1)
    ctx.compute.count(ctx.module, len(real), 1)
    with torch.no_grad():
        ctx.module(real)
    for part in norms:
        part.eval()


def _copied(module: FeatureNetwork) -> State:
    """A copy of the network's tensors, with their names in a state."""
    return {NET + name: value.clone() for name, value in module.state_dict().items()}


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) losses."""
    return F.cross_entropy(logits, targets, reduction="none")
