"""What condensing one experience takes: seconds, bytes and memory, for several kinds of memory.

    python benchmarks/experience.py --data cifar100 --steps 10 --per-class 20 --json FILE

The classes are those of the first step of class order 0, their real images those of the training set. No network is
trained on the memory.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from continual import peak_memory
from record import start, write

from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError
from condensekit.replay.memory.content import SECONDS
from condensekit.replay.memory.fillers import filled
from condensekit.replay.study.memories import Making, memory
from condensekit.replay.study.protocol import Settings, numbered


def measure(name: str, data: ClassImages, making: Making, args: argparse.Namespace) -> dict[str, Any]:
    """One memory's row."""
    kind = memory(name, making, args.data)
    if kind.filler is None:
        raise ConfigError(f"{name!r} is made by no method of this package: use one such as dm or herding")
    with peak_memory() as peak:
        parts = filled(kind.filler, data, args.per_class, replace(kind.how, device=args.device))
    return {
        "memory": name,
        "images": sum(map(len, parts.values())),
        "nbytes": sum(part.nbytes for part in parts.values()),
        "condense_s": sum(part.provenance[SECONDS] for part in parts.values()),
        "peak_mib": peak,
    }


def main() -> None:
    """Measure each memory and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets (default: $CONDENSEKIT_DATA)")
    parser.add_argument("--trust-local-copy", action="store_true", help="read local copies whose checksum differs")
    parser.add_argument("--steps", type=int, default=10, help="experiences of the whole stream")
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--memory", nargs="+", default=["random", "herding", "dm", "m3d", "hybrid"])
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--batch-real", type=int, default=64)
    parser.add_argument("--network", default="ConvNet-w64", help="what embeds")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    train, _ = numbered(*datasets.load(args.data, root=args.data_root, trust_local_copy=args.trust_local_copy))
    classes = Settings(steps=args.steps).experiences(0, len(train.classes))[0]
    making = Making(args.iterations, args.batch_real, args.network)
    rows = []
    for name in args.memory:
        rows.append(measure(name, train.select(classes), making, args))
        print(f"{name}: {rows[-1]['condense_s']:.1f} s, {rows[-1]['nbytes']:,} bytes", flush=True)
    asked = ("data", "steps", "per_class", "iterations", "batch_real", "network", "device")
    settings = {**{name: getattr(args, name) for name in asked}, "classes": len(classes)}
    write(args.json, {"experience": rows, "settings": settings})


if __name__ == "__main__":
    start(main)
