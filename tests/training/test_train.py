from dataclasses import replace

import pytest
import torch
from torch import nn

from condensekit.compute import Compute, Machine
from condensekit.errors import ConfigError
from condensekit.networks.convnet import ConvNet
from condensekit.networks.resnet import ResNet18
from condensekit.progress import Stage
from condensekit.rng import Draw
from condensekit.testing import LABELS, shapes
from condensekit.training.augment import Augmentation
from condensekit.training.train import DC, IDC, SHORT, TrainProtocol, accuracy, batches, class_indices, train_network

NARROW = ConvNet(width=8)
PLAIN = TrainProtocol("plain", epochs=6, full_epochs=2, batch=20, milestones=(0.5, 0.75), augmentation=None)


@pytest.fixture
def compute():
    with Compute(Machine("cpu", chunk=8, workers=0)) as compute:
        yield compute


def decoded(per_class=12):
    data = shapes(per_class)
    return data.gather(data.order), class_indices(data.labels[data.order], data.classes)


def train(compute, protocol=PLAIN, network=NARROW, seed=0, images=None, targets=None, **options):
    if images is None:
        images, targets = decoded()
    return train_network(images, targets, network, protocol, Draw(seed), compute, len(LABELS), **options)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def blackboard(images, targets, protocol, seed):
    """The same training with whole batches, torch's own cross-entropy and momentum written out, in float64."""
    draw = Draw(Draw(seed).key("train"))
    net = NARROW.new(tuple(images.shape[1:]), len(LABELS), draw).double()
    images, parameters = images.double(), list(net.parameters())
    per_epoch = -(-len(images) // protocol.batch)
    lr, step, momentum = protocol.lr, 0, [0.0 for _ in parameters]
    for epoch in range(protocol.epochs):
        for rows in draw.at(epoch).permutation("shuffle", len(images)).split(protocol.batch):
            if step in {round(m * protocol.epochs * per_epoch) for m in protocol.milestones}:
                lr *= protocol.factor
                if protocol.restart_momentum:
                    momentum = [0.0 for _ in parameters]
            slopes = torch.autograd.grad(nn.functional.cross_entropy(net(images[rows]), targets[rows]), parameters)
            with torch.no_grad():
                for i, (p, slope) in enumerate(zip(parameters, slopes, strict=True)):
                    momentum[i] = protocol.momentum * momentum[i] + slope + protocol.weight_decay * p
                    p.sub_(lr * momentum[i])
            step += 1
    return weights(net)


@pytest.mark.parametrize("restart", [True, False])
def test_training_is_momentum_sgd_on_shuffled_batches(restart, compute):
    protocol = replace(PLAIN, restart_momentum=restart, lr=0.05, weight_decay=0.01)
    images, targets = decoded()
    expected = blackboard(images, targets, protocol, seed=3)
    got = weights(train(compute, protocol, seed=3))
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)
    assert (blackboard(images, targets, replace(protocol, restart_momentum=not restart), 3) - expected).norm() > 1e-3


def test_it_learns(compute):
    data = shapes(30)
    held = data.split(0.3, Draw(0))[1]
    module = train(compute, replace(SHORT, epochs=40, lr=0.05, augmentation=Augmentation(("flip", "crop"))))
    assert accuracy(module, held, data.classes, compute) > 0.9


def test_the_draw_decides_every_bit(compute):
    protocol = replace(PLAIN, augmentation=Augmentation(), cutmix=0.5)
    state = torch.random.get_rng_state()
    first = weights(train(compute, protocol))
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(17)
    assert torch.equal(first, weights(train(compute, protocol)))
    assert not torch.equal(first, weights(train(compute, protocol, seed=1)))


def test_workers_change_no_bit(compute):
    with Compute(Machine("cpu", chunk=8, workers=2)) as two:
        both = two.map(lambda seed: weights(train(two, seed=seed)), range(3))
    with Compute(Machine("cpu", chunk=8, workers=1)) as one:
        alone = one.map(lambda seed: weights(train(one, seed=seed)), range(3))
    assert all(torch.equal(a, b) for a, b in zip(both, alone, strict=True))


def test_real_images_train_as_their_normalised_tensor_does(compute):
    data = shapes()
    _, targets = decoded()
    assert torch.equal(weights(train(compute, images=data, targets=targets)), weights(train(compute)))


def test_probabilities_train_as_the_labels_they_are_certain_of(compute):
    images, targets = decoded()
    soft = nn.functional.one_hot(targets, len(LABELS)).float()
    torch.testing.assert_close(weights(train(compute, images=images, targets=soft)), weights(train(compute)))


@pytest.mark.parametrize("change", [{"cutmix": 1.0}, {"augmentation": Augmentation()}, {"steps": 7}])
def test_each_part_of_the_recipe_changes_the_result(change, compute):
    assert not torch.allclose(weights(train(compute, replace(PLAIN, **change))), weights(train(compute)))


def test_batch_norm_networks_train(compute):
    module = train(compute, replace(PLAIN, epochs=2), ResNet18(width=4))
    assert torch.isfinite(weights(module)).all()
    assert module.training


def test_the_stage_hears_of_each_step(compute):
    class Count(Stage):
        steps = 0

        def advance(self, steps=1, values=None):
            self.steps += steps

    stage = Count()
    train(compute, stage=stage)
    assert stage.steps == PLAIN.steps_on(len(shapes())) == 6 * 3


def test_a_diverged_training_is_reported(compute, caplog):
    train(compute, replace(PLAIN, lr=1e30))
    assert "lower the protocol's lr" in caplog.text


def test_accuracy_is_the_fraction_right(compute):
    data = shapes()
    module = train(compute)
    with torch.no_grad():
        right = module(data.gather(data.order)).argmax(1) == class_indices(data.labels[data.order], data.classes)
    assert accuracy(module, data, data.classes, compute) == pytest.approx(right.float().mean().item(), abs=1e-7)
    assert not module.training


def test_accuracy_counts_only_the_listed_images_and_given_outputs(compute):
    data = shapes()
    module = train(compute, replace(PLAIN, epochs=30))
    assert accuracy(module, data, data.classes, compute) > 0.95
    part = data.select([7])
    assert accuracy(module, part, data.classes, compute) > 0.95
    assert accuracy(module, part, (-9, 0, 1, 7), compute) < 0.05


def test_lengths_and_drops():
    assert DC.steps_on(100) == 1000
    assert DC.steps_on(257) == 2000
    assert DC.drops(1000) == (500,)
    assert IDC.drops(IDC.steps_on(64)) == (667, 833)
    assert replace(DC, steps=50).steps_on(10**6) == 50
    assert replace(SHORT, steps=50).for_full().steps_on(256) == SHORT.full_epochs
    assert (IDC.as_on(100).steps, IDC.as_on(100).batch) == (2000, 64)
    assert (IDC.as_on(40).steps, IDC.as_on(40).batch) == (1000, 40)


@pytest.mark.parametrize("images", [5, 16, 37])
def test_counted_steps_take_full_batches_and_pass_over_every_image_equally_often(images):
    targets = torch.arange(images)
    recipe = replace(PLAIN, steps=images, batch=16)
    drawn = [wanted for _, wanted in batches(torch.zeros(images, 1, 8, 8), targets, recipe, Draw(0), images)]
    assert {len(wanted) for wanted in drawn} == {min(16, images)}
    assert recipe.passes_on(images) == min(16, images)
    assert torch.cat(drawn).bincount(minlength=images).eq(min(16, images)).all()


def test_every_bad_value_is_listed():
    with pytest.raises(ConfigError) as caught:
        TrainProtocol(
            "bad",
            epochs=0,
            full_epochs=-1,
            lr=float("nan"),
            momentum=1,
            weight_decay=-1,
            batch=2.5,
            milestones=(0.5, 1.5),
            factor=0,
            cutmix=2,
            steps=0,
        )
    assert len(caught.value.problems) == 10
