"""NAS-Bench-201 space for images with any number of channels, and the names of its cells in benchmark tables."""

from __future__ import annotations

import re

from nni.nas.hub.pytorch import NasBench201
from torch import nn

from condensekit.errors import DataError, refuse, whole
from condensekit.nas.spaces.architecture import Architecture

_TABLE = {"conv_1x1": "nor_conv_1x1", "conv_3x3": "nor_conv_3x3"}  # operations: NNI's name -> name in tables
_NNI = {theirs: ours for ours, theirs in _TABLE.items()}
_OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")


class NasBench201Space(NasBench201):  # type: ignore[misc]
    """NAS-Bench-201 (Dong and Yang, ICLR 2020): a cell of six edges with five possible operations each.

    Args:
        channels: Channels of the images; NNI's class accepts 3 channels only.
        classes: Number of outputs.
        stem: Channels of the stem; 16 in the benchmark. The second and third stage have 2 and 4 times as many channels.
        cells: Number of cells of each of the three stages; 5 in the benchmark.

    Raises:
        ConfigError: A number is below 1.
    """

    def __init__(self, channels: int = 3, classes: int = 10, stem: int = 16, cells: int = 5) -> None:
        sizes = {"channels": channels, "classes": classes, "stem": stem, "cells": cells}
        refuse(*(whole(name, value, 1) for name, value in sizes.items()))
        super().__init__(stem_out_channels=stem, num_modules_per_stack=cells, num_labels=classes)
        if channels != 3:
            self.stem[0] = nn.Conv2d(channels, stem, kernel_size=3, padding=1, bias=False)


def computation(cell: Architecture) -> str:
    """Expression of a cell's output in its operations: cells with the same expression differ by noise only.

    Sums and skips are expanded, and terms of ``none`` are left out. Weights are ignored: two equal convolutions of the
    same input count as one convolution whose output is used twice. The benchmark's authors, who keep brackets and
    zeros, count 6,466 unique cells in this way; here there are 4,930.
    """
    nodes = [["x"]]
    for node in (1, 2, 3):
        terms: list[str] = []
        for before in range(node):
            operation = cell[f"cell/{before}_{node}"]
            if operation == "skip_connect":
                terms += nodes[before]
            elif operation != "none" and nodes[before]:
                terms.append(f"{operation}({'+'.join(nodes[before])})")
        nodes.append(sorted(terms))
    return "+".join(nodes[3])


def to_table(architecture: Architecture) -> str:
    """Name of an architecture in benchmark tables: ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
    nodes = []
    for node in (1, 2, 3):
        operations = [architecture[f"cell/{before}_{node}"] for before in range(node)]
        nodes.append("".join(f"|{_TABLE.get(name, name)}~{before}" for before, name in enumerate(operations)) + "|")
    return "+".join(nodes)


def from_table(text: str) -> Architecture:
    """Architecture of a name in benchmark tables, the inverse of :func:`to_table`.

    Raises:
        DataError: The text is not the name of a cell.
    """
    architecture: Architecture = {}
    for node, part in enumerate(text.strip().split("+"), 1):
        for name, before in re.findall(r"\|([a-z0-9_]+)~(\d)", part):
            architecture[f"cell/{before}_{node}"] = _NNI.get(name, name)
    wanted = {f"cell/{before}_{node}" for node in (1, 2, 3) for before in range(node)}
    known = set(architecture.values()) <= set(_OPERATIONS)
    if set(architecture) != wanted or not known or to_table(architecture) != text.strip():
        raise DataError(f"{text!r} is not a NAS-Bench-201 cell: expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    return architecture
