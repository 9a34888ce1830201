from torch import nn

from condensekit.nas import build, space
from condensekit.networks.convnet import ConvNet
from condensekit.networks.cost import count, values


def test_parameters_and_operations_of_a_known_network():
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 5))
    cost = count(module, (3, 4, 4))
    assert cost.params == 8 * 27 + 8 + 16 + 5 * 128 + 5
    assert cost.flops == 2 * (16 * 8 * 27 + 128 * 5)


def test_the_numbers_of_all_layers():
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(128, 5)))
    assert values(module, (3, 4, 4)) == 128 + 128 + 128 + 5
    assert values(ConvNet().build((3, 32, 32), 10), (3, 32, 32)) == 559_114


def test_counting_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 2))
    module[2].eval()
    count(module, (1, 4, 4))
    assert module.training
    assert not module[2].training
    assert module[0].num_batches_tracked == 0


def test_spaces_on_which_nnis_profiler_fails():
    cell = {f"cell/{i}_{j}": "none" for j in (1, 2, 3) for i in range(j)}
    empty = count(build(space("nasbench201", stem=4, cells=1), cell), (3, 32, 32))
    full = count(build(space("nasbench201", stem=4, cells=1), dict.fromkeys(cell, "conv_3x3")), (3, 32, 32))
    assert 0 < empty.flops < full.flops
    assert empty.params < full.params
