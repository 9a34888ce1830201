"""Runs on digits, small and without Avalanche: what the tests of the study start."""

from dataclasses import replace

from condensekit.compute import Machine
from condensekit.networks.convnet import ConvNet
from condensekit.replay.study.memories import Making
from condensekit.replay.study.protocol import Online, Settings
from condensekit.replay.study.runner import run_protocol
from condensekit.training.train import SHORT

NET = ConvNet(width=8)
SMALL = Settings(
    experiences=5,
    ipc=2,
    orders=2,
    network=NET,
    protocol=replace(SHORT, epochs=10, full_epochs=1),
    online=Online(epochs=1, lr=0.05, batch=64, batch_mem=16),
)
PLAIN = Making(steps=3, machine=Machine("cpu"))
MAKING = replace(PLAIN, options={"batch_real": 8, "encoder_network": "ConvNet-w8"})
LONG = replace(MAKING, steps=105)  # with a checkpoint on the way


def go(digits, out, memories=("dm", "random"), settings=SMALL, making=MAKING, **options):
    return run_protocol(*digits, memories=memories, out=out, settings=settings, making=making, **options)
