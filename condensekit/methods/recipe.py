"""Recipe: one object that says how to condense: method, encoder, augmentation, sampling, start, storage, schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from condensekit.compute import Machine
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.errors import ConfigError, instance, refuse, unknown, whole, within
from condensekit.methods.base import Condenser
from condensekit.methods.encoders import Encoder, Fresh
from condensekit.methods.sampling import Sampling, Uniform
from condensekit.methods.schedule import Constant, Schedule
from condensekit.methods.storing import Storing
from condensekit.networks.base import separable
from condensekit.selection.base import Start
from condensekit.selection.classic import Random
from condensekit.sets.formation import Formation
from condensekit.training.augment import Augmentation


@dataclass(frozen=True, repr=False)
class Recipe:
    """How to condense: the parts of each step, and the first images.

    The default parts are those of DM's paper. :mod:`condensekit.catalog.recipes` has a function for each published
    method; :meth:`parse` reads a recipe from text.

    >>> import condensekit as ck
    >>> ck.Recipe.parse("m3d lr=3").method.lr
    3.0

    Args:
        method: The condensation method, which makes each step.
        encoder: The source of the embedding networks; by default a new ConvNet in each step.
        augmentation: Siamese augmentation of real and synthetic images; None: no augmentation. On data that are not
            ``flippable`` it is used without ``flip``.
        sampling: How real batches are drawn.
        init: The first images: a selection of real images, noise, or a set.
        formation: How the images are stored. With a factor f, each stored image packs f * f smaller images.
        nested: In each step, match only the first k images of each class, k drawn from 1 to ipc. Then the first
            images of the set are a useful set, too.
        soft_labels: Label the images with the mean prediction of the trained networks of ``encoder``, instead of
            their class. The labels count in ``nbytes``.
        classes_per_step: Classes of a step at most, of a separable method; None: all. The classes take turns, in a new
            order in each round. So of K classes, each is learnt in one of K / ``classes_per_step`` steps, and time and
            memory of a step fall alike.
        schedule: The factor of the method's step size over the run: ``Constant()``, ``Cosine()`` or ``Plateau()`` of
            :mod:`condensekit.methods.schedule`.
        average: The set is the mean of the images after each step of this last part of the run, 0 to 1; 0: the last
            images.
        through: A storage through which the images are learnt, and in which the set ends; None: they are learnt as they
            are, and stored as ``formation`` says.

    Raises:
        ConfigError: Fields that are classes or objects of the wrong class; all of them listed.
    """

    method: Condenser
    encoder: Encoder = field(default_factory=Fresh)
    augmentation: Augmentation | None = Augmentation()  # noqa: RUF009 - frozen
    sampling: Sampling = Uniform()  # noqa: RUF009 - frozen
    init: Start = Random()  # noqa: RUF009 - frozen
    formation: Formation = Formation()  # noqa: RUF009 - frozen
    nested: bool = False
    soft_labels: bool = False
    classes_per_step: int | None = None
    schedule: Schedule = Constant()  # noqa: RUF009 - frozen
    average: float = 0.0
    through: Storing | None = None

    parse: ClassVar[Callable[[str], Recipe]]
    """Read a recipe written ``METHOD NAME=VALUE ...``; :mod:`condensekit.catalog.recipes` defines this function."""

    def __post_init__(self) -> None:
        none = self.augmentation is None
        refuse(
            instance("method", self.method, Condenser, "an object such as DistributionMatching()"),
            instance("encoder", self.encoder, Encoder, "Fresh(ConvNet()), or a network to recipes.dm(encoder=...)"),
            None if none else instance("augmentation", self.augmentation, Augmentation, "Augmentation() or None"),
            instance("sampling", self.sampling, Sampling, "Uniform(), Importance() or Clustered()"),
            instance("init", self.init, Start, "Random(), KMeans(), Noise() or Saved(made)"),
            instance("formation", self.formation, Formation, "Formation(factor=2)"),
            instance("nested", self.nested, bool, "True or False"),
            instance("soft_labels", self.soft_labels, bool, "True or False"),
            None if self.classes_per_step is None else whole("classes_per_step", self.classes_per_step, 1),
            instance("schedule", self.schedule, Schedule, "Constant(), Cosine() or Plateau()"),
            within("average", self.average, 0, 1),
            None if self.through is None else instance("through", self.through, Storing, 'Storing("avif-mosaic")'),
        )

    def __repr__(self) -> str:
        ops = "none" if self.augmentation is None else ",".join(self.augmentation.ops)
        encoder = f"{type(self.encoder).__name__}({self.encoder.network.name})"
        return (
            f"Recipe({self.method.name}, encoder={encoder}, augment={ops}, init={self.init.name}, "
            f"sampling={self.sampling.name}, factor={self.formation.factor})"
        )

    @property
    def separable(self) -> bool:
        """Whether classes can be condensed separately, according to the parts of the recipe."""
        together = self.encoder.trained or self.classes_per_step is not None  # whose turn it is depends on all classes
        return self.method.separable and not together and self.sampling.separable and not self.schedule.sees_loss

    @property
    def sees_end(self) -> str:
        """The parts that depend on how long a run is, so that none can be made longer: as text; empty: none does."""
        parts = {f"schedule='{self.schedule.name}'": self.schedule.sees_end, f"average={self.average}": self.average}
        return " and ".join(part for part, does in parts.items() if does)

    def replace(self, **changes: Any) -> Recipe:
        """The same recipe with other values of its fields.

        Raises:
            ConfigError: An unknown field, or a wrong value.
        """
        fields = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in fields:
                raise unknown("field of a recipe", name, fields)
        return dataclasses.replace(self, **changes)

    def on(self, spec: ImageSpec) -> Recipe:
        """The recipe for data with this spec.

        It is without ``flip`` if a mirrored image may show another class, and packs images if they are large enough.
        """
        used = None if self.augmentation is None else self.augmentation.on(spec)
        formation = self.formation.on(spec.shape)
        same = (used, formation) == (self.augmentation, self.formation)
        return self if same else self.replace(augmentation=used, formation=formation)

    def check(self, data: ClassImages, ipc: int, machine: Machine) -> None:
        """Raise an error for arguments that do not fit the recipe, before any work is done.

        Args:
            data: The real images.
            ipc: Stored images of each class.
            machine: Device and precision of the networks.

        Raises:
            ConfigError: Every problem of the recipe with these arguments.
            DataError: A class with too few images for the start.
        """
        refuse(whole("ipc", ipc, 1), *self.misfits(data, ipc, machine))
        network = self.encoder.network.build(data.spec.shape, len(data.classes))  # raises if the images do not fit
        refuse(
            f"{self.method.name} with batch norm, which mixes the classes, takes no classes_per_step: leave it out, or "
            "use norm='instance'"
            if self.classes_per_step is not None and not separable(network)
            else None
        )
        self.init.check(data, int(ipc), self.formation.factor)

    def misfits(self, data: ClassImages, ipc: int, machine: Machine) -> Sequence[str | None]:
        """The problems of the recipe with these arguments, see :meth:`check`; entries that are None are no problem."""
        count = 1 if whole("ipc", ipc) else ipc * len(data.classes)
        return (
            self.formation.misfit(data.spec.shape, count),
            "storage='float16' ends at 65,504, and the images have larger values: use storage='float32'"
            if self.formation.dtype == "float16" and not self.formation.fits(_extremes(data))
            else None,
            f"storage={self.formation.dtype!r} has a quality, and a recipe has none: condense without it, then use "
            f"stored_as({self.formation.dtype!r}, room=...), or through={self.formation.dtype!r}"
            if self.formation.coded and self.formation.codec.pixels
            else None,
            "nested=True needs an ipc of at least 2: one image cannot be cut shorter"
            if self.nested and ipc == 1
            else None,
            "soft_labels=True needs trained networks: use encoder=Trained()"
            if self.soft_labels and not self.encoder.can_label
            else None,
            f"{self.method.name} takes no classes_per_step: its step takes all classes at once"
            if self.classes_per_step is not None and not self.method.separable
            else None,
            f"through={self.through.storage!r} says how the set is stored: leave out storage={self.formation.dtype!r}"
            if self.through and self.formation.dtype != "float32"
            else None,
            Formation(self.formation.factor, self.through.storage).misfit(data.spec.shape, count)
            if self.through
            else None,
            f"{self.method.name} takes no schedule='{self.schedule.name}': its steps do not follow StepContext.rate"
            if not self.method.scheduled and not isinstance(self.schedule, Constant)
            else None,
            *self.method.misfits(data, self, machine),
        )


def _extremes(data: ClassImages) -> torch.Tensor:
    """(2, C, 1, 1) values that the normalised images can have at most and at least."""
    ends = data.spec.range or tuple((end,) * data.spec.shape[0] for end in data.ends)
    return torch.tensor(ends)[:, :, None, None]


def as_recipe(given: Recipe | Condenser) -> Recipe:
    """Return a recipe unchanged; make a recipe of a method with the other parts of DM.

    Raises:
        ConfigError: An object of another class.
    """
    if isinstance(given, Recipe):
        return given
    if isinstance(given, Condenser):
        return Recipe(given)
    raise ConfigError(str(instance("recipe", given, Recipe, 'recipes.m3d(), DistributionMatching() or "m3d lr=3"')))
