"""Condensation by kernel ridge regression, with labels that are learned as well.

python examples/kernel_ridge.py
"""

from __future__ import annotations

import argparse

import condensekit as ck


def main() -> None:
    """Condense with fixed and with learned soft labels, and count what the labels take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    train, test = ck.load("digits")

    # A regression on the features of random networks, fitted to the synthetic images in closed form, is to
    # predict the labels of real ones. All classes share one Gram matrix.
    made = {labels: ck.condense(train, f"krr labels={labels}", ipc=1, steps=args.steps) for labels in ("fixed", "soft")}
    for labels, result in made.items():
        print(f"{labels}: {result.message}; {result.set.nbytes} bytes")
    # Soft labels fit the regression better. With one image per class they teach a network less than fixed labels:
    # the table says so, and a larger ipc or more steps may turn it round.
    print(ck.evaluate(made, test, train=train, networks=1))


if __name__ == "__main__":
    main()
