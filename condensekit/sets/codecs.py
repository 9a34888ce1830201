"""Codecs: the table of the forms in which images are stored as codes."""

from __future__ import annotations

from condensekit.sets.bits import Bits
from condensekit.sets.codes import Codec
from condensekit.sets.pictures import Jpeg, Mosaic

JPEG = "jpeg"  # one picture for each image
FULL_COLOUR = "4:4:4"  # subsampling of colours: none
CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        *(Bits(bits) for bits in range(2, 9)),
        Jpeg(),
        Mosaic("JPEG", range(1, 96), 20, {"optimize": True}, {"subsampling": FULL_COLOUR}),
        Mosaic("WEBP", range(1, 101), 15, {"method": 6}),
        Mosaic(
            "AVIF",
            range(1, 101),
            20,  # at 18 to 27 random images taught most, on CIFAR-10 and Fashion-MNIST in the bytes of ten
            {"speed": 6, "advanced": {"tune": "psnr"}},  # 0.4 dB better than Pillow's default on CIFAR-10, and faster
            {"subsampling": FULL_COLOUR},
            {"subsampling": "4:0:0"},
            "Pillow 11.3 or later",
        ),
    )
}
"""Codecs by the name of a storage: 2 to 8 bits a value, single JPEG pictures, and one picture of each class."""
