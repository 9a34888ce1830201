"""Export: condensed images as PNG files with labels and values, one picture, NumPy arrays, or files of tensors."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from condensekit import errors
from condensekit.data.folders import LABELS, LOADER
from condensekit.errors import instance, refuse, require
from condensekit.runs.files import staged, stream_of, temporary_name, write_bytes_atomic, write_json
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.contents import ABOUT
from condensekit.sets.labelled import labelled
from condensekit.sets.pt import save_pt

LONGEST = 60  # characters of a folder's name; file systems allow 255 bytes
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)(\..*)?", re.IGNORECASE)  # no names on Windows
SCRIPT = '''"""Images of this folder as arrays: copy this file beside your program, or run it here.

images: (N, H, W, C) float32, normalised as the networks were meant to see them; labels: (N,) integers;
soft: (N, K) probabilities of the classes soft_labels.classes in labels.json, or None. Needs NumPy and Pillow.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def load(folder):
    folder = Path(folder)
    told = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    files = [(file, label) for name, label in told["labels"].items() for file in sorted((folder / name).glob("*.png"))]
    pixels = np.stack([np.atleast_3d(np.asarray(Image.open(file))) for file, _ in files])
    images = (pixels.astype(np.float32) / 255 - np.float32(told["mean"])) / np.float32(told["std"])
    soft = told["soft_labels"]
    if soft is not None:
        soft = np.float32([soft["images"][f"{file.parent.name}/{file.name}"] for file, _ in files])
    return images, np.array([label for _, label in files]), soft


if __name__ == "__main__":
    images, labels, soft = load(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    print(images.shape, labels.shape, "with soft labels" if soft is not None else "with labels")
'''


def to_folder(condensed: CondensedSet, folder: str | Path) -> int:
    """Write each decoded image as ``folder/<class name>/<number>.png``, the layout of torchvision's ImageFolder.

    Pixels are clamped to [0, 1] and rounded to 8 bits. Images that are no pixels are mapped to [0, 1] from the least
    and the greatest value of the set. ``labels.json`` says the label (``labels``) and the class name (``names``) of
    each folder; ``mean`` and ``std`` of each channel, by which ``(png / 255 - mean) / std`` are the values of the
    images; the ``range`` that was mapped, or null; and the soft labels of each file, or null. ``load.py`` reads it all.
    If writing fails, no folder is left.

    Returns:
        The number of images written.

    Raises:
        ConfigError: The folder exists and is not empty or is a link, or the images have neither 1 nor 3 channels.
        StoreError: The folder cannot be written.
    """
    refuse(
        instance("condensed", condensed, CondensedSet, "a set, such as the attribute set of a result"),
        errors.path("folder", folder, "the folder"),
    )
    folder = _new(folder)
    pixels, labels = condensed.pixels()
    names = _folder_names({k: condensed.spec.class_names.get(k, str(k)) for k in condensed.classes})
    temporary = temporary_name(folder)  # what a kill leaves of it, the next start of a run around it removes
    written, files = Counter[int](), list[str]()
    for label in labels:
        files.append(f"{names[label]}/{written[label]:05d}.png")
        written[label] += 1
    try:
        with staged(folder, "write"):
            for name in names.values():
                (temporary / name).mkdir(parents=True)
            for image, file in zip(pixels, files, strict=True):
                Image.fromarray(image).save(temporary / file)
            record = json.dumps(_record(condensed, names, files), indent=1)
            (temporary / LABELS).write_text(record, encoding="utf-8")
            (temporary / LOADER).write_text(SCRIPT, encoding="utf-8")
            os.replace(temporary, folder)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
        raise
    return len(pixels)


def to_png_grid(condensed: CondensedSet, path: str | Path, per_class: int = 10) -> None:
    """Write a picture of the images alone, a row for each class, atomically; see :meth:`CondensedSet.picture`.

    Args:
        condensed: The set.
        path: The PNG file; an existing file is replaced, but no link, device or pipe. ``/dev/stdout`` is a stream.
        per_class: Largest number of images of each class.

    Raises:
        ConfigError: The images have neither 1 nor 3 channels.
        StoreError: The file cannot be written.
    """
    refuse(
        instance("condensed", condensed, CondensedSet, "a set, such as the attribute set of a result"),
        errors.path("path", path, "the PNG file"),
    )
    write_bytes_atomic(Path(path), condensed.picture(per_class))


def picture(condensed: CondensedSet, path: str | Path) -> None:
    """Write one picture for people, atomically: the images with class names and scale, see :func:`labelled`.

    Args:
        condensed: The set.
        path: The PNG file; an existing file is replaced, but no link, device or pipe. ``/dev/stdout`` is a stream.

    Raises:
        ConfigError: The images have neither 1 nor 3 channels.
        StoreError: The file cannot be written.
    """
    write_bytes_atomic(Path(path), labelled(condensed))


def to_npz(condensed: CondensedSet, path: str | Path) -> None:
    """Write the decoded images as NumPy arrays, atomically.

    ``images`` (N, C, H, W) float32, normalised as networks see them: ``images * std + mean`` are pixels in [0, 1]
    unless the data were no pixels; ``labels`` (N,) int64; ``mean`` and ``std`` (C,); ``classes`` (K,) labels and
    ``class_names`` (K,) texts; and ``soft_labels`` (N, K) float32, if the set has them.

    Args:
        condensed: The set.
        path: A new file, ``.npz``. ``/dev/stdout`` is a stream.

    Raises:
        ConfigError: The file exists.
        StoreError: It cannot be written.
    """
    path = _free(path)
    images, labels = condensed.decode()
    spec, soft = condensed.spec, condensed.soft_labels
    arrays: dict[str, Any] = {
        "images": images.numpy(),
        "labels": labels.numpy(),
        "mean": np.array(spec.mean, np.float32),
        "std": np.array(spec.std, np.float32),
        "classes": np.array(spec.classes),
        "class_names": np.array([spec.class_names.get(label, str(label)) for label in spec.classes]),
        **({} if soft is None else {"soft_labels": soft.numpy()}),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes_atomic(path, buffer.getvalue())


def to_pt(condensed: CondensedSet, path: str | Path) -> None:
    """Write the decoded images as DC, DSA and DM save them, atomically.

    A dictionary: ``data`` is ``[[images, labels]]``, (N, C, H, W) float32 and (N,) int64; ``accs_all_exps`` is empty;
    ``spec`` says what the values mean, see :meth:`ImageSpec.to_json`: ``images * std + mean`` are pixels in [0, 1]
    unless the data were no pixels. ``torch.load(path, weights_only=True)`` and :func:`read_sets` read it. Soft labels
    are not written.

    Args:
        condensed: The set.
        path: A new file, ``.pt``. ``/dev/stdout`` is a stream.

    Raises:
        ConfigError: The file exists.
        StoreError: It cannot be written.
    """
    images, labels = condensed.decode()
    content = {"data": [[images, labels]], "accs_all_exps": {}, "spec": condensed.spec.to_json()}
    save_pt(_free(path), content)


def to_pair(condensed: CondensedSet, folder: str | Path) -> None:
    """Write the decoded images and their labels as MTT saves them: one tensor in each of two files.

    ``images_best.pt`` holds (N, C, H, W) float32; ``labels_best.pt`` (N,) int64, or the (N, K) probabilities of a set
    with soft labels; ``about.json`` what the values mean, see :func:`to_pt`. :func:`read_sets` reads the three.

    Args:
        condensed: The set.
        folder: A new or empty folder.

    Raises:
        ConfigError: The folder exists and is not empty or is a link.
        StoreError: A file cannot be written.
    """
    folder = _new(folder)
    images, labels = condensed.decode()
    write_json(folder / ABOUT, condensed.spec.to_json())
    save_pt(folder / "labels_best.pt", labels if condensed.soft_labels is None else condensed.soft_labels)
    save_pt(folder / "images_best.pt", images)


def _free(path: str | Path) -> Path:
    """The path of a new file or a stream. Raises ConfigError if the file exists."""
    path = Path(path)
    free = stream_of(path) is not None or not os.path.lexists(path)
    require(free, f"{path} exists: choose another name, or delete it")
    return path


def _new(folder: str | Path) -> Path:
    """The path of a new or empty folder. Raises ConfigError for any other."""
    folder = Path(folder).absolute()
    with staged(folder, "read"):
        used = os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()))
    require(not used, f"{folder} exists and is not an empty folder: choose another folder, or delete it")
    return folder


def _record(condensed: CondensedSet, names: Mapping[int, str], files: list[str]) -> dict[str, Any]:
    """The content of ``labels.json``."""
    spec, soft = condensed.pixel_spec, condensed.soft_labels
    return {
        "labels": {name: label for label, name in names.items()},
        "names": {name: spec.class_names.get(label, str(label)) for label, name in names.items()},
        "mean": list(spec.mean),
        "std": list(spec.std),
        "range": None if condensed.spec.pixels else list(condensed.value_range),
        "soft_labels": None
        if soft is None
        else {"classes": list(spec.classes), "images": dict(zip(files, soft.tolist(), strict=True))},
    }


def _folder_names(names: Mapping[int, str]) -> dict[int, str]:
    """A different and safe folder name for each label: the class name if possible, else with the label added."""
    safe = {k: re.sub(r"[^\w .+()-]+", "_", unicodedata.normalize("NFC", name)) for k, name in names.items()}
    safe = {k: name[:LONGEST].strip(" .") for k, name in safe.items()}
    spelled = Counter(name.casefold() for name in safe.values())  # on some file systems, A and a are the same name
    taken, found = {LABELS, LOADER, "__macosx", "__pycache__"}, {}
    for label, name in safe.items():
        plain = bool(name.strip("_")) and not RESERVED.fullmatch(name) and spelled[name.casefold()] == 1
        chosen = name if plain and name.casefold() not in taken else f"{name.replace('.', '_')}_{label}"
        while chosen.casefold() in taken:
            chosen += "_"
        found[label] = chosen
        taken.add(chosen.casefold())
    return found
