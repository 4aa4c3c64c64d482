"""Random erasing, block masks and several crops: distributions against the published procedures, written as loops."""

import jax
import numpy as np
from scipy import stats

from cljax import views

KEY = jax.random.key(5)
COUNT = 2000
ONES = np.ones((COUNT, 6, 8), np.float32)

random_erasing = jax.jit(views.random_erasing)


def same_distribution(got, expected):
    """Whether two lists of outcomes have the same distribution, rare outcomes taken together."""
    codes, seen = np.unique(np.concatenate([got, expected]), axis=0, return_inverse=True)
    table = np.stack([np.bincount(part, minlength=len(codes)) for part in np.split(seen.ravel(), [len(got)])])
    table = np.concatenate([table[:, table.sum(0) >= 20], table[:, table.sum(0) < 20].sum(1, keepdims=True)], axis=1)
    return stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-3


def published_erasing(rng, height, width, scale=(0.02, 0.33), ratio=(0.3, 3.3)):
    """Top, left, height and width of the box, or None after ten misses."""
    for _ in range(10):
        area, shape = height * width * rng.uniform(*scale), np.exp(rng.uniform(*np.log(ratio)))
        h, w = round(np.sqrt(area * shape)), round(np.sqrt(area / shape))
        if h < height and w < width:
            return rng.integers(height - h + 1), rng.integers(width - w + 1), h, w
    return None


def boxes_of(masks):
    """Top, left, height and width of what is masked; zeros where nothing is."""
    rows, columns = masks.any(axis=2), masks.any(axis=1)
    found = np.stack([rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)], 1)
    assert (masks.sum(axis=(1, 2)) == found[:, 2] * found[:, 3]).all()  # a box, and nothing else
    return found


def test_erased_boxes_have_the_published_distribution():
    rng = np.random.default_rng(1)
    got = boxes_of(np.asarray(random_erasing(KEY, ONES, probability=1.0)) == 0)
    expected = np.array([published_erasing(rng, 6, 8) for _ in range(COUNT)])
    expected[(expected[:, 2] == 0) | (expected[:, 3] == 0)] = 0
    for columns in ([2, 3], [0, 2], [1, 3]):
        assert same_distribution(got[:, columns], expected[:, columns])


def test_half_of_the_images_are_erased_and_filled_as_asked():
    got = np.asarray(random_erasing(KEY, ONES, value=0.25, scale=(0.2, 0.3)))
    assert stats.binomtest(int((got != 1).any(axis=(1, 2)).sum()), COUNT, 0.5).pvalue > 1e-3
    assert set(np.unique(got)) == {np.float32(0.25), np.float32(1)}
    noise = np.asarray(views.random_erasing(KEY, 2 * ONES, value=None, probability=1.0))
    assert stats.kstest(noise[noise != 2][:5000], stats.uniform.cdf).pvalue > 1e-3


def test_an_image_that_no_box_fits_stays():
    np.testing.assert_array_equal(random_erasing(KEY, ONES[:5], scale=(0.9, 1.0), ratio=(20.0, 20.0), probability=1.0), ONES[:5])


def published_mask(rng, height, width, share, ratio=(0.3, 1 / 0.3)):
    mask, most, least = np.zeros((height, width), bool), height * width * rng.uniform(*share), (min(height, width) // 3) ** 2
    while mask.sum() < most:
        for _ in range(10):
            left = most - mask.sum()
            area, shape = least + rng.uniform() * (left - least), np.exp(rng.uniform(*np.log(ratio)))
            h, w = round(np.sqrt(area * shape)), round(np.sqrt(area / shape))
            if h < height and w < width:
                top, start = rng.integers(height - h + 1), rng.integers(width - w + 1)
                block = np.zeros_like(mask)
                block[top : top + h, start : start + w] = True
                if 0 < (block & ~mask).sum() <= left:
                    mask |= block
                    break
        else:
            break
    return mask


def test_masked_blocks_have_the_published_distribution():
    share, rng = (0.2, 0.5), np.random.default_rng(2)
    images = np.ones((COUNT, 13, 16), np.float32)  # patches of 2 x 2; the last row belongs to none
    got = np.asarray(views.block_mask(KEY, images, patch=2, share=share)) == 0
    assert not got[:, 12].any()
    grid = got[:, :12].reshape(COUNT, 6, 2, 8, 2)
    assert (grid == grid[:, :, :1, :, :1]).all()
    grid = grid[:, :, 0, :, 0]
    expected = np.stack([published_mask(rng, 6, 8, share) for _ in range(COUNT)])
    assert grid.sum(axis=(1, 2)).max() <= 0.5 * 48
    assert same_distribution(grid.sum(axis=(1, 2))[:, None], expected.sum(axis=(1, 2))[:, None])
    assert same_distribution(grid.any(axis=2).sum(1)[:, None], expected.any(axis=2).sum(1)[:, None])  # how many rows are touched
    np.testing.assert_allclose(grid.mean(0), expected.mean(0), atol=5 * np.sqrt(0.5 / COUNT))


def test_nothing_is_masked_at_share_zero():
    np.testing.assert_array_equal(views.block_mask(KEY, ONES[:3], patch=2, share=(0.0, 0.0)), ONES[:3])


def test_several_crops_are_random_resized_crops_with_draws_of_their_own():
    ramp = np.arange(8, dtype=np.float32)
    images = np.broadcast_to(ramp[:, None] * 10 + ramp, (200, 8, 8))
    scales = ((0.5, 1.0), (0.1, 0.3))
    large, small = (np.asarray(x) for x in views.multi_crop(KEY, images, sizes=(6, (3, 2)), counts=(2, 3), scales=scales))
    assert large.shape == (2, 200, 6, 6) and small.shape == (3, 200, 3, 2)
    flat = np.concatenate([large.mean(axis=(2, 3)), small.mean(axis=(2, 3))])
    assert np.abs(np.corrcoef(flat)[np.triu_indices(5, 1)]).max() < 4.5 / np.sqrt(200)
    alone = np.asarray(views.random_resized_crop(KEY, images, size=(3, 2), scale=scales[1])).mean(axis=(1, 2))
    assert stats.ks_2samp(small.mean(axis=(2, 3)).ravel(), alone).pvalue > 1e-3
    assert np.ptp(large, axis=(2, 3)).mean() > 1.5 * np.ptp(small, axis=(2, 3)).mean()  # a large one sees more of the ramp
