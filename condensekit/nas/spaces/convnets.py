"""ConvNet space: the grid of ConvNets that Dataset Condensation searches, as an NNI space."""

from __future__ import annotations

from collections.abc import Sequence

import nni
from nni.mutable import ensure_frozen
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor

from condensekit.networks.convnet import ConvNet
from condensekit.networks.cost import Shape


class ConvNetSpace(ModelSpace):  # type: ignore[misc]
    """Grid of depths, widths, activations, norms and poolings; :func:`condensekit.nas.convnet_space` makes it.

    Zhao, Mopuri and Bilen (Dataset Condensation, ICLR 2021): 4 x 4 x 3 x 5 x 3 = 720 networks.

    Attributes:
        notes: A sentence for each depth that was left out.

    Args:
        shape: (C, H, W) of the images.
        classes: Number of outputs.
        depths: Numbers of blocks, each of which fits the images.
        widths: Numbers of channels of every block.
        activations: Names of activations that :class:`condensekit.networks.convnet.ConvNet` has.
        norms: Names of norms that it has.
        poolings: Names of poolings that it has.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        shape: Shape,
        classes: int,
        depths: Sequence[int],
        widths: Sequence[int],
        activations: Sequence[str],
        norms: Sequence[str],
        poolings: Sequence[str],
    ) -> None:
        super().__init__()
        choices = {"width": widths, "depth": depths, "activation": activations, "norm": norms, "pooling": poolings}
        drawn = {
            name: ensure_frozen(self.add_mutable(nni.choice(name, list(values)))) for name, values in choices.items()
        }
        channels, height, width = shape
        self.network = ConvNet(**drawn).build((channels, height, width), classes).to_empty(device="cpu")
        for part in self.network.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()  # layers of the meta device have no weights

    def forward(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        """Logits (N, classes) of normalised float32 images (N, C, H, W)."""
        logits: Tensor = self.network(images_NCHW)
        return logits
