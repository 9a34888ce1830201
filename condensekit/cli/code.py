"""Command ``code``: code the images of a set as JPEG."""

from __future__ import annotations

from pathlib import Path

import click

from condensekit.cli import show
from condensekit.cli.kinds import MANY, Command, Location, Whole, option
from condensekit.cli.next import ending
from condensekit.cli.options import JSON
from condensekit.report.words import holds
from condensekit.runs.folder import RunDir
from condensekit.sets.found import find, find_one, read
from condensekit.sets.jpeg import as_jpeg, plain_bytes

HELP = """Code the images of RUN as JPEG: more images in the same bytes.

Each class gets the highest quality at which its files and labels take no more bytes than --ipc images of 8-bit pixels.
Therefore condense more images first: nine times as many for CIFAR-10, twice as many for Fashion-MNIST, with lr raised
in proportion. Compare the result with jpeg-random, which is real images in the same bytes. Values that are no
pixels, of data that came normalised, are mapped to pixels and back.

\b
Examples:
  condensekit condense --data cifar10 --lr 20 --ipc 90 --steps 1000 --out run-90
  condensekit code run-90 --ipc 10 --out runs/jpeg-dm
  condensekit evaluate runs/jpeg-dm --against jpeg-random,random
"""


@click.command("code", cls=Command, help=HELP)
@click.argument("run", type=Location())
@option(
    "--ipc",
    type=Whole(min=1, max=MANY),
    required=True,
    help="Images per class, not coded, that give the bytes.",
)
@option("--out", type=Location("folder"), required=True, metavar="RUN", help="A new or empty folder.")
@option("--seed", type=Whole(), help="Seed of one set, if RUN has several sets.  [default: all sets]")
@JSON
def command(run: Path, ipc: int, out: Path, seed: int | None, as_json: bool) -> None:
    """Code each set of the run into its own folder."""
    rows = []
    for file in find(run) if seed is None else [find_one(run, seed)]:
        made = read(file)
        found = as_jpeg(made.set, plain_bytes(made.set.spec.shape, ipc))
        config = {**made.config, "name": f"jpeg {made.set.name}", "ipc": ipc, "coded": made.config.get("ipc")}
        folder = out / file.parent.relative_to(run)
        with RunDir.create(folder, config, False, config.pop("data_fingerprint", "")) as place:
            found.save(place.path / file.name)
            show.images(found, place.path)
        coded = {name: found.provenance["jpeg"][name] for name in ("quality", "range")}
        rows.append({"run": str(folder), "images": len(found), "nbytes": found.nbytes, **coded})
    lines = [
        f"{row['run']}: {row['images']} images in {row['nbytes']:,} bytes, of quality {min(row['quality'])} to "
        f"{max(row['quality'])}"
        + (f"; values from {row['range'][0]:.3g} to {row['range'][1]:.3g}" if row["range"] else "")
        for row in rows
    ]
    told = f"{holds(found, len(rows))}, in the bytes of {ipc} plain images of each class or fewer."
    wanted = ("evaluate", out, "--against", "jpeg-random,random")
    end = ending(out, told, "compare them with real images in the same bytes", *wanted)
    show.emit(as_json, {"runs": rows}, "\n".join([*lines, end]))
