"""Image views: the changes that they make, how often, and that an example's draws hang on its index alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from cljax import views
from cljax.views.crops import _box, _interpolation

KEY = jax.random.key(3)
COUNT = 1800
RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(0.5, 1.0, (5, 4)).astype(np.float32)
BATCH = RNG.uniform(size=(8, 6, 6)).astype(np.float32)

shift_gain_noise = jax.jit(views.shift_gain_noise, static_argnames="shift")
flip = jax.jit(views.flip)
random_resized_crop = jax.jit(views.random_resized_crop, static_argnames="size")  # the ranges are traced


def many(image, gain=(1.0, 1.0), noise=0.0):
    return np.asarray(shift_gain_noise(KEY, np.broadcast_to(image, (COUNT, 5, 4)), gain=gain, noise=noise))


def test_shifts_are_uniform_over_nine_places_and_filled_with_zeros():
    got = many(IMAGE)
    counts = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            expected = np.zeros_like(IMAGE)
            expected[max(down, 0) : 5 + min(down, 0), max(right, 0) : 4 + min(right, 0)] = IMAGE[max(-down, 0) : 5 - max(down, 0)][
                :, max(-right, 0) : 4 - max(right, 0)
            ]
            counts.append(int((got == expected).all(axis=(1, 2)).sum()))
    assert sum(counts) == COUNT
    assert stats.chisquare(counts).pvalue > 1e-3


def test_one_gain_for_an_image_is_uniform_and_drawn_apart_from_the_shift():
    drawn = many(np.ones_like(IMAGE), gain=(0.7, 1.3))
    gain, down, right = drawn.max(axis=(1, 2)), drawn[:, 0].max(axis=1) == 0, drawn[:, :, 0].max(axis=1) == 0
    assert ((drawn == gain[:, None, None]) | (drawn == 0)).all()
    assert stats.kstest(gain, stats.uniform(0.7, 0.6).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef([gain, down, right])[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(COUNT)


def test_noise_is_normal_and_independent():
    noise = many(np.zeros_like(IMAGE), noise=0.15).reshape(COUNT, 20)
    assert stats.kstest(noise.ravel(), stats.norm(0, 0.15).cdf).pvalue > 1e-3
    between_pixels = np.corrcoef(noise.T)[np.triu_indices(20, 1)]
    assert np.abs(between_pixels).max() < 5 / np.sqrt(COUNT)
    between_examples = np.corrcoef(noise[0::2].ravel(), noise[1::2].ravel())[0, 1]
    assert np.abs(between_examples) < 5 / np.sqrt(10 * COUNT)


def test_shift_zero_stays_and_channels_move_together():
    assert np.array_equal(views.shift_gain_noise(KEY, BATCH[:1], shift=0, gain=(1.0, 1.0), noise=0.0), BATCH[:1])
    images = np.stack([IMAGE, 2 * IMAGE], axis=-1)[None]
    got = np.asarray(shift_gain_noise(KEY, images, noise=0.0))
    np.testing.assert_allclose(got[..., 1], 2 * got[..., 0], rtol=1e-6)
    assert not np.allclose(got, images)


def test_bytes_become_floats_and_channels_are_normalised():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8)
    np.testing.assert_allclose(views.to_floats(pictures), pictures / 255, rtol=1e-6)
    got = jax.jit(lambda x: views.to_floats(x, *views.IMAGENET))(pictures)
    np.testing.assert_allclose(got, (pictures / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], atol=1e-5)
    assert got.dtype == jnp.float32 and views.to_floats(IMAGE.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    np.testing.assert_array_equal(views.to_floats(IMAGE), IMAGE)


def test_half_of_the_images_are_mirrored():
    images = np.broadcast_to(np.float32([[1, 2, 3], [4, 5, 6]]), (COUNT, 2, 3))
    got = np.asarray(flip(KEY, images))
    mirrored = (got == images[:, :, ::-1]).all(axis=(1, 2))
    assert (mirrored | (got == images).all(axis=(1, 2))).all()
    assert stats.binomtest(int(mirrored.sum()), COUNT, 0.5).pvalue > 1e-3
    never, always = (np.asarray(flip(KEY, images, probability=p)) for p in (0.0, 1.0))
    np.testing.assert_array_equal(never, images)
    np.testing.assert_array_equal(always, images[:, :, ::-1])
    upright = np.asarray(views.flip(KEY, images, vertical=True))
    np.testing.assert_array_equal(upright, np.where(mirrored[:, None, None], images[:, ::-1], images))  # the same draws


def published_box(rng, height, width, scale, ratio):
    """The published procedure, loop and all: top, left, height, width."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        shape = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round(np.sqrt(area * shape)), round(np.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


boxes = jax.jit(jax.vmap(_box, in_axes=(0, None, None, None, None)))


@pytest.mark.parametrize(("shape", "scale"), [((6, 6), (0.08, 1.0)), ((4, 9), (0.5, 1.0))])
def test_boxes_have_the_published_distribution(shape, scale):
    got = np.stack(boxes(jax.random.split(KEY, COUNT), *shape, scale, (3 / 4, 4 / 3)), axis=1).astype(int)
    rng = np.random.default_rng(1)
    expected = np.array([published_box(rng, *shape, scale, (3 / 4, 4 / 3)) for _ in range(COUNT)])
    for columns in ([2, 3], [0, 2], [1, 3]):  # sizes, and places given sizes
        keys, codes = np.unique(np.concatenate([got, expected])[:, columns], axis=0, return_inverse=True)
        table = np.stack([np.bincount(codes.ravel()[part], minlength=len(keys)) for part in (slice(COUNT), slice(COUNT, None))])
        table = np.concatenate([table[:, table.sum(0) >= 20], table[:, table.sum(0) < 20].sum(1, keepdims=True)], axis=1)
        assert stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("shape", "ratio", "expected"),
    [
        ((4, 40), (3 / 4, 4 / 3), (0, 17, 4, 5)),  # too wide
        ((40, 4), (3 / 4, 4 / 3), (17, 0, 5, 4)),  # too high
        ((9, 10), (0.75, 0.8), (0, 1, 9, 7)),
        ((40, 43), (1.5, 2.0), (5, 0, 29, 43)),
        ((5, 100), (0.1, 100.0), (0, 0, 5, 100)),  # its own shape is allowed, and most draws miss it
    ],
)
def test_after_ten_misses_the_central_box_is_taken(shape, ratio, expected):
    drawn = {tuple(box) for box in np.stack(boxes(jax.random.split(KEY, COUNT), *shape, (1.0, 1.0), ratio), axis=1).tolist()}
    assert expected in drawn
    assert len(drawn) == 1 or ratio == (0.1, 100.0)


@pytest.mark.parametrize(("start", "extent", "size"), [(2, 5, 12), (0, 12, 5), (3, 7, 7), (11, 1, 4), (1, 9, 2)])
def test_resizing_equals_cutting_out_and_resizing_by_pillow(start, extent, size):
    image = RNG.uniform(size=(12, 1)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image[start : start + extent]).resize((1, size), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(np.asarray(_interpolation(size, 12, jnp.float32(start), jnp.float32(extent))) @ image, expected, atol=1e-6)


def test_rows_and_columns_are_cut_apart():
    image = np.arange(6.0, dtype=np.float32)[:, None] * 10 + np.arange(6.0, dtype=np.float32)  # linear: a view of it is linear too
    got = np.asarray(random_resized_crop(KEY, np.broadcast_to(image, (COUNT, 6, 6)), scale=(0.2, 0.6), size=(5, 3)))
    assert got.shape == (COUNT, 5, 3)
    keys = jax.vmap(partial(jax.random.fold_in, KEY))(jnp.arange(COUNT))
    top, left, height, width = (np.asarray(x) for x in boxes(keys, 6, 6, (0.2, 0.6), (3 / 4, 4 / 3)))
    middle = (top + (height - 1) / 2) * 10 + left + (width - 1) / 2
    np.testing.assert_allclose(got[:, 2, 1], middle, atol=1e-3)
    np.testing.assert_allclose(got.mean(axis=(1, 2)), middle, atol=1e-3)


def test_a_box_of_everything_is_the_image_in_all_channels():
    images = RNG.uniform(size=(3, 6, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(random_resized_crop(KEY, images, scale=(1.0, 1.0), ratio=(1.0, 1.0)), images, atol=1e-6)


def test_random_crops_are_equally_often_at_every_place_and_padded_with_zeros():
    got = np.asarray(views.random_crop(KEY, np.broadcast_to(IMAGE, (COUNT, 5, 4)), size=(4, 3), padding=1))
    padded = np.pad(IMAGE, 1)
    counts = [(got == padded[top : top + 4, left : left + 3]).all(axis=(1, 2)).sum() for top in range(4) for left in range(4)]
    assert sum(counts) == COUNT and stats.chisquare(counts).pvalue > 1e-3


def test_a_random_crop_moves_channels_together_and_the_middle_is_cut_out():
    images = RNG.uniform(size=(3, 7, 6, 2)).astype(np.float32)
    got = np.asarray(views.random_crop(KEY, images, size=4))
    alone = [np.asarray(views.random_crop(KEY, images[..., i], size=4)) for i in (0, 1)]
    np.testing.assert_array_equal(got, np.stack(alone, axis=-1))
    np.testing.assert_array_equal(views.random_crop(KEY, images, size=(7, 6)), images)
    np.testing.assert_array_equal(views.centre_crop(images, 4), images[:, 1:5, 1:5])  # 3 rows are left over: the smaller half is cut off above
    np.testing.assert_array_equal(views.centre_crop(images[..., 0], (7, 2)), images[:, :, 2:4, 0])


def test_images_are_brought_to_a_size_as_pillow_does():
    image = RNG.uniform(size=(12, 9)).astype(np.float32)
    for size in ((5, 4), (24, 18), (12, 9)):
        expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        np.testing.assert_allclose(views.resize(np.stack([image, image])[..., None], size)[1, ..., 0], expected, atol=1e-5)
    assert views.resize(jnp.ones((2, 3, 3), jnp.bfloat16), 6).dtype == jnp.bfloat16


def test_photographs_for_imagenet_are_parts_of_the_normalised_bytes():
    images = RNG.integers(0, 256, (40, 7, 6, 3), np.uint8)
    normal = (images / 255 - np.array(views.IMAGENET[0])) / np.array(views.IMAGENET[1])
    np.testing.assert_allclose(views.imagenet(images, 4), normal[:, 1:5, 1:5], atol=1e-5)
    found, index = np.asarray(views.imagenet(images, 4, key=KEY)), []
    for image, part in zip(normal, found, strict=True):
        places = [(top, left, side) for top in range(4) for left in range(3) for side in (1, -1)]
        index.append([np.allclose(image[top : top + 4, left : left + 4][:, ::side], part, atol=1e-5) for top, left, side in places].index(True))
    assert len(set(index)) > 12  # of 24: all places and both sides come up
    np.testing.assert_array_equal(views.imagenet(images[3:5], 4, key=KEY, index=np.array([3, 4])), found[3:5])


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="size must be at most that of the images with their padding, 8 x 8, got 9 x 8"):
        views.random_crop(KEY, BATCH, size=(9, 8), padding=1)
    with pytest.raises(ValueError, match="padding must be at least 0, got -1"):
        views.random_crop(KEY, BATCH, size=2, padding=-1)
    with pytest.raises(ValueError, match="size must be at most that of the images"):
        views.centre_crop(BATCH, 7)
    with pytest.raises(TypeError, match="images must have dtype float, got uint8"):
        views.centre_crop(BATCH.astype(np.uint8), 2)
    with pytest.raises(TypeError, match="key must be a PRNG key"):
        views.flip(0, BATCH)
    with pytest.raises(ValueError, match=r"images must have shape \[B, H, W\] or \[B, H, W, C\], got \[6, 6\]"):
        views.flip(KEY, BATCH[0])
    with pytest.raises(TypeError, match="images must have dtype float, got uint8"):
        views.shift_gain_noise(KEY, BATCH.astype(np.uint8))
    with pytest.raises(ValueError, match=r"index must have shape \[B\] with B = 8 as in images, got \[3\]"):
        views.shift_gain_noise(KEY, BATCH, index=np.arange(3))
    with pytest.raises(TypeError, match="index must have dtype int"):
        views.flip(KEY, BATCH, index=np.ones(8, np.float32))
    with pytest.raises(ValueError, match="shift must be at least 0, got -1"):
        views.shift_gain_noise(KEY, BATCH, shift=-1)
    with pytest.raises(ValueError, match="noise must be at least 0, got -0.1"):
        views.shift_gain_noise(KEY, BATCH, noise=-0.1)
    with pytest.raises(ValueError, match="gain must be a pair"):
        views.shift_gain_noise(KEY, BATCH, gain=(1.3, 0.7))
    with pytest.raises(ValueError, match="probability must be at least 0 and at most 1, got 2"):
        views.flip(KEY, BATCH, probability=2.0)
    with pytest.raises(ValueError, match=r"scale\[1\] must be at least 0 and at most 1, got 1.5"):
        views.random_resized_crop(KEY, BATCH, scale=(0.1, 1.5))
    with pytest.raises(ValueError, match=r"ratio\[0\] must be greater than 0"):
        views.random_resized_crop(KEY, BATCH, ratio=(0.0, 1.0))
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        views.random_resized_crop(KEY, BATCH, size=0)
    with pytest.raises(ValueError, match="examples must have one leading axis of the same size"):
        views.per_example(lambda key, x: x, KEY, {"a": np.ones(3), "b": np.ones(4)})
