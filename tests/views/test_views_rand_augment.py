"""RandAugment: each operation is Pillow's, and the draws have the published distribution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from cljax import views
from cljax.views.rand_augment import _KNOWN, _changed

KEY = jax.random.key(5)
COUNT = 2000
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
PICTURE[..., 1] = np.sort(PICTURE[..., 1].ravel()).reshape(12, 10) // 2 + 30  # a smooth channel of few levels
EXACT = {"identity", "equalise", "solarise", "posterise", "invert", "solarise_add"}


@partial(jax.jit, static_argnums=2)
def changed(share, side, increasing):
    image = jnp.float32(PICTURE / 255)
    return jax.vmap(lambda kind: _changed(image, kind, share, side, 128 / 255, _KNOWN, increasing))(jnp.arange(len(_KNOWN)))


def pillows(share, side, increasing):
    image, how, amount = Image.fromarray(PICTURE), dict(resample=Image.Resampling.BILINEAR, fillcolor=(128,) * 3), share * side
    width, height = image.size
    factor = 1 + 0.9 * amount if increasing else 0.1 + 1.8 * share
    enhanced = {"brightness": "Brightness", "contrast": "Contrast", "colour": "Color", "sharpness": "Sharpness"}
    places = {
        "shear_x": (1, 0.3 * amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * amount, 1, 0),
        "translate_x": (1, 0, 0.45 * amount * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 0.45 * amount * height),
    }
    found = {name: getattr(ImageEnhance, kind)(image).enhance(factor) for name, kind in enhanced.items()}
    found |= {name: image.transform(image.size, Image.Transform.AFFINE, matrix, **how) for name, matrix in places.items()}
    return found | {
        "identity": image,
        "auto_contrast": ImageOps.autocontrast(image),
        "equalise": ImageOps.equalize(image),
        "rotate": image.rotate(30 * amount, **how),
        "solarise": ImageOps.solarize(image, 255 * (1 - share) if increasing else int(256 * share)),
        "posterise": ImageOps.posterize(image, 8 - round(4 * share) if increasing else int(4 * share)),
        "invert": ImageOps.invert(image),
        "solarise_add": image.point([min(255, level + int(110 * share)) if level < 128 else level for level in range(256)] * 3),
    }


@pytest.mark.parametrize(("share", "side", "increasing"), [(0.37, 1, True), (0.8, -1, True), (0.8, -1, False), (1.0, 1, False)])
def test_each_operation_is_pillows(share, side, increasing):
    expected = pillows(share, side, increasing)
    for name, image in zip(_KNOWN, np.asarray(changed(share, side, increasing)), strict=True):
        tolerance = 1e-4 if name in EXACT else 1.5  # else Pillow rounds to whole levels, the luma and what is smoothed too
        np.testing.assert_allclose(255 * image, np.asarray(expected[name], np.float64), atol=tolerance, err_msg=name)


def test_a_channel_of_one_level_stays():
    image = np.full((1, 6, 6, 3), [0.2, 0.4, 0.6], np.float32)
    for name in ("auto_contrast", "equalise", "sharpness"):
        np.testing.assert_allclose(views.rand_augment(KEY, image, operations=(name,)), image, atol=1e-6, err_msg=name)


def test_operations_are_drawn_evenly_and_as_many_as_asked_for():
    images, how = np.full((COUNT, 2, 2, 3), 51 / 255, np.float32), dict(operations=("identity", "invert", "solarise_add"), magnitude=10.0)
    got = np.asarray(views.rand_augment(KEY, images, count=1, **how))[:, 0, 0, 0]
    values, times = np.unique(np.round(255 * got).astype(int), return_counts=True)
    assert values.tolist() == [51, 161, 204]
    assert stats.chisquare(times).pvalue > 1e-3
    for count in (2, 3):
        got = views.rand_augment(KEY, images[:2], count=count, operations=("invert",))
        np.testing.assert_allclose(got, images[:2] if count == 2 else 1 - images[:2], atol=1e-6)


def test_each_of_several_happens_with_the_probability_and_to_either_side():
    images = np.zeros((COUNT, 1, 20, 1), np.float32)
    images[:, :, 10] = 1
    got = np.asarray(views.rand_augment(KEY, images, count=2, operations=("translate_x",), magnitude=10 / 9, probability=0.5, fill=0.0))
    moved = got[:, 0, :, 0].argmax(axis=1) - 10  # each time by 0.05 of 20
    counts = [np.sum(moved == by) for by in range(-2, 3)]
    assert sum(counts) == COUNT
    assert stats.chisquare(counts, COUNT * np.array([1, 4, 6, 4, 1]) / 16).pvalue > 1e-3


def test_the_magnitude_deviates_normally_and_is_cut():
    images = np.full((COUNT, 1, 1, 3), 0.25, np.float32)
    how = dict(count=1, operations=("brightness",), ranges="released")
    found = (np.asarray(views.rand_augment(KEY, images, magnitude=5.0, deviation=1.5, **how), np.float64)[:, 0, 0, 0] / 0.25 - 0.1) / 0.18
    assert stats.kstest(found, stats.norm(5, 1.5).cdf).pvalue > 1e-3
    top = np.asarray(views.rand_augment(KEY, images, magnitude=10.0, deviation=0.5, **how), np.float64)[:, 0, 0, 0] / 0.25
    assert top.max() < 1.9 + 1e-5 and stats.binomtest(int((top > 1.9 - 1e-5).sum()), COUNT, 0.5).pvalue > 1e-3


def test_grey_images_and_fills_of_channels():
    image = np.float32(PICTURE[None, ..., 0] / 255)
    flat, channel = (views.rand_augment(KEY, x, operations=views.RAND_AUGMENT) for x in (image, image[..., None]))
    np.testing.assert_allclose(flat, np.asarray(channel)[..., 0], atol=1e-6)
    got = views.rand_augment(KEY, np.ones((8, 6, 6, 3), np.float32), count=1, operations=("translate_y",), magnitude=10.0, fill=(0.1, 0.2, 0.3))
    corners = np.asarray(got)[:, [0, -1], 0]
    assert {tuple(np.round(row, 4)) for row in corners.reshape(-1, 3)} == {(np.float32(0.1), np.float32(0.2), np.float32(0.3)), (1, 1, 1)}


@pytest.mark.errors
@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        (dict(operations=("rotat",)), ValueError, "operations must be one of .* got 'rotat'; did you mean 'rotate'"),
        (dict(operations="rotate"), ValueError, "operations must be a tuple of names, at least one, got 'rotate'"),
        (dict(operations=()), ValueError, "operations must be a tuple of names, at least one"),
        (dict(count=0), ValueError, "count must be at least 1, got 0"),
        (dict(magnitude=11), ValueError, "magnitude must be at least 0 and at most 10, got 11"),
        (dict(deviation=-1.0), ValueError, "deviation must be at least 0, got -1"),
        (dict(probability=2.0), ValueError, "probability must be at least 0 and at most 1, got 2"),
        (dict(ranges="torchvision"), ValueError, "ranges must be one of 'increasing', 'released'"),
        (dict(fill=np.ones(2)), ValueError, r"fill must be a number or one for each channel, of shape \[3\], got \[2\]"),
    ],
)
def test_bad_input_is_named(how, error, match):
    with pytest.raises(error, match=match):
        views.rand_augment(KEY, np.ones((2, 4, 4, 3), np.float32), **how)
