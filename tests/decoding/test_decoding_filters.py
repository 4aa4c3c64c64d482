"""Filters of logits: the numbers of the papers' code, the processors of transformers, and what must hold whatever the numbers."""

import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cljax import decoding

P1, P2, P3 = (0.5, 0.2, 0.15, 0.1, 0.05), (0.97, 0.01, 0.01, 0.005, 0.005), (0.30, 0.25, 0.15, 0.10, 0.08, 0.06, 0.04, 0.02)
P4 = (0.6, *[0.04] * 10)
FOUR = (0.4, 0.2, 0.2, 0.2)


@jax.jit
def filtered(filter, logits):
    return filter(logits)


def left(filter, probabilities):
    """What the filter leaves of a distribution, renormalised."""
    return np.asarray(jax.nn.softmax(filtered(filter, np.log(np.float32(probabilities)))))


@pytest.mark.parametrize(
    ("probabilities", "filter", "expected"),
    [
        (P1, decoding.typical(0.1), (0, 1, 0, 0, 0)),
        (P1, decoding.typical(0.3), (0, 0.571429, 0.428571, 0, 0)),
        (P1, decoding.typical(0.6), (0.588235, 0.235294, 0.176471, 0, 0)),
        (P1, decoding.typical(0.9), (0.526316, 0.210526, 0.157895, 0.105263, 0)),
        (P1, decoding.typical(0.97), P1),
        (P1, decoding.top_p(0.4), (1, 0, 0, 0, 0)),
        (P1, decoding.top_p(0.6), (0.714286, 0.285714, 0, 0, 0)),
        (P1, decoding.top_p(0.9), (0.526316, 0.210526, 0.157895, 0.105263, 0)),
        (P1, decoding.top_k(2), (0.714286, 0.285714, 0, 0, 0)),
        (P2, decoding.typical(0.1), (1, 0, 0, 0, 0)),
        (P2, decoding.typical(0.95), (1, 0, 0, 0, 0)),
        (P2, decoding.top_k(2), (0.979798, 0.010101, 0.010101, 0, 0)),
        (P3, decoding.typical(0.1), (0, 0, 1, 0, 0, 0, 0, 0)),
        (P3, decoding.typical(0.3), (0, 0.625, 0.375, 0, 0, 0, 0, 0)),
        (P3, decoding.typical(0.45), (0, 0.5, 0.3, 0.2, 0, 0, 0, 0)),
        (P3, decoding.typical(0.6), (0.375, 0.3125, 0.1875, 0.125, 0, 0, 0, 0)),
        (P3, decoding.typical(0.9), (0.319149, 0.265957, 0.159574, 0.106383, 0.085106, 0.063830, 0, 0)),
        (P4, decoding.typical(0.5), (1, *[0] * 10)),
        (P4, decoding.typical(0.9), P4),
        (P4, decoding.top_p(0.9), (0.6 / 0.92, *[0.04 / 0.92] * 8, 0, 0)),
        ((0.97, 0.01, 0.01, 0.01), decoding.typical(0.5), (1, 0, 0, 0)),
        (FOUR, decoding.typical(0.5), (0, 1 / 3, 1 / 3, 1 / 3)),
        ([1 / 7] * 7, decoding.typical(0.2), [1 / 7] * 7),
        (FOUR, decoding.top_p(0.05, min_keep=2), (2 / 3, 1 / 3, 0, 0)),
        (P1, decoding.typical(0.1, min_keep=4), (0.526316, 0.210526, 0.157895, 0.105263, 0)),
        (FOUR, decoding.plausibility(0.6), (1, 0, 0, 0)),
        (FOUR, decoding.plausibility(0.4), FOUR),
        (P1, decoding.temperature(0.5), np.square(P1) / np.square(P1).sum()),
    ],
)
def test_filters_leave_what_the_papers_code_leaves(probabilities, filter, expected):
    got = left(filter, probabilities)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert ((got == 0) == (np.array(expected) == 0)).all()


@pytest.mark.parametrize(
    ("weight", "plausible", "expected"),
    [
        (1.0, 0.1, (0.167272, 0.749663, 0.083065, 0)),
        (1.0, 0.2, (0.182426, 0.817574, 0, 0)),
        (0.5, 0.1, (0.340689, 0.561702, 0.097609, 0)),
        (0.0, 0.1, (0.564388, 0.342319, 0.093293, 0)),
    ],
)
def test_contrastive_logits_debias(weight, plausible, expected):
    filter = decoding.contrastive_logits(jnp.array([3, 0.5, 0.1, -3]), weight=weight, plausible=plausible)
    np.testing.assert_allclose(jax.nn.softmax(filter(jnp.array([2, 1.5, 0.2, -1]))), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (-2.0, (0.049080, 0.184049, 0.766871)),
        (-1.0, (0.2, 0.3, 0.5)),
        (-0.5, (0.339134, 0.321731, 0.339134)),
        (0.0, (0.5, 0.3, 0.2)),
        (0.3, (0.592899, 0.270240, 0.136860)),
        (1.0, (0.766871, 0.184049, 0.049080)),
        (2.0, (0.903963, 0.086780, 0.009257)),
    ],
)
def test_contrastive_logits_undo_and_amplify_a_tuning(weight, expected):
    before, tuned = jnp.log(jnp.array([0.5, 0.3, 0.2])), jnp.log(jnp.array([0.2, 0.3, 0.5]))
    found = decoding.contrastive_logits(tuned, weight=weight)(before)
    np.testing.assert_allclose(jax.nn.softmax(found), expected, atol=2e-6)
    twice = decoding.contrastive_logits(found, weight=0.7)(before)  # weights multiply
    np.testing.assert_allclose(twice, decoding.contrastive_logits(tuned, weight=-0.7 * weight)(before), atol=1e-5)


def test_contrastive_logits_guide_and_go_the_other_way():
    positive, negative = jnp.array([1, 0.2, -0.5]), jnp.array([0.3, 0.4, -0.1])
    guided = decoding.contrastive_logits(negative, weight=1.5)
    np.testing.assert_allclose(jax.nn.softmax(guided(positive)), (0.862562, 0.100475, 0.036963), atol=2e-6)
    np.testing.assert_allclose(decoding.contrastive_logits(negative, weight=-1.0)(positive), negative, atol=1e-6)  # the other model itself
    np.testing.assert_array_equal(decoding.contrastive_logits(negative, weight=0.0)(positive), positive)
    plain, shifted = (decoding.contrastive_logits(negative + by, weight=1.5, plausible=0.3)(positive - by) for by in (0, 3))
    np.testing.assert_allclose(jax.nn.softmax(shifted), jax.nn.softmax(plain), atol=1e-6)
    removed = jnp.array([-jnp.inf, 1, 2])
    assert jax.nn.softmax(decoding.contrastive_logits(removed, weight=1.0)(removed))[0] == 0


RECORDED = np.load(pathlib.Path(__file__).with_name("recorded") / "filters.npz")
CASES = {
    "temperature": [decoding.temperature(0.7), decoding.temperature(2.5)],
    "top_k": [decoding.top_k(1), decoding.top_k(7), decoding.top_k(40)],
    "top_p": [*map(decoding.top_p, (0.05, 0.3, 0.9, 0.99)), decoding.top_p(0.05, min_keep=3)],
    "typical": [*map(decoding.typical, (0.05, 0.2, 0.5, 0.9, 0.99)), decoding.typical(0.05, min_keep=3)],
    "plausibility": [decoding.plausibility(0.02), decoding.plausibility(0.3)],
}


@pytest.mark.parametrize("name", CASES)
def test_filters_agree_with_the_processors_of_transformers(name):
    for place, filter in enumerate(CASES[name]):
        np.testing.assert_allclose(filtered(filter, RECORDED["logits"]), RECORDED[f"{name} {place}"], rtol=1e-6)


def test_composed_filters_agree_with_the_processors_of_transformers():
    filter = decoding.compose(decoding.temperature(0.7), decoding.top_k(30), decoding.top_p(0.95), decoding.typical(0.9))
    np.testing.assert_allclose(filtered(filter, RECORDED["logits"]), RECORDED["composed"], rtol=1e-6)


def reference(name, z, number, min_keep):
    """What is kept, by sorting in float64; None where the last sum is too near to the number to say."""
    z = np.float64(z)
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    if name == "top_k":
        return z >= np.sort(z)[-min_keep]
    entropy = -np.sum(p * np.log(p))
    order = np.argsort(-z if name == "top_p" else np.abs(-np.log(p) - entropy), kind="stable")
    sums = np.cumsum(p[order])
    if np.abs(sums - number).min() < 1e-5:
        return None
    count = 1 + (np.sum(sums[:-1] <= number) if name == "top_p" else np.sum(sums[:-1] < number))
    return np.isin(np.arange(len(z)), order[: max(count, min_keep)])


@given(st.integers(0, 10**6), st.floats(0.02, 0.98), st.integers(1, 5), st.sampled_from([0.3, 1, 5, 20]))
def test_filters_keep_what_sorting_keeps(seed, number, min_keep, spread):
    z = np.float32(np.random.default_rng(seed).normal(size=30) * spread)
    for name, filter in (
        ("top_k", decoding.top_k(min_keep)),
        ("top_p", decoding.top_p(number, min_keep)),
        ("typical", decoding.typical(number, min_keep)),
    ):
        expected = reference(name, z, number, min_keep)
        if expected is not None:
            got = np.asarray(filtered(filter, z))
            np.testing.assert_array_equal(np.isfinite(got), expected, err_msg=name)
            np.testing.assert_array_equal(got[expected], z[expected])


Z = np.float32(np.random.default_rng(0).normal(size=(3, 4, 12)) * 2)
ALL = {
    "temperature": decoding.temperature(0.7),
    "top_k": decoding.top_k(4),
    "top_p": decoding.top_p(0.7),
    "typical": decoding.typical(0.7),
    "plausibility": decoding.plausibility(0.2),
    "contrastive": decoding.contrastive_logits(np.zeros(12, np.float32), weight=0.5, plausible=0.1),
    "composed": decoding.compose(decoding.temperature(0.7), decoding.top_k(5), decoding.typical(0.6)),
}
every = pytest.mark.parametrize("filter", ALL.values(), ids=ALL)


@every
def test_filters_work_on_any_axes_and_move_with_the_vocabulary_and_a_constant(filter):
    expected = np.asarray(filtered(filter, Z))
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(filter)))(Z), expected, rtol=1e-6)
    order = np.random.default_rng(1).permutation(12)
    np.testing.assert_allclose(filtered(filter, Z[..., order]), expected[..., order], rtol=1e-5)
    shifted = jax.nn.softmax(filtered(filter, Z + 3))
    np.testing.assert_allclose(shifted, jax.nn.softmax(expected), atol=1e-6)
    low = filtered(filter, jnp.asarray(Z, jnp.bfloat16))
    assert low.dtype == jnp.float32
    np.testing.assert_array_equal(low, filtered(filter, jnp.asarray(Z, jnp.bfloat16).astype(jnp.float32)))


@every
@pytest.mark.parametrize("bad", [np.nan, -np.nan])
def test_a_nan_is_seen_in_its_row_alone(filter, bad):
    z = Z[0].copy()
    z[1, 2] = bad
    got = np.asarray(filtered(filter, z))
    assert np.isnan(got).any(axis=1).tolist() == [False, True, False, False]
    np.testing.assert_array_equal(got[[0, 2, 3]], np.asarray(filtered(filter, Z[0]))[[0, 2, 3]])


@every
def test_tokens_that_were_removed_stay_so_and_one_is_always_left(filter):
    z = np.where(np.arange(12) % 3 == 1, Z, -np.inf)
    got = np.asarray(filtered(filter, z))
    assert (got[z == -np.inf] == -np.inf).all() and np.isfinite(got).any(-1).all()
    one = np.where(np.arange(12) == 5, 0, -np.inf).astype(np.float32)
    np.testing.assert_array_equal(filtered(filter, one), one)


@pytest.mark.parametrize("make", [decoding.typical, decoding.top_p])
def test_kept_sets_are_nested_and_have_the_mass_that_was_asked_for(make):
    shares = np.asarray(jax.nn.softmax(Z))
    masses = np.linspace(0.05, 1, 20, dtype=np.float32)
    kept = np.isfinite(jax.jit(jax.vmap(lambda mass: make(mass)(Z)))(masses))
    assert (kept[1:] | ~kept[:-1]).all() and kept[-1].all()
    assert ((kept * shares).sum(-1) >= masses[:, None, None] - 1e-6).all()
    entropy = -(shares * np.log(shares)).sum(-1, keepdims=True)
    order = np.abs(-np.log(shares) - entropy) if make is decoding.typical else -shares
    last = np.where(kept, order, -np.inf).argmax(-1)[..., None]
    without = np.where(np.arange(12) == last, False, kept)
    assert ((without * shares).sum(-1) <= masses[:, None, None] + 1e-6)[:-1].all()


def test_typical_begins_with_the_nearest_and_ends_with_all_without_an_index_out_of_range():
    shares = np.asarray(jax.nn.softmax(Z))
    distance = np.abs(-np.log(shares) + (shares * np.log(shares)).sum(-1, keepdims=True))
    np.testing.assert_array_equal(np.isfinite(filtered(decoding.typical(1e-6), Z)), distance == distance.min(-1, keepdims=True))
    many = np.float32(np.random.default_rng(0).normal(size=50_257) * 3)
    for filter in (decoding.typical(1.0), decoding.top_p(1.0), decoding.typical(0.99999994), decoding.top_p(0.99999994)):
        assert np.isfinite(filtered(filter, many)).mean() > 0.99
    np.testing.assert_array_equal(filtered(decoding.typical(1.0), many), many)
    np.testing.assert_array_equal(filtered(decoding.top_p(1.0), many), many)


def test_the_nucleus_may_be_the_smallest_set_of_its_mass():
    """Sums that are exact in binary: at equality the released code keeps one token more."""
    shares, tied = (0.5, 0.25, 0.125, 0.125), (0.25, 0.25, 0.25, 0.25)
    np.testing.assert_allclose(left(decoding.top_p(0.5), shares), (2 / 3, 1 / 3, 0, 0), atol=1e-6)
    np.testing.assert_allclose(left(decoding.top_p(0.5, inclusive=True), shares), (1, 0, 0, 0), atol=1e-6)
    np.testing.assert_allclose(left(decoding.top_p(0.75, inclusive=True), shares), (2 / 3, 1 / 3, 0, 0), atol=1e-6)
    np.testing.assert_allclose(left(decoding.top_p(0.5, inclusive=True), tied), (0.5, 0.5, 0, 0), atol=1e-6)
    np.testing.assert_allclose(left(decoding.top_p(0.1, min_keep=2, inclusive=True), shares), (2 / 3, 1 / 3, 0, 0), atol=1e-6)
    np.testing.assert_array_equal(filtered(decoding.top_p(1.0, inclusive=True), Z), Z)
    for p in (0.3, 0.7):  # elsewhere both are one
        np.testing.assert_array_equal(filtered(decoding.top_p(p, inclusive=True), Z), filtered(decoding.top_p(p), Z))


def test_zeros_of_both_signs_are_one_tie():
    np.testing.assert_array_equal(filtered(decoding.top_k(1), np.float32([-0.0, 0.0, -1])), [0, 0, -np.inf])


def nothing(logits):
    return jnp.full_like(logits, -jnp.inf)


def test_what_would_remove_everything_keeps_the_likeliest_token():
    z = np.float32([[1, 3, 2], [5, 0, 1]])
    got = filtered(decoding.compose(decoding.temperature(2.0), nothing), z)
    np.testing.assert_array_equal(got, [[-np.inf, 3, -np.inf], [5, -np.inf, -np.inf]])
    np.testing.assert_array_equal(filtered(decoding.compose(), z), z)


def test_other_numbers_share_a_program_and_have_a_gradient_where_they_are_smooth():
    traces = []

    @jax.jit
    def run(filter, z):
        traces.append(filter)
        return filter(z)

    for number in (0.3, 0.6):
        run(decoding.compose(decoding.temperature(number), decoding.top_p(number), decoding.typical(number), decoding.plausibility(number)), Z)
    assert len(traces) == 1
    run(decoding.compose(decoding.temperature(0.3), decoding.top_k(3)), Z)
    run(decoding.compose(decoding.temperature(0.3), decoding.top_k(4)), Z)
    assert len(traces) == 3
    kept = np.isfinite(filtered(decoding.typical(0.6), Z))
    grads = jax.jit(jax.grad(lambda z: jnp.sum(jnp.where(kept, decoding.typical(0.6)(z), 0) ** 2)))(Z)
    np.testing.assert_allclose(grads, np.where(kept, 2 * Z, 0), rtol=1e-6)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (partial(decoding.temperature, 0.0), ValueError, "t must be greater than 0, got 0.0"),
        (partial(decoding.temperature, "1"), TypeError, "t must be a number"),
        (partial(decoding.temperature, np.ones(3)), ValueError, r"t must have shape \[\], got \[3\]"),
        (partial(decoding.top_p, np.ones(3)), ValueError, r"p must have shape \[\], got \[3\]"),
        (partial(decoding.plausibility, np.ones(3)), ValueError, r"alpha must have shape \[\], got \[3\]"),
        (partial(decoding.top_k, 0), ValueError, "k must be at least 1, got 0"),
        (partial(decoding.top_k, 2.0), TypeError, "k must be an integer"),
        (partial(decoding.top_p, 0.0), ValueError, "p must be greater than 0"),
        (partial(decoding.top_p, 1.5), ValueError, "p must be at most 1, got 1.5"),
        (partial(decoding.top_p, 0.5, min_keep=0), ValueError, "min_keep must be at least 1"),
        (partial(decoding.top_p, 0.5, inclusive=1), TypeError, "inclusive must be True or False, got int"),
        (partial(decoding.typical, 1.01), ValueError, "mass must be at most 1"),
        (partial(decoding.typical, -0.5), ValueError, "mass must be greater than 0"),
        (partial(decoding.plausibility, 1.5), ValueError, "alpha must be at least 0 and at most 1, got 1.5"),
        (partial(decoding.contrastive_logits, Z, weight="much"), TypeError, "weight must be an array"),
        (partial(decoding.contrastive_logits, Z, weight=1.0, plausible=2.0), ValueError, "plausible must be at least 0 and at most 1"),
        (partial(decoding.contrastive_logits(Z[:2], weight=1.0), Z), ValueError, r"shape of the logits, \[3, 4, 12\], got \[2, 4, 12\]"),
        (partial(decoding.contrastive_logits(Z, weight=1.0), Z[0]), ValueError, r"negative must have the shape of the logits, \[4, 12\]"),
        (partial(decoding.compose, 0.9), TypeError, "filters must be functions of logits, got float"),
        (partial(decoding.top_k(13), Z), ValueError, "k must be at most 12, got 13"),
        (partial(decoding.typical(0.5, min_keep=13), Z), ValueError, "min_keep must be at most 12, got 13"),
        (partial(decoding.top_k(3), np.arange(5)), TypeError, "logits must have dtype float"),
    ],
)
def test_filters_say_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()
