"""Command ``code``: store the images of a set in another form, in a number of bytes."""

from __future__ import annotations

from pathlib import Path

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.kinds import MANY, Choice, Command, Location, Whole, option
from condensekit.cli.next import ending
from condensekit.cli.options import BYTES, JSON
from condensekit.errors import require
from condensekit.report.words import holds
from condensekit.runs.folder import RunDir
from condensekit.selection.classic import Random
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.sets.codecs import JPEG
from condensekit.sets.coding import plain_bytes
from condensekit.sets.formation import STORAGES, Formation
from condensekit.sets.found import find, find_one, read

HELP = """Store the images of RUN in another form: more images in the same bytes.

--storage jpeg makes a picture of each image, avif-mosaic one picture of all images of a class, which holds nearly twice
as many at equal quality; 4bit stores values with four bits each. Of pictures, each class gets the highest quality at
which it takes no more bytes than --ipc images of 8-bit pixels with their labels, or than --bytes.

Therefore condense more images first: nine times as many for CIFAR-10, twice as many for Fashion-MNIST, with lr raised
in proportion. Compare the result with real images in the same bytes: jpeg-random, avif-random. Values that are no
pixels, of data that came normalised, are mapped to pixels and back.

\b
Examples:
  condensekit condense --data cifar10 --lr 20 --ipc 90 --steps 1000 --out run-90
  condensekit code run-90 --ipc 10 --out runs/jpeg-dm
  condensekit evaluate runs/jpeg-dm --against jpeg-random,random
  condensekit code run-90 --storage avif-mosaic --bytes 30720 --out runs/avif-dm
"""


@click.command("code", cls=Command, help=HELP)
@click.argument("run", type=Location())
@option(
    "--ipc",
    type=Whole(min=1, max=MANY),
    help="Images per class, not coded, that give the bytes.",
)
@BYTES
@option("--quality", type=Whole(min=1, max=100), help="Quality of pictures, instead of a number of bytes.")
@option(
    "--storage",
    type=Choice(STORAGES),
    default=JPEG,
    help="How the images are stored: jpeg, webp-mosaic, avif-mosaic, 4bit, ... (see `condensekit select --help`).",
)
@option("--out", type=Location("folder"), required=True, metavar="RUN", help="A new or empty folder.")
@option("--seed", type=Whole(), help="Seed of one set, if RUN has several sets.  [default: all sets]")
@JSON
def command(
    run: Path,
    ipc: int | None,
    room: int | None,
    quality: int | None,
    storage: str,
    out: Path,
    seed: int | None,
    as_json: bool,
) -> None:
    """Store each set of the run in its own folder."""
    given = [name for name, value in (("--ipc", ipc), ("--bytes", room), ("--quality", quality)) if value is not None]
    require(len(given) < 2, f"{' and '.join(given)} each say how small the images become: give one of them")
    rows = []
    for file in find(run) if seed is None else [find_one(run, seed)]:
        made = read(file)
        shape = made.set.spec.shape
        limit = plain_bytes(shape, ipc) if ipc else room
        found = made.set.stored_as(storage, room=limit, quality=quality)
        plain = limit or max(found.sizes()[found.labels == label].sum().item() for label in found.classes)
        plain = ipc or max(1, round(plain / plain_bytes(shape, 1)))
        more = {"ipc": plain, "coded": made.config.get("ipc"), "room": limit}
        config = {**made.config, "name": f"{storage} {made.set.name}", **more}
        folder = out / file.parent.relative_to(run)
        with RunDir.create(folder, config, False, config.pop("data_fingerprint", "")) as place:
            found.save(place.path / file.name)
            show.images(found, place.path)
        coded = {name: found.provenance.get("storage", {}).get(name) for name in ("quality", "range")}
        rows.append({"run": str(folder), "images": len(found), "nbytes": found.nbytes, **coded})
    lines = [
        f"{row['run']}: {row['images']} images in {row['nbytes']:,} bytes"
        + (f", of quality {min(row['quality'])} to {max(row['quality'])}" if row["quality"] else "")
        + (f"; values from {row['range'][0]:.3g} to {row['range'][1]:.3g}" if row["range"] else "")
        for row in rows
    ]
    told = f"{holds(found, len(rows))}, in the bytes of {plain} plain images of each class or fewer."
    control = JpegRandom.name if storage == JPEG else catalog.baseline_name(Random(), Formation(dtype=storage))
    wanted = ("evaluate", out, "--against", f"{control},random")
    end = ending(out, told, "compare them with real images in the same bytes", *wanted)
    show.emit(as_json, {"runs": rows}, "\n".join([*lines, end]))
