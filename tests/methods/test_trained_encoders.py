import dataclasses
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, condense
from condensekit.errors import ConfigError, DataError
from condensekit.methods import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.methods.trained_encoders import PRETRAIN, Trained, soft_labels
from condensekit.networks.base import separable
from condensekit.networks.convnet import ConvNet
from condensekit.progress import Progress, Stage
from condensekit.rng import Draw
from condensekit.runs.files import load_tensors
from condensekit.selection.base import Noise
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.testing import LABELS, MethodContract, context, shapes
from condensekit.training.augment import Augmentation
from condensekit.training.evaluation import Candidate, evaluate
from condensekit.training.train import SHORT, class_indices, train_network
from tests.reference.dance_twin import DanceTwin
from tests.reference.dm_twin import dm_loss_and_gradient
from tests.reference.trained_twin import weights_at

QUICK = dataclasses.replace(PRETRAIN, lr=0.05, augmentation=None)
ENCODER = Trained(ConvNet(width=8), count=3, protocol=QUICK, steps=25)
TINY = dataclasses.replace(ENCODER, count=2, steps=2)
ONE = Machine("cpu", workers=1)


class TestContract(MethodContract):
    encoder = TINY

    def make(self):
        return DistributionMatching(batch_real=8, calibration=0.5)

    def test_classes_apart_equal_classes_together(self):
        """Not so here: the networks have seen all classes (tested below, in the set's provenance)."""


@pytest.fixture(scope="module")
def prepared():
    with Compute(Machine("cpu", workers=0)) as compute:
        return ENCODER.prepare(shapes(), Draw(1), compute)


def loaded(encoder, prepared, step, attempt=0, expert=False):
    module = encoder.network.new((3, 8, 8), 4, Draw(0))
    (encoder.load_trained if expert else encoder.load)(module, Draw(5, step, attempt), prepared)
    return module


def nth(prepared, i):
    """The i-th trained network."""
    only = {name: values[i : i + 1] for name, values in prepared.items()}
    return loaded(dataclasses.replace(ENCODER, count=1), only, 1, expert=True)


def flat(module):
    return torch.cat([v.flatten().float() for v in module.state_dict().values()])


def ends(prepared, i):
    return [torch.cat([v[i].flatten().float() for k, v in prepared.items() if k.startswith(p)]) for p in ("in", "fi")]


def test_prepared_are_the_ends_of_ordinary_trainings(prepared):
    data = shapes()
    assert prepared["classes"].tolist() == list(LABELS)
    targets = class_indices(data.labels[data.order], data.classes)
    with Compute(Machine("cpu", workers=0)) as compute:
        own = Draw(Draw(0).key("encoder/2"))
        protocol = dataclasses.replace(QUICK, steps=25)
        end = train_network(data, targets, ENCODER.network, protocol, own, compute, 4)
    start, final = ends(prepared, 2)
    assert torch.equal(final, flat(end))
    assert (start - final).norm() > 0.1
    for i in range(3):
        outputs = nth(prepared, i)(data.gather(data.order))
        assert (outputs.argmax(1) == targets).float().mean() > 0.8


def test_only_the_classes_at_hand_are_seen(monkeypatch):
    seen = []
    gather = ClassImages.gather

    def watched(self, indices, *options):
        seen.append(indices)
        return gather(self, indices, *options)

    monkeypatch.setattr(ClassImages, "gather", watched)
    data = shapes()
    with Compute(Machine("cpu", workers=0)) as compute:
        prepared = TINY.prepare(data.select([0, 42]), Draw(1), compute)
    assert prepared["classes"].tolist() == [0, 42]
    assert prepared["final/classifier.weight"].shape[:2] == (2, 2)
    assert set(data.labels[torch.cat(seen)].tolist()) == {0, 42}


def test_workers_change_nothing_and_progress_counts_every_step(tmp_path, monkeypatch):
    class Counting(Progress):
        steps = 0

        def stage(self, name, total, done=0):
            self.total = total
            outer = self

            class One(Stage):
                def advance(self, steps=1, values=None):
                    outer.steps += steps

            return nullcontext(One())

    found = []
    for workers in (1, 2):
        monkeypatch.setenv("CONDENSEKIT_CACHE", str(tmp_path / str(workers)))
        counted = Counting()
        with Compute(Machine("cpu", workers=workers)) as compute:
            found.append(TINY.prepare(shapes(), Draw(1), compute, counted))
        assert counted.steps == counted.total == 4
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_each_step_lies_between_the_ends_of_one_network(prepared):
    ways, which = [], set()
    for step in range(1, 40):
        weights = flat(loaded(ENCODER, prepared, step))
        expert = flat(loaded(ENCODER, prepared, step, expert=True))
        (i,) = [i for i in range(3) if torch.equal(expert, ends(prepared, i)[1])]
        start, end = ends(prepared, i)
        way = float((weights - start) @ (end - start) / (end - start).square().sum())
        torch.testing.assert_close(weights, torch.lerp(start, end, way), rtol=1e-4, atol=1e-5)
        ways.append(way)
        which.add(i)
    assert which == {0, 1, 2}
    assert min(ways) >= 0
    assert max(ways) < 1
    assert max(ways) - min(ways) > 0.7


def test_a_step_decides_and_is_kept(prepared):
    weights = {step: flat(loaded(ENCODER, prepared, step)) for step in (1, 2)}
    assert torch.equal(weights[1], flat(loaded(ENCODER, prepared, 1)))
    assert not torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[1], flat(loaded(ENCODER, prepared, 1, attempt=1)))
    kept = dataclasses.replace(ENCODER, keep=4)
    first = flat(loaded(kept, prepared, 1))
    assert all(torch.equal(first, flat(loaded(kept, prepared, step))) for step in (2, 3, 4))
    assert not torch.equal(first, flat(loaded(kept, prepared, 5)))


@pytest.mark.parametrize("keep", [1, 3])
def test_weights_equal_those_of_the_twin(keep):
    encoder = dataclasses.replace(TINY, network=ConvNet(width=8, norm="batch"), keep=keep)
    with Compute(Machine("cpu", workers=0)) as compute:
        prepared = encoder.prepare(shapes(), Draw(1), compute)
    for step, attempt in ((1, 0), (2, 0), (3, 1), (4, 0), (9, 0)):
        found = loaded(encoder, prepared, step, attempt).state_dict()
        expected = weights_at(prepared, 5, step, attempt, encoder.count, keep)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value.to(found[name].dtype), rtol=1e-6, atol=1e-7)


def test_without_interpolation_the_weights_are_the_trained_ones(prepared):
    final = dataclasses.replace(ENCODER, interpolate=False)
    for step in (1, 2, 3):
        assert torch.equal(flat(loaded(final, prepared, step)), flat(loaded(final, prepared, step, expert=True)))


def test_batch_norm_buffers_are_prepared_too():
    encoder = dataclasses.replace(TINY, network=ConvNet(width=8, norm="batch"))
    with Compute(Machine("cpu", workers=0)) as compute:
        prepared = encoder.prepare(shapes(), Draw(1), compute)
    expert, between = loaded(encoder, prepared, 1, expert=True), loaded(encoder, prepared, 1)
    assert not separable(expert)
    norm, half = expert.body[1], between.body[1]
    assert norm.num_batches_tracked == half.num_batches_tracked == 2
    assert norm.running_mean.abs().max() > 0
    assert 0 < half.running_mean.abs().max() < norm.running_mean.abs().max()
    recipe = Recipe(DistributionMatching(batch_real=4, calibration=1.0), encoder)
    result = condense(shapes(), recipe, ipc=1, steps=2, machine=ONE)
    assert len(result.history) == 2


@pytest.mark.parametrize("nested", [False, True])
def test_calibration_adds_the_cross_entropy_of_the_trained_network(nested):
    data, ipc = shapes(), 3
    images = Noise().images(data, ipc, Draw(1))
    with Compute(Machine("cpu", workers=2, chunk=4)) as compute:
        ctx = context(data, compute, step=3, encoder=TINY)
        ctx = dataclasses.replace(ctx, augmentation=Augmentation(), prefix=2 if nested else None)
        _, plain_slope = dm_loss_and_gradient(ctx, images[:, : ctx.prefix], 8)
        method = DistributionMatching(batch_real=8, lr=0.5, calibration=0.7)
        plain = dataclasses.replace(method, calibration=0.0)
        before = plain.step(plain.init(images, ctx), ctx)[1]
        after, metrics = method.step(method.init(images, ctx), ctx)
        ctx.load_expert()
    expert, x = ctx.module.double(), images[:, : ctx.prefix].double().requires_grad_()
    assert ctx.augmentation is not None
    loss = torch.zeros((), dtype=torch.float64)
    for k, label in enumerate(data.classes):
        shown = ctx.augmentation.apply(x[k : k + 1], ctx.augmentation.draw(ctx.draw, [label]))[0]
        loss = loss + F.cross_entropy(expert(shown), torch.full((x.shape[1],), k))
    wanted = plain_slope + 0.7 * torch.autograd.grad(loss, x)[0]
    ours = ((images - after["images"]) / 0.5)[:, : ctx.prefix]
    assert abs(metrics["loss"] - before["loss"] - 0.7 * loss) <= 1e-4 * loss
    assert (ours - wanted).norm() <= 1e-4 * wanted.norm()
    assert torch.equal(images[:, 2:], after["images"][:, 2:]) == nested


def test_a_calibration_step_equals_the_twin_that_goes_class_by_class():
    data = shapes()
    images = Noise().images(data, 3, Draw(1))
    method = DistributionMatching(batch_real=8, lr=0.3, momentum=0.5, calibration=0.7, calibration_step=True)
    twin = DanceTwin(images, 0.3, 0.5, 0.7)
    with Compute(Machine("cpu", workers=2, chunk=4)) as compute:
        state = method.init(images, context(data, compute, encoder=TINY))
        for step in range(1, 5):
            ctx = dataclasses.replace(context(data, compute, step=step, encoder=TINY), augmentation=Augmentation())
            state, metrics = method.step(state, ctx)
            twin.step(
                dataclasses.replace(context(data, compute, step=step, encoder=TINY), augmentation=Augmentation()), 8
            )
            assert bool(metrics["finite"])
    moved = (twin.images - images).norm()
    assert (state["images"] - twin.images).norm() <= 1e-4 * moved
    summed = dataclasses.replace(method, calibration_step=False).step(method.init(images, ctx), ctx)[0]["images"]
    assert (summed - state["images"]).norm() > 1e-2 * moved


def test_the_summed_loss_of_a_calibration_step_that_is_not_finite_changes_nothing():
    data, method = shapes(), DistributionMatching(batch_real=8, calibration=1.0, calibration_step=True)
    with Compute(Machine("cpu", workers=0)) as compute:
        ctx = context(data, compute, step=3, encoder=TINY)
        state = method.init(Noise().images(data, 2, Draw(1)), ctx)
        broken = {
            n: torch.full_like(v, torch.nan) if n == "final/classifier.weight" else v for n, v in ctx.prepared.items()
        }
        after, metrics = method.step(state, dataclasses.replace(ctx, prepared=broken))
    assert not metrics["finite"]
    assert torch.equal(after["images"], state["images"])
    assert torch.equal(after["momentum"], state["momentum"])


def test_calibration_makes_the_trained_networks_sure_of_the_images():
    encoder, sure = dataclasses.replace(ENCODER, count=1), []
    with Compute(Machine("cpu", workers=0)) as compute:
        networks = encoder.prepare(shapes(), Draw(0), compute)
        for calibration in (0.0, 1.0):
            method = DistributionMatching(batch_real=4, calibration=calibration)
            recipe = Recipe(method, encoder, augmentation=None, init=Noise())
            made = condense(shapes(), recipe, ipc=1, steps=20, machine=Machine("cpu", workers=0)).set
            labelled = soft_labels(made, encoder, networks, compute)
            sure.append(labelled.targets().diagonal().mean())  # one image of each class
    assert sure[1] > sure[0]


def test_calibration_needs_trained_encoders_and_says_so_before_anything_is_made(tmp_path):
    method = DistributionMatching(calibration=0.5)
    with pytest.raises(ConfigError, match=r"calibration=0.5 .* Fresh .* encoder=Trained\(\)"):
        condense(shapes(), Recipe(method, Fresh(ConvNet(width=8))), ipc=1, steps=1, saving=Saving(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="Fresh draws untrained networks"):
        Fresh().load_trained(ConvNet(width=4).new((3, 8, 8), 2, Draw(0)), Draw(0, 1), {})


def test_a_run_keeps_its_networks_and_is_not_separable(tmp_path):
    recipe = Recipe(DistributionMatching(batch_real=4), TINY)
    result = condense(shapes(), recipe, ipc=1, steps=3, machine=ONE, saving=Saving(tmp_path / "run"))
    stored, _ = load_tensors(tmp_path / "run" / "prepared.safetensors", "prepared")
    assert stored["final/classifier.weight"].shape == (2, 4, 8 * 4 * 4)
    assert result.set.provenance["separable"] is False
    assert result.set.provenance["config"]["encoder"]["type"] == "Trained"
    with Compute(Machine("cpu", workers=1)) as compute:
        labelled = soft_labels(result.set, TINY, stored, compute)
    assert labelled.soft_labels is not None
    assert labelled.soft_labels.shape == (4, 4)
    assert result.set.soft_labels is None
    labelling, saving = recipe.replace(soft_labels=True), Saving(tmp_path / "soft")
    made = condense(shapes(), labelling, ipc=1, steps=3, machine=ONE, saving=saving).set
    assert made.soft_labels is not None
    assert torch.equal(made.soft_labels, labelled.soft_labels)
    assert made.provenance["soft_labels"]["type"] == "Trained"


def test_soft_labels_are_the_mean_softmax_on_decoded_images(prepared, tmp_path):
    data = shapes()
    indices = torch.cat([data.indices_of(label)[:2] for label in (0, 42)])
    plain = CondensedSet.from_images(
        data.gather(indices), data.labels[indices], data.spec, formation=Formation(factor=2, dtype="uint8")
    )
    with Compute(Machine("cpu", workers=2, chunk=4)) as compute:
        made = soft_labels(plain, ENCODER, prepared, compute)
    images = plain.decode()[0]
    outputs = [nth(prepared, i)(images).detach().softmax(1) for i in range(3)]
    torch.testing.assert_close(made.soft_labels, torch.stack(outputs).mean(0))
    assert made.nbytes == plain.nbytes + 4 * 16 * 4
    assert made.provenance["soft_labels"]["type"] == "Trained"
    made.save(tmp_path / "set.safetensors")
    assert torch.equal(CondensedSet.load(tmp_path / "set.safetensors").targets(), made.targets())


def test_soft_labels_over_some_classes_train_networks_for_all():
    part = shapes().select([0, 42])
    with Compute(Machine("cpu", workers=0)) as compute:
        networks = TINY.prepare(part, Draw(1), compute)
        indices = torch.cat([part.indices_of(label)[:3] for label in part.classes])
        plain = CondensedSet.from_images(part.gather(indices), part.labels[indices], part.spec)
        made = soft_labels(plain, TINY, networks, compute)
    assert made.soft_labels is not None
    assert (made.soft_labels[:, [0, 2]] == 0).all()
    torch.testing.assert_close(made.soft_labels.sum(1), torch.ones(6))
    short = dataclasses.replace(SHORT, steps=2)
    row = evaluate([Candidate("soft", (made,))], shapes(), networks=1, network=(ConvNet(8),), protocol=short)
    assert 0 <= row.rows[0].accuracy_mean <= 1


def test_soft_labels_that_cannot_be_are_refused(prepared):
    data = shapes()
    plain = CondensedSet.from_images(data.gather(data.order), data.labels[data.order], data.spec)
    few = {"classes": torch.tensor([0, 7]), **{k: v[:, :2] for k, v in prepared.items() if k != "classes"}}
    unnamed = dataclasses.replace(plain, spec=dataclasses.replace(data.spec, class_names={0: "zero"}))
    with Compute(Machine("cpu", workers=0)) as compute:
        with pytest.raises(DataError, match="class -3"):
            soft_labels(plain, ENCODER, few, compute)
        with pytest.raises(DataError, match="class -3: the set's spec names"):
            soft_labels(unnamed, ENCODER, prepared, compute)
        with pytest.raises(ConfigError, match="prepare"):
            soft_labels(plain, ENCODER, {}, compute)
        with pytest.raises(ConfigError, match="no prepared weights"):
            soft_labels(plain, dataclasses.replace(ENCODER, network=ConvNet(width=4)), prepared, compute)


def test_a_diverged_training_is_refused():
    wild = dataclasses.replace(TINY, protocol=dataclasses.replace(QUICK, lr=1e30), steps=5)
    with (
        Compute(Machine("cpu", workers=2)) as compute,
        pytest.raises(ConfigError, match=r"lr=1e\+30 .* not finite"),
    ):
        wild.prepare(shapes(), Draw(1), compute)


@pytest.mark.parametrize(
    "bad", [{"count": 0}, {"count": 2.0}, {"keep": 0}, {"keep": 1.5}, {"steps": -1}, {"steps": 0.5}]
)
def test_bad_numbers_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Trained(**bad)


def test_calibration_out_of_range_is_named():
    with pytest.raises(ConfigError, match="calibration"):
        DistributionMatching(calibration=-1)
