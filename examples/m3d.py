"""All moments at once: M3D (ECHO in its first version), and what it becomes with finite orders or the mean alone.

python examples/m3d.py
"""

from __future__ import annotations

import argparse

import condensekit as ck


def main() -> None:
    """Condense with three discrepancies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    train, _ = ck.load("digits")

    # The recipe is what the paper runs the method with: pixel space and steps that grow with the images of a class;
    # and beside it a random network kept for five steps, and four smaller images in each stored one (of images of
    # 12 x 12 pixels or more: digits are too small for it).
    paper = ck.recipes.m3d()
    print(f"a network for {paper.encoder.keep} steps, {paper.formation.factor**2} images in each stored one")

    # The maximum mean discrepancy compares whole distributions: with a Gaussian kernel, which is M3D, all moments
    # of the embeddings, with a linear one the means alone, as DM does. moments-3 stops at the third.
    # Their gradients differ in size, so each has a step size of its own: tune it on held-out data.
    for name, lr in {"linear": 0.1, "moments-3": 0.003, "gaussian": 1.0}.items():
        made = ck.condense(train, ck.recipes.m3d(discrepancy=name, lr=lr), ipc=2, steps=args.steps)
        first, last = made.history[0]["loss"], made.history[-1]["loss"]
        print(f"{name}: {made.message}; discrepancy {first:.3g} -> {last:.3g}")
    print("On the command line: condensekit condense --data digits --method m3d --ipc 2 --steps 100 --out run")


if __name__ == "__main__":
    main()
