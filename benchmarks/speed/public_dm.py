"""Public DM code (github.com/VICO-UoE/DatasetCondensation), run from your own checkout.

No part of that code is copied here, and the checkout is not changed. Its files are read and patched in memory, so that
they can be imported with current libraries. Its own ``main()`` then runs on our images.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from condensekit.data.images import ClassImages
from condensekit.errors import DataError

PATCHES = {
    "networks": [(r"\.view\(out\.size\(0\), -1\)", ".reshape(out.size(0), -1)")],  # any memory format
    "utils": [
        (r"scipy\.ndimage\.interpolation", "scipy.ndimage"),  # a name that SciPy removed
        (r"(\w+)\[:\] = \1\[0\]", r"\1[:] = \1[0].clone()"),  # overlapping memory with one image
    ],
    "main_DM": [],
}


class _Pairs:
    """Data set of pairs (normalised image, label), made one by one as by torchvision."""

    def __init__(self, data: ClassImages) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.data.spec.normalise(self.data.images[index]), int(self.data.labels[index])


class PublicDM:
    """Patched modules of a checkout.

    Args:
        folder: Folder of the checkout.

    Raises:
        DataError: The folder is not a checkout of this code.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in PATCHES if not (folder / f"{name}.py").is_file()]
        if missing:
            raise DataError(
                f"{folder} has no {missing[0]}.py: give a checkout of https://github.com/VICO-UoE/DatasetCondensation"
            )
        modules: dict[str, Any] = {}
        for name, patches in PATCHES.items():
            path = folder / f"{name}.py"
            source = path.read_text(encoding="utf-8")
            for pattern, replacement in patches:
                source = re.sub(pattern, replacement, source)
            modules[name] = sys.modules[name] = types.ModuleType(name)  # the modules import each other by these names
            exec(compile(source, str(path), "exec"), modules[name].__dict__)
        self._main, self._utils = modules["main_DM"], modules["utils"]

    def network(self, data: ClassImages) -> nn.Module:
        """Default ConvNet of the public code for these images, with random weights, on the device that it chooses."""
        channels, height, width = data.spec.shape
        network: nn.Module = self._utils.get_network("ConvNet", channels, len(data.classes), (height, width))
        return network

    def train(self, images: Tensor, labels: Tensor, epochs: int, lr: float) -> float:
        """Seconds in which the public code trains its ConvNet for some epochs, with its DSA augmentation.

        Args:
            images: (N, C, H, W) float32, normalised.
            labels: (N,) classes 0..K-1.
            epochs: Passes over the images.
            lr: Learning rate.
        """
        utils = self._utils
        network = utils.get_network("ConvNet", images.shape[1], int(labels.max()) + 1, tuple(images.shape[2:]))
        options = types.SimpleNamespace(
            device="cuda" if torch.cuda.is_available() else "cpu",
            dsa=True,
            dsa_strategy="color_crop_cutout_flip_scale_rotate",
            dsa_param=utils.ParamDiffAug(),
            dc_aug_param=None,
        )
        optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        pairs = utils.TensorDataset(images, labels)
        loader = torch.utils.data.DataLoader(pairs, batch_size=256, shuffle=True, num_workers=0)
        began = time.perf_counter()
        for _ in range(epochs):
            utils.epoch("train", loader, network, optimizer, nn.CrossEntropyLoss(), options, True)
        return time.perf_counter() - began

    def run(self, data: ClassImages, ipc: int, batch_real: int, on_step: Callable[[], object]) -> None:
        """Run the whole program on ``data`` without its evaluation.

        Args:
            data: Real images, uint8, labels 0..K-1.
            ipc: Images per class, any number: its table of loop counts, which DM does not use, is replaced.
            batch_real: Real images of each class in a step.
            on_step: Called as each step begins. The run ends when it raises.
        """
        channels, height, width = data.spec.shape
        classes = len(data.classes)
        names = [str(label) for label in data.classes]
        loaded = (channels, (height, width), classes, names, data.spec.mean, data.spec.std, _Pairs(data), None, None)

        def get_network(*arguments: Any) -> nn.Module:
            on_step()
            network: nn.Module = self._utils.get_network(*arguments)
            return network

        hooks = {
            "get_dataset": lambda *_: loaded,
            "get_loops": lambda _: (1, 1),
            "get_network": get_network,
            "print": lambda *_: None,
        }
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the code has deprecated calls, and means over zero evaluations
            options: dict[str, object] = {"ipc": ipc, "batch_real": batch_real, "num_exp": 1, "num_eval": 0}
            options |= {"data_path": folder, "save_path": folder}
            argv = ["main_DM.py", *(f"--{name}={value}" for name, value in options.items())]
            with mock.patch.object(sys, "argv", argv), mock.patch.dict(self._main.__dict__, hooks):
                self._main.main()
