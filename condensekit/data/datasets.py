"""Data sets by name or place: named sets, folders and files as :class:`ClassImages`.

Only this file uses ``torchvision.datasets``. Pixels are decoded once, in one pass. Data are downloaded
only with ``download=True``.
"""

from __future__ import annotations

import itertools
import os
import stat
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condensekit.data.archives import ENDINGS, arrays, holds_arrays
from condensekit.data.arrays import as_nchw, check_layout
from condensekit.data.decoding import check_size, enough_memory
from condensekit.data.files import FIFTH, Pair, Source, hold_out
from condensekit.data.folders import LeftOut, class_folders, folder
from condensekit.data.images import ClassImages, ImageSpec, normalisation
from condensekit.data.labels import as_labels
from condensekit.data.objects import from_dataset
from condensekit.errors import ConfigError, DataError, meant, refuse, unknown
from condensekit.progress import SILENT, Progress

__all__ = ["NAMES", "from_dataset", "load"]

NAMES = ("digits", "mnist", "fashionmnist", "svhn", "cifar10", "cifar100", "tinyimagenet")
MOST_AROUND = 1_000  # names in a folder among which a near one is looked for

# Mean and std of each channel as the condensation papers use them (DatasetCondensation, utils.py); TinyImageNet has
# those of ImageNet.
STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashionmnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "tinyimagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
TORCHVISION = {
    "mnist": "MNIST",
    "fashionmnist": "FashionMNIST",
    "svhn": "SVHN",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
UNFLIPPED = ("digits", "mnist", "svhn")  # data sets whose images must not be mirrored
TINY = "tiny-imagenet-200"  # the folder that the archive of TinyImageNet unpacks to
PUBLISHED = {  # a file or folder of each named set, from its root
    "mnist": "MNIST/raw",
    "fashionmnist": "FashionMNIST/raw",
    "svhn": "train_32x32.mat",
    "cifar10": "cifar-10-batches-py/batches.meta",
    "cifar100": "cifar-100-python/meta",
    "tinyimagenet": f"{TINY}/val",
}
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IDX_MD5 = {  # md5 of the unpacked files; torchvision knows only the md5 of the archives
    "mnist": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashionmnist": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}


def load(
    name_or_path: str | Path,
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    trust_local_copy: bool = False,
    mmap: Path | None = None,
    flippable: bool | None = None,
    splits: bool = True,
    layout: str | None = None,
    progress: Progress = SILENT,
) -> tuple[ClassImages, ClassImages]:
    """Training and test images, both with the training images' normalisation, class names, and notes of the reader.

    Args:
        name_or_path: One of :data:`NAMES`; a folder of class folders, or of ``train`` and ``test`` (or ``val``)
            with class folders inside, see :mod:`condensekit.data.folders`; or a ``.npz`` or HDF5 file, or a folder of
            ``.npy`` files, with ``images`` and ``labels``, or ``x_train`` and ``y_train``, and so on: see
            :func:`condensekit.data.archives.arrays`. Without test images the validation images are the test images;
            without both, a fixed 20% of each class are held out. With both, the validation images are ``held_out`` of
            the training images. A folder that has the name of a data set is written ``./name``.
        root: Folder of the named sets, in torchvision's layout; if None ``$CONDENSEKIT_DATA``, else
            ``~/.cache/condensekit``. ``tinyimagenet`` is the folder ``tiny-imagenet-200`` in it, as its archive
            unpacks; its files are pictures without published checksums.
        image_size: Resize every image to this many pixels in height and width.
        download: Download a named data set that is missing.
        trust_local_copy: Read the files of a named data set even if their checksums differ from the published ones.
        mmap: Folder for the decoded pixels, which are written once and then memory-mapped, so that a folder of images
            may be larger than memory (named sets and ``.npz`` files are read into memory first). Where a call was
            stopped, the next one goes on. Without ``mmap``, a folder may have 8 GiB of pixels.
        flippable: Whether a mirrored image still shows its class; None: as known for a named data set, else True.
        splits: Whether folders named ``train``, ``test`` or ``val`` are splits; False: they are classes.
        layout: ``NCHW`` or ``NHWC``, the axes of arrays; None: :func:`condensekit.data.arrays.as_nchw` has the rule.
        progress: Receives the number of images read.

    Raises:
        DataError: Files that are missing, altered, damaged or do not fit; the text names the file and a solution.
        ConfigError: An unknown name or layout, or an ``image_size`` below 1.
        StoreError: The decoded pixels cannot be written to ``mmap``.
    """
    check_size(image_size)
    check_layout(layout)
    path = Path(os.path.expanduser(name_or_path))
    single = name_or_path in NAMES or path.suffix.lower() in ENDINGS
    refuse(f"splits=False is for folders, got {str(name_or_path)!r}: leave it out" if single and not splits else None)
    try:
        if name_or_path in NAMES:
            source = _named(str(name_or_path), root, download, trust_local_copy)
        else:
            source = _found(path, str(name_or_path), splits, layout)
        file = mmap and Path(mmap) / f"{path.stem}-{source.tag(image_size, layout)}.npy"
    except OSError as error:  # no permission in a folder above, a path too long, a disk that fails
        place = f"{error.filename or path:.200}"
        raise DataError(f"cannot reach {place}: {error.strerror}: check the path and its permissions") from error
    if layout and (name_or_path in NAMES or source.arrays is None):
        raise ConfigError(f"layout={layout!r} is for files of arrays, got {str(name_or_path)!r}: leave it out")
    pixels, notes = source.pixels(image_size, file, progress)
    mean, std = source.statistics or normalisation(pixels[0], not source.normalised)
    strangers = sorted({*torch.cat(source.labels[1:]).tolist()} - {*source.labels[0].tolist()})
    if strangers:
        raise DataError(f"{path}: the test images have class {strangers[0]}, which the training images lack")
    channels, height, width = pixels[0].shape[1:]
    flips = source.flippable if flippable is None else flippable
    spec = ImageSpec((channels, height, width), mean, std, source.names, flips, not source.normalised)
    told = {
        "name": str(name_or_path if name_or_path in NAMES else path.resolve()),
        "image_size": image_size,
        "root": None if root is None else str(Path(root).resolve()),
        **({} if splits else {"splits": False}),
        **({} if layout is None else {"layout": layout}),
    }
    notes = (*notes, *_constant(pixels[0]))
    parts = [
        ClassImages(images, labels, spec, {**told, "part": part}, notes)
        for part, images, labels in zip(("train", "test", "validation"), pixels, source.labels, strict=False)
    ]
    parts[0].held_out = parts[2] if len(parts) > 2 else None
    return parts[0], parts[1]


def _found(path: Path, given: str, splits: bool, layout: str | None) -> Source:
    """The folder or file at a path."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        kind = None
    except ValueError as error:
        raise DataError(f"{given!r:.200} is no path: {error}") from error
    if kind == stat.S_IFDIR:
        _refuse_published(path)
        return arrays(path, layout) if holds_arrays(path) else folder(path, splits)
    if kind == stat.S_IFREG and path.suffix.lower() in ENDINGS:
        return arrays(path, layout)
    if kind is None and not path.suffix and os.sep not in given:
        near = meant(given, _around(path))
        nowhere = f"there is no folder or file {given!r} here{'.' if near else ''}{near}"
        raise ConfigError(f"{unknown('data set', given, NAMES)}; {nowhere}")
    reason = "does not exist" if kind is None else f"is neither a folder nor a {', '.join(ENDINGS)} file"
    raise DataError(f"{path} {reason}: name a folder of class folders, a .npz file, or one of {', '.join(NAMES)}")


def _around(path: Path) -> list[str]:
    """Names of folders and files of images beside a path, at most :data:`MOST_AROUND`; none if they cannot be read."""
    try:
        with os.scandir(path.parent) as entries:
            some = list(itertools.islice(entries, MOST_AROUND))
    except OSError:
        return []
    return [one.name for one in some if one.is_dir() or Path(one.name).suffix.lower() in ENDINGS]


def _refuse_published(path: Path) -> None:
    """Raise DataError if the folder is a named set as its archive unpacks, or the folder that holds one."""
    here = path.resolve()
    for name, inside in PUBLISHED.items():
        steps = Path(inside).parts
        for root in (here, *here.parents[: len(steps)]):
            begun = here.parts[len(root.parts) :]
            if begun == steps[: len(begun)] and (root / inside).exists():
                raise DataError(f"{path} holds {name} as published: use the name {name!r} with root={str(root)!r}")


def _constant(images: Tensor) -> Iterator[str]:
    """A note if all images are equal."""
    if len(images) > 1 and all(bool((block == images[0]).all()) for block in torch.split(images, 256)):
        level = f", all pixels {images[0, 0, 0, 0].item():g}" if len(images[0].unique()) == 1 else ""
        yield f"all training images are equal{level}"


def held_out(images: ClassImages) -> tuple[ClassImages, ClassImages]:
    """Split images without test images into (training, test): always the same 20 % of each class are test images.

    Raises:
        DataError: A class of one image.
    """
    listed = images.order.sort().values
    train, test = hold_out(images.labels[listed], {k: images.spec.class_names.get(k, str(k)) for k in images.classes})
    parts = images.subset(listed[train]), images.subset(listed[test])
    for part in parts:
        part.notes = (*images.notes, FIFTH)
    return parts


def _named(name: str, root: str | Path | None, download: bool, trust: bool) -> Source:
    """One of :data:`NAMES`."""
    if name == "digits":
        return _digits()
    from torchvision import datasets

    place = Path(os.path.expanduser(root or os.environ.get("CONDENSEKIT_DATA") or "~/.cache/condensekit"))
    if name == "tinyimagenet":
        return _tiny(place / TINY)
    kind = getattr(datasets, TORCHVISION[name])
    files = _published(name, kind, place)
    if download and not all(file.is_file() for file in files):
        try:
            for options in ({"split": "train"}, {"split": "test"}) if name == "svhn" else ({},):
                kind(place, download=True, **options)
        except (OSError, RuntimeError) as error:
            raise DataError(f"cannot download {name} to {place}: {error}; copy its files there by hand") from error
    _verify(name, place, files, trust)
    try:
        with enough_memory(sum(file.stat().st_size for file in files), "end other programs"):
            if name == "svhn":
                arrays, labels, classes = _read_svhn(list(files))
            elif name in IDX_MD5:
                arrays, labels, classes = _read_idx(kind, list(files))
            else:
                arrays, labels, classes = _read_cifar(kind, place, trust)
    except (DataError, OSError):
        raise
    except Exception as error:  # only a trusted copy of other content gets here, and its readers may raise anything
        raise DataError(f"cannot read {name} in {place}: {error!r}; delete it and use download=True") from error
    return Source(labels, dict(enumerate(classes)), tuple(files), arrays, STATISTICS[name], name not in UNFLIPPED)


def _published(name: str, kind: Any, place: Path) -> dict[Path, str]:
    """The files of a named set, training images first, and their checksums."""
    if name in IDX_MD5:
        return {place / kind.__name__ / "raw" / file: md5 for file, md5 in zip(IDX_FILES, IDX_MD5[name], strict=True)}
    if name == "svhn":
        return {place / file: md5 for _, file, md5 in (kind.split_list["train"], kind.split_list["test"])}
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return {place / kind.base_folder / file: md5 for file, md5 in listed}


def _verify(name: str, place: Path, files: Mapping[Path, str], trust: bool) -> None:
    """Raise DataError for missing files, and for altered files unless ``trust``."""
    from torchvision.datasets.utils import calculate_md5

    for file in files:
        if not file.is_file():
            raise DataError(
                f"{name} is not in {place} ({file.relative_to(place)} is missing): "
                "fetch it with download=True, or name its folder with root=FOLDER or CONDENSEKIT_DATA"
            )
    for file, md5 in files.items():
        if not trust and (found := calculate_md5(file)) != md5:
            raise DataError(
                f"{file} is not the published file (md5 {found}, expected {md5}): it is damaged or was altered, and a "
                "pickle, as CIFAR's are, can run code; delete it and use download=True, or pass trust_local_copy=True "
                "if you know where it comes from"
            )


def _read_idx(kind: Any, files: Sequence[Path]) -> tuple[Pair, Pair, Sequence[str]]:
    """Images, labels and class names of MNIST or Fashion-MNIST, from :data:`IDX_FILES`."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images = read_image_file(files[0])[:, None], read_image_file(files[2])[:, None]
    names = kind.classes if kind.__name__ == "FashionMNIST" else [str(digit) for digit in range(10)]
    return images, (read_label_file(files[1]), read_label_file(files[3])), names


def _read_svhn(files: Sequence[Path]) -> tuple[Pair, Pair, Sequence[str]]:
    """Images, labels and class names of the two MATLAB files of SVHN, where the digit 0 is labelled 10."""
    from scipy.io import loadmat

    parts = [loadmat(file, variable_names=("X", "y")) for file in files]
    images = [torch.from_numpy(np.ascontiguousarray(part["X"].transpose(3, 2, 0, 1))) for part in parts]
    labels = [torch.from_numpy(part["y"].astype(np.int64).squeeze(1) % 10) for part in parts]
    return (images[0], images[1]), (labels[0], labels[1]), [str(digit) for digit in range(10)]


def _read_cifar(kind: Any, place: Path, trust: bool) -> tuple[Pair, Pair, Sequence[str]]:
    """Images, labels and class names by torchvision's reader, whose own check is off only for a trusted copy.

    File by file: read in one go, the training set would stand in memory twice.
    """
    meta = {**kind.meta, "md5": None} if trust else kind.meta

    def read(file: str, md5: str) -> Any:
        one = type("OneFile", (kind,), {"train_list": [(file, None if trust else md5)], "test_list": [], "meta": meta})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"dtype\(\): align")  # NumPy 2.4's complaint about the published pickles
            return one(place)

    pixels, labels = [], []
    for listed in (kind.train_list, kind.test_list):
        room = sum((place / kind.base_folder / file).stat().st_size for file, _ in listed) // (3 * 32 * 32)
        images = torch.empty(room, 3, 32, 32, dtype=torch.uint8)
        targets: list[int] = []
        for file, md5 in listed:
            part = read(file, md5)
            images[len(targets) : len(targets) + len(part)] = as_nchw(torch.from_numpy(part.data))
            targets += part.targets
        pixels.append(images[: len(targets)])
        labels.append(torch.tensor(targets))
    return (pixels[0], pixels[1]), (labels[0], labels[1]), part.classes


def _digits() -> Source:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, 0..16 spread over 0..255."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(np.rint(found.images * (255 / 16)).astype(np.uint8))[:, None]
    labels, names = torch.from_numpy(found.target), {digit: str(digit) for digit in range(10)}
    train, test = hold_out(labels, names)
    parts = (images[train], images[test])
    return Source((labels[train], labels[test]), names, (), parts, flippable=False, notes=(FIFTH,))


def _tiny(path: Path) -> Source:
    """TinyImageNet as its archive unpacks: class folders to train on, and a list that tells the validation images."""
    if not (path / "train").is_dir() or not (path / "val").is_dir():
        raise DataError(
            f"tinyimagenet is not in {path.parent} ({TINY}/train or {TINY}/val is missing): unpack {TINY}.zip there "
            "(download=True cannot fetch it), or name its folder with root=FOLDER or CONDENSEKIT_DATA"
        )
    left = LeftOut(path)
    trained = class_folders(path / "train", left)
    codes = trained.names
    listed = path / "val" / "val_annotations.txt"
    if listed.is_file():
        rows = [line.split("\t")[:2] for line in listed.read_text(errors="replace").splitlines()]
        if not rows or any(len(row) < 2 for row in rows):
            raise DataError(
                f"{listed} is damaged: expected an image and its class in each line; unpack {TINY}.zip again"
            )
        test_files, found = tuple(path / "val" / "images" / file for file, _ in rows), [code for _, code in rows]
    else:
        tested = class_folders(path / "val", left)
        test_files, found = tested.files, [tested.names[number] for number in tested.labels.tolist()]
    test_labels, _ = as_labels(found, codes)
    words = path / "words.txt"
    lines = words.read_text(errors="replace").splitlines() if words.is_file() else []
    named = dict(line.split("\t", 1) for line in lines if "\t" in line)
    names = {label: named.get(code, code) for label, code in codes.items()}
    labels, files = (trained.labels, test_labels), (*trained.files, *test_files)
    return Source(labels, names, files, statistics=STATISTICS["tinyimagenet"])
