"""How to condense, in words: what the command line and the benchmarks give, made into objects by the catalog."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from condensekit import catalog
from condensekit.errors import ConfigError, Problems, refuse
from condensekit.methods import Condenser
from condensekit.methods.encoders import Encoder
from condensekit.presets import Preset
from condensekit.selection.base import Noise, Selection
from condensekit.sets.condensed import Formation

PARTS = ("init", "sampling", "encoder")  # what may take options of its own: sampling.refresh=100 and the like
KINDS: dict[str, type] = {
    "lr": float,
    "batch_real": int,
    "keep": int,
    "factor": int,
    "nested": bool,
    "soft_labels": bool,
}  # of the arguments that are not text


@dataclass(frozen=True)
class Recipe:
    """A method and all that ``condense`` takes beside it, each by its name in the catalog.

    Args:
        method: Which method; with it come the encoder, packing, augmentation and start of its preset.
        settings: ``NAME=VALUE`` options of the method, or of a part: ``sampling.NAME=VALUE``.
        lr: Short for the setting ``lr``.
        batch_real: Short for the setting ``batch_real``.
        discrepancy: Short for the setting ``discrepancy``.
        init: Where the images start; this and the following are the preset's where they are None.
        sampling: How real batches are drawn; uniformly where it is None.
        encoder: Where the embedding networks come from.
        network: Their architecture.
        keep: Steps for which one is used.
        augment: ``auto`` for the usual augmentation, as far as the data allow, ``none`` or a list.
        factor: Packing of the images.
        nested: Whether every prefix of the set shall be a set of its own.
        soft_labels: Whether trained encoders label the images.
        storage: How values are stored.
        precision: How networks run.
    """

    method: str = "dm"
    settings: tuple[str, ...] = ()
    lr: float | None = None
    batch_real: int | None = None
    discrepancy: str | None = None
    init: str | None = None
    sampling: str | None = None
    encoder: str | None = None
    network: str | None = None
    keep: int | None = None
    augment: str | None = None
    factor: int | None = None
    nested: bool = False
    soft_labels: bool = False
    storage: str = "float32"
    precision: str = "fp32"

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """The recipe written as ``METHOD NAME=VALUE ...``: ``m3d lr=3 init=kmeans sampling.refresh=100``.

        Names are those of the arguments above; every other one is a setting.

        Raises:
            ConfigError: A part without ``=``, a name that is there twice, or a number that is none.
        """
        method, *parts = text.split() or [""]
        refuse(*(f"a recipe is METHOD NAME=VALUE ..., got {part!r}" for part in parts if "=" not in part))
        refuse(*_repeated(part.split("=", 1)[0] for part in parts))
        given = dict(part.split("=", 1) for part in parts)
        known = {f.name for f in dataclasses.fields(cls)} - {"method", "settings"}
        settings = tuple(f"{name}={value}" for name, value in given.items() if name not in known)
        try:
            made = {n: catalog.convert(n, value, KINDS.get(n, str)) for n, value in given.items() if n in known}
        except ConfigError as error:
            raise ConfigError(f"recipe {text!r}: {error}") from None
        return cls(method, settings, **made)

    def build(self, data: str) -> tuple[Condenser, dict[str, Any]]:
        """The method, and the other arguments of ``condense`` that the recipe decides.

        Args:
            data: Name of the data set, for the augmentation.

        Raises:
            ConfigError: Every problem of every option.
        """
        problems = Problems()
        with problems:
            given = self._given()
        problems.refuse()
        preset = self._preset()
        with problems:
            self._check(preset)
        with problems:
            options = {name: value for name, value in given["method"].items() if name not in preset.unfit}
            method = catalog.method(self.method, **options)
        arguments: dict[str, Any] = {
            "nested": self.nested,
            "soft_labels": self.soft_labels,
            "precision": self.precision,
        }
        with problems:
            arguments["init"] = self._init(preset, given["init"])
        with problems:
            arguments["sampling"] = catalog.sampling(self.sampling or "uniform", **given["sampling"])
        with problems:
            arguments["encoder"] = self._encoder(preset, given["encoder"])
        with problems:
            arguments["augmentation"] = catalog.augmentation(self.augment or "auto", data, preset.augmentation)
        with problems:
            arguments["formation"] = Formation(preset.factor if self.factor is None else self.factor, self.storage)
        problems.refuse()
        return method, arguments

    def name(self, method: Condenser) -> str:
        """What a table calls the run: the built method, and what is neither its nor its preset's default."""
        preset = self._preset()
        usual: dict[str, Any] = {
            "init": preset.init.name,
            "sampling": "uniform",
            "encoder": catalog.encoder_name(preset.encoder),
            "network": preset.encoder.network.name,
            "keep": getattr(preset.encoder, "keep", None),
            "augment": "auto",
            "factor": preset.factor,
            "nested": False,
            "soft_labels": False,
            "storage": "float32",
            "precision": "fp32",
        }
        parts = {k: v for part in PARTS for k, v in self._settings().items() if k.startswith(f"{part}.")}
        changed = {k: getattr(self, k) for k in usual if getattr(self, k) not in (None, usual[k])}
        return catalog.row_name(method, **changed, **parts)

    def _preset(self) -> Preset:
        """What goes beside the method; any that is not of the catalog's own is run as DM is."""
        return catalog.PRESETS.get(self.method, catalog.PRESETS["dm"])

    def _settings(self) -> dict[str, str]:
        return dict(text.split("=", 1) for text in self.settings)

    def _given(self) -> dict[str, dict[str, Any]]:
        """The options given for the method and for each part."""
        refuse(*(f"--set takes NAME=VALUE, got {text!r}" for text in self.settings if "=" not in text))
        short = {"lr": self.lr, "batch_real": self.batch_real, "discrepancy": self.discrepancy}
        short = {name: value for name, value in short.items() if value is not None}
        kept = [] if self.keep is None else ["encoder.keep"]
        refuse(*_repeated([*(text.split("=", 1)[0] for text in self.settings), *short, *kept]))
        given: dict[str, dict[str, Any]] = {part: {} for part in ("method", *PARTS)}
        for name, value in self._settings().items():
            part, dot, option = name.partition(".")
            if dot and part not in PARTS:
                raise ConfigError(f"--set {name}: only {', '.join(PARTS)} have options of their own")
            given[part if dot else "method"][option if dot else name] = value
        given["method"] |= short
        return given

    def _check(self, preset: Preset) -> None:
        """Refuse what makes no sense with the method."""
        made = {
            **{name: getattr(self, name) for name in ("init", "sampling", "factor", "discrepancy", "encoder", "keep")},
            "augment": None if self.augment in ("auto", "none") else self.augment,
            "nested": self.nested or None,
            "soft-labels": self.soft_labels or None,
        }
        wrong = [name for name, value in made.items() if value is not None and name in preset.unfit]
        refuse(*(f"{self.method} takes no --{name}: {preset.unfit[name]}" for name in wrong))

    def _init(self, preset: Preset, options: dict[str, Any]) -> Selection | Noise:
        """The preset's start, unless another one or other options are asked for."""
        if self.init is None and not options:
            return preset.init
        return catalog.initialiser(self.init or preset.init.name, **options)

    def _encoder(self, preset: Preset, options: dict[str, Any]) -> Encoder:
        """The preset's encoder, but for what is asked for."""
        found = catalog.encoder(self.encoder or catalog.encoder_name(preset.encoder), **options)
        if self.encoder in (None, catalog.encoder_name(preset.encoder)) and not options:
            found = preset.encoder
        network = catalog.network(self.network) if self.network else preset.encoder.network
        changes: dict[str, Any] = {"network": network}
        if self.keep is not None:
            refuse(
                f"--encoder fresh draws a network for each step: leave out --keep {self.keep}, or use --encoder kept"
                if self.encoder == "fresh" and self.keep > 1
                else None
            )
            changes["keep"] = self.keep
        return dataclasses.replace(found, **changes) if dataclasses.is_dataclass(found) else found


def _repeated(names: Iterable[str]) -> list[str]:
    """A problem for each name that is there more than once."""
    return [f"{name} is given {n} times: keep one of them" for name, n in Counter(names).items() if n > 1]
