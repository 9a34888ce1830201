"""``python -m condensekit``: the command line."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder: nothing is imported from there

    from condensekit.cli import main

    main()
