"""Condensation methods, one file for each family."""

from condensekit.methods.base import Condenser, State, StepContext
from condensekit.methods.distribution import DistributionMatching
from condensekit.methods.gradient import GradientMatching
from condensekit.methods.kernel import KernelRidge

__all__ = ["Condenser", "DistributionMatching", "GradientMatching", "KernelRidge", "State", "StepContext"]
