"""condensekit: learn a few synthetic images per class that stand for a whole data set.

The names below are the most used ones; the modules hold more. A name is imported when it is first used, so that
``import condensekit`` takes no time.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condensekit.catalog import recipes
    from condensekit.compute import Machine
    from condensekit.data.images import ClassImages
    from condensekit.data.spec import ImageSpec
    from condensekit.errors import CondensekitError
    from condensekit.everyday import condense, evaluate, load, select
    from condensekit.methods.discrepancy import MMD
    from condensekit.methods.distribution import DistributionMatching
    from condensekit.methods.encoders import Fresh
    from condensekit.methods.gradient import GradientMatching
    from condensekit.methods.kernel import KernelRidge
    from condensekit.methods.recipe import Recipe
    from condensekit.methods.sampling import Importance
    from condensekit.methods.trained_encoders import Trained
    from condensekit.networks.convnet import ConvNet
    from condensekit.networks.resnet import ResNet18
    from condensekit.runs.saving import Saving
    from condensekit.selection.base import Noise
    from condensekit.selection.classic import Herding, KCenter, KMeans, Random
    from condensekit.selection.saved import Saved
    from condensekit.sets.condensed import CondensedSet
    from condensekit.sets.formation import Formation
    from condensekit.sets.public import read_sets
    from condensekit.training.augment import Augmentation

__version__ = "0.2.0"


def lazy(package: str, modules: Mapping[str, tuple[str, ...]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package whose public names are imported when they are first used.

    Args:
        package: Name of the package.
        modules: Public names, by the module that defines them. A name equal to that of the module is the module.
    """
    home = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{home[name]}")
        value = module if home[name].rpartition(".")[2] == name else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted([*vars(sys.modules[package]), *home])


_MODULES = {
    "catalog.recipes": ("recipes",),
    "compute": ("Machine",),
    "data.images": ("ClassImages",),
    "data.spec": ("ImageSpec",),
    "runs.saving": ("Saving",),
    "errors": ("CondensekitError",),
    "everyday": ("condense", "evaluate", "load", "select"),
    "sets.public": ("read_sets",),
    "methods.discrepancy": ("MMD",),
    "methods.distribution": ("DistributionMatching",),
    "methods.encoders": ("Fresh",),
    "methods.gradient": ("GradientMatching",),
    "methods.kernel": ("KernelRidge",),
    "methods.sampling": ("Importance",),
    "methods.trained_encoders": ("Trained",),
    "networks": ("ConvNet", "ResNet18"),
    "catalog": ("Recipe",),
    "selection.base": ("Noise",),
    "selection.saved": ("Saved",),
    "selection.classic": ("Herding", "KCenter", "KMeans", "Random"),
    "sets.condensed": ("CondensedSet",),
    "sets.formation": ("Formation",),
    "training.augment": ("Augmentation",),
}
__getattr__, __dir__ = lazy(__name__, _MODULES)

__all__ = [
    "MMD",
    "Augmentation",
    "ClassImages",
    "CondensedSet",
    "CondensekitError",
    "ConvNet",
    "DistributionMatching",
    "Formation",
    "Fresh",
    "GradientMatching",
    "Herding",
    "ImageSpec",
    "Importance",
    "KCenter",
    "KMeans",
    "KernelRidge",
    "Machine",
    "Noise",
    "Random",
    "Recipe",
    "ResNet18",
    "Saved",
    "Saving",
    "Trained",
    "condense",
    "evaluate",
    "load",
    "read_sets",
    "recipes",
    "select",
]
