"""Published recipes: the recipe of each paper, by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from condensekit.methods.discrepancy import MMD, CharacteristicFunction
from condensekit.methods.distribution import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.gradient import UNFIT, GradientMatching
from condensekit.methods.kernel import KernelRidge
from condensekit.methods.recipe import Recipe
from condensekit.methods.schedule import Plateau
from condensekit.methods.trained_encoders import Trained
from condensekit.selection.base import Noise
from condensekit.sets.formation import BySize
from condensekit.training.augment import Augmentation

COSTS = {
    "light": "real images once forward, synthetic ones forward and back",
    "medium": "light, and a linear solve for all classes",
    "heavy": "second derivatives, and a network trained on the set along the way",
}


@dataclass(frozen=True)
class Published:
    """A recipe that has a name.

    Args:
        recipe: The recipe of the paper.
        paper: The paper.
        cost: A key of :data:`COSTS`.
        unfit: Options that do not fit this recipe, each with the reason.
    """

    recipe: Recipe
    paper: str
    cost: str
    unfit: Mapping[str, str] = field(default_factory=dict)


_GRADIENTS = {**UNFIT, "discrepancy": "it compares gradients: see the option distance"}
_M3D = Recipe(
    DistributionMatching(MMD(), lr=1.0, batch_real=128, per_image=True, space="pixel", name="m3d"),
    encoder=Fresh(keep=5),
    augmentation=Augmentation(ops=("color", "crop", "cutout")),
    formation=BySize(factor=2),
)
_DANCE = _M3D.replace(
    method=DistributionMatching(
        lr=0.01,
        batch_real=128,
        per_image=True,
        space="pixel",
        calibration=1.0,
        calibration_step=True,
        name="dance",
    ),
    encoder=Trained(epochs=60),
)
_NCFM = DistributionMatching(
    CharacteristicFunction(),
    lr=0.001,
    batch_real=1024,
    space="pixel",
    calibration=1.0,
    calibration_step=True,
    optimiser="adamw",
    weight_decay=5e-4,
    name="ncfm",
)
PUBLISHED: dict[str, Published] = {
    published.recipe.method.name: published
    for published in (
        Published(Recipe(DistributionMatching()), "Zhao and Bilen, DM, WACV 2023", "light"),
        Published(_M3D, "Zhang et al., M3D, AAAI 2024", "light"),
        Published(
            _M3D.replace(method=dataclasses.replace(_M3D.method, name="echo")),  # type: ignore[type-var]
            "first version of M3D, arXiv 2312.15927v1",
            "light",
        ),
        Published(_DANCE, "Zhang et al., DANCE, IJCAI 2024", "light"),
        Published(
            Recipe(
                _NCFM,
                encoder=Trained(epochs=60),
                augmentation=_M3D.augmentation,
                formation=BySize(factor=2),
                schedule=Plateau(patience=500, factor=0.5),
            ),
            "Wang et al., NCFM, CVPR 2025",
            "light",
        ),
        Published(
            Recipe(GradientMatching(name="dc"), augmentation=None, init=Noise()),
            "Zhao, Mopuri and Bilen, DC, ICLR 2021",
            "heavy",
            {**_GRADIENTS, "augment": "under an augmentation it is dsa"},
        ),
        Published(Recipe(GradientMatching(name="dsa")), "Zhao and Bilen, DSA, ICML 2021", "heavy", _GRADIENTS),
        Published(
            Recipe(KernelRidge(), augmentation=None),
            "Nguyen, Chen and Lee, KIP, ICLR 2021; Loo et al., RFAD, NeurIPS 2022",
            "medium",
            {
                "discrepancy": "it compares predicted labels",
                "classes_per_step": "it predicts the labels of all classes together",
            },
        ),
    )
}
