"""Views of colour and blur: given factors give the exact picture, and the factors have the published distribution."""

import colorsys
import itertools

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from cljax import views
from cljax.views.blur import _blurring
from cljax.views.colour import _jitter

KEY = jax.random.key(7)
COUNT = 2000
RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(size=(5, 4, 3))
PICTURE = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)

jitter = jax.jit(jax.vmap(_jitter, in_axes=(None, 0, 0, 0, 0)))


def blend(image, target, factor):
    return np.clip(factor * image + (1 - factor) * target, 0, 1)


def luma(image):
    return image @ [[0.299], [0.587], [0.114]]


def turned(image, turn):
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3)]
    return np.array([colorsys.hsv_to_rgb((h + turn) % 1, s, v) for h, s, v in hsv]).reshape(image.shape)


def published(image, factors, turn, order):
    """The published procedure in float64; `order` holds 0 to 3: brightness, contrast, saturation, hue."""
    for kind in order:
        target = [0.0, luma(image).mean(), luma(image), None][kind]
        image = turned(image, turn) if kind == 3 else blend(image, target, factors[kind])
    return image


def test_all_orders_of_given_factors_equal_the_published_procedure():
    orders = list(itertools.permutations(range(4)))
    factors, turns = RNG.uniform(0.2, 1.8, (24, 3)), RNG.uniform(-0.5, 0.5, 24)
    inner = np.array([[kind for kind in order if kind != 3] for order in orders])
    got = jitter(np.float32(IMAGE), np.float32(factors), inner, np.float32(turns), np.float32([order.index(3) for order in orders]))
    expected = [published(IMAGE, f, t, o) for f, t, o in zip(factors, turns, orders, strict=True)]
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert len({x.tobytes() for x in np.round(expected, 6)}) == 24


def test_each_change_equals_pillows():
    image = Image.fromarray(PICTURE)
    factors = np.array([[0.6, 1, 1], [1.4, 1, 1], [1, 0.5, 1], [1, 1.7, 1], [1, 1, 0.2], [1, 1, 1.8]], np.float32)
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    expected = [np.asarray(kinds[i // 2](image).enhance(float(row[i // 2]))) / 255 for i, row in enumerate(factors)]
    got = jitter(np.float32(PICTURE / 255), factors, np.tile(np.arange(3), (6, 1)), np.zeros(6, np.float32), np.zeros(6, np.float32))
    np.testing.assert_allclose(got, expected, atol=2 / 255)  # Pillow rounds to whole levels, luma and mean too


def test_strengths_give_uniform_factors_each_of_its_own():
    patch = np.float32([[[0.55, 0.5, 0.45], [0.45, 0.4, 0.35]]])  # nothing is clipped, so the changes can be told apart
    images = np.broadcast_to(patch, (COUNT, 1, 2, 3))
    for strengths, read, law in [
        (dict(brightness=0.3), lambda x: x.mean((1, 2, 3)) / patch.mean(), stats.uniform(0.7, 0.6)),
        (dict(contrast=0.3), lambda x: (luma(x[:, 0, 0]) - luma(x[:, 0, 1]))[:, 0] / 0.1, stats.uniform(0.7, 0.6)),
        (dict(saturation=1.5), lambda x: np.ptp(x[:, 0, 0], axis=-1) / 0.1, stats.uniform(0, 2.5)),
    ]:
        settings = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, probability=1.0) | strengths
        assert stats.kstest(read(np.asarray(views.colour_jitter(KEY, images, **settings), np.float64)), law.cdf).pvalue > 1e-3, strengths


def test_the_hue_turns_evenly_both_ways():
    images = np.broadcast_to(np.float32([0.8, 0.4, 0.4]), (COUNT, 1, 1, 3))
    got = np.asarray(views.colour_jitter(KEY, images, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.3, probability=1.0), np.float64)
    hue = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in got[:, 0, 0]])
    assert stats.kstest((hue + 0.5) % 1 - 0.5, stats.uniform(-0.3, 0.6).cdf).pvalue > 1e-3


def test_whole_distribution_is_the_published_one_with_random_order():
    patch = np.array([[[0.9, 0.5, 0.1], [0.2, 0.8, 0.7]]])
    images = np.broadcast_to(np.float32(patch), (COUNT, 1, 2, 3))
    got = np.asarray(views.colour_jitter(KEY, images, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=1.0))
    rng = np.random.default_rng(1)

    def drawn(order):
        draws = ((rng.uniform(0.2, 1.8, 3), rng.uniform(-0.2, 0.2), order or rng.permutation(4)) for _ in range(COUNT))
        return np.array([published(patch, *draw) for draw in draws]).reshape(COUNT, 6)

    def pvalue(expected):
        return min(stats.ks_2samp(x, y).pvalue for x, y in zip(got.reshape(COUNT, 6).T, expected.T, strict=True))

    assert pvalue(drawn(None)) > 1e-3
    assert pvalue(drawn([0, 1, 2, 3])) < 1e-4  # a fixed order would be seen


def test_a_change_happens_as_often_as_it_should():
    images = np.broadcast_to(np.float32([[[0.6, 0.5, 0.1], [0.2, 0.3, 0.9]]]), (COUNT, 1, 2, 3))
    for view, probability in [(views.colour_jitter, 0.8), (views.greyscale, 0.2), (views.solarise, 0.2)]:
        changed = (np.asarray(view(KEY, images)) != images).any(axis=(1, 2, 3))
        assert stats.binomtest(int(changed.sum()), COUNT, probability).pvalue > 1e-3, view


def test_grey_images_know_brightness_and_contrast_only():
    image = np.float32(IMAGE[None, :, :, 0])
    got = np.asarray(views.colour_jitter(KEY, image, brightness=0.0, contrast=0.0, saturation=0.9, hue=0.5, probability=1.0))
    np.testing.assert_allclose(got[0], IMAGE[..., 0], atol=1e-6)
    np.testing.assert_array_equal(views.greyscale(KEY, IMAGE[None, :, :, :1].astype(np.float32), probability=1.0)[0], np.float32(IMAGE[..., :1]))


def test_grey_is_the_luma_of_pillow_and_nearly_dm_pix():
    got = np.asarray(views.greyscale(KEY, np.float32(PICTURE[None] / 255), probability=1.0))[0]
    np.testing.assert_allclose(got[..., 0], np.asarray(Image.fromarray(PICTURE).convert("L")) / 255, atol=0.51 / 255)
    np.testing.assert_array_equal(got, got[..., :1].repeat(3, -1))
    np.testing.assert_allclose(got, dm_pix.rgb_to_grayscale(np.float32(PICTURE / 255), keep_dims=True), atol=2e-4)  # its weights sum to 0.9999


def test_solarised_equals_pillow():
    got = np.asarray(views.solarise(KEY, np.float32(PICTURE[None] / 255), threshold=128 / 255, probability=1.0))[0]
    np.testing.assert_allclose(got, np.asarray(ImageOps.solarize(Image.fromarray(PICTURE), 128)) / 255, atol=1e-6)


@pytest.mark.parametrize(("length", "radius", "sigma"), [(9, 2, 1.3), (5, 4, 3.0), (6, 0, 0.5), (1, 0, 1.0)])
def test_blurring_equals_mirrored_correlation(length, radius, sigma):
    signal = RNG.uniform(size=length)
    kernel = np.exp(-(np.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    expected = ndimage.correlate1d(signal, kernel / kernel.sum(), mode="mirror")
    np.testing.assert_allclose(np.asarray(jax.jit(_blurring, static_argnums=(0, 1))(length, radius, sigma)) @ signal, expected, atol=1e-6)


def test_blur_has_one_uniform_width_for_rows_columns_and_channels():
    impulse = np.zeros((5, 7, 3), np.float32)
    impulse[2, 3] = 0.5, 1.0, 0.25
    images, how = np.broadcast_to(impulse, (COUNT, 5, 7, 3)), dict(kernel_size=3, sigma=(0.4, 2.0))
    half, got = (np.asarray(views.gaussian_blur(KEY, images, probability=p, **how), np.float64) for p in (0.5, 1.0))
    rows, columns = got[:, 1, 3] / got[:, 2, 3], got[:, 2, 4] / got[:, 2, 3]
    np.testing.assert_allclose(rows, columns, atol=1e-5)
    np.testing.assert_allclose(rows, rows[:, :1].repeat(3, 1), atol=1e-5)
    np.testing.assert_allclose(got.sum(axis=(1, 2)), np.broadcast_to([0.5, 1.0, 0.25], (COUNT, 3)), atol=1e-5)
    assert stats.kstest((-2 * np.log(rows[:, 0])) ** -0.5, stats.uniform(0.4, 1.6).cdf).pvalue > 1e-3
    assert stats.binomtest(int((half == got).all(axis=(1, 2, 3)).sum()), COUNT, 0.5).pvalue > 1e-3


def test_the_kernel_is_by_default_a_tenth_of_the_image():
    impulse = jnp.zeros((1, 61, 61)).at[0, 30, 30].set(1)
    got = np.asarray(views.gaussian_blur(KEY, impulse, sigma=(5.0, 5.0), probability=1.0))[0]
    assert (got[30] > 0).sum() == (got[:, 30] > 0).sum() == 7
