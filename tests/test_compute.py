import numpy as np
import pytest
import torch
from torch import nn

from condensekit import compute as compute_module
from condensekit.compute import Compute, Machine, make_plan
from condensekit.errors import ConfigError
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw


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
    monkeypatch.setitem(compute_module.KEPT_PIXELS, "cpu", kept)
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
    seen, real = [], compute_module._run

    def small_card(entry, module, x, low):
        seen.append(len(x))
        if len(x) > 8:
            raise torch.OutOfMemoryError("too much")
        return real(entry, module, x, low)

    monkeypatch.setattr(compute_module, "_run", small_card)
    net, x = network(), images(64)
    with Compute(Machine("cpu", chunk=0, workers=0)) as compute, torch.no_grad():
        got = compute.features(net, x)
        assert seen[:4] == [64, 32, 16, 8]
        torch.testing.assert_close(got, net.features(x), rtol=1e-5, atol=1e-5)
        assert compute.chunk == 8
        with pytest.raises(ConfigError, match="batch-norm"):
            compute.features(network("batch"), x)
    assert "chunks of 8" in caplog.text


def test_other_runtime_errors_pass_through(monkeypatch):
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(compute_module, "_run", broken)
    with Compute(Machine("cpu", chunk=0, workers=0)) as compute, pytest.raises(RuntimeError, match="something else"):
        compute.features(network(), images())


def test_bfloat16_is_close_and_only_where_asked():
    net, x = network(), images()
    with Compute(Machine("cpu", precision="mixed", chunk=8)) as mixed, Compute(Machine("cpu", chunk=8)) as full:
        exact = full.features(net, x)
        rough = mixed.features(net, x)
        assert 0 < (rough - exact).norm() / exact.norm() < 3e-2
        assert torch.equal(mixed.pullback(net, x)[0], full.pullback(net, x)[0])


def test_plan_is_resolved_and_checked():
    plan = make_plan((32, 32), device="cpu", workers=2)
    assert plan == Plan("cpu", "fp32", False, 16, 2)
    assert Plan(**plan.to_json()) == plan
    assert make_plan((8, 8), device="cpu").chunk == 256
    assert make_plan((224, 224), device="cpu").chunk == 2
    with pytest.raises(ConfigError, match="fp64"):
        make_plan((8, 8), precision="fp64")
    with pytest.raises(ConfigError, match="nonsense"):
        make_plan((8, 8), device="nonsense")
    with pytest.raises(ConfigError, match="got 1"):
        make_plan((8, 8), chunk=1)
    assert make_plan((8, 8), device=torch.device("cpu"), chunk=np.int64(4)) == make_plan((8, 8), device="cpu", chunk=4)


@pytest.mark.parametrize("device", ["xla", "meta", "cpu:0", "cuda:", "cuda:x", "cuda:01", "mps:0", "CUDA", ""])
def test_devices_that_torch_may_know_and_we_do_not_are_refused(device):
    with pytest.raises(ConfigError, match=f"unknown device '{device}': use auto, cpu, cuda, cuda:N or mps"):
        make_plan((8, 8), device=device)


@pytest.mark.parametrize(("device", "sees"), [("cuda", "no CUDA GPU"), ("cuda:1", "no CUDA GPU"), ("mps", "no MPS")])
def test_devices_that_are_not_here_are_refused(device, sees, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"device '{device}' asked for, but torch sees {sees} here: use --device cpu"):
        make_plan((8, 8), device=device)
    assert make_plan((8, 8)).device == "cpu"


def test_the_number_of_a_gpu_is_checked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [make_plan((8, 8), device=name).device for name in ("auto", "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(ConfigError, match="'cuda:2' asked for, but torch sees only 2 CUDA GPU, counted from cuda:0"):
        make_plan((8, 8), device="cuda:2")


def test_compiled_equals_eager_without_recompiling():
    first, second, x = network(), network(), images()
    ConvNet(width=8).fill_(second, Draw(1), "other")
    with (
        Compute(Machine("cpu", chunk=8, workers=0, compiled=True)) as fast,
        Compute(Machine("cpu", chunk=8, workers=2)) as slow,
    ):
        for net in (first, second):
            torch.testing.assert_close(fast.features(net, x), slow.features(net, x), rtol=1e-5, atol=1e-5)
        features, pull = fast.pullback(second, x)
        expected, expected_pull = slow.pullback(second, x)
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
        gradient = torch.randn_like(features)
        torch.testing.assert_close(pull(gradient), expected_pull(gradient), rtol=1e-4, atol=1e-5)
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        ConvNet(width=8).fill_(second, Draw(2), "refilled")
        fast.features(second, images(seed=2))
        fast.pullback(second, images(seed=3))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before
