"""The gradient cache: the plain gradient, in the memory of one chunk."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from cljax import losses, train

ROWS = 10
BATCH = {"x": np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32), "index": np.arange(ROWS) + 40}


def init(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(1), 3)
    shapes = {"first": (6, 12), "query": (12, 4), "document": (6, 4)}
    params = {name: jax.random.normal(key, shape, dtype) / 3 for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return params | {"log_scale": jnp.asarray(1.5, dtype)}


def encode(params, chunk, key):
    """Two towers; dropout in one of them."""
    hidden = jnp.tanh(chunk["x"] @ params["first"])
    hidden = jnp.where(jax.random.bernoulli(key, 0.7, hidden.shape), hidden / 0.7, 0)
    return {"query": hidden @ params["query"], "document": jnp.sin(chunk["x"] @ params["document"])}


def encode_by_index(params, chunk, key):
    rows = jax.vmap(lambda index, x: encode(params, {"x": x[None]}, jax.random.fold_in(key, index)))(chunk["index"], chunk["x"])
    return jax.tree.map(lambda leaf: leaf[:, 0], rows)


def loss(params, embeddings, weight=1.0):
    """Nonlinear in the batch, twice: in-batch negatives, and how evenly the queries are spread."""
    query, document = embeddings["query"], embeddings["document"]
    logits = query @ document.T * jnp.exp(params["log_scale"])
    distances = jnp.sum(jnp.square(query[:, None] - query), axis=-1)
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits))) + weight * jax.nn.logsumexp(-2 * distances)


def spread_loss(params, embeddings, axis_name=None):
    """The same in the losses of the library, which see the rows of all devices."""
    values = losses.info_nce(embeddings["query"], embeddings["document"], temperature=jnp.exp(-params["log_scale"]), axis_name=axis_name)
    return losses.mean(values, axis_name=axis_name)


def plain(params, batch, key, weight=1.0, *, size):
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i : i + size], batch) for i in range(0, len(batch["x"]), size)]
    parts = [encode(params, part, jax.random.fold_in(key, number)) for number, part in enumerate(parts)]
    return loss(params, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), weight)


def test_it_is_the_plain_gradient_with_dropout_on():
    size = 4  # the last chunk is smaller
    cached = jax.jit(train.cached_value_and_grad(encode, loss, size))
    value, grads = cached(init(), BATCH, jax.random.key(2), 0.5)
    expected, expected_grads = jax.jit(jax.value_and_grad(partial(plain, size=size)))(init(), BATCH, jax.random.key(2), 0.5)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, expected_grads)
    assert min(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(grads)) > 1e-3
    assert float(cached(init(), BATCH, jax.random.key(3), 0.5)[0]) != float(value)  # the masks are those of the key


def test_it_maps_over_keys_and_parameters():
    keys, params = jax.random.split(jax.random.key(2)), jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), init())
    cached = train.cached_value_and_grad(encode, loss, 4)
    value, grads = jax.jit(jax.vmap(cached, (0, None, 0)))(params, BATCH, keys)
    expected, expected_grads = jax.jit(jax.vmap(jax.value_and_grad(partial(plain, size=4)), (0, None, 0)))(params, BATCH, keys)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, expected_grads)


def test_every_mode_of_four_devices_descends_as_one_does():
    batch = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf[:2] + 1]), BATCH)
    params, key, sgd = init(), jax.random.key(2), optax.sgd(1.0)
    whole = lambda params: spread_loss(params, encode_by_index(params, batch, key))  # noqa: E731
    expected = jax.tree.map(jnp.subtract, params, jax.jit(jax.grad(whole))(params))

    def update(params, batch):  # three rows a device, in chunks of two
        cached = train.cached_value_and_grad(encode_by_index, partial(spread_loss, axis_name="data"), 2, fold=False)
        _, grads = cached(params, batch, key)
        return train.descend(sgd, grads, params, sgd.init(params), axis_name="data")[0]

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    results = []
    for check in (True, False):
        mapped = jax.shard_map(update, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P(), check_vma=check)
        results.append(jax.jit(mapped)(params, batch))
    local = jax.tree.map(lambda leaf: leaf.reshape(4, 3, *leaf.shape[1:]), batch)
    mapped = jax.jit(jax.vmap(update, (None, 0), axis_name="data"))(params, local)
    results += [jax.tree.map(lambda leaf: leaf[0], mapped)]
    for result in results:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), result, expected)


def test_with_draws_by_index_nothing_depends_on_the_chunk():
    results = [jax.jit(train.cached_value_and_grad(encode_by_index, loss, size, fold=False))(init(), BATCH, jax.random.key(2)) for size in (3, 10)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *results)


def mlp(params, chunk, key):
    return jax.nn.relu(chunk @ params["first"]) @ params["second"]


def convolution(params, chunk, key):
    return jnp.mean(jax.nn.relu(lax.conv(chunk[:, None], params["first"], (1,), "SAME")), axis=-1)


def covariance(params, embeddings):
    centred = embeddings - jnp.mean(embeddings, axis=0)
    return jnp.sum(jnp.square(centred.T @ centred / len(embeddings)))


@pytest.mark.parametrize(
    "encode, shapes", [(mlp, {"first": (16, 512), "second": (512, 4)}), (convolution, {"first": (64, 1, 3)})], ids=["products", "convolution"]
)
def test_memory_does_not_grow_with_the_batch(encode, shapes):
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}

    def memory(size, rows):
        cached = jax.jit(train.cached_value_and_grad(encode, covariance, size))
        return cached.lower(params, jax.ShapeDtypeStruct((rows, 16), jnp.float32), None).compile().memory_analysis().temp_size_in_bytes

    small, large, whole = memory(32, 64), memory(32, 512), memory(512, 512)
    assert large - small < 0.2 * whole and large < 0.5 * whole


def test_on_cpu_the_chunks_of_a_convolution_are_written_out():
    for encode, params, found in (
        (mlp, {"first": jnp.ones((16, 8)), "second": jnp.ones((8, 2))}, 2),
        (convolution, {"first": jnp.ones((2, 1, 3))}, 0),
    ):
        trace = jax.make_jaxpr(train.cached_value_and_grad(encode, covariance, 3))(params, jnp.ones((9, 16)), None)
        assert sum(eqn.primitive.name == "scan" for eqn in trace.eqns) == found


def test_gradients_of_bfloat16_parameters_add_up_in_float32():
    cached = jax.jit(train.cached_value_and_grad(lambda params, chunk, key: chunk * params, lambda params, z: jnp.sum(z.astype(jnp.float32)), 1))
    _, grads = cached(jnp.bfloat16(1), jnp.ones(512, jnp.bfloat16), None)
    assert grads.dtype == jnp.bfloat16 and float(grads) == 512  # one after the other in bfloat16: 256


def test_aux_comes_back_and_a_key_may_be_none():
    cached = train.cached_value_and_grad(
        lambda params, chunk, key: (chunk * params, key), lambda p, z, shift: (jnp.sum(z[0]) + shift, z[0]), 2, has_aux=True
    )
    (value, aux), grads = cached(2.0, jnp.arange(3.0), None, 5.0)
    assert (float(value), aux.tolist(), float(grads)) == (11.0, [0, 2, 4], 3.0)


@pytest.mark.errors
def test_what_cannot_be_cached_is_named():
    def run(encode=lambda params, chunk, key: chunk["x"] * params, batch=BATCH, size=4):
        return train.cached_value_and_grad(encode, lambda params, z: jnp.sum(z), size)(1.0, batch, None)

    for options, error, text in [
        ({"encode": 3}, TypeError, "encode must be a function, got int"),
        ({"size": 0}, ValueError, "chunk_size must be at least 1, got 0"),
        ({"size": 2.0}, TypeError, "chunk_size must be an integer"),
        ({"batch": {"x": np.ones((4, 2)), "y": np.ones(3)}}, ValueError, r"batch must be arrays with one leading axis, .*got \[4, 2\], \[3\]"),
        ({"batch": {"x": np.ones((0, 2))}}, ValueError, r"of one row at least, got \[0, 2\]"),
        ({"batch": {}}, ValueError, "batch must be arrays .*got none"),
        (
            {"encode": lambda params, chunk, key: params},
            ValueError,
            r"embeddings \(what encode returns\) must be arrays with .* the chunk, 4, got \[\]",
        ),
        ({"encode": lambda params, chunk, key: chunk["index"]}, TypeError, r"embeddings \(what encode returns\) must have dtype float, got int32"),
    ]:
        with pytest.raises(error, match=text):
            run(**options)
    with pytest.raises(TypeError, match="loss must be a function, got NoneType"):
        train.cached_value_and_grad(mlp, None, 4)
