"""Options: the options that several commands share."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.kinds import MANY, Choice, Data, F, Location, Number, Whole, gathered, option, packed, unused
from condensekit.compute import AUTO, PRECISIONS, Machine
from condensekit.data import datasets
from condensekit.data.arrays import LAYOUTS
from condensekit.data.images import ClassImages
from condensekit.data.summary import summary
from condensekit.errors import ConfigError, refuse
from condensekit.runs.folder import RunDir
from condensekit.runs.kept import refuse_other
from condensekit.sets.codecs import CODECS
from condensekit.sets.formation import STORAGES

MAX_SIZE = 1 << 14  # pixels of an image's height and width


@dataclass(frozen=True)
class Source:
    """Options that say which images to read, and from where.

    Args:
        data: A name, or the path of a folder or ``.npz`` file.
        image_size: Resize to this height and width in pixels while reading; None: do not resize.
        data_root: Folder of the named data sets; None: the default folder.
        download: Download a named data set that is missing.
        trust_local_copy: Read files whose checksums differ from the published ones.
        mmap: Folder for the decoded images, which are then memory-mapped; None: images are held in memory.
        augment: ``auto``, ``none`` or a list of operations; a list also says whether images may be mirrored.
        splits: Whether folders named ``train``, ``test`` or ``val`` are splits, not classes.
        layout: ``NCHW`` or ``NHWC``, the axes of arrays; None: by their shape.
    """

    data: str
    image_size: int | None
    data_root: Path | None
    download: bool
    trust_local_copy: bool
    mmap: Path | None = None
    augment: str = "auto"
    splits: bool = True
    layout: str | None = None

    def check(self) -> None:
        """Raise ConfigError for an unknown operation, and for options that do nothing with these data."""
        if self.augment != "auto":
            catalog.augmentation(self.augment)
        why = None
        if self.data == "digits":
            why = "the digits come with scikit-learn"
        elif self.data not in datasets.NAMES:
            why = f"{self.data} is no name of a data set"
        tiny = "its files have no checksums, and are not downloaded" if self.data == "tinyimagenet" else why
        unused(data_root=why, download=tiny, trust_local_copy=tiny)

    @property
    def flippable(self) -> bool | None:
        """Whether the list of operations contains ``flip``; None if ``augment`` is not a list."""
        return None if self.augment in ("auto", "none") else "flip" in self.augment.split(",")

    def load(self, quiet: bool, *resumed: Path) -> tuple[ClassImages, ClassImages]:
        """Training and test images; unless ``quiet``, a line about them on standard error.

        Args:
            quiet: Whether nothing is said.
            resumed: Folders of runs that go on with these data.

        Raises:
            ConfigError: A run has other data.
        """
        for folder in resumed:
            if (folder / "config.json").exists() and "data" in (found := RunDir.read(folder).config):
                there = f"{folder} holds a run of other data"
                refuse_other(there, found["data"], self.record(folder)["data"], "use the same, or another folder")
        train, test = datasets.load(
            self.data,
            root=self.data_root,
            image_size=self.image_size,
            download=self.download,
            trust_local_copy=self.trust_local_copy,
            mmap=self.mmap,
            flippable=self.flippable,
            splits=self.splits,
            layout=self.layout,
            progress=show.progress(quiet),
        )
        if not quiet:
            show.tell(f"Data: {summary(train, test)}")
        return train, test

    def record(self, folder: Path) -> dict[str, Any]:
        """The entries of ``config.json`` in ``folder`` from which ``evaluate`` finds the same images.

        A resumed run may read its data from another folder; the first folder stays recorded. Trust is never
        recorded, because a run folder may come from somebody else.
        """
        root = str(self.data_root.resolve()) if self.data_root else None
        if (folder / "config.json").exists():
            root = RunDir.read(folder).config.get("data_root", root)
        name = self.data if self.data in datasets.NAMES else str(Path(self.data).resolve())
        data: dict[str, Any] = {"name": name, "image_size": self.image_size}
        data |= {} if self.splits else {"splits": False}
        data |= {} if self.layout is None else {"layout": self.layout}
        return {"data": data, "data_root": root}


@dataclass(frozen=True)
class Place:
    """Options that say which run folders to make.

    Args:
        out: The run folder; with several seeds, the folder that contains ``seed-<seed>``.
        resume: Continue the runs in the folder.
        seeds: Number of sets to make.
        seed: Seed of the first set.
    """

    out: Path
    resume: bool
    seeds: int
    seed: int

    def folders(self) -> dict[int, Path]:
        """The run folder of each seed.

        Raises:
            ConfigError: Several seeds into a folder that holds a single run.
        """
        if self.seeds == 1:
            return {self.seed: self.out}
        if (self.out / "config.json").exists():
            raise ConfigError(f"{self.out} holds a single run: use another --out for --seeds {self.seeds}")
        return {seed: self.out / f"seed-{seed}" for seed in range(self.seed, self.seed + self.seeds)}


DATA = option(
    "--data",
    type=Data(),
    required=True,
    help="A name (see `condensekit list data`); a folder with a folder of images for each class, or with train and "
    "test or val folders of that form; an .npz or HDF5 file, or a folder of .npy files.",
)
IMAGE_SIZE = option("--image-size", type=Whole(min=1, max=MAX_SIZE), help="Squeeze images to N x N while reading.")
DATA_ROOT = option(
    "--data-root",
    type=Location(),
    metavar="FOLDER",
    help="Folder of the named data sets.  [default: $CONDENSEKIT_DATA, else ~/.cache/condensekit]",
)
DOWNLOAD = option("--download", is_flag=True, help="Download a named data set that is missing.")
TRUST = option(
    "--trust-local-copy",
    is_flag=True,
    help="Read files whose checksums differ from the published ones. CIFAR files are pickles, which can run code: use "
    "this only for files that you trust.",
)
MMAP = option(
    "--mmap",
    type=Location("folder"),
    help="Decode the images once into FOLDER, and memory-map them: for a data set larger than memory.",
)
SPLITS = option(
    "--splits/--no-splits",
    default=True,
    help="Whether folders named train, test or val are splits, or classes.",
)
LAYOUT = option(
    "--layout",
    type=Choice(LAYOUTS),
    help="Axes of the images in array files, NCHW or NHWC: N images, C channels, H rows, W columns.  "
    "[default: by their shape]",
)
AUGMENT = option(
    "--augment",
    default="auto",
    metavar="LIST",
    help="Operations of color,crop,cutout,flip,scale,rotate; or none; or auto: the default of the method or protocol, "
    "without flip for digits. A list without flip also says that mirrored images show another class.",
)
DEVICE = option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.")
PRECISION = option(
    "--precision",
    type=Choice(PRECISIONS),
    default="fp32",
    help="fp32; mixed: embed real images in bfloat16; bf16: run networks in bfloat16.",
)
CONDENSING = option(
    "--precision",
    type=Choice([AUTO, *PRECISIONS]),
    default=AUTO,
    help="fp32; mixed: embed real images in bfloat16; bf16: run networks in bfloat16; auto: mixed for methods that "
    "compare features on a CPU with instructions for bfloat16, else fp32.",
)
WORKERS = option("--workers", type=Whole(min=0, max=MANY), help="Threads on a CPU.  [default: torch's number]")
COMPILED = option(
    "--compiled/--not-compiled",
    default=None,
    help="Compile the network: on a CPU a minute or two, once, with g++; on CUDA a second.  [default: in long runs; on "
    "CUDA always]",
)
TENSORBOARD = option(
    "--tensorboard",
    is_flag=True,
    help="Write the metrics for TensorBoard, too, to RUN/tensorboard; needs the package tensorboard.",
)
QUIET = option("--quiet", is_flag=True, help="Show no progress.")
SET = option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the method, or of init, sampling or encoder (sampling.NAME=VALUE); may be repeated.",
)
JSON = option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output, nothing else.")
SEED = option("--seed", type=Whole(), default=0, help="Seed of all random numbers.")
IPC = option("--ipc", type=Whole(min=1, max=MANY), required=True, help="Images per class.")
RUN = option("--out", type=Location("folder"), required=True, metavar="RUN", help="The run folder to make.")
FACTOR = option(
    "--factor",
    type=Whole(min=1),
    help="Pack N x N smaller images into each stored image: more training images in the same bytes.",
)
DISCREPANCY = option(
    "--discrepancy",
    help=f"Distance between real and synthetic images: {', '.join(catalog.DISCREPANCIES)}, moments-N, "
    "characteristic-N. Each needs its own lr; m3d: gaussian 1, linear 0.1, moments-3 0.03 (tuned on Fashion-MNIST).",
)
INIT = option(
    "--init",
    help=f"First images: {', '.join(catalog.STARTS)}; or the path of a run, a set or a .pt file to go on from.  "
    "[default: the method's]",
)
SAMPLING = option(
    "--sampling",
    help=f"How real batches are drawn: {', '.join(catalog.SAMPLINGS)}. importance: images that are hard for a lightly "
    "trained network come more often, with smaller weights; kmeans: images nearest to cluster centres.  "
    "[default: uniform]",
)
ENCODER = option(
    "--encoder",
    help=f"Networks that embed images: {', '.join(catalog.ENCODERS)}. fresh: a new random network in each step; kept: "
    "one random network for some steps (--set keep=N); trained: weights between the initial and trained weights of a "
    "few networks.  [default: the method's]",
)
ENCODER_NETWORK = option(
    "--encoder-network",
    help="Network that embeds images: ConvNet-d4-w64-batch, ResNet18-instance, a name of torchvision.models, or "
    "your own module:object.",
)
STORAGE = option(
    "--storage",
    type=Choice(STORAGES),
    help="How images of the set are stored: float32, float16, uint8 with a range for each image and channel, 2bit to "
    "8bit (bits of a value), jpeg (a picture for each image), or one picture for each class: jpeg-mosaic, webp-mosaic, "
    "avif-mosaic.  [default: float32]",
)
BYTES = option("--bytes", "room", type=Whole(min=1), help="Bytes for each class, with labels.")

METHOD = option(
    "--method",
    default="dm",
    help='A method (see `condensekit list methods`), or a recipe in quotes: "m3d lr=3 init=kmeans".',
)
FLAGS = {
    "lr": option("--lr", type=Number(), help="Step size of the images.  [default: the method's]"),
    "batch_real": option("--batch-real", type=Whole(), help="Real images per class and step.  [default: the method's]"),
    "discrepancy": DISCREPANCY,
    "init": INIT,
    "sampling": SAMPLING,
    "encoder": ENCODER,
    "encoder_network": ENCODER_NETWORK,
    "keep": option("--keep", type=Whole(min=1), help="Steps for which the encoder keeps one network."),
    "factor": FACTOR,
    "storage": option(
        "--storage",
        type=Choice(name for name in STORAGES if name not in CODECS or not CODECS[name].pixels),
        help="How values of the set are stored: float32, float16, uint8 with a range for each image and channel, or "
        "2bit to 8bit (bits of a value). As pictures: `condensekit code`.  [default: float32]",
    ),
    "nested": option(
        "--nested", is_flag=True, help="Make the first images of each class useful alone, so that the set may shrink."
    ),
    "classes_per_step": option(
        "--classes-per-step",
        type=Whole(min=1),
        help="Classes of each step at most; they take turns. For hundreds of classes.  [default: all]",
    ),
    "soft_labels": option(
        "--soft-labels", is_flag=True, help="Store the predictions of the networks of --encoder trained; costs bytes."
    ),
}
"""Options of a recipe that have a flag; the other options are given by --set."""


def _check_workers(machine: Machine) -> None:
    """Raise ConfigError for workers on a machine that has none."""
    why = None
    if machine.device not in ("auto", "cpu"):
        why = f"workers are threads of a CPU, and the device is {machine.device}"
    unused(workers=why if machine.workers else None)


source_options = packed(
    Source,
    "source",
    *(DATA, IMAGE_SIZE, DATA_ROOT, DOWNLOAD, TRUST, MMAP, SPLITS, LAYOUT, AUGMENT),
    check=Source.check,
)
machine_options = packed(Machine, "machine", DEVICE, PRECISION, WORKERS, check=_check_workers)
condensing_options = packed(Machine, "machine", DEVICE, CONDENSING, WORKERS, COMPILED, check=_check_workers)
place_options = packed(
    Place,
    "place",
    RUN,
    option(
        "--resume",
        is_flag=True,
        help="Continue an interrupted run: --resume --out RUN; of a finished run, only write the outputs again.",
    ),
    option(
        "--seeds",
        type=Whole(min=1, max=MANY),
        default=1,
        help="Make N sets, with the seeds from --seed on, each in RUN/seed-<seed>.",
    ),
    SEED,
)


def settings_of(texts: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a dictionary.

    Raises:
        ConfigError: A text without ``=``, or a name given twice.
    """
    refuse(*(f"--set takes NAME=VALUE such as lr=3, got {text!r}" for text in texts if "=" not in text))
    return together(*(dict([text.split("=", 1)]) for text in texts))


def together(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Join the options of several dictionaries; options that are None or False are left out.

    Raises:
        ConfigError: An option is given in two dictionaries.
    """
    given = [{k: v for k, v in part.items() if v is not None and v is not False} for part in parts]
    count = Counter(name for part in given for name in part)
    refuse(*(f"{name} is given {n} times: keep one of them" for name, n in count.items() if n > 1))
    return {name: value for part in given for name, value in part.items()}


def recipe_options(function: F) -> Any:
    """A decorator for the options of a recipe; the command gets them as one argument ``recipe``."""

    @functools.wraps(function)
    def call(method: str, settings: tuple[str, ...], **values: Any) -> Any:
        flags = {name: values.pop(name) for name in FLAGS}
        if isinstance(values.get("source"), Source) and values["source"].augment != "auto":
            flags["augment"] = values["source"].augment
        values["recipe"] = None
        with gathered():
            name, given = catalog.named(method, "recipe")
            values["recipe"] = catalog.recipe(name, **together(given, settings_of(settings), flags))
        return function(**values)

    for one in reversed((METHOD, SET, *FLAGS.values())):
        call = one(call)
    return call
