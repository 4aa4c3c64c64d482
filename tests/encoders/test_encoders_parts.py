"""A network applied to a part of the rows at a time gives what it gives at once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import encoders


@pytest.mark.parametrize("rows", [1, 4, 8, 11])
def test_equals_one_call(rows):
    model = encoders.MLP((8,), 3)
    x = jax.random.normal(jax.random.key(0), (rows, 5))
    params = model.init(jax.random.key(1), x)
    found = jax.jit(partial(encoders.in_parts, partial(model.apply, params), size=4))(x)
    np.testing.assert_allclose(found, model.apply(params, x), rtol=1e-6, atol=1e-6)


def test_embeddings_of_a_collection_are_one_compiled_call():
    class Model(encoders.MLP):
        def __call__(self, x, shift=None):
            calls.append(x.shape[0])
            return super().__call__(x) + (0 if shift is None else shift[:, None])

    calls, model, x = [], Model((8,), 3), jax.random.normal(jax.random.key(0), (11, 5))
    params = model.init(jax.random.key(1), x)
    expected = model.apply(params, x, jnp.arange(11.0))
    calls.clear()
    for _ in range(2):
        np.testing.assert_allclose(encoders.embed(model, params, x, jnp.arange(11.0), size=4), expected, rtol=1e-6, atol=1e-6)
    assert set(calls) == {4, 3} and len(calls) <= 4  # traced once
    np.testing.assert_allclose(encoders.embed(model, params, x), expected - jnp.arange(11.0)[:, None], rtol=1e-5, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda params: encoders.embed(model, params, x, size=4).sum()))(params)
    expected = jax.grad(lambda params: model.apply(params, x).sum())(params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), gradient, expected)


def test_lists_of_texts_are_read_as_one():
    model, ids = encoders.BagOfTokens(9, 3), jax.random.randint(jax.random.key(0), (2, 4, 5), 0, 9)
    params = jax.jit(model.init)(jax.random.key(1), ids[0])
    found = encoders.in_lists(partial(model.apply, params, method="tokens"), ids, ids > 2)
    assert found[0].shape == (2, 4, 5, 3) and found[1].shape == (2, 4, 5)
    expected = jnp.stack([model.apply(params, *row) for row in zip(ids, ids > 2, strict=True)])
    np.testing.assert_allclose(encoders.in_lists(partial(model.apply, params), ids, ids > 2), expected, rtol=1e-6)
    np.testing.assert_allclose(encoders.in_lists(partial(model.apply, params), ids[0]), model.apply(params, ids[0]), rtol=1e-6)
    with pytest.raises(ValueError, match=r"the axes before the last in common, got \[2, 4, 5\], \[4, 5\]"):
        encoders.in_lists(model.apply, ids, ids[0])


def test_never_more_rows_than_a_part():
    seen = []

    def function(tree):
        seen.append(tree["x"].shape)
        return tree["x"].sum(axis=1), {"key": jax.vmap(jax.random.fold_in)(tree["key"], jnp.arange(len(tree["x"])))}

    tree = {"x": jnp.ones((7, 2)), "key": jax.random.split(jax.random.key(0), 7)}
    sums, keys = encoders.in_parts(function, tree, size=3)
    assert max(shape[0] for shape in seen) == 3 and sums.shape == keys["key"].shape == (7,)


def test_outside_of_compiled_code_parts_come_one_after_the_other_and_nothing_compiles_anew():
    traced, seen = [], []

    @jax.jit
    def inner(x):
        traced.append(x.shape)
        return x + 1

    def function(x):
        seen.append(isinstance(x, jax.core.Tracer))
        return inner(x)

    for _ in range(3):
        np.testing.assert_array_equal(encoders.in_parts(function, jnp.arange(11), size=4), jnp.arange(1, 12))
    assert traced == [(4,), (3,)] and seen == [False] * 9
    rows = jnp.arange(11)  # a constant of a program is in parts as well: one loop
    seen.clear()
    program = jax.make_jaxpr(lambda by: encoders.in_parts(lambda x: function(x) * by, rows, size=4))(2)
    assert "scan" in str(program) and seen == [True, True]
    batched = jax.vmap(lambda by: encoders.in_parts(lambda x: x * by, rows, size=4))(jnp.arange(3))
    np.testing.assert_array_equal(batched, jnp.arange(3)[:, None] * rows)


def test_arrays_may_have_names():
    x, y = jnp.arange(7.0), jnp.arange(7.0)[::-1]
    np.testing.assert_array_equal(encoders.in_parts(lambda a, tree: a - 2 * tree["y"], x, tree={"y": y}, size=3), x - 2 * y)
    with pytest.raises(ValueError, match="leading axis in common"):
        encoders.in_parts(lambda a, b: a, x, b=y[1:], size=3)


def test_memory_is_that_of_a_part():
    def temporaries(size):
        w = jnp.ones((4, 4096))
        return (
            jax.jit(partial(encoders.in_parts, lambda x: jnp.sin(x @ w).sum(axis=1), size=size))
            .lower(jnp.ones((1024, 4)))
            .compile()
            .memory_analysis()
        )

    assert temporaries(32).temp_size_in_bytes < temporaries(1024).temp_size_in_bytes / 8


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arrays", "size", "message"),
    [
        ((jnp.ones(3), jnp.ones(4)), 2, r"arrays must have one leading axis in common, got shapes \[3\], \[4\]"),
        ((jnp.ones(()),), 2, r"arrays must have one leading axis in common, got shapes \[\]"),
        ((), 2, "arrays must have one leading axis in common, got shapes of none"),
        ((jnp.ones(3),), 0, "size must be at least 1, got 0"),
    ],
)
def test_bad_input(arrays, size, message):
    with pytest.raises(ValueError, match=message):
        encoders.in_parts(lambda *x: x, *arrays, size=size)
