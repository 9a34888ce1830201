"""Compute: what runs the networks, and on which machine. Only this room decides device, precision and parallelism."""

from condensekit.compute.compute import TOLD as TOLD
from condensekit.compute.compute import Compute as Compute
from condensekit.compute.library import Abandoned as Abandoned
from condensekit.compute.machine import AUTO as AUTO
from condensekit.compute.machine import PRECISIONS as PRECISIONS
from condensekit.compute.machine import Machine as Machine
from condensekit.compute.machine import device_misfit as device_misfit
from condensekit.compute.machine import made_on as made_on
from condensekit.compute.machine import of_rank as of_rank
from condensekit.compute.modes import usual_modes as usual_modes
from condensekit.compute.modes import without_subnormals as without_subnormals
from condensekit.compute.work import Spent as Spent
