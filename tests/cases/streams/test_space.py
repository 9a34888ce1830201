"""Memory lies in the space of the learner's inputs."""

from types import SimpleNamespace

import torch
from avalanche.benchmarks import nc_benchmark
from torchvision import transforms

from condensekit.errors import CondensekitError
from condensekit.replay import CondensedBuffer, Images
from tests.cases.streams.digits import dataset


def scale(data):
    """Standard deviation of all pixels."""
    return float(torch.stack([row[0] for row in data.train()]).std())


def test_a_stream_that_normalises_in_training_alone_is_refused_or_replayed_in_its_scale():
    images = torch.rand(48, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = dataset((images * 255).round() / 255, torch.arange(4).repeat(12))
    normalise = transforms.Normalize((0.5,) * 3, (0.25,) * 3)
    unchanged = transforms.Lambda(lambda image: image)
    first = nc_benchmark(
        data, data, 2, task_labels=False, seed=0, train_transform=normalise, eval_transform=unchanged
    ).train_stream[0]
    memory = CondensedBuffer(Images(8), "random")
    try:
        memory.post_adapt(SimpleNamespace(model=None, plugins=[], device="cpu"), first)
    except CondensekitError:
        return
    assert 0.8 < scale(memory.buffer) / scale(first.dataset) < 1.25
