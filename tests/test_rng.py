import random
import subprocess
import sys

import numpy as np
import torch

from condensekit.rng import Draw, isolated


def test_hash_equals_integer_splitmix():
    mask = (1 << 64) - 1

    def mix(v):
        v = (v + 0x9E3779B97F4A7C15) & mask
        v = ((v ^ (v >> 30)) * 0xBF58476D1CE4E5B9) & mask
        v = ((v ^ (v >> 27)) * 0x94D049BB133111EB) & mask
        return v ^ (v >> 31)

    draw = Draw(5, 7)
    labels = torch.tensor([-3, 0, 42])
    got = draw.bits("role", labels, 4)
    for row, label in enumerate(labels.tolist()):
        for sample in range(4):
            expected = mix(mix((label & mask) ^ draw.key("role")) ^ mix(sample))
            assert int(got[row, sample]) & mask == expected


def test_rows_do_not_depend_on_the_other_classes():
    draw = Draw(1, 2)
    whole = draw.uniform("x", torch.tensor([0, 7, 42]), 5)
    assert torch.equal(whole[1:2], draw.uniform("x", torch.tensor([7]), 5))
    assert torch.equal(whole[:, :3], draw.uniform("x", torch.tensor([0, 7, 42]), 3))


def test_uniform_and_integers_are_uniform():
    u = Draw(0).uniform("u", torch.arange(100), 1000).flatten()
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, 20, 0, 1)
    assert ((counts - 5000).square() / 5000).sum() < 43.8  # chi-square, 19 degrees, p = .001
    k = Draw(0).integers("k", torch.arange(100), 1000, 7).flatten()
    counts = torch.bincount(k, minlength=7).float()
    assert len(counts) == 7
    assert ((counts - 1e5 / 7).square() / (1e5 / 7)).sum() < 22.5


def test_normal_has_unit_variance():
    x = Draw(0).normal("n", torch.arange(100), 1000)
    assert abs(x.mean()) < 0.015
    assert abs(x.std() - 1) < 0.015
    assert torch.isfinite(x).all()


def test_roles_steps_attempts_and_seeds_differ():
    labels = torch.arange(3)
    draws = [Draw(0), Draw(1), Draw(0, 1), Draw(0, 0, 1)]
    values = [d.uniform("a", labels, 4) for d in draws] + [Draw(0).uniform("b", labels, 4)]
    assert len({tuple(v.flatten().tolist()) for v in values}) == 5


def test_permutation_is_one():
    assert sorted(Draw(3).permutation("p", 50).tolist()) == list(range(50))


def test_isolated_restores_every_global_generator():
    def draw():
        return float(torch.rand(1)), np.random.rand(), random.random()  # noqa: NPY002 - the global one is meant

    with isolated(1):
        with isolated(9):
            inside = draw()
        after = draw()
    with isolated(1):
        assert draw() == after
    with isolated(9):
        assert draw() == inside


def test_key_is_the_same_in_another_process():
    code = "from condensekit.rng import Draw; print(Draw(3, 4).key('role'))"
    for hash_seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed, "PATH": ""}, capture_output=True, text=True
        )
        assert int(out.stdout) == Draw(3, 4).key("role"), out.stderr


def test_uniform64_is_uniform_and_fine():
    u = Draw(0).uniform64("u", torch.arange(100), 1000)
    assert u.dtype == torch.float64
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005
    assert (u != u.float().double()).any()
    assert torch.equal(u[7:8, :5], Draw(0).uniform64("u", torch.tensor([7]), 5))
