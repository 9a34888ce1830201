"""Picture of the README: accuracy against stored bytes, for memories of Split-CIFAR-10 that a learner replays.

python benchmarks/continual/picture.py docs/accuracy-by-bytes.svg

The cells ``cpu-cifar10-5x5-er-ConvNet-w32``, ``5x10`` and ``5x20`` of ``run.py`` are read from ``benchmarks/results/``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import matplotlib.pyplot as plt

from benchmarks.record import RESULTS, parser, read, start

PER_CLASS = (5, 10, 20)
MEMORIES = {
    "random": ("random images", "#8a8a8a", "o"),
    "avalanche-herding": ("herding (Avalanche)", "#5b7fa6", "s"),
    "jpeg-random": ("random images as JPEG", "#c9a227", "^"),
    "jpeg-kmeans-9": ("k-means images as JPEG", "#3f9b6c", "D"),
    "jpeg-dm-9": ("condensed images (dm) as JPEG", "#c0392b", "o"),
}
NAME = "continual-cpu-cifar10-5x{per_class}-er-ConvNet-w32-{memory}.json"


def draw(path: Path) -> None:
    """Draw the picture; points are means, bars standard deviations over class orders."""
    plt.rcParams["svg.hashsalt"] = "condensekit"  # equal results give an equal file
    plt.rcParams["svg.fonttype"] = "none"
    figure, axes = plt.subplots(figsize=(7.2, 4.0), layout="constrained")
    for shift, (memory, (label, colour, marker)) in enumerate(MEMORIES.items()):
        rows = [read(RESULTS / NAME.format(per_class=n, memory=memory))["row"] for n in PER_CLASS]
        kilobytes = [row["nbytes"] / 1000 * (1 + 0.02 * (shift - 2)) for row in rows]  # so that bars stand apart
        means, spreads = ([100 * row[key] for row in rows] for key in ("final_accuracy_mean", "final_accuracy_std"))
        axes.errorbar(kilobytes, means, spreads, label=label, color=colour, marker=marker, capsize=3, lw=2)
    axes.set_xscale("log")
    axes.set_xticks([154, 308, 616], ["154 kB\n50 plain images", "308 kB\n100", "616 kB\n200"])
    axes.minorticks_off()
    axes.set_xlabel("stored bytes of the memory")
    axes.set_ylabel("accuracy after the last experience, %")
    axes.set_title("Split-CIFAR-10, experience replay, memories of equal bytes", fontsize=11)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.02, 0.64))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Draw the picture of the README."""
    options = parser(__doc__)
    options.add_argument("out", type=Path, metavar="FILE", help="the picture: .svg or .png")
    draw(options.parse_args().out)


if __name__ == "__main__":
    start(main)
