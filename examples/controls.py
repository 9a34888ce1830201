"""What a condensed set has to beat: real images in the same bytes, as they are, packed four in one, or coded as JPEG.

python examples/controls.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import condensekit as ck
from condensekit.catalog import protocol


def main() -> None:
    """Choose, count bytes, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ipc", type=int, default=5, help="images per class whose bytes all three may take")
    args = parser.parse_args()
    train, test = ck.load("digits", image_size=16)

    # The first two take as many bytes; JPEG as many as fit into those of the pixels, one image at least.
    sets = {
        "random": ck.select(train, "random", ipc=args.ipc, formation=ck.Formation(dtype="uint8")),
        "packed-random": ck.select(train, "random", ipc=args.ipc, formation=ck.Formation(factor=2, dtype="uint8")),
        "jpeg-random": ck.select(train, "jpeg-random quality=50", ipc=args.ipc),
    }
    for name, made in sets.items():
        print(f"{name}: {len(made.decode()[0])} images to train on, {made.nbytes:,} bytes")
    short = replace(protocol("short"), steps=60)
    print(ck.evaluate(sets, test, against=None, network="ConvNet-w32", networks=1, protocol=short))


if __name__ == "__main__":
    main()
