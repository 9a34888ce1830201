"""Building of a space by its name: one of the user's own is built in a worker first, where it may hang or die."""

from __future__ import annotations

import contextlib

import nni
from nni.nas.evaluator import Evaluator
from nni.nas.nn.pytorch import ModelSpace

from condensekit.catalog import own
from condensekit.errors import ConfigError
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.spaces.convnets import ConvNetSpace
from condensekit.nas.spaces.spaces import sample_architectures, space
from condensekit.nas.study.checks import check
from condensekit.nas.trials.settings import Running
from condensekit.networks.cost import Shape

FIRST = "first candidate"  # name of the check: NNI builds the candidate of each first choice to find the choices
ANY = ConvNetSpace((1, 8, 8), 2, (1,), (4,), ("relu",), ("none",), ("none",))  # whose only candidate is not looked at


class Building(Evaluator):  # type: ignore[misc]
    """Evaluator that builds a space by its name, whatever its candidate is.

    Args:
        name: ``module:Class``.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def _execute(self, model: object) -> None:
        with contextlib.suppress(Exception), own.only(self.name, beside=True):  # the search meets an exception again
            space(self.name)
        nni.report_final_result(0.0)


def built(name: str, shape: Shape, classes: int, server: WarmServer | None) -> ModelSpace:
    """Make a space by its name, see :func:`~condensekit.nas.spaces.spaces.space`.

    Args:
        name: Name of the space.
        shape: (C, H, W) of the images.
        classes: Number of outputs.
        server: Fork server, in whose worker ``module:Class`` is built before it is built in this process; None: it is
            built in this process only.

    Raises:
        ConfigError: See there; or the worker hung or died.
    """
    if ":" in name and server is not None:
        own.check("space", name)
        (trial,) = check(FIRST, ANY, Building(name), sample_architectures(ANY, 1, 0), Running("pool", 1), server)
        if trial.score is None:
            raise ConfigError(
                f"space {name!r} cannot be built: {trial.reason}; NNI builds the candidate of the first choice of each "
                "label to find the choices: put another choice first"
            )
    return space(name, shape, classes)
