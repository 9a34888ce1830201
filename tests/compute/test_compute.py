import numpy as np
import pytest
import torch
from torch import nn

from condensekit.compute import Compute, Machine, Spent, eager
from condensekit.compute import compute as compute_module
from condensekit.driver import Saving, condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching, GradientMatching, KernelRidge
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.methods.sampling import Clustered
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.classic import KMeans
from condensekit.selection.embeddings import RandomEmbedding
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.testing import shapes


def network(norm="instance", shape=(3, 16, 16), grad=False):
    return ConvNet(width=8, norm=norm).new(shape, 4, Draw(0)).requires_grad_(grad)


def images(n=23, seed=0):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("chunk", "workers"), [(0, 0), (4, 1), (4, 2), (8, 2), (11, 2), (22, 2)])
def test_chunks_and_workers_change_no_feature(chunk, workers):
    net, x = network(), images()
    with Compute(Machine("cpu", chunk=chunk, workers=workers)) as compute, torch.no_grad():
        torch.testing.assert_close(compute.features(net, x), net.features(x), rtol=1e-5, atol=1e-5)


def test_worker_count_changes_no_bit():
    net, x = network(), images()
    with Compute(Machine("cpu", chunk=4, workers=1)) as one, Compute(Machine("cpu", chunk=4, workers=2)) as two:
        assert torch.equal(one.features(net, x), two.features(net, x))


@pytest.mark.parametrize("kept", [0, 10**9])
def test_pullback_is_the_vector_jacobian_product(kept, monkeypatch):
    monkeypatch.setattr(compute_module, "KEPT_VALUES", kept)
    net, x = network(), images()
    with Compute(Machine("cpu", chunk=4, workers=2)) as compute:
        features, pull = compute.pullback(net, x)
        gradient = torch.randn_like(features)
        got = pull(gradient)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net.features(leaf), leaf, gradient)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_backprop_gives_the_mean_loss_gradient():
    net, x = network(grad=True), images()
    targets = torch.arange(len(x)) % 4
    loss = nn.functional.cross_entropy(net(x), targets)
    expected = torch.autograd.grad(loss, list(net.parameters()))
    with Compute(Machine("cpu", chunk=4, workers=2)) as compute:
        value = compute.backprop(
            net, x, targets, lambda logits, t: nn.functional.cross_entropy(logits, t, reduction="none")
        )
    torch.testing.assert_close(value, loss.detach())
    for p, g in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)


def test_batch_norm_is_never_cut():
    net, x = network("batch"), images()
    with Compute(Machine("cpu", chunk=4, workers=2)) as compute, torch.no_grad():
        torch.testing.assert_close(compute.features(net, x), net.features(x))


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="a processor that cannot")
def test_workers_count_subnormal_numbers_as_zero():
    tiny = torch.tensor(1e-40)
    with Compute(Machine("cpu", workers=2)) as compute:
        assert compute.map(lambda scale: float(tiny * scale), [1, 1]) == [0, 0]
    assert tiny * 1 > 0


def test_map_keeps_order_and_nests():
    with Compute(Machine("cpu", workers=2)) as compute:
        got = compute.map(lambda i: sum(compute.map(lambda j: i * j, range(4))), range(20))
    assert got == [6 * i for i in range(20)]


def test_out_of_memory_halves_the_chunk(monkeypatch, caplog):
    seen, real = [], eager.called

    def small_card(entry, module, x, low):
        seen.append(len(x))
        if len(x) > 8:
            raise torch.OutOfMemoryError("too much")
        return real(entry, module, x, low)

    monkeypatch.setattr(eager, "called", small_card)
    net, x = network(), images(64)
    with Compute(Machine("cpu", chunk=0, workers=0)) as compute, torch.no_grad():
        got = compute.features(net, x)
        assert seen[:4] == [64, 32, 16, 8]
        torch.testing.assert_close(got, net.features(x), rtol=1e-5, atol=1e-5)
        assert compute.chunk == 8
        with pytest.raises(ConfigError, match="batch norm"):
            compute.features(network("batch"), x)
    assert "chunks of 8" in caplog.text


def test_other_runtime_errors_pass_through(monkeypatch):
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(eager, "called", broken)
    with Compute(Machine("cpu", chunk=0, workers=0)) as compute, pytest.raises(RuntimeError, match="something else"):
        compute.features(network(), images())


def test_bfloat16_is_close_and_only_where_asked():
    net, x = network(), images()
    with Compute(Machine("cpu", precision="mixed", chunk=8)) as mixed, Compute(Machine("cpu", chunk=8)) as full:
        exact = full.features(net, x)
        rough = mixed.features(net, x)
        assert 0 < (rough - exact).norm() / exact.norm() < 3e-2
        assert torch.equal(mixed.pullback(net, x)[0], full.pullback(net, x)[0])


def test_a_machine_is_resolved_and_checked():
    machine = Machine("cpu", compiled=False, workers=2).resolved((32, 32))
    assert machine == Machine("cpu", "fp32", False, 16, 2)
    assert Machine(**machine.to_json()) == machine == machine.resolved((8, 8))
    assert Machine("cpu").resolved((8, 8)).chunk == 256
    assert Machine("cpu").resolved((224, 224)).chunk == 2
    with pytest.raises(ConfigError, match="fp64"):
        Machine(precision="fp64")
    with pytest.raises(ConfigError, match="nonsense"):
        Machine("nonsense")
    with pytest.raises(ConfigError, match="got 1"):
        Machine(chunk=1)
    foreign = Machine(torch.device("cpu"), chunk=np.int64(4))
    assert foreign.resolved((8, 8)) == Machine("cpu", chunk=4).resolved((8, 8))


def test_all_problems_of_a_machine_are_listed():
    with pytest.raises(ConfigError) as caught:
        Machine("nonsense", "fp64", chunk=1, workers=-1)
    assert len(caught.value.problems) == 4


def test_what_changes_bits_is_the_identity_of_a_machine():
    assert Machine("cpu", workers=1).identity == Machine(workers=2).identity
    for other in (Machine(precision="mixed"), Machine(chunk=4)):
        assert other.identity != Machine().identity


def test_compute_takes_chunks_that_fit_the_images():
    with Compute(Machine("cpu", compiled=False, workers=1), (8, 8)) as compute:
        assert compute.machine == Machine("cpu", "fp32", False, 256, 1)
        assert compute.chunk == 256


@pytest.mark.parametrize("device", ["xla", "meta", "cpu:0", "cuda:", "cuda:x", "cuda:01", "mps:0", "CUDA", ""])
def test_devices_that_torch_may_know_and_we_do_not_are_refused(device):
    with pytest.raises(ConfigError, match=f"unknown device '{device}': use auto, cpu, cuda, cuda:N or mps"):
        Machine(device)


@pytest.mark.parametrize(("device", "sees"), [("cuda", "no CUDA GPU"), ("cuda:1", "no CUDA GPU"), ("mps", "no MPS")])
def test_devices_that_are_not_here_are_refused(device, sees, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"device '{device}' asked for, but torch sees {sees} here: use device='cpu'"):
        Machine(device)
    assert Machine().resolved().device == "cpu"


def test_the_number_of_a_gpu_is_checked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [Machine(name).resolved().device for name in ("auto", "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(ConfigError, match="'cuda:2' asked for, but torch sees only 2 CUDA GPU, counted from cuda:0"):
        Machine("cuda:2")


# the count of work, each figure worked out by hand

PIXELS = 16 * 16
NARROW = 2 * (PIXELS * 8 * 27 + PIXELS // 4 * 8 * 72 + 128 * 4)
"""Operations of :func:`network` on one image: two blocks of 8 channels, at 16x16 and 8x8, and 4 outputs."""


def work_of(use):
    """What ``use(compute)`` adds to the count, on chunks and workers."""
    with Compute(Machine("cpu", chunk=4, workers=2)) as compute:
        use(compute)
        return compute.spent


def each(logits, targets):
    return nn.functional.cross_entropy(logits, targets, reduction="none")


def test_a_network_knows_its_operations():
    assert network().flops == network("batch").flops == NARROW
    assert ConvNet().build((3, 32, 32), 10).flops == 2 * (
        1024 * 128 * 27 + 256 * 128 * 1152 + 64 * 128 * 1152 + 2048 * 10
    )


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_forward_pass_counts_once(norm):
    assert work_of(lambda compute: compute.features(network(norm), images(23))) == Spent(23, 23 * NARROW)
    assert work_of(lambda compute: compute.logits(network(norm), images(23))) == Spent(23, 23 * NARROW)


@pytest.mark.parametrize("kept", [0, 10**9])
def test_forward_and_backward_cost_three_passes_and_count_an_image_once(kept, monkeypatch):
    monkeypatch.setattr(compute_module, "KEPT_VALUES", kept)  # graphs built again in the backward pass or kept

    def pulled(compute):
        features, pull = compute.pullback(network(), images(23))
        pull(features)

    assert work_of(pulled) == Spent(23, 23 * 3 * NARROW)


def test_a_gradient_step_costs_three_passes():
    targets = torch.arange(23) % 4
    trained = work_of(lambda compute: compute.backprop(network(grad=True), images(23), targets, each))
    assert trained == Spent(23, 23 * 3 * NARROW)


def test_work_on_all_workers_is_counted():
    def many(compute):
        compute.map(lambda seed: compute.features(network(), images(5, seed)), range(40))

    assert work_of(many) == Spent(200, 200 * NARROW)


def test_a_repeated_pass_after_running_out_of_memory_counts_once(monkeypatch):
    real = eager.called

    def small_card(entry, module, x, low):
        if len(x) > 8:
            raise torch.OutOfMemoryError("too much")
        return real(entry, module, x, low)

    monkeypatch.setattr(eager, "called", small_card)
    with Compute(Machine("cpu", chunk=0, workers=0)) as compute:
        compute.features(network(), images(64))
        assert compute.spent == Spent(64, 64 * NARROW)


def test_both_units_of_work():
    """Images for each training image, and operations in forward passes of all of them through the wide ConvNet."""
    wide = 2 * (1024 * 128 * 27 + 256 * 128 * 1152 + 64 * 128 * 1152 + 2048 * 10)
    assert Spent(25_000, 5_000 * wide).passes(50_000, (3, 32, 32)) == {"passes": 0.5, "w128_passes": 0.1}
    small = 2 * (64 * 128 * 9 + 16 * 128 * 1152 + 4 * 128 * 1152 + 128 * 10)
    assert Spent(30, 20 * small).passes(10, (1, 8, 8)) == {"passes": 3.0, "w128_passes": 2.0}
    tiny = 2 * (16 * 128 * 9 + 4 * 128 * 1152 + 128 * 10)  # a depth of 3 leaves nothing of 4x4 images: depth 2
    assert Spent(30, 20 * tiny).passes(10, (1, 4, 4)) == {"passes": 3.0, "w128_passes": 2.0}


def test_work_adds_up():
    assert Spent(3, 50) + Spent(1, 5) == Spent(4, 55)
    assert Spent(3, 50) - Spent(1, 5) == Spent(2, 45)


DATA = shapes()  # 54 images of 3x8x8, 4 classes
SMALL = ConvNet(width=8)
ONE = 2 * (64 * 8 * 27 + 128 * 4)
"""Operations of :data:`SMALL` on one of them, with 4 outputs."""
UNIT = 2 * (64 * 128 * 27 + 16 * 128 * 1152 + 4 * 128 * 1152 + 128 * 10)
"""The same of the wide ConvNet."""


def condensed(method, steps, ipc=2, data=DATA, saving=None, stop=lambda: False, **parts):
    recipe = Recipe(method, **{"encoder": Fresh(SMALL), **parts})
    machine = Machine("cpu", workers=1)
    return condense(data, recipe, ipc=ipc, steps=steps, machine=machine, saving=saving, stop=stop)


def told(images, passes):
    """The record of so many images through :data:`SMALL`, at the cost of so many passes in all."""
    flops = passes * ONE
    units = {"passes": round(images / 54, 4), "w128_passes": round(flops / (54 * UNIT), 4)}
    return {"images": images, "flops": flops, **units}


@pytest.mark.parametrize(("factor", "synthetic"), [(1, 8), (2, 32)])
def test_work_of_distribution_matching(factor, synthetic):
    """Each step: 8 real images of 4 classes forward, all unpacked synthetic ones forward and back."""
    parts = {"formation": Formation(factor=factor)}
    result = condensed(DistributionMatching(batch_real=8), 5, **parts)
    assert result.work["condensing"] == told(5 * (32 + synthetic), 5 * (32 + 3 * synthetic))
    assert result.work["preparation"] == told(0, 0)
    assert result.set.provenance["work"] == result.work


def test_work_of_a_start_and_a_sampling():
    """The start embeds all 54 images; the sampling embeds them again before steps 1 and 3."""
    embedding = RandomEmbedding(SMALL)  # with one output
    bare = 2 * (64 * 8 * 27 + 128)
    parts = {"init": KMeans(embedding), "sampling": Clustered(clusters=2, refresh=2, embedding=embedding)}
    result = condensed(DistributionMatching(batch_real=8), 3, **parts)
    preparation, condensing = (result.work[part] for part in ("preparation", "condensing"))
    assert (preparation["images"], preparation["flops"]) == (2 * 54, 2 * 54 * bare)
    plain = told(3 * 40, 3 * 56)
    assert (condensing["images"], condensing["flops"]) == (plain["images"] + 54, plain["flops"] + 54 * bare)


def test_work_of_gradient_matching():
    """Real images forward and back, synthetic ones at the cost of a second derivative; training after steps 1 and 3."""
    result = condensed(GradientMatching(batch_real=8, outer=2, inner=3, batch_net=5), 3)
    assert result.work["condensing"] == told(3 * (32 + 8) + 2 * 3 * 8, 3 * (3 * 32 + 6 * 8) + 2 * 3 * 3 * 8)


def test_work_of_gradient_matching_with_batch_norm():
    """Before each comparison 16 real images of each class set the statistics."""
    encoder = Fresh(ConvNet(width=8, norm="batch"))
    result = condensed(GradientMatching(batch_real=8, outer=1), 2, encoder=encoder)
    assert result.work["condensing"] == told(2 * (64 + 32 + 8), 2 * (64 + 3 * 32 + 6 * 8))


@pytest.mark.parametrize("networks", [1, 3])
def test_work_of_kernel_ridge_regression(networks):
    """Synthetic images pass each network forward and back, and all but the last one once more."""
    result = condensed(KernelRidge(batch_real=6, networks=networks), 2, augmentation=None)
    again = networks - 1
    assert result.work["condensing"] == told(
        2 * (24 * networks + 8 * (networks + again)), 2 * (24 * networks + 3 * 8 * (networks + again))
    )


def test_work_of_trained_encoders_and_their_labels():
    """Two trainings of 3 steps on 54 images; 5 steps, with calibration; both networks label the 8 images at the end."""
    encoder = Trained(SMALL, count=2, steps=3)
    method = DistributionMatching(batch_real=8, calibration=1.0)
    result = condensed(method, 5, encoder=encoder, soft_labels=True)
    assert result.work["encoders"] == told(2 * 3 * 54, 2 * 3 * 54 * 3)
    assert result.work["preparation"] == told(0, 0)
    assert result.work["condensing"] == told(5 * (32 + 8 + 8) + 2 * 8, 5 * (32 + 3 * 8 + 3 * 8) + 2 * 8)
    assert result.set.provenance["work"] == result.work


def test_snapshots_cost_no_work(tmp_path):
    parts = {"encoder": Trained(SMALL, count=1, steps=1), "soft_labels": True}
    saving = Saving(tmp_path / "run", snapshot_every=1)
    with_snapshots = condensed(DistributionMatching(batch_real=8), 3, saving=saving, **parts)
    assert with_snapshots.work == condensed(DistributionMatching(batch_real=8), 3, **parts).work


def test_a_resume_keeps_the_work(tmp_path):
    method, encoder = DistributionMatching(batch_real=8), Trained(SMALL, count=2, steps=2)
    whole = condensed(method, 6, encoder=encoder)
    asked = iter([False, False, True])
    saving = Saving(tmp_path / "run", resume=True)
    cut = condensed(method, 6, encoder=encoder, saving=saving, stop=lambda: next(asked))
    assert cut.work["condensing"] == told(3 * 40, 3 * 56)
    resumed = condensed(method, 6, encoder=encoder, saving=saving)
    assert resumed.work == whole.work
    assert CondensedSet.load(tmp_path / "run" / "set.safetensors").provenance["work"] == whole.work
    again = condensed(method, 6, encoder=encoder, saving=saving)  # it is finished: nothing is added
    assert again.work == whole.work


def test_what_is_made_again_on_resume_counts_as_preparation(tmp_path):
    embedding = RandomEmbedding(SMALL)
    parts = {"sampling": Clustered(clusters=2, refresh=9, embedding=embedding)}
    method, saving = DistributionMatching(batch_real=8), Saving(tmp_path / "run", resume=True)
    whole = condensed(method, 4, **parts)
    condensed(method, 4, saving=saving, stop=lambda: True, **parts)
    resumed = condensed(method, 4, saving=saving, **parts)
    assert resumed.work["condensing"] == whole.work["condensing"]
    assert resumed.work["preparation"]["images"] == 2 * whole.work["preparation"]["images"] == 2 * 54
