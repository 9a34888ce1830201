"""Cost of filling a memory from one experience: seconds, bytes and peak memory, for several memories.

    python benchmarks/continual/experience.py --data cifar100 --experiences 10 --ipc 20 --out FILE

The experience is the first of class order 0, with the images of the training set. No network is trained on the memory.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.continual.run import peak_memory
from benchmarks.record import Record, data_parser, start, write
from condensekit.compute import Machine
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError
from condensekit.replay.memory.base import Job
from condensekit.replay.memory.content import spent_on
from condensekit.replay.memory.fillers import filled
from condensekit.replay.study.memories import Making, memory
from condensekit.replay.study.protocol import Settings, numbered


def measure(name: str, data: ClassImages, images: int, making: Making, args: argparse.Namespace) -> Record:
    """Row of one memory; passes are over all ``images`` of the training set."""
    kind = memory(name, making)
    if kind.filler is None:
        raise ConfigError(f"no method of this package makes memory {name!r}: use a memory such as dm or herding")
    with peak_memory() as peak:
        parts = filled(kind.filler, data, args.ipc, Job(steps=making.steps, machine=making.machine))
    seconds, spent = spent_on(parts.values())
    return {
        "memory": name,
        "images": sum(map(len, parts.values())),
        "nbytes": sum(part.nbytes for part in parts.values()),
        "condense_s": seconds,
        "work": {**asdict(spent), **spent.passes(images, data.spec.shape)},
        "peak_mib": peak,
    }


def main() -> None:
    """Measure each memory and write the rows."""
    parser = data_parser(__doc__)
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--experiences", type=int, default=10, help="experiences of the stream")
    parser.add_argument("--ipc", type=int, default=20)
    parser.add_argument("--memory", nargs="+", default=["random", "herding", "dm", "m3d", "hybrid"])
    parser.add_argument("--steps", type=int, default=100, help="matching steps")
    parser.add_argument("--batch-real", type=int, default=64)
    parser.add_argument("--encoder-network", default="ConvNet-w64", help="network that embeds images")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    train, _ = numbered(*datasets.load(args.data, root=args.data_root, trust_local_copy=args.trust_local_copy))
    classes = Settings(experiences=args.experiences).stream(0, len(train.classes))[0]
    options = {"batch_real": args.batch_real, "encoder_network": args.encoder_network}
    making = Making(args.steps, options, machine=Machine(args.device))
    rows = []
    for name in args.memory:
        rows.append(measure(name, train.select(classes), len(train), making, args))
        print(f"{name}: {rows[-1]['condense_s']:.1f} s, {rows[-1]['nbytes']:,} bytes", flush=True)
    asked = ("data", "experiences", "ipc", "steps", "batch_real", "encoder_network", "device")
    settings = {**{name: getattr(args, name) for name in asked}, "classes": len(classes)}
    write(args.out, {"experience": rows, "settings": settings})


if __name__ == "__main__":
    start(main)
