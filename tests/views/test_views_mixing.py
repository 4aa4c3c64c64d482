"""MixUp and CutMix: the mixture is what partner and weight say, and both have the published distribution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cljax import views
from cljax.views.mixing import _span

KEY = jax.random.key(11)
COUNT = 2000
IMAGES = np.random.default_rng(0).uniform(size=(COUNT, 5, 7)).astype(np.float32)


def published_box(rng, height, width, share):
    """The published procedure: first and last row, first and last column."""
    side = np.sqrt(1 - share)
    high, wide = int(height * side), int(width * side)
    row, column = rng.integers(height), rng.integers(width)
    return *np.clip([row - high // 2, row + high // 2], 0, height), *np.clip([column - wide // 2, column + wide // 2], 0, width)


def test_mixtures_are_weighted_means_with_beta_weights():
    for alpha in (0.2, 1.0, 5.0):
        images, partner, weight = (np.asarray(x) for x in views.mix_up(KEY, IMAGES, alpha=alpha))
        share = weight[:, None, None]
        np.testing.assert_allclose(images, share * IMAGES + (1 - share) * IMAGES[partner], atol=1e-6)
        less = weight[weight < 0.5]  # the other half is its mirror image, where float32 rounds many to 1
        assert stats.binomtest(len(less), COUNT, 0.5).pvalue > 1e-3
        assert stats.kstest(stats.beta(alpha, alpha).cdf(less), stats.uniform(0, 0.5).cdf).pvalue > 1e-3


def test_every_permutation_of_partners_is_as_likely():
    def partners(key):
        return views.mix_up(key, jnp.zeros((3, 1, 1))).partner

    got = np.asarray(jax.jit(jax.vmap(partners))(jax.random.split(KEY, COUNT)))
    counts = [(got == order).all(axis=1).sum() for order in itertools.permutations(range(3))]
    assert sum(counts) == COUNT and stats.chisquare(counts).pvalue > 1e-3


def test_partner_and_weight_are_drawn_apart():
    _, partner, weight = (np.asarray(x) for x in views.mix_up(KEY, IMAGES, alpha=1.0))
    for x, y in [(weight, partner), (weight, weight[partner]), (np.arange(COUNT), partner)]:
        assert abs(stats.spearmanr(x, y).statistic) < 4 / np.sqrt(COUNT)


def test_pasted_boxes_have_the_published_distribution():
    images, partner, weight = (np.asarray(x) for x in views.cut_mix(KEY, IMAGES))
    pasted = images != IMAGES
    np.testing.assert_array_equal(images, np.where(pasted, IMAGES[partner], IMAGES))
    moved = partner != np.arange(COUNT)
    np.testing.assert_allclose(weight[moved], 1 - pasted[moved].mean(axis=(1, 2)), atol=1e-6)
    rng = np.random.default_rng(1)
    expected = np.zeros((COUNT, 5, 7), bool)
    for mask in expected:
        top, bottom, left, right = published_box(rng, 5, 7, rng.beta(1, 1))
        mask[top:bottom, left:right] = True
    codes, seen = np.unique(np.concatenate([weight[moved], 1 - expected.mean(axis=(1, 2))]).round(4), return_inverse=True)
    table = np.stack([np.bincount(part, minlength=len(codes)) for part in (seen[: moved.sum()], seen[moved.sum() :])])
    table = np.concatenate([table[:, table.sum(0) >= 20], table[:, table.sum(0) < 20].sum(1, keepdims=True)], axis=1)
    assert stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-3
    np.testing.assert_allclose(pasted[moved].mean(0), expected.mean(0), atol=4 * np.sqrt(0.5 / COUNT))  # how often each place is covered


@pytest.mark.parametrize(("length", "side"), [(7, 0.9), (8, 0.5), (8, 1.0), (5, 0.1)])
def test_a_span_is_the_published_one_around_every_place(length, side):
    for centre in range(length):
        half = int(length * side) // 2
        expected = [max(0, centre - half) <= place < min(length, centre + half) for place in range(length)]
        np.testing.assert_array_equal(_span(jnp.float32((centre + 0.5) / length), length, side), expected)


def test_a_batch_of_one_is_its_own_partner():
    mixed = views.mix_up(KEY, IMAGES[:1], index=np.array([9]), alpha=1.0)
    assert mixed.partner.tolist() == [0]
    np.testing.assert_allclose(mixed.images, IMAGES[:1], atol=1e-6)


def test_targets_are_mixed_as_their_images_are_on_one_device_and_on_four():
    targets = np.eye(5, dtype=np.float32)[np.arange(8) % 5]
    for mix in (views.mix_up, views.cut_mix):
        mixed = mix(KEY, IMAGES[:8], alpha=1.0)
        expected = mixed.weight[:, None] * targets + (1 - mixed.weight[:, None]) * targets[mixed.partner]
        np.testing.assert_allclose(views.mixed_targets(mixed, targets), expected, atol=1e-6)

    def split(images, targets):
        return views.mixed_targets(views.mix_up(KEY, images, alpha=1.0, axis_name="data"), targets, axis_name="data")

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = dict(mesh=mesh, in_specs=(jax.P("data"), jax.P("data")), out_specs=jax.P("data"))
    alone = views.mixed_targets(views.mix_up(KEY, IMAGES[:8], alpha=1.0), targets)
    np.testing.assert_allclose(jax.jit(jax.shard_map(split, **specs))(IMAGES[:8], targets), alone, atol=1e-6)


@pytest.mark.errors
def test_bad_targets_are_named():
    mixed = views.mix_up(KEY, IMAGES[:3])
    with pytest.raises(ValueError, match="targets"):
        views.mixed_targets(mixed, np.ones((4, 2), np.float32))
    with pytest.raises(TypeError, match="targets"):
        views.mixed_targets(mixed, np.ones((3, 2), int))
    with pytest.raises(ValueError, match="axis_name"):
        views.mixed_targets(mixed, np.ones((3, 2), np.float32), axis_name="data")
