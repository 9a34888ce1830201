"""Folders of pictures: class folders, and splits of class folders under the names that published data sets use."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from condensekit.data.files import FIFTH, HELD_OUT, Source, hold_out
from condensekit.data.labels import as_labels
from condensekit.data.pictures import ENDINGS
from condensekit.errors import DataError

EXPORTED = LABELS, LOADER = "labels.json", "load.py"  # files of an exported set
OURS = f"this is an exported set: its {LOADER} reads all images with their values, CondensedSet.load the set itself"
SPLITS = {
    "train": "train|training|trn",
    "test": "test|testing|tst|eval|evaluation",
    "val": "val|valid|validation",
}
"""The words for each split, in the order of the parts of a :class:`Source`.

Case, digits, signs and the words of :data:`FILLERS` around them do not count.
"""

FILLERS = "(?:seg|data|set|images?|imgs?|pictures?|splits?|folder|dir)*"
SYSTEM = (  # names that operating systems and tools leave behind, in lower case; hidden names begin with a dot
    "__macosx",
    "__pycache__",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
)
NAMED = 5  # endings and folders that a note names
LOOKED_AT = 300  # folders that are opened to find pictures below a class folder, or a better path for an error


class NestedError(DataError):
    """The folders of a folder hold folders of pictures, not pictures: splits under other names, or experiences."""


@dataclass(frozen=True)
class Listing:
    """The content of one folder: pictures and folders in the order of their names, and other files by ending."""

    path: Path
    pictures: tuple[Path, ...]
    folders: tuple[Path, ...]
    others: Counter[str]


@dataclass(frozen=True)
class Classes:
    """The pictures of class folders: their labels, in the order of the files, and the folder name of each label."""

    files: tuple[Path, ...]
    labels: Tensor
    names: dict[int, str]


@dataclass
class LeftOut:
    """What a reader passes over, except hidden files: files by ending, and folders with the reason."""

    root: Path
    files: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)

    def folder(self, path: Path, reason: str) -> None:
        """Leave out a folder."""
        self.folders.append(f"{path.relative_to(self.root)} ({reason})")

    def notes(self) -> tuple[str, ...]:
        """One clause for the files and one for the folders, such as "3 files left out: 2 .txt, 1 .heic"."""
        endings = [f"{count} {ending}" for ending, count in self.files.most_common()]
        found = (("file", self.files.total(), endings), ("folder", len(self.folders), self.folders))
        return tuple(
            f"{count} {kind}{'s' * (count > 1)} left out: {_some(names, NAMED)}"
            for kind, count, names in found
            if count
        )


def folder(path: Path, splits: bool = True) -> Source:
    """The pictures of a folder of class folders, or of splits of class folders.

    A class folder holds its pictures directly, or in a single folder named ``images`` or as the class. A folder
    without pictures that holds a single folder of folders stands for that one.

    Args:
        path: The folder.
        splits: Whether folders named ``train``, ``test``, ``val`` or similar (:data:`SPLITS`) are splits; False: they
            are classes.

    Raises:
        DataError: Another layout, or a folder that cannot be read; the text names the folder and a solution.
    """
    top = _inner(listed(path), splits)
    left = LeftOut(path)
    if splits and any(split_of(inner) for inner in top.folders):
        return _split(top, left)
    found = _some_classes(top, left)
    rows = hold_out(found.labels, found.names)
    files = tuple(found.files[i] for i in torch.cat(rows).tolist())
    notes = (*left.notes(), FIFTH, *([OURS] if all((path / name).is_file() for name in EXPORTED) else []))
    return Source(tuple(found.labels[r] for r in rows), found.names, files, notes=notes)


def class_folders(path: Path, left: LeftOut) -> Classes:
    """The pictures in the class folders of ``path``; labels count the names of the classes in sorted order.

    Class folders without pictures are left out.

    Raises:
        DataError: There are no pictures, or there are folders of pictures in a class folder.
    """
    return _some_classes(_inner(listed(path), splits=False), left)


def listed(path: Path) -> Listing:
    """The content of a folder, without hidden names and :data:`SYSTEM`. Nothing in it is opened.

    Raises:
        DataError: The folder cannot be read.
    """
    pictures, folders, others = [], [], Counter[str]()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
                    continue
                ending = os.path.splitext(entry.name)[1].lower()
                if not _is_folder(entry):
                    if ending in ENDINGS:
                        pictures.append(entry.name)
                    else:
                        others[f"{ending:.12}" or "without ending"] += 1
                elif entry.is_symlink() and _is_above(entry.path, path):
                    others["link to a folder above it"] += 1
                else:
                    folders.append(entry.name)
        reason = None if os.access(path, os.X_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        reason = error.strerror
    if reason:
        raise DataError(f"cannot read the folder {path}: {reason}: allow to read and to enter it (chmod u+rx)")
    return Listing(path, _sorted(path, pictures), _sorted(path, folders), others)


def _sorted(path: Path, names: list[str]) -> tuple[Path, ...]:
    return tuple(path / name for name in sorted(names))


def split_of(path: Path) -> str | None:
    """``train``, ``test`` or ``val`` if the folder has the name of a split; else None."""
    letters = re.sub(r"\d+x\d+|[\W\d_]", "", path.name.lower())
    return next(
        (kind for kind, words in SPLITS.items() if re.fullmatch(f"{FILLERS}(?:{words}){FILLERS}", letters)), None
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def _is_above(link: str, path: Path) -> bool:
    """Whether a link in the folder ``path`` leads to that folder or to one above it."""
    target, here = os.path.realpath(link), os.path.realpath(path)
    return os.path.commonpath((target, here)) == target


def _inner(top: Listing, splits: bool) -> Listing:
    """The folder itself; or, as long as all it holds is one folder of folders, that one."""
    while not top.pictures and len(top.folders) == 1 and not (splits and split_of(top.folders[0])):
        inner = listed(top.folders[0])
        if inner.pictures or not inner.folders:
            break
        top = Listing(inner.path, inner.pictures, inner.folders, inner.others + top.others)
    return top


def _split(top: Listing, left: LeftOut) -> Source:
    """``train`` and ``test`` or ``val`` with class folders inside."""
    folders: dict[str, Path] = {}
    for inner in top.folders:
        kind = split_of(inner)
        if kind is None:
            left.folder(inner, "beside the splits")
        elif kind in folders:
            raise DataError(
                f"{top.path} has two {kind} folders, {folders[kind].name} and {inner.name}: keep one of them, "
                "or use splits=False if they are classes"
            )
        else:
            folders[kind] = inner
    _leave_files(top, left)
    if "train" not in folders:
        names = " and ".join(inner.name for inner in folders.values())
        raise DataError(
            f"{top.path} has the split {names} but no train folder beside it: add one, or use splits=False if this is "
            "the name of a class"
        )
    parts = {kind: found for kind, inner in folders.items() if (found := _part(kind, inner, left))}
    train = parts["train"]
    if len(parts) == 1:
        unlabelled = "".join(
            f" ({inner.name} has no class folders)" for kind, inner in folders.items() if kind != "train"
        )
        raise DataError(
            f"{top.path} has a train folder but no test or val beside it{unlabelled}: add one, or pass "
            f"{folders['train']} to have {HELD_OUT:.0%} of each class held out; if train is a class, use splits=False"
        )
    notes = left.notes()
    labels = {kind: _numbered(part, train, folders[kind]) for kind, part in parts.items()}
    order = [kind for kind in SPLITS if kind in parts]  # without test images, the validation images come second
    if "test" not in parts:
        notes = (*notes, f"no test images: {folders['val'].name} is the test part")
    files = tuple(file for kind in order for file in parts[kind].files)
    return Source(tuple(labels[kind] for kind in order), train.names, files, notes=notes)


def _part(kind: str, path: Path, left: LeftOut) -> Classes | None:
    """The classes in a split; None if it is not the training split and holds no labelled pictures."""
    top = _inner(listed(path), splits=False)
    if top.folders and all(split_of(inner) for inner in top.folders):
        raise DataError(f"the folders of {top.path} are splits again: pass a folder whose folders are classes")
    if kind == "train":
        if not top.folders:
            content = "images but no class folders, so that their classes are unknown" if top.pictures else "no folders"
            raise DataError(
                f"{top.path} holds {content}: move the images of each class into a folder of its own; "
                f"if {path.name} is the name of a class, use splits=False"
            )
        return _some_classes(top, left)
    inside = LeftOut(left.root)
    found = _classes(top, inside)
    if not found.files:
        left.folder(path, "no class folders")
        return None
    left.files += inside.files
    left.folders += inside.folders
    return found


def _numbered(part: Classes, train: Classes, path: Path) -> Tensor:
    """The labels of a part as the training images count them."""
    try:
        return as_labels([part.names[number] for number in part.labels.tolist()], train.names)[0]
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _classes(top: Listing, left: LeftOut) -> Classes:
    """The pictures of the class folders in ``top``; there may be none."""
    files: list[Path] = []
    labels: list[int] = []
    names: dict[int, str] = {}
    nested: list[Path] = []
    _leave_files(top, left)
    for path in top.folders:
        inner = _class_folder(path, left)
        if inner.folders and _holds_pictures(inner.folders):
            nested.append(path)
            continue
        left.files += inner.others
        if not inner.pictures:
            left.folder(path, "no images")
            continue
        for below in inner.folders:
            left.folder(below, "no images")
        labels += [len(names)] * len(inner.pictures)
        names[len(names)] = path.name
        files += inner.pictures
    if nested:
        better = [str(path) for path in _readable(nested)]
        raise NestedError(
            f"the folders of {top.path} hold folders, not only the images of a class: "
            f"{_some([path.name for path in nested], NAMED)}: pass a folder whose folders are classes"
            + (f", such as {' or '.join(better)}" if better else "")
        )
    return Classes(tuple(files), torch.tensor(labels, dtype=torch.int64), names)


def _some_classes(top: Listing, left: LeftOut) -> Classes:
    """The pictures of the class folders in ``top``, at least one."""
    found = _classes(top, left)
    if not top.folders:
        raise DataError(f"{top.path} has no sub-folders: expected one folder of images for each class")
    if not found.files:
        held = "".join(f"; {note}" for note in left.notes())
        raise DataError(f"there are no images in the folders of {top.path}: expected files like *.png or *.jpg{held}")
    return found


def _class_folder(path: Path, left: LeftOut) -> Listing:
    """The folder with the pictures of a class: the class folder, or the only one in it, named ``images`` or like it."""
    found = listed(path)
    while not found.pictures and [inner.name.lower() for inner in found.folders] in (["images"], [path.name.lower()]):
        left.files += found.others
        found = listed(found.folders[0])
    return found


def _leave_files(top: Listing, left: LeftOut) -> None:
    """Leave out the files beside class folders or splits."""
    left.files += top.others
    if top.pictures and top.folders:
        left.files["outside the class folders"] += len(top.pictures)


def _holds_pictures(folders: Sequence[Path]) -> bool:
    """Whether there is a picture in the folders or below them; also if there are too many folders to know."""
    waiting = deque(folders)
    for _ in range(LOOKED_AT):
        if not waiting:
            return False
        found = listed(waiting.popleft())
        if found.pictures:
            return True
        waiting += found.folders
    return True


def _readable(folders: Sequence[Path]) -> list[Path]:
    """Up to three folders, among the given and those below them, that hold class folders or a training split."""
    waiting, found = deque(folders), list[Path]()
    for _ in range(LOOKED_AT):
        if not waiting or len(found) == 3:
            break
        path = waiting.popleft()
        inner = listed(path).folders
        trained = any(split_of(below) == "train" for below in inner)
        if trained or sum(bool(listed(below).pictures) for below in inner[:NAMED]) > 1:
            found.append(path)
        else:
            waiting += inner
    return found


def _some(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
