"""Losses of graphs and of soft clusters: worked numbers, identities, gradients, masks, devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from cljax import losses, samplers

f32 = np.float32
Z = f32([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8], [-1, 0]])
LABELS = np.array([0, 0, 1, 1, 1])
FIRST, SECOND = (samplers.influence(np.arange(4), np.arange(1, 5), 5, order, multiple=4) for order in (1, 2))
RNG = np.random.default_rng(0)


def close(found, expected, atol=2e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def dense(edges, nodes=5):
    found = np.zeros((nodes, nodes))
    np.add.at(found, (edges.rows, edges.columns), edges.weights)
    return found


def reference(z, labels, s, tau, k):
    """The formulas in float64: what meta-node contrast and the full loss give each node, and the sums of neighbours and of meta-nodes."""
    unit = np.float64(z) / np.linalg.norm(z, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, 0)
    positive = (s * np.exp(tau * cosines)).sum(1)
    meta = np.stack([np.float64(z)[labels == j].sum(0) for j in range(k) if np.any(labels == j)])
    meta /= np.linalg.norm(meta, axis=1, keepdims=True)
    apart = meta @ meta.T
    np.fill_diagonal(apart, 0)
    negative = np.exp(tau * apart).sum(1)
    return np.log(negative).mean() - np.log(positive + 1e-10), -np.log(positive / np.exp(tau * cosines).sum(1) + 1e-8), positive, negative


@pytest.fixture(scope="module")
def contrast():
    """One program of both losses; clusters beyond two are empty."""

    def both(z, labels, rows, columns, weights, temperature):
        edges, how = (rows, columns, weights), dict(temperature=temperature)
        found = losses.meta_node_contrast(z, labels, *edges, num_clusters=5, **how), losses.graph_info_nce(z, *edges, **how)
        return tuple(losses.mean(values) for values in found), found

    def run(z, labels, rows, columns, weights, temperature):
        meta, full = (jax.grad(lambda z, i=i: both(z, labels, rows, columns, weights, temperature)[0][i]) for i in (0, 1))
        return *both(z, labels, rows, columns, weights, temperature), (meta(z), full(z))

    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})


def test_worked_numbers(contrast):
    for edges, tau, positive, negative, value in (
        (SECOND, 0.5, [2.450839, 2.494926, 2.467602, 2.487039, 2.320704], [1.821224, 1.821224], -0.293871),
        (FIRST, 1.0, None, None, 0.038814),
    ):
        _, _, neighbours, meta = reference(Z, LABELS, dense(edges), tau, 2)
        (mean, _), (values, _), _ = contrast(Z, LABELS, *edges, f32(1 / tau))
        close(mean, value)
        if positive:
            close(neighbours, positive)
            close(meta, negative)
            close(values, np.log(negative).mean() - np.log(positive))


def test_a_cluster_a_node_makes_the_full_loss(contrast):
    (meta, full), _, _ = contrast(Z, np.arange(5), *FIRST, f32(1))
    close([meta, full], 1.299879)


def test_without_a_temperature_only_sizes_count(contrast):
    (meta, full), _, gradients = contrast(Z, LABELS, *SECOND, f32(np.inf))
    close([meta, full], [0, np.log(5) - np.log(2)])
    assert all(np.all(np.asarray(gradient) == 0) for gradient in gradients)


def test_one_cluster_leaves_the_positives_alone(contrast):
    _, (values, _), _ = contrast(Z, np.zeros(5, int), *SECOND, f32(2))
    close(values, -np.log([2.450839, 2.494926, 2.467602, 2.487039, 2.320704]))


def test_values_are_those_of_the_formulas_and_empty_clusters_count_nowhere(contrast):
    z = RNG.normal(size=(5, 2)).astype(f32)
    for labels in (LABELS, np.array([4, 1, 4, 1, 3])):
        meta, full, _, _ = reference(z, labels, dense(SECOND), 1.5, 5)
        _, found, _ = contrast(z, labels, *SECOND, f32(1 / 1.5))
        close(found, [meta, full], 1e-5)


def test_gradients_are_those_of_finite_differences(contrast):
    z, step = RNG.normal(size=(5, 2)).astype(f32), 1e-5
    _, _, found = contrast(z, LABELS, *SECOND, f32(0.5))
    for place in ((0, 1), (3, 0)):
        up, down = np.float64(z), np.float64(z)
        up[place] += step
        down[place] -= step
        for which in (0, 1):
            high, low = (reference(x, LABELS, dense(SECOND), 2.0, 2)[which].mean() for x in (up, down))
            close(found[which][place], (high - low) / (2 * step), 1e-4)


def test_order_of_nodes_names_of_clusters_and_lengths_do_not_matter(contrast):
    z, order = RNG.normal(size=(5, 2)).astype(f32), np.array([3, 0, 4, 1, 2])
    place = np.argsort(order)
    means, values, _ = contrast(z, LABELS, *SECOND, f32(1))
    other = SECOND._replace(rows=place[SECOND.rows].astype(np.int32), columns=place[SECOND.columns].astype(np.int32))
    moved, renamed, longer = (contrast(*x, f32(1)) for x in ((z[order], LABELS[order], *other), (z, 3 - LABELS, *SECOND), (7 * z, LABELS, *SECOND)))
    for found in (moved[0], renamed[0], longer[0]):
        close(found, means)
    close(moved[1], [np.asarray(x)[order] for x in values])


def test_scaling_the_weights_shifts_the_values_and_leaves_the_gradients(contrast):
    z = RNG.normal(size=(5, 2)).astype(f32)
    (means, _, gradients), (shifted, _, same) = (contrast(z, LABELS, *SECOND._replace(weights=k * SECOND.weights), f32(1)) for k in (1, 3))
    close(shifted, np.array(means) - np.log(3), 1e-5)
    close(same, gradients, 1e-5)


def test_low_temperatures_zero_vectors_and_nan(contrast):
    far = f32([[1, 0], [-1, 0], [1, 0], [-1, 0], [1, 0]])  # all neighbours lie opposite
    _, values, gradients = contrast(far, LABELS, *FIRST._replace(weights=np.where(FIRST.rows == FIRST.columns, 0, FIRST.weights)), f32(0.005))
    assert all(np.isfinite(x).all() for x in (*values, *gradients))
    zero = Z.copy()
    zero[:2] = 0  # a meta-node of length zero too
    _, values, gradients = contrast(zero, LABELS, *SECOND, f32(0.5))
    assert all(np.isfinite(x).all() for x in (*values, *gradients)) and np.all(np.asarray(gradients[0][:2]) == 0)
    broken = Z.copy()
    broken[4] = np.nan
    assert all(np.isnan(x).any() for x in contrast(broken, LABELS, *SECOND, f32(0.5))[1])


def test_nodes_that_do_not_count_are_as_if_they_were_not_there(contrast):
    z = np.concatenate([Z, f32([[np.nan, 1], [np.inf, 2]])])
    where, labels = np.arange(7) < 5, np.append(LABELS, [1, 2])

    def masked(z):
        how = dict(temperature=0.5, where=where)
        return losses.meta_node_contrast(z, labels, *SECOND, num_clusters=5, **how), losses.graph_info_nce(z, *SECOND, **how)

    values, gradient = jax.jit(lambda z: (masked(z), jax.grad(lambda z: losses.mean(sum(masked(z)), where))(z)))(z)
    for found, expected in zip(values, contrast(Z, LABELS, *SECOND, f32(0.5))[1], strict=True):
        close(found[:5], expected)
        close(found[5:], 0)
    assert np.isfinite(gradient).all()


def test_soft_clusters_worked_numbers():
    @jax.jit
    def found(z, centres):
        q = losses.student_t_assign(z, centres)
        p = losses.target_distribution(q)
        return q, p, losses.mean(losses.dec_kl(q, p))

    q, p, value = found(Z, f32([[1, 0], [-1, 0.5]]))
    close(q[:, 0], [0.84, 0.752212, 0.428571, 0.229358, 0.2])
    close(q.sum(1), 1)
    close(p, [[0.966312, 0.033688], [0.905577, 0.094423], [0.369242, 0.630758], [0.084402, 0.915598], [0.061071, 0.938929]])
    close(value, 0.063687)
    close(found(Z + 1000, f32([[1001, 1000], [999, 1000.5]]))[0], q, 1e-3)


def test_targets_have_no_gradient_and_rows_that_do_not_count_no_part():
    def value(q, p):
        return losses.mean(losses.dec_kl(q, losses.target_distribution(p)))

    q = jax.nn.softmax(RNG.normal(size=(4, 3)).astype(f32))
    to_q, to_p = jax.jit(jax.grad(value, (0, 1)))(q, q)
    assert np.all(np.asarray(to_p) == 0)
    close(to_q, -np.asarray(losses.target_distribution(q)) / q / 4, 1e-6)
    where = np.array([True, True, False, True])
    masked = losses.target_distribution(jnp.where(where[:, None], q, jnp.nan), where=where)
    close(masked[where], losses.target_distribution(q[where]))
    assert np.all(np.asarray(masked[2]) == 0)
    hard = losses.dec_kl(jnp.array([[0.25, 0.75]]), jnp.array([[0.0, 1.0]]))
    close(hard, [-np.log(0.75)])


def test_vmap_gives_the_values_of_each_problem():
    z, centres = RNG.normal(size=(3, 5, 2)).astype(f32), RNG.normal(size=(3, 2, 2)).astype(f32)

    def every(z, centres):
        soft = losses.student_t_assign(z, centres)
        labels, how = jnp.argmax(soft, axis=1), dict(temperature=0.5)
        meta = losses.meta_node_contrast(z, labels, *FIRST, num_clusters=2, **how)
        return meta, losses.graph_info_nce(z, *FIRST, **how), losses.dec_kl(soft, losses.target_distribution(soft))

    together = jax.jit(jax.vmap(every), compiler_options={"xla_backend_optimization_level": 0})(z, centres)
    alone = jax.jit(every, compiler_options={"xla_backend_optimization_level": 0})
    for i in range(3):
        jax.tree.map(lambda got, want, i=i: close(got[i], want, 1e-5), together, alone(z[i], centres[i]))


def test_bfloat16_is_computed_in_float32():
    narrow = jnp.asarray(Z, jnp.bfloat16)
    contrast = jax.jit(partial(losses.meta_node_contrast, temperature=2.0, num_clusters=2))
    found = contrast(narrow, LABELS, *SECOND)
    assert found.dtype == jax.eval_shape(losses.student_t_assign, narrow, narrow[:2]).dtype == jnp.float32
    close(found, contrast(narrow.astype(jnp.float32), LABELS, *SECOND))


@pytest.mark.parametrize("check_vma", (True, False))
def test_four_devices_give_the_values_and_the_gradients_of_one(check_vma):
    nodes = 8
    x, w = RNG.normal(size=(nodes, 2)).astype(f32), RNG.normal(size=(2, 2)).astype(f32)
    labels, edges = np.arange(nodes) % 3, samplers.influence(np.arange(nodes - 1), np.arange(1, nodes), nodes, 2, multiple=4)

    def objective(w, x, labels, edges, axis_name=None):
        z, how = x @ w, dict(temperature=0.5, axis_name=axis_name)
        values = losses.meta_node_contrast(z, labels, *edges, num_clusters=4, **how) + losses.graph_info_nce(z, *edges, **how)
        q = losses.student_t_assign(z, w)
        values += losses.dec_kl(q, losses.target_distribution(q, axis_name=axis_name))
        return losses.mean(values, axis_name=axis_name)

    def local(w, *arrays):
        value, gradient = jax.value_and_grad(partial(objective, axis_name="data"))(w, *arrays)
        return value, jax.lax.pmean(gradient, "data")

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    specs = dict(in_specs=(jax.P(), *[jax.P("data")] * 3), out_specs=(jax.P(), jax.P()), check_vma=check_vma)
    found = jax.jit(jax.shard_map(local, mesh=mesh, **specs))(w, x, labels, tuple(edges))
    value, gradient = jax.jit(jax.value_and_grad(objective))(w, x, labels, tuple(edges))
    close(found[0], value, 1e-5)
    close(found[1], gradient, 1e-4)


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, "num_clusters must be at least 1", lambda: losses.meta_node_contrast(Z, LABELS, *FIRST, temperature=1.0, num_clusters=0)),
        (
            ValueError,
            r"labels must have shape \[B\] with B = 5",
            lambda: losses.meta_node_contrast(Z, LABELS[:3], *FIRST, temperature=1.0, num_clusters=2),
        ),
        (ValueError, "temperature must be greater than 0", lambda: losses.graph_info_nce(Z, *FIRST, temperature=0.0)),
        (ValueError, "epsilon must be at least 0, got -1", lambda: losses.graph_info_nce(Z, *FIRST, temperature=1.0, epsilon=-1.0)),
        (
            TypeError,
            "epsilon must be a number, got None",
            lambda: losses.meta_node_contrast(Z, LABELS, *FIRST, temperature=1.0, num_clusters=2, epsilon=None),
        ),
        (
            ValueError,
            r"columns must have shape \[E\] with E = 16",
            lambda: losses.graph_info_nce(Z, FIRST.rows, FIRST.columns[:3], FIRST.weights, temperature=1.0),
        ),
        (TypeError, "rows must have dtype int", lambda: losses.graph_info_nce(Z, FIRST.weights, FIRST.columns, FIRST.weights, temperature=1.0)),
        (ValueError, r"centres must have shape \[K, D\] with D = 2", lambda: losses.student_t_assign(Z, np.ones((2, 3)))),
        (ValueError, r"target must have shape \[B, K\] with K = 2", lambda: losses.dec_kl(np.ones((3, 2)), np.ones((3, 1)))),
        (ValueError, "axis_name='x' is not mapped here", lambda: losses.target_distribution(np.ones((3, 2)), axis_name="x")),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
