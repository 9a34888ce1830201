"""A network that kills its process, importable where nothing else is needed."""

import os

from condensekit.nas.trials.log import Trial


def died(architecture):
    """A trial, but for one width: that ends the process."""
    if architecture["width"] == 2:
        os._exit(3)
    return Trial("dm", architecture, 0.5)
