"""The maximum mean discrepancy: worked numbers, a float64 reference, gradients, several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from cljax import core
from cljax.core.mmd import SCALES

X, Y, V = np.array([[0.0, 0], [1, 0]]), np.array([[0.0, 1], [1, 1]]), np.array([[3.0, 3], [4, 3]])
RNG = np.random.default_rng(0)
A, B = (RNG.normal(size=(16, 5)) + shift for shift in (0, 0.4))


def reference(x, y, scales=SCALES):
    def mean_kernel(u, v):
        square = ((u[:, None] - v[None]) ** 2).sum(-1)
        return sum(np.exp(-square / (2 * s)).mean() for s in scales)

    return mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)


@pytest.fixture(scope="module")
def distance():
    return jax.jit(core.mmd)


def test_worked_numbers_with_their_floor():
    found = jax.jit(lambda x, y, v: [core.mmd(*pair, floor=1e-4) for pair in ((x, x), (x, y), (y, x), (x, v), (y, v))])(*map(np.float32, (X, Y, V)))
    np.testing.assert_allclose(found, [1e-4, 5.103715, 5.103715, 11.176191, 10.027461], atol=2e-5)


def test_value_is_the_mean_over_all_pairs_also_of_unequal_samples(distance):
    for n, m in ((16, 16), (16, 1), (3, 16)):
        np.testing.assert_allclose(core.mmd(np.float32(A[:n]), np.float32(B[:m])), reference(A[:n], B[:m]), atol=1e-5)


def test_a_sample_has_no_distance_to_itself_far_from_the_origin(distance):
    for x in (A, 30 * A + 1000):
        assert distance(np.float32(x), np.float32(x)) == 0
    shifted = distance(np.float32(A + 1000), np.float32(B + 1000))
    np.testing.assert_allclose(shifted, reference(np.float32(A + 1000).astype(float), np.float32(B + 1000).astype(float)), atol=2e-3)


def test_bfloat16_is_computed_in_float32_and_nan_surfaces(distance):
    a, b = jnp.asarray(A, jnp.bfloat16), jnp.asarray(B, jnp.bfloat16)
    found = core.mmd(a, b)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, reference(np.float64(a), np.float64(b)), atol=1e-4)
    assert np.isnan(distance(np.float32(A).copy(), np.where(np.arange(16)[:, None] == 3, np.nan, np.float32(B))))


def test_gradient_is_that_of_finite_differences_and_zero_at_the_floor():
    x, y = np.float32(A[:3]), np.float32(B[:4])
    wide = jax.jit(jax.grad(lambda x, y, floor: core.mmd(x, y, scales=(0.5, 5.0), floor=floor)))
    found, step = wide(x, y, 0.0), 1e-4
    for place in ((0, 0), (2, 4)):
        up, down = A[:3].copy(), A[:3].copy()
        up[place] += step
        down[place] -= step
        expected = (reference(up, B[:4], (0.5, 5.0)) - reference(down, B[:4], (0.5, 5.0))) / (2 * step)
        np.testing.assert_allclose(found[place], expected, atol=1e-4)
    assert np.all(np.asarray(wide(x, y, 100.0)) == 0)
    assert np.all(np.isfinite(wide(np.zeros_like(x), np.zeros_like(y), -1.0)))


@pytest.mark.parametrize("check_vma", (True, False))
def test_four_devices_give_the_distance_and_the_gradients_of_one(check_vma):
    def total(scale, x, y, axis_name=None):
        return core.mmd(scale * x, y, scales=(0.1, 1.0, 5.0), axis_name=axis_name)

    def local(scale, x, y):
        value, gradient = jax.value_and_grad(total)(scale, x, y, "data")
        return value, jax.lax.pmean(gradient, "data")

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P("data")), out_specs=(jax.P(), jax.P()), check_vma=check_vma)
    arguments = np.float32(1.3), np.float32(A), np.float32(B)
    found = jax.jit(jax.shard_map(local, mesh=mesh, **specs))(*arguments)
    np.testing.assert_allclose(found, jax.jit(jax.value_and_grad(total))(*arguments), rtol=1e-4)


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, r"y must have shape \[M, F\] with F = 2 as in x, got \[2, 3\]", lambda: core.mmd(X, np.ones((2, 3)))),
        (ValueError, r"y must hold at least one point, got shape \[0, 2\]", lambda: core.mmd(X, np.ones((0, 2)))),
        (TypeError, "x must have dtype float", lambda: core.mmd(X.astype(int), Y)),
        (ValueError, "scales must be greater than 0, got 0.0", lambda: core.mmd(X, Y, scales=(1.0, 0.0))),
        (TypeError, "scales must be a sequence of numbers, at least one", lambda: core.mmd(X, Y, scales=())),
        (ValueError, r"floor must have shape \[\], got \[3\]", lambda: core.mmd(X, Y, floor=np.ones(3, np.float32))),
        (ValueError, "axis_name='x' is not mapped here", lambda: core.mmd(X, Y, axis_name="x")),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
