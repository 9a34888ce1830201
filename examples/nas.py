"""Rank the architectures of a space of your own on a condensed set, and see how good the ranking is.

python examples/nas.py
"""

import argparse
from pathlib import Path

import nni
from nni.mutable import ensure_frozen
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

import condensekit as ck
from condensekit.nas import Contest, FullTraining, Maker, ProxyProtocol, Running, Setting, ranker


class Digits(ModelSpace):
    """24 small networks for 8x8 digits: a width, an activation, and how the map is made smaller."""

    def __init__(self) -> None:
        super().__init__()
        width = ensure_frozen(self.add_mutable(nni.choice("width", [2, 4, 8, 16])))
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.act = LayerChoice({"relu": nn.ReLU(), "tanh": nn.Tanh()}, label="act")
        self.pool = LayerChoice({"max": nn.MaxPool2d(4), "avg": nn.AvgPool2d(4), "none": nn.Identity()}, label="pool")
        self.last = nn.LazyLinear(10)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 8, 8) images to (N, 10) logits."""
        logits: Tensor = self.last(self.pool(self.act(self.first(images))).flatten(1))
        return logits


def main() -> None:
    """Condense, rank, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("nas"), help="folder for the sets and the trials")
    args = parser.parse_args()

    whole, test = ck.load("digits")
    train, held_out = whole.split(0.2, seed=0)  # candidates are scored on images that the sets have not seen
    protocol = ProxyProtocol(steps=24, augmentation=None)
    setting = Setting(Maker(train, steps=50, folder=args.out / "sets"), held_out, protocol, ipc=5)

    # Every ranker scores the same twelve architectures; full training says which of them are good.
    rankers = [ranker(name) for name in ("dm", "random", "params", "dm+params")]
    full = FullTraining(whole, test, ProxyProtocol(epochs=3, augmentation=None))
    contest = Contest(Digits(), rankers, setting, trials=12, truth=full)

    # Killed and started again, it goes on where it stopped: every finished trial is in nas/trials.jsonl.
    found = contest.run(Running(engine="sequential", folder=args.out))
    print(found)
    print("best:", found.best)


if __name__ == "__main__":
    main()
