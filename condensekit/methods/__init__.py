"""Condensation methods, one file for each family."""

from condensekit.methods.base import Condenser, State, StepContext
from condensekit.methods.distribution import DistributionMatching

__all__ = ["Condenser", "DistributionMatching", "State", "StepContext"]
