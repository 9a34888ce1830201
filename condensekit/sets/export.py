"""Export: condensed images as a folder of PNG files, and as one picture."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from PIL import Image

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError
from condensekit.runs.files import staged, temporary_name, write_bytes_atomic
from condensekit.sets.condensed import CondensedSet


def to_folder(condensed: CondensedSet, folder: str | Path) -> int:
    """Write each decoded image as ``folder/<class name>/<number>.png``, the layout of torchvision's ImageFolder.

    Pixels are clamped to [0, 1] and rounded to 8 bits; soft labels are left out. If writing fails, no
    folder is left.

    Returns:
        The number of images written.

    Raises:
        ConfigError: The folder exists and is not empty or is a link, or the images have neither 1 nor 3 channels.
        StoreError: The folder cannot be written.
    """
    folder = Path(folder).absolute()
    with staged(folder, "read"):
        used = os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()))
    if used:
        raise ConfigError(f"{folder} exists and is not an empty folder: choose another folder")
    pixels, labels = condensed.pixels()
    names = _folder_names(condensed.classes, condensed.spec)
    temporary = temporary_name(folder)  # what a kill leaves of it, the next start of a run around it removes
    written = dict.fromkeys(condensed.classes, 0)
    try:
        with staged(folder, "write"):
            for name in names.values():
                (temporary / name).mkdir(parents=True)
            for image, label in zip(pixels, labels, strict=True):
                Image.fromarray(image).save(temporary / names[label] / f"{written[label]:05d}.png")
                written[label] += 1
            os.replace(temporary, folder)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
        raise
    return len(pixels)


def to_png_grid(condensed: CondensedSet, path: str | Path, per_class: int = 10) -> None:
    """Write one picture with a row for each class, atomically; see :meth:`CondensedSet.picture`.

    Args:
        condensed: The set.
        path: The PNG file; an existing file is replaced, but no link, device or pipe. ``/dev/stdout`` is a stream.
        per_class: Largest number of images of each class.

    Raises:
        ConfigError: The images have neither 1 nor 3 channels.
        StoreError: The file cannot be written.
    """
    write_bytes_atomic(Path(path), condensed.picture(per_class))


def _folder_names(labels: tuple[int, ...], spec: ImageSpec) -> dict[int, str]:
    """A different and safe folder name for each label: the class name if possible, else with the label added."""
    safe = {k: re.sub(r"[^\w .+()-]+", "_", spec.class_names.get(k, str(k))).strip(" .") for k in labels}
    spelled = [name.lower() for name in safe.values()]  # on some file systems, A and a are the same name
    good = {k: bool(name.strip("_")) and spelled.count(name.lower()) == 1 for k, name in safe.items()}
    return {k: name if good[k] else f"{name}_{k}" for k, name in safe.items()}
