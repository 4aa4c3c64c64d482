"""The ground: checks, norms, the keyed permutation."""

import importlib
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cljax import core
from cljax.core import check

stream = importlib.import_module("cljax.core.permutation")


@pytest.mark.parametrize("size", (1, 2, 3, 7, 64, 1200, 100_003))
def test_a_permutation_holds_every_number_once(size):
    np.testing.assert_array_equal(np.sort(core.permutation(jax.random.key(3), size, jnp.arange(size))), np.arange(size))


def test_all_permutations_are_equally_likely():
    draw = jax.jit(jax.vmap(lambda key: core.permutation(key, 4, jnp.arange(4))))
    counts = Counter(map(tuple, np.asarray(draw(jax.random.split(jax.random.key(0), 24_000)))))
    assert len(counts) == 24
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_permutation_is_the_same_wherever_it_is_asked():
    whole = core.permutation(jax.random.key(1), 1000, jnp.arange(1000))
    np.testing.assert_array_equal(core.permutation(jax.random.key(1), 1000, jnp.array([[5, 999], [0, 17]])), whole[jnp.array([[5, 999], [0, 17]])])
    assert np.mean(np.asarray(core.permutation(jax.random.key(2), 1000, jnp.arange(1000))) == whole) < 0.02


def test_a_large_permutation_costs_what_is_asked():
    found = core.permutation(jax.random.key(0), 2**31 - 1, jnp.arange(1000))
    assert found.min() >= 0 and len(np.unique(found)) == 1000


@pytest.mark.parametrize("size, batch", [(1200, 128), (1_281_167, 4096), (2**31 - 1, 2**30), (7, 1000), (1, 1)])
def test_places_in_the_stream_of_epochs_are_exact_where_they_leave_32_bits(size, batch):
    steps = np.array([0, 1, 999_983, 2_000_003, 2**31 - 1])
    quotient, rest = stream._divmod(steps, batch, size)
    expected = [divmod(int(t) * batch, size) for t in steps]
    assert [(int(q), int(r)) for q, r in zip(quotient, rest, strict=True)] == [(q % 2**32, r) for q, r in expected]


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_normalising_keeps_zero_and_extreme_lengths(dtype):
    x = jnp.array([[3, 4], [0, 0], [1e25, 1e25], [1e-25, 0]], dtype)
    found = core.safe_normalize(x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [0.5**0.5] * 2, [1, 0]], atol=1e-6)
    gradient = jax.grad(lambda x: core.safe_normalize(x)[:, 0].sum())(x.astype(jnp.float32))
    np.testing.assert_allclose(gradient[0], [0.128, -0.096], atol=1e-6)
    assert np.all(gradient[1] == 0)


def test_a_norm_has_zero_gradient_at_zero():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(core.safe_norm(x), [5, 0])
    np.testing.assert_allclose(jax.grad(lambda x: core.safe_norm(x).sum())(x), [[0.6, 0.8], [0, 0]], atol=1e-6)


def test_softplus_and_both_derivatives_are_exact_to_rounding_wherever_float32_reaches():
    x = np.concatenate([np.linspace(-87, 87, 1001), [0.0, 1e-6, -1e-6, 3e38, -3e38, np.inf, -np.inf]]).astype(np.float32)
    wide = np.asarray(x, np.float64)
    with np.errstate(over="ignore"):
        value, slope = np.logaddexp(wide, 0), 1 / (1 + np.exp(-wide))
    np.testing.assert_allclose(core.softplus(x), value, rtol=5e-7)
    np.testing.assert_allclose(jax.vmap(jax.grad(core.softplus))(x), slope, rtol=5e-7, atol=1e-37)
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.grad(core.softplus)))(x), slope * (1 - slope), rtol=5e-7, atol=1e-7)
    assert np.isnan(core.softplus(jnp.nan)) and np.isnan(jax.grad(core.softplus)(jnp.nan))
    assert core.softplus(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


def test_nan_is_not_normalised_away():
    assert np.all(np.isnan(core.safe_normalize(jnp.array([[jnp.nan, 1.0]]))))


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, r"x must have shape \[B, D\], got \[2\]", lambda: check.arrays(x=(np.ones(2), "B D"))),
        (ValueError, r"y must have shape \[B\] with B = 2 as in x, got \[3\]", lambda: check.arrays(x=(np.ones(2), "B"), y=(np.ones(3), "B"))),
        (ValueError, r"x must have shape \[..., 3\], got \[4, 2\]", lambda: check.arrays(x=(np.ones((4, 2)), "... 3"))),
        (TypeError, "x must have dtype int, got float32", lambda: check.arrays(x=(np.ones(2, np.float32), "B", "int"))),
        (TypeError, "x must have dtype number, got complex64", lambda: check.arrays(x=(np.ones(2, np.complex64), "B", "number"))),
        (TypeError, "t must be a number, got dtype complex64", lambda: check.number("t", np.complex64(1))),
        (TypeError, "x must be an array, got None", lambda: check.arrays(x=(None, "B"))),
        (TypeError, "x must be an array, got list", lambda: check.arrays(x=([1.0], "B"))),
        (ValueError, "mode must be one of 'a', 'bcd', got 'bc'; did you mean 'bcd'", lambda: check.choice("mode", "bc", ("a", "bcd"))),
        (TypeError, "k must be an integer, got True", lambda: check.integer("k", True)),
        (ValueError, "k must be at least 1 and at most 3, got 4", lambda: check.integer("k", 4, at_least=1, at_most=3)),
        (ValueError, "t must be greater than 0, got 0.0", lambda: check.positive("t", 0.0)),
        (ValueError, "t must be greater than 0, got a minimum of -1.0", lambda: check.positive("t", np.array([1.0, -1.0]), several=True)),
        (ValueError, r"t must have shape \[\], got \[2\]", lambda: check.positive("t", np.array([1.0, 2.0]))),
        (ValueError, r"p must have shape \[\], got \[1\]", lambda: check.number("p", jnp.ones(1))),
        (TypeError, "t must be a number, got None", lambda: check.positive("t", None)),
        (ValueError, "p must be at least 0 and at most 1, got 1.5", lambda: check.number("p", 1.5, at_least=0, at_most=1)),
        (ValueError, "p must be at least 0, got nan", lambda: check.number("p", float("nan"), at_least=0)),
        (ValueError, "axis_name='x' is not mapped here", lambda: check.axis("axis_name", "x")),
        (ImportError, r"pip install 'cljax\[video\]'", lambda: check.installed("no_such_module", "video")),
        (ValueError, "size must be at least 1", lambda: core.permutation(jax.random.key(0), 0, jnp.arange(1))),
        (TypeError, "positions must have dtype int", lambda: core.permutation(jax.random.key(0), 3, jnp.ones(1))),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()


def test_only_an_optional_array_may_be_none():
    assert check.arrays(x=(np.ones((2, 3)), "B D"), where=(None, "B?", "bool")) == {"B": 2, "D": 3}


def test_what_is_traced_passes_the_checks_of_values():
    jax.jit(lambda t: check.positive("t", t) or t)(-1.0)
