"""Residual networks: published sizes, the values that the formulas give, first values, and statistics over several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cljax import encoders, losses, train
from cljax.encoders.initialise import he_normal

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(8, 7, 9, 3)).astype(np.float32)
SMALL = encoders.ResNet((1, 2), width=2, small_stem=True)
LARGE = encoders.ResNet((1, 1), width=2, bottleneck=True)


def shapes(model, images=IMAGES):
    return jax.eval_shape(model.init, KEY, images)


def filled(model, seed=1):
    """Variables with random values, running variances and scales above 0."""
    rng = np.random.default_rng(seed)

    def values(path, leaf):
        name = path[-1].key
        drawn = rng.uniform(0.5, 1.5, leaf.shape) if name in ("scale", "var") else rng.normal(size=leaf.shape) * (0.5 if name == "kernel" else 0.2)
        return drawn.astype(np.float32)

    return jax.tree_util.tree_map_with_path(values, shapes(model))


def windows(x, size, stride, fill):
    padded = np.pad(x, [(0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)], constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::stride, ::stride]  # [B, h, w, C, size, size]


def published(model, variables, images, train):
    """The network in float64; the statistics of the batch by layer."""
    variables, seen = jax.tree.map(np.float64, variables), {}
    params, count = variables["params"], {"Conv": 0, "BatchNorm": 0}

    def named(kind):
        count[kind] += 1
        return f"{kind}_{count[kind] - 1}"

    def layer(x, stride=1):
        kernel, name = params[named("Conv")]["kernel"], named("BatchNorm")
        x = np.einsum("bhwcij,ijcd->bhwd", windows(x, kernel.shape[0], stride, 0.0), kernel)
        seen[name] = {"mean": x.mean((0, 1, 2)), "var": x.var((0, 1, 2))}
        used = seen[name] if train else variables["batch_stats"][name]
        return (x - used["mean"]) / np.sqrt(used["var"] + 1e-5) * params[name]["scale"] + params[name]["bias"]

    x = np.maximum(layer(images.astype(np.float64), 1 if model.small_stem else 2), 0)
    if not model.small_stem:
        x = windows(x, 3, 2, -np.inf).max((-1, -2))
    for stage, blocks in enumerate(model.stages):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            change = x
            for s in (1, stride) if model.bottleneck else (stride,):
                change = np.maximum(layer(change, s), 0)
            change = layer(change)
            x = np.maximum(change + (layer(x, stride) if x.shape != change.shape else x), 0)
    return x.mean((1, 2)), seen


@pytest.mark.parametrize(
    ("model", "count", "features"),
    [(encoders.resnet18(), 11_689_512 - 513_000, 512), (encoders.resnet50(), 25_557_032 - 2_049_000, 2048)],  # without the layer of 1000 classes
)
def test_parameters_are_as_many_as_published(model, count, features):
    variables = shapes(model, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    assert model.features == features
    assert jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)).shape == (2, features)


STEMS = {True: [(32, 64), (32, 64), (16, 128), (8, 256), (4, 512)], False: [(16, 64), (8, 64), (4, 128), (2, 256), (1, 512)]}


@pytest.mark.parametrize(("small", "expected"), STEMS.items())
def test_the_stem_halves_twice_and_each_stage_but_the_first_once(small, expected):
    model = encoders.resnet18(small_stem=small)
    images = jax.ShapeDtypeStruct((2, 32, 32), jnp.float32)  # one channel, without an axis
    seen = jax.eval_shape(lambda v, x: model.apply(v, x, capture_intermediates=True), shapes(model, images), images)[1]["intermediates"]
    convolutions = [seen[f"Conv_{i}"]["__call__"][0].shape for i in (0, 2, 6, 11, 16)]  # the stem, then one of each stage
    assert [(shape[1], shape[3]) for shape in convolutions] == expected
    assert shapes(model, images)["params"]["Conv_0"]["kernel"].shape == ((3, 3, 1, 64) if small else (7, 7, 1, 64))


def test_in_training_the_values_are_those_of_the_batch_and_the_averages_move_by_a_tenth():
    variables = filled(SMALL)
    got, updated = jax.jit(lambda v, x: SMALL.apply(v, x, train=True, mutable=["batch_stats"]))(variables, IMAGES)
    expected, seen = published(SMALL, variables, IMAGES, train=True)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    moved = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, variables["batch_stats"], seen)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), updated["batch_stats"], moved)


def test_otherwise_the_values_are_those_of_the_averages_row_by_row():
    variables, apply = filled(LARGE), jax.jit(LARGE.apply)
    np.testing.assert_allclose(apply(variables, IMAGES), published(LARGE, variables, IMAGES, train=False)[0], atol=2e-5)
    broken = IMAGES.copy()
    broken[2] = np.nan
    got = np.asarray(apply(variables, broken))
    np.testing.assert_allclose(np.delete(got, 2, 0), np.delete(apply(variables, IMAGES), 2, 0), atol=1e-6)
    assert np.isnan(got[2]).all()


def test_a_block_is_the_identity_at_first():
    variables = jax.jit(SMALL.init)(KEY, IMAGES)
    zero = [name for name, layer in variables["params"].items() if "scale" in layer and not np.any(layer["scale"])]
    assert zero == ["BatchNorm_2", "BatchNorm_4", "BatchNorm_7"]  # the second of each block; 5 is on the short cut
    ones = jax.eval_shape(SMALL.clone(zero_scale=False).init, KEY, IMAGES)
    assert jax.tree.structure(ones) == jax.tree.structure(variables)
    kernel = he_normal(KEY, (3, 3, 16, 32))
    np.testing.assert_allclose([np.mean(kernel), np.std(kernel)], [0, np.sqrt(2 / (9 * 32))], atol=2e-3)


def test_bfloat16_is_computed_in_but_neither_kept_nor_given_out():
    narrow = SMALL.clone(dtype=jnp.bfloat16, normalise=True)
    variables = filled(SMALL)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes(narrow))} == {jnp.dtype(jnp.float32)}

    @partial(jax.jit, static_argnums=0)
    def objective(model, variables):
        a, updated = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
        values = losses.nt_xent(a, a[::-1], temperature=0.2)
        return a, values, updated

    a, value, updated = objective(narrow, variables)
    wide, expected, _ = objective(narrow.clone(dtype=jnp.float32), variables)
    assert a.dtype == value.dtype == jnp.float32 and {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype(jnp.float32)}
    assert 1e-6 < np.abs(a - wide).max() < 0.03
    np.testing.assert_allclose(jnp.mean(value), jnp.mean(expected), rtol=0.02)


def test_statistics_are_those_of_all_devices_and_equal_on_each():
    model, variables = SMALL.clone(axis_name="data"), filled(SMALL)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    spread = jax.shard_map(local, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=(jax.P("data"), jax.P()))  # fails where an average varied
    got, updated = jax.jit(spread)(variables, IMAGES)
    expected, seen = published(SMALL, variables, IMAGES, train=True)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    moved = 0.9 * variables["batch_stats"]["BatchNorm_6"]["var"] + 0.1 * seen["BatchNorm_6"]["var"]
    np.testing.assert_allclose(updated["batch_stats"]["BatchNorm_6"]["var"], moved, rtol=1e-4)


HEAD = encoders.ProjectionHead(4, 3, batch_norm=True, last_batch_norm=True, axis_name="data")
TINY = encoders.Chain([encoders.ResNet((1,), width=2, small_stem=True, axis_name="data"), HEAD])
OPTIMISER = optax.sgd(0.02, momentum=0.9)


def objective(params, batch_stats, batch, key):
    images = jnp.concatenate([batch["images"], batch["images"][:, :, ::-1]])
    embeddings, updated = TINY.apply({"params": params, "batch_stats": batch_stats}, images, train=True, mutable=["batch_stats"])
    values = losses.nt_xent(*jnp.split(embeddings, 2), temperature=0.5, axis_name="data")
    return losses.mean(values, axis_name="data"), updated["batch_stats"]


def step(state, batch, key):
    (value, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(state["params"], state["batch_stats"], batch, key)
    params, opt = train.descend(OPTIMISER, grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "batch_stats": batch_stats, "opt": opt}, {"loss": value}


def test_training_on_four_devices_equals_one_running_averages_included():
    variables = filled(TINY, seed=2)
    state = variables | {"opt": OPTIMISER.init(variables["params"])}
    data = train.draws({"images": IMAGES * np.geomspace(0.2, 2, 8, dtype=np.float32)[:, None, None, None]}, 8)

    def fit(devices):
        with jax.set_mesh(jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
            return train.fit(KEY, state, step, data, steps=6, progress=False)

    (one, history), (four, other) = fit(1), fit(4)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), four, one)
    np.testing.assert_allclose(other["loss"], history["loss"], atol=1e-5)
    assert history["loss"][-1] < history["loss"][0]
    for leaf, before in zip(jax.tree.leaves(four["batch_stats"]), jax.tree.leaves(variables["batch_stats"]), strict=True):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == 4 and all(np.array_equal(shard, shards[0]) for shard in shards)
        assert not np.allclose(leaf, before)


@pytest.mark.errors
def test_bad_input_is_named():
    variables = filled(SMALL)
    with pytest.raises(ValueError, match="batch normalisation in training needs at least two rows, got 1"):
        SMALL.apply(variables, IMAGES[:1], train=True, mutable=["batch_stats"])
    with pytest.raises(ValueError, match="axis_name='data' is not mapped here"):
        SMALL.clone(axis_name="data").apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    with pytest.raises(TypeError, match="train must be True or False, got int"):
        SMALL.apply(variables, IMAGES, train=1)
    with pytest.raises(ValueError, match=r"images must have shape \[B, H, W\] or \[B, H, W, C\], got \[2, 4\]"):
        shapes(SMALL, jnp.ones((2, 4)))
    with pytest.raises(TypeError, match="images must have dtype float, got uint8"):
        shapes(SMALL, jnp.ones((2, 4, 4, 3), jnp.uint8))
    with pytest.raises(ValueError, match="stages must be a sequence with the blocks of each stage"):
        encoders.ResNet(())
    with pytest.raises(ValueError, match="stages must be at least 1, got 0"):
        encoders.ResNet((2, 0))
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        encoders.resnet18(width=0)
