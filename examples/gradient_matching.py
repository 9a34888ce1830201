"""Gradient matching: DC from noise without augmentation, DSA from real images with it.

python examples/gradient_matching.py
"""

from __future__ import annotations

import argparse

import condensekit as ck


def main() -> None:
    """Condense with both, print how the distance between gradients falls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="matching steps")
    args = parser.parse_args()
    train, _ = ck.load("digits")

    # `outer` matching steps with one network, `inner` epochs of training it on the set after each of them. Left
    # out, they follow the papers: (1, 1) at one image per class, (10, 50) at ten. A name brings the paper's start
    # and augmentation; a mirrored digit is no digit, so nothing is mirrored here.
    for recipe in (ck.recipes.dc(batch_real=32, outer=5, inner=2), ck.recipes.dsa(batch_real=32, outer=5, inner=2)):
        made = ck.condense(train, recipe, ipc=2, steps=args.steps)
        first, last = made.history[0]["loss"], made.history[-1]["loss"]
        print(f"{recipe.method.name}: {made.message}; distance {first:.1f} -> {last:.1f}")


if __name__ == "__main__":
    main()
