"""Encoders of clips: convolution by patches against XLA's, published sizes, values by hand, statistics over several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import encoders
from cljax.encoders import patches

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
CLIPS = RNG.uniform(size=(4, 4, 7, 6, 2)).astype(np.float32)
SMALL = encoders.ConvNet3D((3, 4))
DEEP = encoders.ResNet3D((1, 2), width=2, bottleneck=True, temporal_kernels=(1, 3))
MESH = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def normal(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def filled(model, clips=CLIPS):
    """Variables with random values, running variances and scales above 0."""
    rng = np.random.default_rng(1)

    def values(path, leaf):
        drawn = rng.uniform(0.5, 1.5, leaf.shape) if path[-1].key in ("scale", "var") else rng.normal(size=leaf.shape) * 0.3
        return drawn.astype(np.float32)

    return jax.tree_util.tree_map_with_path(values, jax.eval_shape(model.init, KEY, clips))


@pytest.mark.parametrize(
    ("size", "strides", "padding"),
    [
        ((3, 3, 3), (1, 2, 2), ((1, 1), (1, 1), (1, 1))),
        ((5, 7, 7), (2, 2, 2), ((2, 2), (3, 3), (3, 3))),
        ((3, 1, 1), (1, 1, 1), ((1, 1), (0, 0), (0, 0))),
        ((1, 1, 1), (1, 2, 2), ((0, 0), (0, 0), (0, 0))),
        ((2, 3, 2), (1, 1, 3), ((0, 1), (2, 0), (0, 0))),
    ],
)
def test_patches_equal_the_convolution_in_value_and_gradient(size, strides, padding, monkeypatch):
    monkeypatch.setattr(patches, "BYTES", 2 * CLIPS[0].nbytes * size[1] * size[2] // (strides[1] * strides[2]))  # two clips at a time of five
    inputs, kernel = normal(5, *CLIPS.shape[1:]), normal(*size, 2, 3)

    @partial(jax.jit, static_argnums=0)
    def both(implementation, inputs, kernel):
        def total(inputs, kernel):
            found = patches.convolve(inputs, kernel, strides, padding, implementation=implementation)
            return jnp.sum(jnp.sin(found)), found

        return jax.value_and_grad(total, (0, 1), has_aux=True)(inputs, kernel)

    (_, value), gradients = both("patches", inputs, kernel)
    (_, expected), known = both("convolution", inputs, kernel)
    for got, wanted in ((value, expected), *zip(gradients, known, strict=True)):
        np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
    assert "conv_general_dilated" not in str(jax.make_jaxpr(partial(patches.convolve, padding=padding))(inputs, kernel))  # "auto", on a CPU


def test_a_dilated_convolution_is_left_to_xla():
    kernel = normal(2, 2, 2, 2, 3)
    got = patches.convolve(CLIPS, kernel, rhs_dilation=(1, 2, 1))
    stretched = np.zeros((2, 3, 2, 2, 3), np.float32)
    stretched[:, ::2] = kernel
    np.testing.assert_allclose(got, patches.convolve(CLIPS, stretched), atol=1e-5)


def test_products_of_bfloat16_are_summed_in_float32():
    inputs, kernel = jnp.full((1, 1, 1, 1, 4096), 1, jnp.bfloat16), jnp.full((1, 1, 1, 4096, 1), 1, jnp.bfloat16)
    got = patches.convolve(inputs.at[..., 0].set(0), kernel, implementation="patches")  # in bfloat16 the sum would stay at 256
    assert got.dtype == jnp.bfloat16 and got.item() == 4096


def test_r3d50_has_the_published_size_and_shapes():
    model = encoders.resnet3d50(momentum=0.997)
    clips = jax.ShapeDtypeStruct((2, 16, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, KEY, clips)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    stem, fourth, fifth = 4 * 49 * 3 * 64, 2 * 256 * (512 + 5 * 1024), 2 * 512 * (1024 + 2 * 2048)  # what time adds to ResNet-50
    assert count == 25_557_032 - 2_049_000 + stem + fourth + fifth == 31_672_128
    assert model.features == 2048 and round(count / 1e6, 1) == 31.7
    seen = jax.eval_shape(lambda v, x: model.apply(v, x, capture_intermediates=True), variables, clips)[1]["intermediates"]
    shapes = [seen[f"Conv_{i}"]["__call__"][0].shape[1:] for i in (0, 3, 13, 26, 45, 52)]
    assert shapes[0] == (8, 112, 112, 64) and shapes[1:4] == [(8, 56, 56, 256), (8, 28, 28, 512), (8, 14, 14, 1024)]
    sizes = [layer["kernel"].shape[:3] for name, layer in variables["params"].items() if name.startswith("Conv")]
    assert sizes.count((5, 7, 7)) == 1 and sizes.count((3, 1, 1)) == 9 and sizes.count((1, 3, 3)) == 16 and len(sizes) == 53


def convolved(x, kernel, stride):
    size = kernel.shape[:3]
    padded = np.pad(x, [(0, 0), *((n // 2, n // 2) for n in size), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2, 3))[:, :: stride[0], :: stride[1], :: stride[2]]
    return np.einsum("bthwcijk,ijkcd->bthwd", windows, kernel)


def by_hand(variables, clips, train):
    """`SMALL` in float64, and the statistics of the batch by layer."""
    variables, hidden, seen = jax.tree.map(np.float64, variables), clips.astype(np.float64), {}
    for i in range(2):
        layer, name = variables["params"][f"BatchNorm_{i}"], f"BatchNorm_{i}"
        hidden = convolved(hidden, variables["params"][f"Conv_{i}"]["kernel"], (1, 1 + i, 1 + i))
        seen[name] = {"mean": hidden.mean((0, 1, 2, 3)), "var": hidden.var((0, 1, 2, 3))}
        used = seen[name] if train else variables["batch_stats"][name]
        hidden = np.maximum((hidden - used["mean"]) / np.sqrt(used["var"] + 1e-5) * layer["scale"] + layer["bias"], 0)
    return hidden.mean((1, 2, 3)), seen


def test_the_small_net_equals_convolution_by_hand_and_needs_no_channels():
    variables = filled(SMALL)
    np.testing.assert_allclose(jax.jit(SMALL.apply)(variables, CLIPS), by_hand(variables, CLIPS, train=False)[0], atol=1e-5)
    assert jax.eval_shape(SMALL.init, KEY, CLIPS[..., 0])["params"]["Conv_0"]["kernel"].shape == (3, 3, 3, 1, 3)
    assert SMALL.features == 4 and encoders.ConvNet3D().features == 64


def test_statistics_of_the_small_net_are_those_of_all_devices():
    variables, model = filled(SMALL), SMALL.clone(axis_name="data")
    local = partial(model.apply, train=True, mutable=["batch_stats"])
    spread = jax.shard_map(local, mesh=MESH, in_specs=(jax.P(), jax.P("data")), out_specs=(jax.P("data"), jax.P()))  # fails where an average varied
    got, updated = jax.jit(spread)(variables, CLIPS)
    expected, seen = by_hand(variables, CLIPS, train=True)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    moved = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, variables["batch_stats"], seen)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), updated["batch_stats"], moved)


def test_a_clip_of_one_still_frame_is_seen_as_that_image():
    """Where time adds nothing, with frames alike and kernels that see one, a residual network of clips is that of images."""
    flat = encoders.ResNet((1, 2), width=2, bottleneck=True)
    deep = DEEP.clone(temporal_kernels=(1, 1), stem_in_time=(1, 2))
    variables = filled(flat, CLIPS[:, 0])
    inflated = jax.tree.map(lambda x: x[None] if x.ndim == 4 else x, variables)
    still = np.broadcast_to(CLIPS[:, :1], CLIPS.shape)
    np.testing.assert_allclose(jax.jit(deep.apply)(inflated, still), jax.jit(flat.apply)(variables, CLIPS[:, 0]), atol=1e-5)


def test_kernels_over_time_see_time_and_the_momentum_is_kept():
    variables, reverse = filled(DEEP), CLIPS[:, ::-1]
    apply = jax.jit(partial(DEEP.clone(momentum=0.997, axis_name="data").apply, train=True, mutable=["batch_stats"]))
    assert [k.shape[0] for k in (variables["params"][f"Conv_{i}"]["kernel"] for i in (0, 1, 5, 9))] == [5, 1, 3, 3]
    spread = jax.shard_map(apply, mesh=MESH, in_specs=(jax.P(), jax.P("data")), out_specs=(jax.P("data"), jax.P()), check_vma=False)
    got, updated = jax.jit(spread)(variables, CLIPS)
    alone, whole = jax.jit(partial(DEEP.clone(momentum=0.9).apply, train=True, mutable=["batch_stats"]))(variables, CLIPS)
    np.testing.assert_allclose(got, alone, atol=1e-4)
    for slow, fast, old in zip(*map(jax.tree.leaves, (updated, whole, {"batch_stats": variables["batch_stats"]})), strict=True):
        np.testing.assert_allclose(slow - old, 0.03 * (fast - old), atol=1e-5)
    assert np.abs(DEEP.apply(variables, CLIPS) - DEEP.apply(variables, reverse)).max() > 1e-3


def test_bfloat16_is_computed_in_and_gradients_are_finite():
    variables = filled(SMALL)
    narrow = SMALL.clone(dtype=jnp.bfloat16, normalise=True)
    wide = narrow.clone(dtype=jnp.float32)
    got, expected = (jax.jit(model.apply)(variables, CLIPS) for model in (narrow, wide))
    assert got.dtype == jnp.float32 and 1e-6 < np.abs(got - expected).max() < 0.05
    gradients = jax.jit(jax.grad(lambda v: jnp.sum(narrow.apply(v, CLIPS)[:, 0])))(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: jax.eval_shape(SMALL.init, KEY, CLIPS[0, 0]),
            ValueError,
            r"clips must have shape \[B, T, H, W\] or \[B, T, H, W, C\], got \[7, 6, 2\]",
        ),
        (lambda: jax.eval_shape(DEEP.init, KEY, CLIPS.astype(np.uint8)), TypeError, "clips must have dtype float, got uint8"),
        (lambda: encoders.ConvNet3D(()), ValueError, "channels must name at least one convolution, got none"),
        (lambda: encoders.ConvNet3D((4, 0)), ValueError, "channels must be at least 1, got 0"),
        (lambda: encoders.ResNet3D((1, 1)), ValueError, r"temporal_kernels must be one for each of the 2 stages, got \(1, 1, 3, 3\)"),
        (lambda: encoders.ResNet3D((1,), temporal_kernels=(2,)), ValueError, "temporal_kernels and the stem's must be odd"),
        (lambda: encoders.ResNet3D((1,), temporal_kernels=(1,), stem_in_time=(5,)), ValueError, r"stem_in_time must be a pair \(frames, stride\)"),
        (lambda: encoders.resnet18(momentum=1.5), ValueError, "momentum must be at least 0 and at most 1, got 1.5"),
        (
            lambda: patches.convolve(CLIPS, normal(1, 1, 1, 2, 2), implementation="patches", rhs_dilation=(1, 2, 1)),
            ValueError,
            "implementation='patches' knows neither dilated nor grouped convolutions",
        ),
        (lambda: patches.convolve(CLIPS, normal(1, 1, 1, 2, 2), implementation="fast"), ValueError, "implementation must be one of 'auto'"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
