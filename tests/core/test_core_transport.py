"""Optimal transport against worked numbers, a library, and what a plan must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn
from scipy.special import logsumexp

from cljax.core import sinkhorn

f32 = np.float32
COST = f32([[0.1, 1, 1.2], [0.2, 0.9, 1.1], [1, 0.1, 1.3], [1.1, 0.3, 0.2], [0.3, 1.2, 0.9], [1.4, 1, 0.1]]).T  # three clusters, six samples
RNG = np.random.default_rng(0)
transport = jax.jit(sinkhorn, static_argnames="iterations")


def reference(cost, epsilon, a, b, iterations):
    """In float64, without an end by tolerance."""
    scores, g = -np.float64(cost) / epsilon, np.zeros(cost.shape[1])
    for _ in range(iterations):
        f = np.log(a) - logsumexp(scores + g, axis=1)
        g = np.log(b) - logsumexp(scores + f[:, None], axis=0)
    return np.exp(scores + f[:, None] + g)


def test_worked_assignment_of_samples_to_clusters():
    share = np.asarray(transport(COST, 0.1, iterations=10, tolerance=0.0).plan).T * 6
    expected = [
        *([0.948386, 0.049001, 0.002613], [0.713198, 0.272284, 0.014518], [0, 0.999997, 0.000002]),
        *([0, 0.482874, 0.517125], [0.684684, 0.035376, 0.279939], [0, 0.000313, 0.999687]),
    ]
    np.testing.assert_allclose(share, expected, atol=2e-6)
    np.testing.assert_allclose(share.sum(axis=0), [2.346269, 1.839847, 1.813885], atol=1e-5)
    assert share.argmax(axis=1).tolist() == [0, 0, 1, 2, 0, 2]


def test_worked_cost_of_points_between_two_prototypes():
    prototypes, queries = f32([[0, 0], [2, 0]]), f32([[0.5, 1], [0.3, 0.8], [0.4, 1.2], [2.5, 1], [2.3, 0.9], [2.6, 1.1]])
    cost = ((prototypes[:, None] - queries) ** 2).sum(axis=-1)
    cost /= cost.max()
    np.testing.assert_allclose(cost[0], [0.156838, 0.091593, 0.200753, 0.909661, 0.765370, 1], atol=1e-6)
    found = sinkhorn(cost, 0.05)
    np.testing.assert_allclose(found.cost, 0.152793, atol=2e-6)
    assert abs(int(found.steps) - 387) <= 2  # the last digits decide when it ends


def test_the_other_sign_of_the_released_code_sends_samples_to_far_clusters():
    assert np.asarray(transport(-COST, 0.1, iterations=10, tolerance=0.0).plan).argmax(axis=0).tolist() == [2, 2, 2, 0, 1, 0]


def test_plans_with_masses_of_their_own_follow_the_formula_and_have_no_gradient():
    cost, a, b = RNG.uniform(size=(4, 7)).astype(f32), f32([0.1, 0.2, 0.3, 0.4]), f32([1, 2, 3, 4, 5, 6, 7]) / 28
    found = transport(cost, 0.03, row_weights=a, column_weights=b, iterations=25, tolerance=0.0)
    np.testing.assert_allclose(found.plan, reference(cost, 0.03, np.float64(a), np.float64(b), 25), atol=1e-6)
    np.testing.assert_allclose(found.cost, np.sum(found.plan * cost), rtol=1e-6)
    assert int(found.steps) == 25
    gradient = jax.jit(jax.grad(lambda cost: transport(cost, 0.03, iterations=25).cost))(cost)
    np.testing.assert_array_equal(gradient, 0)


def test_it_agrees_with_a_library_where_both_converge():
    x, y = RNG.normal(size=(5, 3)), RNG.normal(size=(8, 3))
    cost = ((x[:, None] - y) ** 2).sum(axis=-1).astype(f32)
    cost /= cost.max()
    problem = linear_problem.LinearProblem(geometry.Geometry(cost_matrix=jnp.asarray(cost), epsilon=0.05))
    peer = jax.jit(ott_sinkhorn.Sinkhorn(threshold=1e-6, max_iterations=5000))(problem)
    assert bool(peer.converged)
    found = transport(cost, 0.05, iterations=5000, tolerance=1e-6)
    np.testing.assert_allclose(found.plan, peer.matrix, atol=1e-5)
    np.testing.assert_allclose(found.plan.sum(axis=0), 1 / 8, atol=1e-6)  # the columns were scaled last
    np.testing.assert_allclose(found.plan.sum(axis=1), 1 / 5, atol=1e-5)


def test_it_ends_by_tolerance_and_is_the_same_for_columns_in_another_order():
    loose, tight = (transport(COST, 0.1, iterations=1000, tolerance=tolerance) for tolerance in (1e-2, 1e-5))
    assert int(loose.steps) < int(tight.steps) < 1000
    order = RNG.permutation(6)
    np.testing.assert_allclose(transport(COST[:, order], 0.1, iterations=1000, tolerance=1e-5).plan, tight.plan[:, order], atol=1e-6)


def test_a_large_epsilon_gives_the_product_of_the_masses_and_a_small_one_overflows_nowhere():
    np.testing.assert_allclose(transport(COST, 1e4, iterations=50).plan, 1 / 18, atol=1e-5)
    for scale in (1.0, 1e4):
        assert np.isfinite(transport(scale * COST, 1e-3, iterations=50).plan).all()


def test_rows_and_columns_without_mass_get_nothing():
    a, b = f32([0.5, 0, 0.5]), f32([0, 0.25, 0.25, 0.25, 0.25, 0])
    found = np.asarray(transport(COST, 0.1, row_weights=a, column_weights=b, iterations=200, tolerance=1e-6).plan)
    assert not found[1].any() and not found[:, [0, 5]].any()
    np.testing.assert_allclose(
        found[np.ix_([0, 2], [1, 2, 3, 4])], reference(COST[[0, 2]][:, 1:5], 0.1, np.full(2, 0.5), np.full(4, 0.25), 200), atol=1e-5
    )


def test_one_row_low_precision_nan_vmap_and_devices():
    np.testing.assert_allclose(transport(COST[:1], 0.1, iterations=50).plan, 1 / 6, atol=1e-6)
    narrow = transport(jnp.asarray(COST, jnp.bfloat16), 0.1, iterations=50)
    assert narrow.plan.dtype == jnp.float32
    assert np.isnan(transport(np.where(COST[0, 0] == COST, np.nan, COST), 0.1, iterations=50).plan).any()
    stacked = np.stack([COST, COST[::-1], 3 * COST, 0 * COST])
    several = jax.jit(jax.vmap(lambda cost: sinkhorn(cost, 0.1, iterations=1000)))(stacked)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.shard_map(lambda cost: sinkhorn(cost[0], 0.1).plan[None], mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    devices = jax.jit(spread)(stacked)
    for i in range(4):
        alone = transport(stacked[i], 0.1, iterations=1000)
        np.testing.assert_allclose(several.plan[i], alone.plan, atol=1e-5)
        np.testing.assert_allclose(devices[i], alone.plan, atol=1e-5)


@pytest.mark.errors
def test_bad_input_is_named():
    for error, text, options in (
        (ValueError, "epsilon must be greater than 0, got 0.0", dict(epsilon=0.0)),
        (ValueError, r"cost must have shape \[R, C\]", dict(cost=COST[0])),
        (ValueError, "cost must have a row and a column at least", dict(cost=COST[:0])),
        (ValueError, r"row_weights must have shape \[R\] with R = 3 as in cost, got \[6\]", dict(row_weights=np.ones(6, f32))),
        (TypeError, "cost must have dtype float", dict(cost=np.ones((2, 2), int))),
        (ValueError, "iterations must be at least 1, got 0", dict(iterations=0)),
        (ValueError, "tolerance must be at least 0", dict(tolerance=-1.0)),
        (ValueError, r"tolerance must have shape \[\], got \[2\]", dict(tolerance=np.ones(2, f32))),
    ):
        with pytest.raises(error, match=text):
            sinkhorn(**(dict(cost=COST, epsilon=0.1) | options))
