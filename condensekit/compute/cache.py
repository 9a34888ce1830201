"""Cache: the folder of what is made once for all runs, such as compiled functions and trained networks."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(part: str) -> Path:
    """The folder of one part of the cache: in ``$CONDENSEKIT_CACHE``, else in the user's folder for caches."""
    own = os.environ.get("CONDENSEKIT_CACHE")
    usual = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "condensekit"
    return (Path(own) if own else usual) / part
