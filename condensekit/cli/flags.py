"""Flags: translation of the arguments in the library's messages into options of the command line."""

from __future__ import annotations

import re
from collections.abc import Callable


def flag(argument: str) -> str:
    """``soft_labels`` -> ``--soft-labels``."""
    return "--" + argument.replace("_", "-")


def _numbers(listed: str) -> str:
    """``0.5, 0.5`` -> ``0.5,0.5``."""
    return listed.replace(" ", "").strip(",")


FLAGS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (
        r"\b(resume|overwrite|download|nested|compiled|soft_labels|trust_local_copy)=True\b",
        lambda found: flag(found[1]),
    ),
    (
        r"\b(larger|fewer|smaller|narrower) (budget|steps|ipc|encoder_network)\b",
        lambda found: f"{found[1]} {flag(found[2])}",
    ),
    (r"\baugmentation=None\b", "--augment none"),
    (r"\bencoder=Trained\(\)", "--encoder trained"),
    (r"\b(space|labels|optimiser|schedule)='(\w+)'", r"--set \1=\2"),
    (r"\bimage_size=N\b", "--image-size N"),
    (r"\bpass larger images, or use pooling='none'", "use a larger --image-size"),
    (r"\blayout='(\w+)'", r"--layout \1"),
    (r"\bvalues=\(\(([^)]*)\), \(([^)]*)\)\)", lambda found: f"--values {_numbers(found[1])}/{_numbers(found[2])}"),
    (r"\bgive factor=(\d+)", r"give --factor \1"),
    (r"\bor factor=1 if", "or --factor 1 if"),
    (r"\broot=FOLDER\b", "--data-root FOLDER"),
    (r"\bmmap=FOLDER\b", "--mmap FOLDER"),
    (r"\bor load\(\) it as data\b", "or use it as --data"),
    (r"\bsplits=False\b", "--no-splits"),
    (r"\bthe name '(\w+)' with root='([^']+)'", r"--data \1 --data-root '\2'"),
    (r"\bgive it a value, (\w+)=VALUE", r"give it a value (--set \1=VALUE)"),
    (r"\btakes no (\w+): ", lambda found: f"takes no {flag(found[1])}: "),
    (r"\buse (encoder|precision|device|factor)='?(\w+)'?", r"use --\1 \2"),
    (r"\bgot (steps|minutes)=", r"got --\1 "),
    (r"\bagain in memories\b", "again in --memory"),
    (r", or a memory spec=ck\.ImageSpec\(.*\)", ""),
    (
        r"\bis not an empty folder: choose another folder, or delete it\b",
        "is not an empty folder: choose another --to, or delete it",
    ),
    (r"\bnetworks=(\d+)", r"--networks \1"),
    (
        r"\bread it with condensekit\.read_sets, and save the set that it gives",
        "write it as a set by `condensekit export FILE --safetensors SET`",
    ),
    (r"\bgive ipc=, the images of each class, or room=,", "give --ipc, the images of each class, or --bytes,"),
    (
        r"\bsearch=True finds the number of images in room= bytes: give room,",
        "--search finds the number of images in --bytes: give --bytes,",
    ),
    (r", and no ipc\b", ", and no --ipc"),
    (r"\broom= chooses the quality: leave out quality=, or room=", "--bytes chooses the quality: leave out --quality"),
    (r"\bgot quality=", "got --quality "),
    (r"\bsets of (\d+) seeds", r"--seeds \1"),
    (r"\blearner_encoder=False\b", "--own-encoder"),
    (r"\bflippable=False\b", "--augment without flip"),
    (r"\banother folder\b", "another --out"),
)
"""Arguments as the library's messages write them, each with its option on the command line."""


def as_flags(text: str) -> str:
    """A message of the library, with its arguments written as options of the command line."""
    for argument, option in FLAGS:
        text = re.sub(argument, option, text)
    return text
