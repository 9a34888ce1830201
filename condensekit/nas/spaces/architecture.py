"""Architecture: a choice for each label of a space, and the text that names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Architecture = dict[str, Any]
"""A choice for each label of a space; JSON values only."""


def key(architecture: Mapping[str, Any]) -> str:
    """The same text for the same architecture, whatever the order of its labels; a value of None is left out.

    Some of NNI's strategies note None for a constraint of the space, others note nothing.
    """
    given = {label: value for label, value in architecture.items() if value is not None}
    return json.dumps(given, sort_keys=True, separators=(",", ":"))
