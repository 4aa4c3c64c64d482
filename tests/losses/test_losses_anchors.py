"""The entropy of similarities to anchors: worked numbers, bounds, gradients that must be zero, anchors that don't exist yet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses

f32 = np.float32
U, ANCHORS = f32([[1, 0], [0.6, 0.8], [1, 1]]), f32([[2, 0], [0, 1]])
RNG = np.random.default_rng(0)
Z, BANK, EXISTS = RNG.normal(size=(5, 4)).astype(f32), RNG.normal(size=(7, 4)).astype(f32), np.array([True, False, True, True, False, True, True])


def reference(z, anchors, temperature=1.0, eps=0.0):
    z, anchors = np.float64(z), np.float64(anchors)
    logits = z @ anchors.T / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(anchors, axis=1) / temperature
    d = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return -(d * np.log(d + eps)).sum(axis=1)


@pytest.fixture(scope="module")
def value_and_gradients():
    def total(z, anchors, temperature, where, exists):
        values = losses.anchor_entropy(z, anchors, temperature=temperature, where=where, anchor_where=exists)
        return jnp.sum(values), values

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))


def test_worked_numbers():
    found = jax.jit(losses.anchor_entropy)(U, ANCHORS)
    np.testing.assert_allclose(found, reference(U, ANCHORS), atol=1e-6)
    np.testing.assert_allclose(np.mean(found), 0.654507, atol=1e-6)
    np.testing.assert_allclose(reference(U, ANCHORS, eps=1e-5).mean(), 0.654487, atol=1e-6)  # the released code's
    np.testing.assert_allclose(losses.anchor_entropy(U, ANCHORS[::-1] * f32([[5], [0.1]])), found, atol=1e-6)  # neither order nor length matters


def test_values_and_gradients_with_rows_and_anchors_that_do_not_exist(value_and_gradients):
    where = np.array([True, True, False, True, True])
    z, anchors = np.where(where[:, None], Z, np.nan), np.where(EXISTS[:, None], BANK, np.nan)  # what is left out may be anything
    (_, values), (d_z, d_anchors, d_temperature) = value_and_gradients(z, anchors, 0.2, where, EXISTS)
    np.testing.assert_allclose(values, np.where(where, reference(Z, BANK[EXISTS], 0.2), 0), atol=1e-5)
    np.testing.assert_array_equal(d_anchors, 0)
    np.testing.assert_array_equal(d_z[2], 0)
    h = 1e-5
    for i, k in ((0, 1), (3, 0), (4, 2)):
        step = h * (np.arange(20).reshape(5, 4) == 4 * i + k)
        slope = (reference(Z + step, BANK[EXISTS], 0.2) - reference(Z - step, BANK[EXISTS], 0.2))[i] / (2 * h)
        np.testing.assert_allclose(d_z[i, k], slope, atol=1e-4)
    slope = (reference(Z[where], BANK[EXISTS], 0.2 + h) - reference(Z[where], BANK[EXISTS], 0.2 - h)).sum() / (2 * h)
    np.testing.assert_allclose(d_temperature, slope, rtol=1e-3)


def test_one_anchor_none_and_zero_vectors_have_finite_gradients(value_and_gradients):
    everyone = np.ones(5, bool)
    for exists in (np.arange(7) == 3, np.zeros(7, bool)):
        (_, values), gradients = value_and_gradients(Z, BANK, 1.0, everyone, exists)
        np.testing.assert_allclose(values, 0, atol=1e-6)
        for gradient in gradients:
            np.testing.assert_allclose(gradient, 0, atol=1e-6)
    (_, values), gradients = value_and_gradients(0 * Z, 0 * BANK, 1.0, everyone, EXISTS)
    np.testing.assert_allclose(values, np.log(EXISTS.sum()), atol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_it_stays_near_the_logarithm_of_the_number_of_anchors():
    one_of_five = np.repeat(f32([[1, 0], [-1, 0], [-1, 0], [-1, 0], [-1, 0]]), 8, axis=0)
    values = losses.anchor_entropy(f32([[1, 0]]), one_of_five)
    assert np.log(40) - 0.4745 <= float(values[0]) < np.log(40) - 0.47
    random = losses.anchor_entropy(Z, RNG.normal(size=(40, 4)).astype(f32))
    assert (np.asarray(random) >= np.log(40) - 0.4745).all() and (np.asarray(random) <= np.log(40)).all()


def test_blocks_low_precision_and_vmap_are_the_same():
    dense = losses.anchor_entropy(Z, BANK, anchor_where=EXISTS)
    np.testing.assert_allclose(losses.anchor_entropy(Z, BANK, anchor_where=EXISTS, block_size=2, implementation="blockwise"), dense, atol=1e-6)
    narrow = losses.anchor_entropy(jnp.asarray(Z, jnp.bfloat16), jnp.asarray(BANK, jnp.bfloat16), anchor_where=EXISTS)
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, dense, atol=2e-2)
    stacked = jax.vmap(losses.anchor_entropy, in_axes=(0, None))(np.stack([Z, -Z]), BANK)
    np.testing.assert_allclose(stacked[1], losses.anchor_entropy(-Z, BANK), atol=1e-6)


def test_four_devices_see_the_same_anchors():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def gradient(scale, z):
        def value(scale):
            return losses.mean(losses.anchor_entropy(scale * z, BANK * f32(1), temperature=scale, anchor_where=EXISTS), axis_name="data")

        return jax.lax.pmean(jax.grad(value)(scale), "data")

    z = np.concatenate([Z, Z[:3]])
    whole = jax.grad(lambda scale: losses.mean(losses.anchor_entropy(scale * z, BANK, temperature=scale, anchor_where=EXISTS)))(0.5)
    for checked in (True, False):
        spread = jax.shard_map(gradient, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P(), check_vma=checked)
        np.testing.assert_allclose(jax.jit(spread)(0.5, z), whole, rtol=1e-5)


@pytest.mark.errors
def test_bad_input_is_named():
    for error, text, options in (
        (ValueError, r"anchors must have shape \[N, D\] with D = 4 as in embeddings", dict(anchors=BANK[:, :2])),
        (ValueError, r"anchor_where must have shape \[N\] with N = 7", dict(anchor_where=np.ones(3, bool))),
        (ValueError, r"where must have shape \[B\] with B = 5", dict(where=np.ones(3, bool))),
        (ValueError, "temperature must be greater than 0", dict(temperature=0.0)),
        (ValueError, "similarity must be one of", dict(similarity="cosinus")),
        (TypeError, "embeddings must have dtype float", dict(embeddings=np.ones((5, 4), int))),
    ):
        with pytest.raises(error, match=text):
            losses.anchor_entropy(**(dict(embeddings=Z, anchors=BANK) | options))
