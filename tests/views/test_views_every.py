"""What holds for every view: an example's draws hang on the key and on its index alone, the dtype is kept, NaN surfaces."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import views

KEY = jax.random.key(3)
BATCH = np.random.default_rng(0).uniform(size=(8, 6, 6, 3)).astype(np.float32)
INDEX = np.arange(8)
SINGLE = {  # one program holds them all, so what two share is here once
    "shift_gain_noise": views.shift_gain_noise,
    "random_crop": partial(views.random_crop, size=5, padding=1),
    "random_resized_crop": partial(views.random_resized_crop, scale=(0.3, 1.0)),
    "multi_crop": lambda *args, **how: views.multi_crop(*args, sizes=(5,), counts=(2,), scales=((0.3, 1.0),), **how)[0].swapaxes(0, 1),
    "colour_jitter": views.colour_jitter,
    "greyscale": partial(views.greyscale, probability=0.5),
    "gaussian_blur": partial(views.gaussian_blur, kernel_size=3),
    "rand_augment": views.rand_augment,
    "random_erasing": partial(views.random_erasing, value=None),
    "block_mask": partial(views.block_mask, patch=1),
    "composed": views.compose(views.flip, partial(views.solarise, probability=0.5)),
}
MIXING = {"mix_up": views.mix_up, "cut_mix": views.cut_mix}


def every(key, images, index, axis_name=None):
    """All views in one program."""
    mixed = {name: view(key, images, index=index, alpha=1.0, axis_name=axis_name) for name, view in MIXING.items()}
    return {name: view(key, images, index=index) for name, view in SINGLE.items()}, mixed


compiled = jax.jit(every)


@pytest.fixture(scope="module")
def reference():
    return compiled(KEY, BATCH, INDEX)


def close(got, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), got, expected)


def test_rows_in_another_order_get_the_same_draws(reference):
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    single, mixed = compiled(KEY, BATCH[order], INDEX[order])
    close(single, jax.tree.map(lambda x: x[order], reference[0]))
    for name, expected in reference[1].items():
        np.testing.assert_array_equal(order[mixed[name].partner], expected.partner[order])  # the same partner
        close(mixed[name]._replace(partner=0), jax.tree.map(lambda x: x[order], expected)._replace(partner=0))


def test_another_key_gives_another_draw(reference):
    got = compiled(jax.random.key(4), BATCH, INDEX)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(reference), strict=True):
        assert not np.allclose(x, y), jax.tree_util.keystr(path)


def test_by_default_rows_are_counted():
    np.testing.assert_array_equal(views.flip(KEY, BATCH), views.flip(KEY, BATCH, index=INDEX))


def test_four_devices_make_the_views_of_one(reference):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P("data")), out_specs=jax.P("data"))
    close(jax.jit(jax.shard_map(partial(every, axis_name="data"), mesh=mesh, **specs))(KEY, BATCH, INDEX), reference)


def test_without_an_index_the_partners_are_those_of_the_global_rows():
    alone = views.mix_up(KEY, BATCH, alpha=1.0)
    split = jax.jit(jax.vmap(lambda images: views.mix_up(KEY, images, alpha=1.0, axis_name="data"), axis_name="data"))(BATCH.reshape(4, 2, 6, 6, 3))
    close(jax.tree.map(lambda x: x.reshape(8, *x.shape[2:]), split), alone)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtype_is_kept(dtype):
    single, mixed = jax.eval_shape(every, KEY, jax.ShapeDtypeStruct(BATCH.shape, dtype), INDEX)
    assert {leaf.dtype for leaf in jax.tree.leaves(single)} | {x.images.dtype for x in mixed.values()} == {jnp.dtype(dtype)}
    assert {x.weight.dtype for x in mixed.values()} == {jnp.dtype(jnp.float32)}


def test_nan_surfaces_in_its_own_row_and_where_it_is_mixed_in():
    images = BATCH.copy()
    images[2] = np.nan
    single, mixed = compiled(KEY, images, INDEX)
    for name, got in single.items():
        rows = np.isnan(got).reshape(8, -1).any(axis=1)
        assert rows.tolist() == [i == 2 for i in range(8)], name
    for name, got in mixed.items():
        touched = (INDEX == 2) | (np.asarray(got.partner) == 2) & (np.asarray(got.weight) < 1)
        np.testing.assert_array_equal(np.isnan(got.images).any(axis=(1, 2, 3)), touched, err_msg=name)


def test_composed_views_follow_each_other_with_keys_of_their_own():
    both = views.compose(views.flip, views.flip)
    first, second = (jax.random.fold_in(KEY, i) for i in range(2))
    np.testing.assert_array_equal(both(KEY, BATCH), views.flip(second, views.flip(first, BATCH)))
    np.testing.assert_array_equal(views.compose()(KEY, BATCH), BATCH)


def test_a_change_of_one_example_composes_as_a_view():
    view = views.compose(partial(views.per_example, lambda key, image: image + jax.random.uniform(key)), views.flip)
    got = np.asarray(view(KEY, BATCH[:2], index=np.array([5, 5])))
    added = got - np.asarray(views.flip(jax.random.fold_in(KEY, 1), BATCH[:2], index=np.array([5, 5])))
    np.testing.assert_allclose(added, added[0, 0, 0, 0], atol=1e-6)
    assert added[0, 0, 0, 0] > 0


def test_per_example_takes_trees():
    signals = {"x": np.ones((3, 4), np.float32), "y": np.arange(3)}
    got = views.per_example(lambda key, one: {"x": one["x"] * jax.random.uniform(key), "y": one["y"]}, KEY, signals, index=np.uint8([9, 9, 1]))
    np.testing.assert_array_equal(got["x"][0], got["x"][1])
    assert float(got["x"][0, 0]) != float(got["x"][2, 0])
    np.testing.assert_array_equal(got["y"], signals["y"])


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: views.colour_jitter(KEY, BATCH[..., :2]), ValueError, r"images must have one channel or three \(red, green, blue\), got 2"),
        (lambda: views.colour_jitter(KEY, BATCH, contrast=-0.1), ValueError, "contrast must be at least 0, got -0.1"),
        (lambda: views.colour_jitter(KEY, BATCH, hue=0.6), ValueError, "hue must be at least 0 and at most 0.5, got 0.6"),
        (lambda: views.greyscale(KEY, BATCH, probability=1.5), ValueError, "probability must be at least 0 and at most 1, got 1.5"),
        (lambda: views.greyscale(KEY, BATCH, probability=np.ones(3)), ValueError, r"probability must have shape \[\], got \[3\]"),
        (lambda: views.shift_gain_noise(KEY, BATCH, noise=np.ones(3)), ValueError, r"noise must have shape \[\], got \[3\]"),
        (lambda: views.mix_up(KEY, BATCH, alpha=np.ones(3)), ValueError, r"alpha must have shape \[\], got \[3\]"),
        (lambda: views.greyscale(KEY, BATCH.astype(np.uint8)), TypeError, "images must have dtype float, got uint8"),
        (lambda: views.solarise(KEY, BATCH, threshold="half"), TypeError, "threshold must be a number, got 'half'"),
        (lambda: views.gaussian_blur(KEY, BATCH, kernel_size=4), ValueError, r"kernel_size must be odd and at most 11 .* \[6, 6\], got 4"),
        (lambda: views.gaussian_blur(KEY, BATCH, kernel_size=13), ValueError, "kernel_size must be odd and at most 11"),
        (lambda: views.gaussian_blur(KEY, BATCH, kernel_size=3.0), TypeError, "kernel_size must be an integer, got 3.0"),
        (lambda: views.gaussian_blur(KEY, BATCH, sigma=(0.0, 1.0)), ValueError, r"sigma\[0\] must be greater than 0"),
        (lambda: views.multi_crop(KEY, BATCH, sizes=(4,)), ValueError, "sizes, counts and scales must be sequences with one entry for each kind"),
        (lambda: views.multi_crop(KEY, BATCH, sizes=4, counts=2), ValueError, "sizes, counts and scales must be sequences"),
        (lambda: views.multi_crop(KEY, BATCH, sizes=(4, 3), counts=(2, 0)), ValueError, "counts must be at least 1, got 0"),
        (
            lambda: views.multi_crop(KEY, BATCH, sizes=(4, (3, 2, 1))),
            ValueError,
            r"sizes must be a number or a pair \(height, width\), got \(3, 2, 1\)",
        ),
        (lambda: views.multi_crop(KEY, BATCH, sizes=(4, 3), scales=((0.5, 1.0), (0.0, 0.5))), ValueError, r"scales\[0\] must be greater than 0"),
        (lambda: views.mix_up(KEY, BATCH, alpha=0.0), ValueError, "alpha must be greater than 0, got 0"),
        (lambda: views.cut_mix(KEY, BATCH, axis_name="data"), ValueError, "axis_name='data' is not mapped here"),
        (lambda: views.random_erasing(KEY, BATCH, scale=(0.1, 1.2)), ValueError, r"scale\[1\] must be at least 0 and at most 1, got 1.2"),
        (lambda: views.random_erasing(KEY, BATCH, value="black"), TypeError, "value must be a number, got 'black'"),
        (lambda: views.block_mask(KEY, BATCH), ValueError, r"patch must not be larger than the images, of shape \[6, 6\], got \[16, 16\]"),
        (lambda: views.block_mask(KEY, BATCH, patch=2, share=(0.5, 0.2)), ValueError, "share must be a pair"),
        (lambda: views.to_floats(np.ones((2, 3), int)), TypeError, "images must have dtype float, got int"),
        (lambda: views.to_floats(BATCH, (0.5, 0.5)), ValueError, r"mean must be a number or one for each channel, of shape \[3\], got \[2\]"),
        (lambda: views.to_floats(BATCH, 0.5, 0.0), ValueError, "deviation must be greater than 0"),
        (lambda: views.compose(views.flip, "blur"), TypeError, r"views must be functions view\(key, examples, \*, index\), got str"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
