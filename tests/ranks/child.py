"""What the processes of torchrun do in the tests: compare runs that ranks share with runs of one rank, and others.

    torchrun --nproc-per-node N -m tests.ranks.child CASE [FOLDER]

Rank 0 prints one JSON object.
"""

import condensekit as ck
from condensekit.methods.base import keep_if

RECIPES = {
    "dm": "dm batch_real=8 encoder.network=ConvNet-w8-d1",
    "m3d": "m3d batch_real=8 encoder_network=ConvNet-w8-d1 init=kmeans",
}


class Bad(ck.DistributionMatching):
    """DM, whose step 2 is not finite for class 5 in the first attempt, and neither step 4 in both."""

    def step(self, state, ctx):
        new, metrics = super().step(state, ctx)
        bad = 5 in ctx.data.classes and (ctx.draw.step, ctx.draw.attempt) in ((2, 0), (4, 0), (4, 1))
        finite = metrics["finite"] & (not bad)
        return keep_if(finite, new, state), {**metrics, "finite": finite}
