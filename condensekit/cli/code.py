"""Command ``code``: a set's images as JPEG."""

from __future__ import annotations

from pathlib import Path

import click

from condensekit.cli import show
from condensekit.cli.options import JSON, Command, option
from condensekit.runs.folder import RunDir
from condensekit.sets.found import find, find_one, read
from condensekit.sets.jpeg import as_jpeg, plain_bytes

HELP = """Code the images of RUN as JPEG: more of them in the same bytes.

Each class gets the highest quality at which its files and labels take no more than --ipc plain images of 8-bit pixels.
So condense several times as many first: nine for one of CIFAR-10, two for one of Fashion-MNIST, with a step size that
grows with their number. The rival to compare with is jpeg-random, real images in the same bytes.

\b
Examples:
  condensekit condense --data cifar10 --method dm --lr 20 --ipc 90 --steps 1000 --out runs/dm-90
  condensekit code runs/dm-90 --ipc 10 --out runs/jpeg-dm
  condensekit evaluate runs/jpeg-dm --against jpeg-random,random
"""


@click.command("code", cls=Command, help=HELP)
@click.argument("run", type=click.Path(path_type=Path))
@option(
    "--ipc", type=click.IntRange(min=1), required=True, metavar="N", help="Plain images per class that they replace."
)
@option("--out", type=click.Path(path_type=Path), required=True, metavar="RUN", help="A new or empty folder.")
@option("--seed", type=int, help="Which set of a RUN that has several.  [default: all]")
@JSON
def command(run: Path, ipc: int, out: Path, seed: int | None, as_json: bool) -> None:
    """Code the sets of the run, each into a folder of its own."""
    rows = []
    for file in find(run) if seed is None else [find_one(run, seed)]:
        made = read(file)
        found = as_jpeg(made.set, plain_bytes(made.set.spec.shape, ipc))
        config = {**made.config, "name": f"jpeg {made.set.name}", "ipc": ipc, "coded": made.config.get("ipc")}
        folder = out / file.parent.relative_to(run)
        with RunDir.create(folder, config, False, config.pop("data_fingerprint", "")) as place:
            found.save(place.path / file.name)
        quality = found.provenance["jpeg"]["quality"]
        rows.append({"run": str(folder), "images": len(found), "nbytes": found.nbytes, "quality": quality})
    lines = [
        f"{row['run']}: {row['images']} images in {row['nbytes']:,} bytes, of quality {min(row['quality'])} to "
        f"{max(row['quality'])}"
        for row in rows
    ]
    show.emit(as_json, {"runs": rows}, "\n".join(lines))
