"""Peak memory, in addition to the imports, of a condensation of 50,000 random 32x32 images.

    python benchmarks/speed/memory.py --out FILE [--reference PATH]

Each case has its own process. The peak is that of the resident set in a few steps on a CPU; the case ``compiled``
includes the compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.record import Record, parser, start, write
from benchmarks.speed.public_dm import PublicDM
from benchmarks.speed.random_images import random_images
from condensekit.compute import Machine
from condensekit.driver import condense
from condensekit.methods import DistributionMatching

CASES = ("eager", "compiled", "reference")


def peak_mib() -> float:
    """Largest resident set of this process so far, in MiB."""
    scale = 1 if sys.platform == "darwin" else 1024  # the unit is bytes on macOS and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


def run_case(case: str, args: argparse.Namespace) -> Record:
    """Condense for a few steps in this process."""
    public = PublicDM(args.reference) if case == "reference" else None
    imports_mib = peak_mib()
    data = random_images(args.images, 10)
    if public:
        countdown = iter(range(args.steps))
        with contextlib.suppress(StopIteration):
            public.run(data, args.ipc, args.real_batch, lambda: next(countdown))
    else:
        method = DistributionMatching(batch_real=args.real_batch)
        condense(data, method, ipc=args.ipc, steps=args.steps, machine=Machine("cpu", compiled=case == "compiled"))
    return {"case": case, "imports_mib": imports_mib, "above_import_mib": peak_mib() - imports_mib}


def main() -> None:
    """Run each case in a new process and write the rows."""
    options = parser(__doc__)
    options.add_argument("--reference", type=Path, help="a checkout of VICO-UoE/DatasetCondensation, for a third case")
    options.add_argument("--images", type=int, default=50_000, help="random 32x32 images of 10 classes")
    options.add_argument("--ipc", type=int, default=10, help="synthetic images per class")
    options.add_argument("--real-batch", type=int, default=256, help="real images of each class in a step")
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--out", type=Path, help="file to write")
    options.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # case of the new process
    args = options.parse_args()
    if args.case:
        print(json.dumps(run_case(args.case, args)))
        return
    cases = CASES if args.reference else CASES[:-1]
    rows = []
    for case in cases:
        command = [sys.executable, __file__, "--case", case, *sys.argv[1:]]
        hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # otherwise the reference would use a GPU
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=hidden).stdout
        rows.append(json.loads(output.splitlines()[-1]))
        print(json.dumps(rows[-1]))
    settings = {name: getattr(args, name) for name in ("images", "ipc", "real_batch", "steps")}
    if args.out:
        write(args.out, {"rows": rows, "settings": settings})


if __name__ == "__main__":
    start(main)
