"""The GPU kernel, run as plain operations, gives what the blocks give without it; and its compiler takes it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from cljax import losses, pairwise
from cljax.pairwise import kernel, similarity

B, D = 320, 64  # two blocks of 256 that overlap, each of two tiles and two


@pytest.fixture
def counted(monkeypatch):
    """bfloat16 is multiplied as it is, and the kernel is run; gives the list to which each use of it adds."""
    uses, tiles = [], kernel.tiles
    monkeypatch.setattr(similarity, "narrow", lambda kind, queries, keys: kind != "sqeuclidean" and queries.dtype == keys.dtype == jnp.bfloat16)
    monkeypatch.setattr(kernel, "tiles", lambda *arguments: (uses.append(1), tiles(*arguments))[1])
    return uses


@pytest.fixture
def interpreted(counted, monkeypatch):
    monkeypatch.setattr(kernel, "INTERPRETED", True)
    return counted


def inputs(rows=B):
    return *jax.random.normal(jax.random.key(0), (2, rows, D), jnp.bfloat16), jnp.float32(0.07)


IDS, LABELS, VALID = jnp.arange(B) // 2, jnp.arange(B) % 7, jnp.arange(B) % 5 > 0
LOSSES = {
    "symmetric, ids": lambda a, b, t, **how: losses.mean(losses.symmetric_info_nce(a, b, temperature=t, ids=IDS, **how)),
    "smoothed, masked": lambda a, b, t, **how: losses.mean(losses.info_nce(a, b, temperature=t, where=VALID, label_smoothing=0.1, **how)),
    "both views": lambda a, b, t, **how: losses.mean(losses.nt_xent(a, b, temperature=t, **how)),
    "labels": lambda a, b, t, **how: losses.mean(*losses.sup_con(a, LABELS, temperature=t, **how)),
    "sigmoid": lambda a, b, t, **how: losses.mean(losses.sigmoid_contrastive(a, b, temperature=t, bias=-5 * t, **how)),
    "cold": lambda a, b, t, **how: losses.mean(losses.symmetric_info_nce(a, b, temperature=t / 20, **how)),
}


def close(found, wanted):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        np.testing.assert_allclose(x, y, atol=1e-2 * np.abs(y).max(), rtol=1e-5)  # an entry is rounded to bfloat16 before it is multiplied


@pytest.mark.parametrize("name", LOSSES)
def test_kernel_equals_plain_operations(name, counted, monkeypatch):
    def both():
        return jax.jit(jax.value_and_grad(partial(LOSSES[name], implementation="blockwise", block_size=256), (0, 1, 2)))(*inputs())

    wanted = both()
    assert not counted
    monkeypatch.setattr(kernel, "INTERPRETED", True)
    found = both()
    assert len(counted) == 2  # one in each pass
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)
    close(found, wanted)


@pytest.mark.parametrize(("columns", "side_by_side"), [(256, 1), (256, 2), (384, 2)])  # 3 tiles of columns are made one by one
def test_tiles_of_every_shape(columns, side_by_side, monkeypatch):
    monkeypatch.setattr(kernel, "INTERPRETED", True)
    left, right = (jax.random.normal(jax.random.key(n), (n, D), jnp.bfloat16) for n in (256, columns))
    weights, chosen, scale = jnp.arange(256.0)[:, None], jnp.arange(columns)[None] % 3 == 0, jnp.float32(0.5)

    def work(products, rows, columns, scalars):
        value = jnp.where(columns[0], products * rows[0], scalars[0])
        return value, jnp.sum(value, 1, keepdims=True), jnp.sum(value, 0, keepdims=True), jnp.sum(value)

    whole, rows, found_columns, totals = kernel.tiles(work, left, right, [weights], [chosen], [scale], side_by_side, 4)
    wanted = np.where(chosen, np.asarray(left, np.float64) @ np.asarray(right, np.float64).T * weights, 0.5)
    assert whole.shape == (256, columns) and rows.shape == (columns // 128, 256, 1) and found_columns.shape == (2, 1, columns)
    assert totals.shape == (2 * columns // 128,)
    np.testing.assert_allclose(whole, wanted, rtol=1e-5, atol=1e-2)
    tiles = wanted.reshape(2, 128, -1, 128)
    np.testing.assert_allclose(rows[..., 0], tiles.sum(3).reshape(256, -1).T, rtol=1e-5, atol=1)
    np.testing.assert_allclose(found_columns[:, 0], tiles.sum(1).reshape(2, -1), rtol=1e-5, atol=1)
    np.testing.assert_allclose(totals, tiles.sum((1, 3)).ravel(), rtol=1e-4, atol=10)


def test_exponential_of_a_tile(monkeypatch):
    monkeypatch.setattr(kernel, "INTERPRETED", True)
    x = jnp.concatenate([jnp.linspace(-80, 5, 1001), jnp.array([-jnp.inf, jnp.inf, jnp.nan])])
    np.testing.assert_allclose(jax.jit(kernel.exp)(x), np.exp(np.asarray(x, np.float64)), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(kernel.exp)(x[800:1001]), np.exp(np.asarray(x[800:1001], np.float64)), rtol=1.2e-6)


def terms(scores, row, column, params):
    logits = jnp.log1p(jnp.exp(-jnp.abs(scores))) + params["bias"] * scores
    where = (row["index"] != column["index"]) & column["valid"]
    return {
        "rows": pairwise.LogSumExp(logits * row["weight"], where),
        "columns": pairwise.LogSumExp(scores * column["weight"], axis=0),
        "sums": pairwise.Sum(logits, where, axis=0),
    }


def reduced(a, b, weight, bias, **how):
    leaves = {"index": jnp.arange(len(a)), "weight": weight, "valid": jnp.arange(len(a)) % 3 > 0}
    found = pairwise.reduce(a, b, terms, rows=leaves, columns=leaves, params={"bias": bias}, similarity="cosine", block_size=256, **how)
    return sum(jnp.mean(jnp.sin(value)) for value in jax.tree.leaves(found))


def test_any_terms_with_leaves_and_parameters(interpreted):
    a, b, bias = inputs()
    arguments = a, b, jnp.linspace(1, 3, B), bias
    found = jax.jit(jax.value_and_grad(partial(reduced, implementation="blockwise"), (0, 1, 2, 3)))(*arguments)
    assert len(interpreted) == 2
    close(found, jax.jit(jax.value_and_grad(partial(reduced, implementation="dense"), (0, 1, 2, 3)))(*arguments))


def test_second_derivative_is_that_of_the_plain_operations(interpreted):
    a, b, bias = inputs(256)

    def slope(bias, implementation):
        return jax.grad(partial(reduced, a, b, jnp.ones(256), implementation=implementation))(bias)

    found = jax.jit(jax.grad(partial(slope, implementation="blockwise")))(bias)
    assert interpreted
    np.testing.assert_allclose(found, jax.jit(jax.grad(partial(slope, implementation="dense")))(bias), rtol=1e-3)


def over_devices(a, b, t, axis_name="data", collective="gather"):
    how = dict(temperature=t, axis_name=axis_name, collective=collective, implementation="blockwise", block_size=128)
    return losses.mean(losses.symmetric_info_nce(a, b, **how), axis_name=axis_name)


def split(collective, check_vma):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = dict(in_specs=(P("data"), P("data"), P()), out_specs=P(), check_vma=check_vma)
    return jax.value_and_grad(jax.shard_map(partial(over_devices, collective=collective), mesh=mesh, **specs), (0, 1, 2))


@pytest.mark.parametrize("collective", ["gather", "ring"])
def test_under_shard_map(collective, interpreted):
    found = jax.jit(split(collective, check_vma=False))(*inputs(256))  # an interpreted kernel keeps no marks of what varies
    assert interpreted
    close(found, jax.jit(jax.value_and_grad(partial(over_devices, axis_name=None), (0, 1, 2)))(*inputs(256)))


def test_vmap(interpreted):
    a, b, t = inputs(256)
    value = partial(LOSSES["cold"], implementation="blockwise", block_size=128)
    found = jax.jit(jax.vmap(jax.value_and_grad(value), (0, 0, None)))(jnp.stack([a, b]), jnp.stack([b, a]), t)
    assert interpreted
    for n, pair in enumerate(((a, b), (b, a))):
        close([leaf[n] for leaf in found], jax.jit(jax.value_and_grad(value))(*pair, t))


@pytest.mark.parametrize(
    ("rows", "width", "dtype", "what"),
    [
        (320, 64, jnp.float32, "float32"),
        (320, 96, jnp.bfloat16, "a width that tiles don't divide"),
        (200, 64, jnp.bfloat16, "blocks that tiles don't divide"),
        (320, 64, jnp.bfloat16, "sets of ids"),
        (320, 64, jnp.bfloat16, "another operation"),
        (320, 64, jnp.bfloat16, "a maximum"),
    ],
)
def test_what_it_does_not_take_goes_without_it(rows, width, dtype, what, interpreted):
    a, b = jax.random.normal(jax.random.key(0), (2, rows, width), dtype)
    if what in ("another operation", "a maximum"):

        def terms(scores, row, column, params):
            return pairwise.Max(scores) if what == "a maximum" else pairwise.Sum(jnp.cos(scores))

        jax.eval_shape(lambda: pairwise.reduce(a, b, terms, implementation="blockwise", block_size=256))
    else:
        ids = jnp.tile(jnp.arange(rows)[:, None], (1, 2)) if what == "sets of ids" else None
        jax.eval_shape(lambda: losses.info_nce(a, b, temperature=0.1, ids=ids, implementation="blockwise", block_size=256))
    assert not interpreted


def compiled_for_a_gpu(function, *arguments):
    """The program's text; on a machine without a GPU nothing is run."""
    arguments = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arguments]
    try:
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    except RuntimeError as error:
        pytest.skip(f"this JAX compiles no kernel without a GPU: {error}")


@pytest.mark.parametrize("name", [*LOSSES, "any terms", "shard_map"])
def test_triton_takes_it(name, counted, monkeypatch):
    monkeypatch.setattr(kernel, "at_hand", lambda: True)
    a, b, t = inputs()
    if name == "any terms":
        text = compiled_for_a_gpu(jax.value_and_grad(partial(reduced, implementation="blockwise"), (0, 1, 2, 3)), a, b, jnp.ones(B), t)
    elif name == "shard_map":
        text = compiled_for_a_gpu(split("gather", check_vma=True), *inputs(256))
    else:
        text = compiled_for_a_gpu(jax.value_and_grad(partial(LOSSES[name], implementation="blockwise", block_size=256), (0, 1, 2)), a, b, t)
    assert text.count("xla.gpu.triton") == len(counted) == 2
