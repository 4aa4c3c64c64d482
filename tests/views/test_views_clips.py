"""Views of clips: all frames of a clip get one draw, so that what moves still moves; CVRL's augmentation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import views
from cljax.views.colour import _jitter

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
CLIPS = RNG.uniform(size=(4, 3, 8, 6, 3)).astype(np.float32)
STILL = np.broadcast_to(CLIPS[:, :1], CLIPS.shape)
CROP = partial(views.random_resized_crop, scale=(0.3, 1.0), size=5)
augment = jax.jit(views.clip_augment, static_argnames=("second", "consistent", "size"))


@pytest.fixture(scope="module")
def augmented():
    return {second: np.asarray(augment(KEY, CLIPS, second=second)) for second in (False, True)}


def moving(clips):
    return np.abs(np.diff(clips, axis=1)).reshape(len(clips), -1).max(1)


@pytest.mark.parametrize("second", [False, True])
def test_frames_that_are_alike_stay_alike_and_frame_by_frame_they_do_not(second):
    np.testing.assert_allclose(moving(augment(KEY, STILL, second=second)), 0, atol=1e-6)
    assert np.all(moving(augment(KEY, STILL, second=second, consistent=False)) > 1e-2)


def test_differences_of_frames_go_with_crop_and_flip():
    for view in (CROP, views.flip):
        both = jax.jit(partial(views.per_clip, view))
        np.testing.assert_allclose(both(KEY, np.diff(CLIPS, axis=1)), np.diff(both(KEY, CLIPS), axis=1), atol=1e-5)
        apart = jax.jit(partial(views.per_clip, view, consistent=False))
        assert np.abs(apart(KEY, np.diff(CLIPS, axis=1)) - np.diff(apart(KEY, CLIPS), axis=1)).max() > 0.1


def test_a_frame_gets_the_view_of_an_image_with_the_index_of_its_clip():
    index = np.array([7, 2, 7, 0], np.uint8)
    got = views.per_clip(CROP, KEY, CLIPS, index=index)
    for t in range(3):
        np.testing.assert_array_equal(got[:, t], CROP(KEY, CLIPS[:, t], index=index))
    np.testing.assert_array_equal(views.per_clip(views.flip, KEY, CLIPS), views.per_clip(views.flip, KEY, CLIPS, index=np.arange(4)))
    apart = views.per_clip(CROP, KEY, CLIPS, index=index, consistent=False)
    frames = (3 * index[:, None].astype(int) + np.arange(3)).ravel()
    np.testing.assert_array_equal(apart, CROP(KEY, CLIPS.reshape(12, 8, 6, 3), index=frames).reshape(apart.shape))
    grey = views.per_clip(views.shift_gain_noise, KEY, CLIPS[..., 0], index=index)
    assert grey.shape == CLIPS.shape[:4]
    np.testing.assert_array_equal(got.shape, (4, 3, 5, 5, 3))


def test_contrast_is_about_the_mean_of_the_whole_clip_in_each_channel():
    contrast = partial(views.colour_jitter, brightness=0, contrast=0.5, saturation=0, hue=0, probability=1.0, contrast_mean="channel")
    clips = 0.3 + 0.4 * CLIPS  # nothing is clipped at factors from 0.5 to 1.5
    got = np.asarray(views.per_clip(contrast, KEY, clips, tall=True))
    mean = clips.mean(axis=(1, 2, 3), keepdims=True)
    factor = ((got - mean) / (clips - mean)).reshape(4, -1)
    np.testing.assert_allclose(factor, np.median(factor, axis=1, keepdims=True) * np.ones_like(factor), rtol=5e-2)
    assert np.all((factor[:, 0] > 0.5) & (factor[:, 0] < 1.5)) and np.ptp(factor[:, 0]) > 0.05
    each = np.asarray(views.per_clip(contrast, KEY, clips))  # without `tall` that of each frame
    np.testing.assert_allclose(each.mean(axis=(2, 3)), clips.mean(axis=(2, 3)), atol=1e-5)
    assert np.abs(got.mean(axis=(2, 3)) - clips.mean(axis=(2, 3))).max() > 1e-3


@pytest.mark.parametrize("by_channel", [False, True])
def test_the_mean_of_the_contrast_is_the_lumas_or_that_of_each_channel(by_channel):
    image = CLIPS[0, 0].astype(np.float64)
    mean = image.mean((0, 1)) if by_channel else (image @ [0.299, 0.587, 0.114]).mean()
    got = _jitter(jnp.asarray(CLIPS[0, 0]), jnp.array([1.0, 0.4, 1.0]), jnp.array([1, 0, 2]), 0.0, 0, by_channel)
    np.testing.assert_allclose(got, 0.4 * image + 0.6 * mean, atol=1e-6)


def test_the_first_clip_is_always_blurred_and_the_second_seldom_and_one_in_five_solarised():
    plain = jax.jit(partial(views.clip_augment, scale=(1.0, 1.0), ratio=(1.0, 1.0), strength=0.0), static_argnames="second")
    bright = np.full((1000, 2, 1, 1, 1), 0.75, np.float32)
    lines = np.zeros((1000, 2, 20, 20, 1), np.float32)
    lines[:, :, ::4] = 0.4  # which a mirror changes not
    bright = {second: np.asarray(plain(KEY, bright, second=second))[:, 0, 0, 0, 0] for second in (False, True)}
    blurred = {second: np.abs(plain(KEY, lines, second=second) - lines).max((1, 2, 3, 4)) > 1e-3 for second in (False, True)}
    assert set(bright[False]) == {0.75} and set(bright[True]) == {0.25, 0.75}
    assert abs(np.mean(bright[True] == 0.25) - 0.2) < 0.04
    wide = 1 - (0.26 - 0.1) / 1.9  # a narrower blur changes less than that
    assert abs(blurred[False].mean() - wide) < 0.04 and abs(blurred[True].mean() - 0.1 * wide) < 0.03


def test_values_and_dtype_stay_and_each_row_has_its_own_draw(augmented):
    for second, got in augmented.items():
        assert got.shape == CLIPS.shape and got.min() >= 0 and got.max() <= 1
        order = np.array([2, 0, 3])
        np.testing.assert_allclose(augment(KEY, CLIPS[order], index=order, second=second), got[order], atol=1e-5)
    assert np.abs(augmented[True] - augmented[False]).max() > 0.1
    narrow = jax.eval_shape(augment, KEY, jax.ShapeDtypeStruct((2, 3, 8, 8, 1), jnp.bfloat16), size=(4, 6))
    assert narrow.shape == (2, 3, 4, 6, 1) and narrow.dtype == jnp.bfloat16


def test_four_devices_make_the_views_of_one(augmented):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = dict(in_specs=(jax.P("data"), jax.P("data")), out_specs=jax.P("data"))
    spread = jax.shard_map(lambda clips, index: views.clip_augment(KEY, clips, index=index), mesh=mesh, **specs)
    np.testing.assert_allclose(jax.jit(spread)(CLIPS, np.arange(4)), augmented[False], atol=1e-5)


def test_crops_are_spread_along_the_longer_side():
    wide, tall = np.arange(2 * 3 * 7.0).reshape(2, 3, 7, 1), np.arange(2 * 7 * 3.0).reshape(2, 7, 3, 1).astype(np.uint8)
    got = views.spread_crops(wide)
    assert got.shape == (3, 2, 3, 3, 1)
    for crop, start in zip(got, (0, 2, 4), strict=True):
        np.testing.assert_array_equal(crop, wide[:, :, start : start + 3])
    got = jax.jit(views.spread_crops, static_argnums=1)(tall, 4)
    assert got.dtype == np.uint8
    for crop, start in zip(got, (0, 1, 3, 4), strict=True):
        np.testing.assert_array_equal(crop, tall[:, start : start + 3])
    np.testing.assert_array_equal(views.spread_crops(wide, 1)[0], wide[:, :, 2:5])
    np.testing.assert_array_equal(views.spread_crops(wide[:, :, :3], 2), np.stack([wide[:, :, :3]] * 2))


def test_clips_are_taken_out_of_videos():
    places = {"first": RNG.integers(0, 3, (4, 5)), "several": RNG.integers(0, 3, (4, 2, 3))}
    got = jax.jit(views.take_clips)(CLIPS, places)
    assert got["first"].shape == (4, 5, 8, 6, 3) and got["several"].shape == (4, 2, 3, 8, 6, 3)
    for b in range(4):
        np.testing.assert_array_equal(got["first"][b], CLIPS[b][places["first"][b]])
        np.testing.assert_array_equal(got["several"][b], CLIPS[b][places["several"][b]])


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: views.spread_crops(CLIPS[0, 0, 0]), ValueError, r"clips must have shape \[..., H, W, C\], got \[6, 3\]"),
        (lambda: views.spread_crops(CLIPS, 0), ValueError, "crops must be at least 1, got 0"),
        (lambda: views.take_clips(np.ones(3), np.zeros((3, 1), int)), ValueError, r"videos must have shape \[B, L, ...\], got \[3\]"),
        (lambda: views.take_clips(CLIPS, np.zeros((3, 1), int)), ValueError, r"places must have a row for each of the 4 videos, got shape \[3, 1\]"),
        (lambda: views.take_clips(CLIPS, np.zeros((4, 1))), TypeError, "places must have dtype int"),
        (
            lambda: views.per_clip(views.flip, KEY, CLIPS[0, 0]),
            ValueError,
            r"clips must have shape \[B, T, H, W\] or \[B, T, H, W, C\], got \[8, 6, 3\]",
        ),
        (lambda: views.per_clip("flip", KEY, CLIPS), TypeError, r"view must be a function view\(key, images, \*, index\), got str"),
        (lambda: views.per_clip(views.flip, KEY, CLIPS, index=np.arange(3)), ValueError, r"index must have shape \[B\] with B = 4"),
        (lambda: views.per_clip(views.flip, 3, CLIPS), TypeError, "key must be a PRNG key"),
        (lambda: views.clip_augment(KEY, CLIPS.astype(np.uint8)), TypeError, "clips must have dtype float, got uint8"),
        (lambda: views.clip_augment(KEY, CLIPS, strength=3), ValueError, "strength must be at least 0 and at most 2.5, got 3"),
        (lambda: views.colour_jitter(KEY, CLIPS[0], contrast_mean="mean"), ValueError, "contrast_mean must be one of 'luma', 'channel', got 'mean'"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
