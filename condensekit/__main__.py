"""``python -m condensekit``: the command line."""

from __future__ import annotations

from condensekit.cli import main

if __name__ == "__main__":
    main()
