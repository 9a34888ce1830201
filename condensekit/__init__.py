"""condensekit: learn a few synthetic images per class that stand for a whole data set.

The names below are the everyday ones; each module holds more. They are imported when first used, so
that ``import condensekit`` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import condensekit.data.datasets as datasets
    from condensekit.data.images import ClassImages
    from condensekit.driver import Saving, condense
    from condensekit.errors import CondensekitError
    from condensekit.methods import DistributionMatching, GradientMatching, KernelRidge
    from condensekit.methods.discrepancy import MMD
    from condensekit.methods.encoders import Fresh
    from condensekit.methods.sampling import Importance
    from condensekit.methods.trained_encoders import Trained
    from condensekit.networks.convnet import ConvNet
    from condensekit.networks.resnet import ResNet18
    from condensekit.selection.base import Noise, selected_set
    from condensekit.selection.classic import Herding, KCenter, KMeans, Random
    from condensekit.sets.condensed import CondensedSet, Formation
    from condensekit.training.augment import Augmentation
    from condensekit.training.evaluation import Candidate, evaluate

__version__ = "0.1.0"

__all__ = [
    "MMD",
    "Augmentation",
    "Candidate",
    "ClassImages",
    "CondensedSet",
    "CondensekitError",
    "ConvNet",
    "DistributionMatching",
    "Formation",
    "Fresh",
    "GradientMatching",
    "Herding",
    "Importance",
    "KCenter",
    "KMeans",
    "KernelRidge",
    "Noise",
    "Random",
    "ResNet18",
    "Saving",
    "Trained",
    "condense",
    "datasets",
    "evaluate",
    "selected_set",
]

_MODULES = {
    "training.augment": ("Augmentation",),
    "driver": ("Saving", "condense"),
    "sets.condensed": ("CondensedSet", "Formation"),
    "methods.discrepancy": ("MMD",),
    "methods.encoders": ("Fresh",),
    "errors": ("CondensekitError",),
    "training.evaluation": ("Candidate", "evaluate"),
    "data.images": ("ClassImages",),
    "methods": ("DistributionMatching", "GradientMatching", "KernelRidge"),
    "networks": ("ConvNet", "ResNet18"),
    "methods.sampling": ("Importance",),
    "selection.base": ("Noise", "selected_set"),
    "selection.classic": ("Herding", "KCenter", "KMeans", "Random"),
    "methods.trained_encoders": ("Trained",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _HOME:
        value = getattr(importlib.import_module(f"condensekit.{_HOME[name]}"), name)
    elif name in __all__:
        value = importlib.import_module(f"condensekit.data.{name}")
    else:
        raise AttributeError(f"module 'condensekit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
