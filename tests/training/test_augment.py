from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, DataError
from condensekit.rng import Draw
from condensekit.training.augment import OPS, Augmentation, AugmentParams, cutmix_batch
from tests.reference import augment_twin

EVERY = Augmentation()
SHAPES = [(3, 8, 8), (1, 7, 7), (3, 6, 9)]


def images_of(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def params_of(op: str, rows: int, n: int, seed: int = 1) -> AugmentParams:
    uniforms = torch.rand(rows, n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return AugmentParams((op,) * rows, uniforms)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("op", OPS)
def test_equals_the_twin(op: str, own: bool, shape: tuple[int, int, int]) -> None:
    images = images_of(4, 5, *shape)
    params = params_of(op, 4, 5 if own else 1)
    expected = augment_twin.apply(images.numpy(), params.ops, params.uniforms.numpy(), EVERY)
    np.testing.assert_allclose(EVERY.apply(images, params).numpy(), expected, rtol=0, atol=1e-12)
    single = EVERY.apply(images.float(), params)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=1e-5)


def test_mixed_rows_equal_the_twin() -> None:
    images = images_of(12, 2, 3, 6, 6)
    params = AugmentParams((*OPS, *reversed(OPS)), params_of("flip", 12, 1).uniforms)
    expected = augment_twin.apply(images.numpy(), params.ops, params.uniforms.numpy(), EVERY)
    np.testing.assert_allclose(EVERY.apply(images, params).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("op", OPS)
def test_gradients(op: str, own: bool) -> None:
    images = images_of(2, 2, 2, 4, 4).requires_grad_()
    params = params_of(op, 2, 2 if own else 1)
    assert torch.autograd.gradcheck(lambda x: EVERY.apply(x, params), (images,))


def test_gradients_in_pixel_space() -> None:
    pixel = Augmentation(space="pixel", spec=ImageSpec((2, 4, 4), (0.4, 0.5), (0.2, 0.3)))
    images = images_of(6, 1, 2, 4, 4).requires_grad_()
    params = AugmentParams(tuple(OPS), params_of("flip", 6, 1).uniforms)
    assert torch.autograd.gradcheck(lambda x: pixel.apply(x, params), (images,))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 9, 13)])
@pytest.mark.parametrize("ops", [tuple(OPS), ("crop", "flip"), ("color", "cutout")])
def test_all_rows_at_once_are_the_rows_one_by_one(ops: tuple[str, ...], shape: tuple[int, int, int], own: bool) -> None:
    """What a GPU computes, and its gradient."""
    images = torch.randn(12, 5, *shape, dtype=torch.float64).requires_grad_()
    augmentation = Augmentation(ops)
    params = augmentation.draw(Draw(1, step=2), range(12), n=5 if own else None)
    assert len(set(params.ops)) >= min(len(ops), 5)
    expected, got = augmentation._apply(images, params), augmentation._at_once(images, params)
    torch.testing.assert_close(got, expected)
    slope = torch.randn_like(got)
    gradients = [torch.autograd.grad(result, images, slope)[0] for result in (got, expected)]
    torch.testing.assert_close(*gradients)


def test_real_and_synthetic_images_of_a_class_change_alike() -> None:
    real, synthetic = images_of(8, 5, 3, 8, 8), images_of(8, 2, 3, 8, 8, seed=3)
    real[:, 3:] = synthetic
    params = EVERY.draw(Draw(7, 3), range(8))
    assert params.uniforms.shape[:2] == (8, 1)
    torch.testing.assert_close(EVERY.apply(real, params)[:, 3:], EVERY.apply(synthetic, params), rtol=0, atol=1e-13)


def test_an_image_is_not_touched_and_equal_parameters_give_equal_bits() -> None:
    images = images_of(6, 2, 3, 8, 8, dtype=torch.float32)
    before, params = images.clone(), EVERY.draw(Draw(0), range(6))
    assert torch.equal(EVERY.apply(images, params), EVERY.apply(images, EVERY.draw(Draw(0), range(6))))
    assert torch.equal(images, before)


def test_parameters_belong_to_label_step_seed_and_role() -> None:
    params = EVERY.draw(Draw(5, 9), range(40))
    some = EVERY.draw(Draw(5, 9), [31, 2, 17])
    assert some.ops == params.rows([31, 2, 17]).ops
    assert torch.equal(some.uniforms, params.rows([31, 2, 17]).uniforms)
    for other in (EVERY.draw(Draw(5, 10), range(40)), EVERY.draw(Draw(6, 9), range(40))):
        assert other.ops != params.ops
    assert EVERY.draw(Draw(5, 9), range(40), role="other").ops != params.ops


def test_parameters_come_from_no_global_generator() -> None:
    first = EVERY.draw(Draw(0), [0, 1])
    state = torch.get_rng_state()
    torch.rand(1)
    assert torch.equal(EVERY.draw(Draw(0), [0, 1]).uniforms, first.uniforms)
    torch.set_rng_state(state)
    EVERY.apply_batch(images_of(4, 3, 8, 8), Draw(0))
    cutmix_batch(images_of(4, 3, 8, 8), Draw(0), p=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("index", [slice(2, 5), [5, 0], slice(None, None, 3), [4]])
def test_rows_are_the_same_images(index: slice | list[int]) -> None:
    images = images_of(6, 2, 3, 8, 8)
    params = AugmentParams(tuple(OPS), params_of("flip", 6, 1).uniforms)
    assert torch.equal(EVERY.apply(images[index], params.rows(index)), EVERY.apply(images, params)[index])


def test_operations_and_numbers_are_uniform() -> None:
    ops = [EVERY.draw(Draw(0, step), [3]).ops[0] for step in range(1200)]
    counts = [ops.count(op) for op in OPS]
    assert sum((c - 200) ** 2 / 200 for c in counts) < 20.5  # chi-square, 5 degrees of freedom, p = 0.001
    uniforms = EVERY.draw(Draw(0), [0], n=4000).uniforms[0]
    assert ((uniforms >= 0) & (uniforms < 1)).all()
    torch.testing.assert_close(uniforms.mean(0), torch.full((3,), 0.5, dtype=torch.float64), rtol=0, atol=0.02)
    assert np.abs(np.corrcoef(uniforms.T.numpy()) - np.eye(3)).max() < 0.06


@pytest.mark.parametrize("op", OPS)
def test_a_training_batch_has_one_operation_and_its_own_numbers(op: str) -> None:
    one = Augmentation(ops=(op,))
    images = images_of(1, 3, 8, 8).expand(32, 3, 8, 8)
    result = one.apply_batch(images, Draw(1, 2))
    params = one.draw(Draw(1, 2), [0], n=32)
    assert torch.equal(result, one.apply(images[None], params)[0])
    assert len(torch.unique(result.flatten(1), dim=0)) > (1 if op == "flip" else 5)


class TestRanges:
    """What the extremes of the uniform numbers do, in the authors' words."""

    @staticmethod
    def at(op: str, image: torch.Tensor, *numbers: float) -> torch.Tensor:
        uniforms = torch.tensor([*numbers, 0.0, 0.0, 0.0][:3], dtype=torch.float64)
        return EVERY.apply(image[None, None], AugmentParams((op,), uniforms[None, None]))[0, 0]

    def test_color(self) -> None:
        image = images_of(3, 8, 8)
        torch.testing.assert_close(self.at("color", image, 0.5, 0.5, 0.5), image)
        torch.testing.assert_close(self.at("color", image, 0.0, 0.5, 0.5), image - 0.5)
        grey = image.mean(0, keepdim=True).expand(3, 8, 8)
        torch.testing.assert_close(self.at("color", image, 0.5, 0.0, 0.5), grey)
        torch.testing.assert_close(self.at("color", image, 0.5, 0.5, 0.0), (image + image.mean()) / 2)

    def test_crop_shifts_by_up_to_an_eighth(self) -> None:
        image = images_of(1, 32, 32)
        moved = self.at("crop", image, 0.0, 1 - 2**-24)
        assert torch.equal(moved[:, 4:, :-4], image[:, :-4, 4:])
        assert not moved[:, :4].any()
        assert not moved[:, :, -4:].any()

    def test_cutout_takes_half_of_each_side(self) -> None:
        left = self.at("cutout", torch.ones(3, 32, 32, dtype=torch.float64), 0.5, 0.5)
        assert left.sum() == 3 * (32 * 32 - 16 * 16)
        assert not left[:, 8:24, 8:24].any()

    def test_flip(self) -> None:
        image = images_of(3, 8, 8)
        assert torch.equal(self.at("flip", image, 0.49), image.flip(2))
        assert torch.equal(self.at("flip", image, 0.5), image)

    def test_scale_and_rotate_have_a_middle_that_changes_nothing(self) -> None:
        image = images_of(3, 8, 8)
        one = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)
        torch.testing.assert_close(self.at("scale", image, one, one), image)
        torch.testing.assert_close(self.at("rotate", image, 0.5), image)

    @pytest.mark.parametrize("op", ["scale", "rotate"])
    def test_both_conventions_of_corners_are_the_same(self, op: str) -> None:
        image, params = images_of(1, 1, 3, 9, 9), params_of(op, 1, 1)
        u = params.uniforms[0, 0]
        steps, angle = u * (1.2 - 1 / 1.2) + 1 / 1.2, torch.deg2rad(u[0] * 30 - 15)
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros((), dtype=torch.float64)
        rows = [steps[0], zero, zero, zero, steps[1], zero] if op == "scale" else [cos, -sin, zero, sin, cos, zero]
        grid = F.affine_grid(torch.stack(rows).view(1, 2, 3), [1, 3, 9, 9], align_corners=True)
        torch.testing.assert_close(EVERY.apply(image, params)[0], F.grid_sample(image[0], grid, align_corners=True))


def test_pixel_space_works_on_pixels() -> None:
    spec = ImageSpec((3, 8, 8), (0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
    pixel = Augmentation(ops=("cutout",), space="pixel", spec=spec)
    params = params_of("cutout", 2, 1)
    images = images_of(2, 3, 3, 8, 8, dtype=torch.float32)
    pixels = images * spec.constants()[1] + spec.constants()[0]
    expected = (EVERY.apply(pixels, params) - spec.constants()[0]) / spec.constants()[1]
    torch.testing.assert_close(pixel.apply(images, params), expected)


def test_one_pixel_images_survive() -> None:
    images = images_of(6, 2, 1, 1, 1)
    assert EVERY.apply(images, AugmentParams(tuple(OPS), params_of("flip", 6, 1).uniforms)).isfinite().all()


def test_without() -> None:
    assert Augmentation().without("flip", "cutout").ops == ("color", "crop", "scale", "rotate")
    assert Augmentation(ops=("crop",)).without("flip").ops == ("crop",)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Augmentation(ops=("colour",)), "Did you mean 'color'"),
        (lambda: Augmentation().without("flipp"), "Did you mean 'flip'"),
        (lambda: Augmentation(ops=("flip",)).without("flip"), "pass None"),
        (lambda: Augmentation(space="pixle"), "Did you mean 'pixel'"),
        (lambda: Augmentation(space="pixel"), "needs the spec"),
        (lambda: Augmentation(crop=0.5), r"crop must lie in \[0, 0.49\], got 0.5"),
        (lambda: Augmentation(scale=0.9, rotate=float("nan")), "scale must lie in .*; rotate must lie in .*got nan"),
        (lambda: cutmix_batch(torch.zeros(2, 1, 4, 4), Draw(0), p=2), "got p=2"),
    ],
)
def test_bad_options(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 4, 3, 8, 8), (3, 5, 3, 8, 8)])
def test_sizes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"parameters are for \(2, 5\)"):
        EVERY.apply(torch.zeros(shape), params_of("crop", 2, 5))


class TestCutMix:
    def test_boxes_come_from_the_partner_and_the_share_counts_pixels(self) -> None:
        images = torch.arange(6.0)[:, None, None, None].expand(6, 3, 16, 16)
        shares = []
        for step in range(40):
            mixed, permutation, share = cutmix_batch(images, Draw(0, step), p=1.0)
            foreign = (mixed != images)[:, 0]
            for i, partner in enumerate(permutation.tolist()):
                assert (mixed[i][:, foreign[i]] == partner).all()
                if partner != i:
                    assert foreign[i].double().mean().item() == pytest.approx(1 - share)
            shares.append(share)
        assert 0.5 < np.mean(shares) < 0.85  # 1 - E[1 - lam] before boxes are cut off at the edges
        assert len(set(shares)) > 20

    def test_share_of_mixed_batches(self) -> None:
        images = torch.zeros(4, 1, 8, 8)
        kept = [cutmix_batch(images, Draw(0, step), p=0.5)[0] is images for step in range(400)]
        assert 150 < sum(kept) < 250

    def test_an_unmixed_batch_is_its_own(self) -> None:
        images = images_of(4, 1, 8, 8)
        same, permutation, share = cutmix_batch(images, Draw(0), p=0)
        assert same is images
        assert permutation.tolist() == [0, 1, 2, 3]
        assert share == 1

    def test_counted(self) -> None:
        images = images_of(5, 3, 8, 8)
        first, again = (cutmix_batch(images, Draw(3, 4), p=1) for _ in range(2))
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        assert first[2] == again[2]
