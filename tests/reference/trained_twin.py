"""The network of a step on the way between two trainings' ends, tensor by tensor in float64."""

import torch

from condensekit.rng import Draw


def weights_at(prepared, seed, step, attempt, count, keep):
    """What each tensor of the module is to hold; counters are those of the end."""
    turn = Draw(seed, (step - 1) // keep, attempt)
    which = int(turn.integers("encoder/which", torch.zeros(1), 1, count))
    way = float(turn.uniform("encoder/way", torch.zeros(1), 1))
    found = {}
    for name, ends in prepared.items():
        if name.startswith("final/"):
            plain = name.removeprefix("final/")
            start, end = prepared["initial/" + plain][which], ends[which]
            found[plain] = (1 - way) * start.double() + way * end.double() if end.is_floating_point() else end
    return found
