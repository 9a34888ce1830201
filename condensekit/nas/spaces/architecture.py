"""Architecture: one choice for each label of a space, and its key, a text.

>>> from condensekit.nas import Architecture, build, space
>>> chosen: Architecture = {"depth": 1, "width": 16, "activation": "relu", "norm": "none", "pooling": "avg"}
>>> network = build(space("convnet-small", (1, 8, 8), 10), chosen)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from condensekit.errors import instance, refuse

Architecture = dict[str, Any]
"""A choice for each label of a space; JSON values only."""


def key(architecture: Mapping[str, Any]) -> str:
    """Key of an architecture: a text that does not depend on the order of its labels; values None are left out.

    Some of NNI's strategies store None for a constraint of the space, others store no value.

    >>> from condensekit.nas import key
    >>> key({"width": 4, "depth": 2}) == key({"depth": 2, "width": 4})
    True
    """
    refuse(instance("architecture", architecture, Mapping, "a dictionary of labels and values"))
    given = {label: value for label, value in architecture.items() if value is not None}
    return json.dumps(given, sort_keys=True, separators=(",", ":"))
