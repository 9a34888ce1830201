"""Peak memory of a data set larger than memory: pictures decoded into a memory map, and a few steps from it.

    python benchmarks/speed/mapped.py --images 250000 --real-batch 64 --out benchmarks/results/mapped.json

It writes random JPEG pictures into a folder of one folder per class, and measures in a new process on a CPU: the
imports, the build of the map, and steps of DM. *Resident* counts all pages of the process, with those of the map, which
the system takes back when it needs them; *anonymous* counts what it cannot take back. Times are told, not judged.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from PIL import Image

from benchmarks.record import Record, parser, start, write
from condensekit.compute import Machine
from condensekit.data import datasets
from condensekit.driver import condense
from condensekit.methods import DistributionMatching
from condensekit.methods.recipe import Recipe
from condensekit.progress import ticking

KINDS = 256  # different pictures, each of which is written several times
SAMPLED_S = 0.01  # between two looks at the anonymous memory


def write_pictures(folder: Path, images: int, classes: int, size: int) -> None:
    """Write JPEG pictures of noise (3, size, size), as many in each class."""
    generator = torch.Generator().manual_seed(0)
    kinds = []
    for pixels in torch.randint(0, 256, (KINDS, size, size, 3), dtype=torch.uint8, generator=generator):
        file = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(file, "JPEG")
        kinds.append(file.getvalue())
    for label in range(classes):
        (folder / f"{label:04d}").mkdir(parents=True)
    for number in range(images):
        (folder / f"{number % classes:04d}" / f"{number}.jpg").write_bytes(kinds[number % KINDS])


def mib(name: str) -> float:
    """An entry of this process's status, such as ``VmHWM``, in MiB."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(f"{name}:"))


@contextmanager
def peaks(part: str, rows: list[Record]) -> Iterator[None]:
    """Add a row with the seconds and the peaks of the work inside."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the former peak
    anonymous, began = [mib("RssAnon")], time.perf_counter()
    with ticking(lambda: anonymous.append(mib("RssAnon")), SAMPLED_S):
        yield
    seconds = round(time.perf_counter() - began, 1)
    rows.append({"part": part, "seconds": seconds, "resident_mib": mib("VmHWM"), "anonymous_mib": max(anonymous)})


def measure(folder: Path, args: argparse.Namespace) -> list[Record]:
    """The rows of each part, measured in this process."""
    rows: list[Record] = []
    with peaks("imports", rows):
        pass
    with peaks("map", rows):
        train, _ = datasets.load(folder / "data", mmap=folder / "maps")
    recipe = Recipe(DistributionMatching(batch_real=args.real_batch), classes_per_step=args.classes_per_step)
    with peaks("condense", rows):
        condense(train, recipe, ipc=args.ipc, steps=args.steps, machine=Machine("cpu", compiled=False))
    return rows


def main() -> None:
    """Write the pictures, measure in a new process, and write the rows."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=250_000, help="pictures")
    options.add_argument("--size", type=int, default=64, help="height and width of each")
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--classes-per-step", type=int, default=50)
    options.add_argument("--ipc", type=int, default=1, help="synthetic images per class")
    options.add_argument("--real-batch", type=int, default=128, help="real images of each class in a step")
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--folder", type=Path, help="where pictures and map are written, and removed in the end")
    options.add_argument("--out", type=Path, help="file to write")
    options.add_argument("--measured", type=Path, help=argparse.SUPPRESS)  # the folder, in the new process
    args = options.parse_args()
    if args.measured:
        print(json.dumps(measure(args.measured, args)))
        return
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        write_pictures(folder / "data", args.images, args.classes, args.size)
        command = [sys.executable, __file__, "--measured", str(folder), *sys.argv[1:]]
        hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=hidden).stdout
        rows = json.loads(output.splitlines()[-1])
        size = sum(file.stat().st_size for file in (folder / "maps").glob("*.npy"))
    finally:
        shutil.rmtree(folder)
    imports = rows[0]
    for row in rows:
        row |= {f"{kind}_above_mib": row[f"{kind}_mib"] - imports[f"{kind}_mib"] for kind in ("resident", "anonymous")}
        print(json.dumps(row))
    names = ("images", "size", "classes", "classes_per_step", "ipc", "real_batch", "steps")
    if args.out:
        write(args.out, {"rows": rows, "map_bytes": size, "settings": {name: getattr(args, name) for name in names}})


if __name__ == "__main__":
    start(main)
