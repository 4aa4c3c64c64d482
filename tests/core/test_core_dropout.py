"""Dropout by an example's index: neither batch mates nor devices nor order change what a row gives, and rows and steps drop different things."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import core, encoders

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def network():
    model = encoders.TextTransformer(20, 8, layers=1, heads=2, max_length=6, dropout=0.5)
    ids = jax.random.randint(jax.random.key(0), (8, 6), 1, 20)
    mask = jnp.arange(6) < jnp.array([6, 3, 4, 6, 2, 5, 1, 6])[:, None]
    return model, jax.jit(model.init)(jax.random.key(1), ids), ids, mask


def applied(network, rows, key=KEY):
    model, params, ids, mask = network
    return jax.jit(lambda *inputs: core.apply_with_dropout(model, params, *inputs, key=key, index=rows))(ids[rows], mask[rows])


def test_a_row_gives_the_same_whatever_stands_beside_it(network):
    whole = applied(network, jnp.arange(8))
    np.testing.assert_allclose(applied(network, jnp.array([6, 1, 4])), whole[jnp.array([6, 1, 4])], atol=1e-6)
    model, params, ids, mask = network
    (alone,) = model.apply(params, ids[2:3], mask[2:3], train=True, rngs={"dropout": jax.random.fold_in(KEY, 2)})
    np.testing.assert_allclose(whole[2], alone, atol=1e-6)


def test_rows_and_keys_drop_different_things(network):
    model, params, ids, mask = network
    same = jnp.zeros(8, int)
    one = core.apply_with_dropout(model, params, ids[same], mask[same], key=KEY, index=jnp.arange(8))
    assert len(np.unique(np.asarray(one), axis=0)) == 8
    other = core.apply_with_dropout(model, params, ids[same], mask[same], key=jax.random.key(4), index=jnp.arange(8))
    assert not np.isclose(one, other).all(axis=1).any()


def test_devices_change_nothing(network):
    model, params, ids, mask = network
    found = []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

        def local(ids, mask, index):
            return core.apply_with_dropout(model, params, ids, mask, key=KEY, index=index)

        found.append(jax.jit(jax.shard_map(local, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data")))(ids, mask, jnp.arange(8)))
    np.testing.assert_allclose(*found, atol=1e-6)


def test_an_encoder_with_a_head_drops_too(network):
    encoder, _, ids, _ = network
    model = encoders.Chain([encoder, encoders.MLP((), 4)])
    assert model.dropout == 0.5 and encoders.Chain([encoders.MLP((), 4)]).dropout == 0
    params, same = jax.jit(model.init)(jax.random.key(1), ids), jnp.zeros(8, int)
    found = core.apply_with_dropout(model, params, ids[same], key=KEY, index=jnp.arange(8))
    assert len(np.unique(np.asarray(found), axis=0)) == 8


def test_without_a_key_or_a_share_it_is_evaluation(network):
    model, params, ids, mask = network
    expected, index = model.apply(params, ids, mask), jnp.arange(8)
    assert np.array_equal(core.apply_with_dropout(model, params, ids, mask, key=None, index=index), expected)
    assert np.array_equal(core.apply_with_dropout(model.clone(dropout=0.0), params, ids, mask, key=KEY, index=index), expected)
    plain = SimpleNamespace(apply=lambda params, x: {"sum": params + x})
    assert core.apply_with_dropout(plain, 1, index, key=KEY, index=index)["sum"].tolist() == list(range(1, 9))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("changed", "kind", "complaint"),
    [
        ({"key": 3}, TypeError, "key must be a PRNG key"),
        ({"index": np.arange(7)}, ValueError, r"index must have shape \[8\], got \[7\]"),
        ({"index": np.ones(8, np.float32)}, TypeError, "index must have dtype int"),
    ],
)
def test_bad_input_is_named(network, changed, kind, complaint):
    model, params, ids, mask = network
    with pytest.raises(kind, match=complaint):
        core.apply_with_dropout(model, params, ids, mask, **{"key": KEY, "index": np.arange(8)} | changed)
