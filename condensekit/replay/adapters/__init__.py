"""Adapters to Avalanche: storage policy, plugins, strategies, loaders, metrics.

Avalanche writes a configuration file into the user's home when it is imported; after this package it does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory

_WRITES = "avalanche.benchmarks.datasets.dataset_utils"  # the module that writes the file; of a name and a dictionary


def _configure() -> None:
    """Run that module before the rest of Avalanche, with another home; a file that the user has is read as usual."""
    package = find_spec("avalanche")
    own = os.path.expanduser("~/.avalanche")
    if _WRITES in sys.modules or package is None or package.origin is None or os.path.exists(f"{own}/config.json"):
        return
    file = Path(package.origin).with_name("benchmarks") / "datasets" / "dataset_utils.py"
    spec = spec_from_file_location(_WRITES, file)
    if not file.is_file() or spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    with TemporaryDirectory() as folder, _home(folder):
        spec.loader.exec_module(module)
    module.AVALANCHE_CONFIG["dataset_location"] = f"{own}/data"
    sys.modules[_WRITES] = module


@contextmanager
def _home(folder: str) -> Iterator[None]:
    before = os.environ.get("HOME")
    os.environ["HOME"] = folder
    try:
        yield
    finally:
        del os.environ["HOME"]
        if before is not None:
            os.environ["HOME"] = before


_configure()
