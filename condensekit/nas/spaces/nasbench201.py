"""NAS-Bench-201 for images of any depth, and the names that benchmark tables give its cells."""

from __future__ import annotations

import re

from nni.nas.hub.pytorch import NasBench201
from torch import nn

from condensekit.errors import DataError, refuse, whole
from condensekit.nas.spaces.architecture import Architecture

_TABLE = {"conv_1x1": "nor_conv_1x1", "conv_3x3": "nor_conv_3x3"}  # names of operations in tables, by NNI's names
_NNI = {theirs: ours for ours, theirs in _TABLE.items()}
_OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")


class NasBench201Space(NasBench201):  # type: ignore[misc]
    """NAS-Bench-201 (Dong and Yang, ICLR 2020): a cell of six edges with five operations each.

    Args:
        channels: Of the images; NNI's own takes 3 only.
        classes: Outputs.
        stem: Channels of the stem; the benchmark has 16. Its second and third stage have 2 and 4 times as many.
        cells: Cells of each of the three stages; the benchmark has 5.

    Raises:
        ConfigError: A number below 1.
    """

    def __init__(self, channels: int = 3, classes: int = 10, stem: int = 16, cells: int = 5) -> None:
        sizes = {"channels": channels, "classes": classes, "stem": stem, "cells": cells}
        refuse(*(whole(name, value, 1) for name, value in sizes.items()))
        super().__init__(stem_out_channels=stem, num_modules_per_stack=cells, num_labels=classes)
        if channels != 3:
            self.stem[0] = nn.Conv2d(channels, stem, kernel_size=3, padding=1, bias=False)


def computation(cell: Architecture) -> str:
    """A text that cells share whose outputs are the same expression of operations: they rank alike but for noise.

    Sums and skips are written out, and what comes from ``none`` is left out. Weights are not looked at: two like
    convolutions of one input count as one whose output is used twice, as they do in the 6,466 unique cells of the
    benchmark's authors, who keep brackets and zeros; here 4,930 are left.
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
    """An architecture as tables write it: ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
    nodes = []
    for node in (1, 2, 3):
        operations = [architecture[f"cell/{before}_{node}"] for before in range(node)]
        nodes.append("".join(f"|{_TABLE.get(name, name)}~{before}" for before, name in enumerate(operations)) + "|")
    return "+".join(nodes)


def from_table(text: str) -> Architecture:
    """The inverse of :func:`to_table`.

    Raises:
        DataError: The text is no cell.
    """
    architecture: Architecture = {}
    for node, part in enumerate(text.strip().split("+"), 1):
        for name, before in re.findall(r"\|([a-z0-9_]+)~(\d)", part):
            architecture[f"cell/{before}_{node}"] = _NNI.get(name, name)
    wanted = {f"cell/{before}_{node}" for node in (1, 2, 3) for before in range(node)}
    known = set(architecture.values()) <= set(_OPERATIONS)
    if set(architecture) != wanted or not known or to_table(architecture) != text.strip():
        raise DataError(f"{text!r} is no NAS-Bench-201 cell: expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    return architecture
