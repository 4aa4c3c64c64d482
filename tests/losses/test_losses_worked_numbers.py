"""The losses on inputs small enough to check by hand, against numbers worked out in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses

f32 = np.float32
EYE = np.eye(2, dtype=f32)

# A batch of three pairs and a queue of four.
Q = f32([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]])
K = f32([[0.8, 0.6], [0.0, 1.0], [1.0, 0.0]])
QUEUE = f32([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def once(function, *arrays):
    """All values of a test from one compiled program: compiling is nearly all the time that these tests take."""
    return jax.device_get(jax.jit(function)(*arrays))


def close(found, expected, atol=1.1e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


# One anchor (1, 0): its similarities to its key and to the negatives are their first coordinates.


def of_one_anchor(loss, positive, negatives, **options):
    keys, others = jnp.stack([positive, 0.3])[None], jnp.stack([negatives, jnp.array([1.0, -2.0, 0.0])], axis=1)
    return loss(EYE[:1], keys, negatives=others, in_batch=False, similarity="dot", **options)[0]


def test_info_nce_and_its_gradient_for_one_anchor():
    @jax.vmap
    def found(temperature):
        loss = lambda p, n: of_one_anchor(losses.info_nce, p, n, temperature=temperature)  # noqa: E731
        return jax.value_and_grad(loss, argnums=(0, 1))(jnp.array(0.8), jnp.array([0.5, 0.2, -0.4]))

    values, (d_positive, d_negatives) = once(found, f32([0.1, 0.3, 0.5, 1.0]))
    close(values, [0.050952, 0.419717, 0.663061, 0.951976])
    close(d_positive, [-0.496753, -1.142557, -0.969457, -0.614022], atol=1e-5)
    negatives = [[0.473139, 0.023556, 0.000058], [0.805942, 0.296489, 0.040125], [0.565574, 0.310394, 0.093489], [0.285939, 0.211829, 0.116254]]
    close(d_negatives, negatives, atol=1e-5)
    close(d_positive + d_negatives.sum(axis=1), 0, atol=1e-5)


def test_info_nce_tends_to_the_hinge_and_to_the_simple_loss():
    @jax.vmap
    def found(positive, temperature):
        return of_one_anchor(losses.info_nce, positive, jnp.array([0.5, 0.2, -0.4]), temperature=temperature)

    at = f32([[0.3, 0.05], [0.3, 0.01], [0.8, 0.01], [0.8, 10], [0.8, 100]])
    values = once(found, *at.T)
    close(values[:3] * at[:3, 1], [0.201029, 0.2, 0])
    close(values[3:] * at[3:, 1] - np.log(4) * at[3:, 1], [-0.515221, -0.524016], atol=1e-4)


def test_hard_and_simple_contrastive_for_one_anchor():
    def found(positive, negatives):
        hard = [of_one_anchor(losses.hard_contrastive, positive, negatives, k=k, temperature=t) for k, t in ((2, 0.3), (2, 1.0), (3, 0.3))]
        simple = [of_one_anchor(losses.simple_contrastive, positive, negatives, **o) for o in ({}, {"k": 2}, {"weight": 3.0})]
        return hard, simple

    hard, simple = once(found, f32(0.8), f32([0.5, 0.2, -0.4]))
    close(hard, [0.407606, 0.828390, 0.419717])
    close(simple, [-0.7, -0.45, -0.5])


# Batches.


def test_info_nce_against_a_queue():
    def found(q, k, queue):
        loss = lambda q, temperature=1.0, **options: losses.info_nce(q, k, temperature=temperature, negatives=queue, in_batch=False, **options)  # noqa: E731
        gradient = jax.grad(lambda q: losses.mean(loss(q, similarity="dot")))(q)
        return loss(q), loss(q, 0.05), losses.mean(loss(q, label_smoothing=0.1)), gradient

    warm, cold, smooth, gradient = once(found, Q, K, QUEUE)
    close(warm, [1.189476, 1.183941, 1.806018])
    np.testing.assert_allclose(cold, [4.018150, 0.702263, 20.0], rtol=1e-6)
    close(smooth, 1.435811)
    close(gradient, [[-0.078346, -0.139124], [0.058371, -0.149885], [-0.278564, -0.128729]])


def test_info_nce_in_the_batch_with_and_without_more_negatives():
    def found(q, k, more):
        return [losses.mean(losses.info_nce(q, k, temperature=t, negatives=n)) for n in (None, more) for t in (1.0, 0.05)]

    np.testing.assert_allclose(once(found, Q, K, f32([[0, 1], [-1, 0], [0.6, -0.8]])), [0.909659, 2.419609, 1.546642, 7.765847], rtol=1e-6)


def test_info_nce_against_a_bank_with_and_without_the_batch():
    def found(c, s, bank):
        return [[losses.mean(losses.info_nce(x, y, temperature=0.1, negatives=bank, in_batch=b)) for x, y in ((c, s), (s, c))] for b in (False, True)]

    arrays = f32([[1, 0.2], [0.1, 1]]), f32([[0.9, 0.1], [0.3, 0.8]]), f32([[-1, 0], [0, -1], [1, 1]])
    close(once(found, *arrays), [[0.156486, 0.280368], [0.160569, 0.284485]])


def test_info_nce_of_raw_products_with_and_without_more_negatives():
    def found(p, c, generated):
        loss = functools.partial(losses.info_nce, temperature=1.0, similarity="dot")
        return loss(p, c), losses.mean(loss(c, p)), loss(p, c, negatives=generated)

    arrays = f32([[1, 0, 0.5], [0, 1, -0.5]]), f32([[0.9, 0.1, 0.4], [-0.2, 0.8, 0]]), f32([[0.7, 0.3, 0.9], [0.1, 0.9, 0.2]])
    forth, back, more = once(found, *arrays)
    close(forth, [0.241008, 0.341154])
    close(back, 0.288272)
    close(more, [1.004438, 1.027228])


def test_info_nce_of_raw_and_of_normalised_embeddings():
    def found(a, b):
        one_way = [losses.mean(losses.info_nce(a, b, temperature=t, similarity=s)) for t, s in ((1.0, "dot"), (1.0, "cosine"), (0.05, "cosine"))]
        return one_way, losses.mean(losses.symmetric_info_nce(a, b, temperature=1.0, similarity="dot"))

    one_way, both = once(found, f32([[1, 0], [0, 1], [1, 1]]), f32([[0.9, 0.1], [0.2, 0.8], [0.5, 1]]))
    close(one_way, [0.855856, 0.862446, 0.126016], atol=2e-6)
    close(both, 0.867437)


def test_info_nce_with_one_hard_negative_each():
    def found(z, one, negative, other):
        pairs = (one, None), (one, negative), (other, None)
        return [losses.mean(losses.info_nce(z, positive, temperature=0.5, negatives=negatives)) for positive, negatives in pairs]

    arrays = f32([[0.8, 0.6], [0.6, 0.8]]), f32([[0.6, -0.8], [-0.8, 0.6]]), f32([[1, 0], [-0.6, 0.8]])
    close(once(found, EYE, *arrays), [0.513015, 0.867690, 0.111927])


def test_symmetric_info_nce_with_and_without_smoothing():
    def found(a, b):
        one_way = [[losses.mean(losses.info_nce(x, y, temperature=t)) for x, y in ((a, b), (b, a))] for t in (1.0, 0.07)]
        options = [dict(temperature=t, label_smoothing=s) for t in (1.0, 0.07) for s in (0.0, 0.1)]
        return one_way, [losses.mean(losses.symmetric_info_nce(a, b, **o)) for o in options]

    one_way, both = once(found, f32([[1, 0], [0.6, 0.8], [0, 2]]), f32([[3, 1], [1, 1], [-1, 3]]))
    close(one_way, [[0.827895, 0.825365], [0.050641, 0.063690]])
    close(both, [0.826630, 0.859619, 0.057165, 0.528438])


def test_symmetric_info_nce_of_parts_of_a_batch():
    def found(a, b, groups):
        # The set of a pair's ids holds the other group and the pairs of its own do not share one: only the own group is compared.
        parts = [losses.mean(losses.symmetric_info_nce(a[s], b[s], temperature=0.1)) for s in (slice(4), slice(2), slice(2, 4))]
        parts.append(losses.mean(losses.info_nce(a, b, temperature=0.1, ids=groups)))
        return parts, losses.symmetric_info_nce(a, b, temperature=0.1, ids=groups)

    a, b = f32([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]]), f32([[0.8, 0.6], [0, 1], [1, 0], [-0.6, 0.8]])
    crossed = np.array([[1, 2], [3, 4], [1, 3], [2, 4]])
    parts, masked = once(found, a, b, crossed)
    close(parts, [1.770382, 0.036365, 0.019977, 0.014610])
    close([masked[:2].mean(), masked[2:].mean(), masked.mean()], [0.036365, 0.019977, 0.028171])


def test_nt_xent_takes_both_views_as_anchors():
    def found(a, b):
        return [losses.nt_xent(a, b, temperature=t) for t in (1.0, 0.1)], losses.nt_xent(0 * a + 1, 0 * b + 1, temperature=0.1)

    values, all_equal = once(found, f32([[1, 0], [0.6, 0.8], [0, 1]]), f32([[0.8, 0.6], [0, 2], [-1, 1]]))
    close(values[0], [1.078049, 1.506259, 1.574669, 1.435333, 1.481776, 1.175305])
    close(values[1], [0.127519, 1.958650, 3.117195, 1.828378, 2.188263, 0.694996])
    close(all_equal, np.full(6, np.log(5)))


def test_nt_xent_of_raw_products():
    values = once(
        lambda a, b: losses.nt_xent(a, b, temperature=1.0, similarity="dot"),
        *(f32([[1, 0], [0, 1], [0.5, 0.5]]), f32([[0.8, 0.6], [0.2, 0.9], [-0.5, 1]])),
    )
    close(values, [1.102435, 1.366826, 1.869680, 1.429645, 1.367326, 1.836390])


H = f32([[1, 0], [0.9, 0.3], [0, 1], [0.3, 1], [-1, 0.2]])
T = f32([[1, 0.2], [1, 0.1], [0.1, 1], [0, 0.9], [-0.5, 0.5]])
CLASSES = np.array([0, 0, 1, 1, 2])


def test_sup_con_leaves_a_row_without_a_positive_out():
    values, where = found = once(lambda z: losses.sup_con(z, CLASSES, temperature=0.5), H)
    assert isinstance(found, losses.Masked)
    np.testing.assert_array_equal(where, [True, True, True, True, False])
    assert values[4] == 0
    close(losses.mean(found), 0.512974)


def test_multi_positive_info_nce_with_uniform_targets():
    def found(h, t):
        ways = (h, t), (t, h)
        multi = [losses.multi_positive_info_nce(x, y, CLASSES, temperature=0.5) for x, y in ways]
        single = [losses.info_nce(x, y, temperature=0.5) for x, y in ways]
        return [losses.mean(x) for x in (*multi, *single, losses.symmetric_info_nce(h, t, temperature=0.5))]

    close(once(found, H, T), [0.891789, 0.934113, 0.903808, 0.946132, 0.924970])


def test_multi_positive_info_nce_combines_positives_in_three_ways():
    def found(scores, sets):
        options = [dict(temperature=t, combine=c) for c, t in (("apart", 1.0), ("apart", 0.5), ("outside", 1.0), ("inside", 1.0))]
        return [losses.multi_positive_info_nce(EYE, scores.T, sets, np.arange(4), similarity="dot", **o).values for o in options]

    scores = f32([[2, 1, 0.5, -1], [0.2, 0.4, 1.5, 0]])
    apart, colder, outside, inside = once(found, scores, np.array([[0, 1], [2, -1]]))
    close(apart * [2, 1], [0.796268, 0.603514])
    close(colder * [2, 1], [0.377508, 0.210961])
    lse = np.log(np.exp(scores).sum(axis=1))
    close(outside, lse - [1.5, 1.5])
    close(inside, lse - [np.log(np.exp(2) + np.exp(1)), 1.5])


def test_multi_positive_info_nce_picks_an_entry_of_a_table():
    def found(table, queries, labels, **options):
        def loss(queries, table):
            return losses.multi_positive_info_nce(queries, table, labels, np.arange(len(table)), temperature=options["t"], similarity="dot").values

        return loss(queries, table), jax.grad(lambda q: loss(q, table).sum())(queries)

    entries = f32([[1, 0, 1], [0, 2, -1], [-1, 1, 0]]), f32([[0.5, 0.5, -0.5], [1, -1, 0]])
    values, gradient = once(lambda table, q: found(table, q, np.array([1, 0]), t=1.0), *entries)
    close(values, [0.368981, 0.094923])
    close(gradient, [[0, -0.462842, 0.462842], [-0.135836, 0.135836, -0.135836]])

    bank = f32([[1, 1, 0], [0, 1, 2], [1, 0, 0], [0, 1, 0], [1, 1, 1]])
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    values, gradient = once(lambda table, q: found(table, q, np.array([0, 1]), t=0.5), bank, bank[:2])
    close(values, [1.118700, 0.857900])
    close(gradient / 2, [[-0.163547, -0.126329, 0.205115], [0.289753, 0.115162, -0.359161]])


def test_grouped_info_nce_weighs_its_negatives():
    def found(anchors, positives, negatives, weights):
        loss = lambda t, w: losses.grouped_info_nce(anchors, positives, negatives, temperature=t, negative_weights=w)  # noqa: E731
        each = jnp.broadcast_to(weights, (2, 2))
        return [loss(1.0, weights), loss(0.5, weights), loss(0.5, each), loss(0.5, 0 * weights), loss(0.5, None), loss(0.05, weights)]

    arrays = f32([[[0.8, 0.6]], [[0.6, 0.8]]]), f32([[[0, 1], [-1, 0]], [[1, 0], [0.6, 0.8]]]), f32([2, 0.5])
    warm, cold, each, none, unweighted, coldest = once(found, EYE, *arrays)
    close(warm, [0.683757, 0.874909])
    close(cold, [0.348863, 0.643848])
    close(each, cold)
    close(none, 0)
    close([unweighted.mean(), coldest.mean()], [0.497850, 0.202733])


def test_grouped_info_nce_of_lists():
    def found(anchors, positives, negatives):
        shared, paired = jnp.broadcast_to(negatives, (2, 3, 2)), jnp.stack([negatives[:2], negatives[1:]])
        return [losses.grouped_info_nce(anchors, positives, n, temperature=t) for n, t in ((shared, 1.0), (shared, 0.07), (paired, 1.0))]

    warm, cold, paired = once(found, EYE, f32([[[1, 1]], [[1, 3]]]), f32([[-1, 0], [0, -1], [1, -1]]))
    close(warm, [0.983747, 0.542704])
    close(cold, [0.693168, 0.000001])
    close(paired, [0.515490, 0.287734])


def test_grouped_info_nce_of_scores_is_the_listwise_cross_entropy():
    def loss(scores):
        options = dict(temperature=1.0, similarity="dot")
        return losses.mean(losses.grouped_info_nce(np.ones((2, 1), f32), scores[:, :1, None], scores[:, 1:, None], **options))

    value, gradient = once(jax.value_and_grad(loss), f32([[3, 1, -1], [0, 2, 1]]))
    close(value, 1.275269)
    close(gradient, [[-0.066593, 0.058655, 0.007938], [-0.454985, 0.332620, 0.122364]])


def test_grouped_info_nce_of_the_rest_of_the_batch_is_info_nce():
    others = np.stack([K[[1, 2]], K[[0, 2]], K[[0, 1]]])
    grouped, shared = once(
        lambda q, k: (losses.grouped_info_nce(q, k[:, None], others, temperature=0.2), losses.info_nce(q, k, temperature=0.2)), Q, K
    )
    close(grouped, shared)


def test_sigmoid_contrastive_asks_every_pair():
    logits = 0.5 + (Q @ K.T).astype(float) / 0.5
    expected = np.log1p(np.exp((1 - 2 * np.eye(3)) * logits)).sum(axis=1)
    close(once(lambda a, b: losses.sigmoid_contrastive(a, b, temperature=0.5, bias=0.5), Q, K), expected)


def test_alignment_and_uniformity_of_points_on_the_circle():
    def found(x):
        options = ({}, {"power": 1}, {"similarity": "sqeuclidean"})
        return (
            [losses.alignment(x[:1], 5 * x[1:2], **o)[0] for o in options],
            losses.uniformity(x),
            losses.uniformity(7 * x),
            losses.uniformity(0 * x + 1),
        )

    angles = np.deg2rad([0, 30, 90, 180])
    align, spread, scaled, collapsed = once(found, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(f32))
    close(align, [0.267949, 0.267949**0.5, 26 - 10 * np.cos(np.pi / 6)], atol=5e-6)
    close([spread, scaled, collapsed], [-2.068807, -2.068807, 0])


def test_uniformity_of_raw_codes_and_of_views():
    def found(c1, c2, s1, s2):
        unit, raw = [losses.uniformity(c, t=1) for c in (c1, c2)], [losses.uniformity(s, t=1, similarity="sqeuclidean") for s in (s1, s2)]
        # Without an example's two views, exp(-t |x - y|^2) of unit vectors is exp(2 t cosine) up to a constant.
        views = losses.uniformity(jnp.concatenate([c1, c2]), t=0.25, ids=np.tile(np.arange(4), 2)) + 0.5
        return unit, raw, losses.mean(losses.alignment(c1, c2)), views

    c1, c2 = f32([[1, 0], [0, 1], [1, 1], [-1, 1]]), f32([[1, 0.2], [0.1, 1], [1, 0.8], [-1, 0.9]])
    s1, s2 = f32([[0, 0], [0, 0], [1, 0.5], [-0.5, 1]]), f32([[0, 0], [0, 0], [0.9, 0.6], [-0.4, 1.1]])
    unit, raw, align, views = once(found, c1, c2, s1, s2)
    close([np.mean(unit), np.mean(raw), align], [-1.064154, -0.980710, 0.015940])
    z = np.concatenate([c1, c2]).astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    apart = ~np.tile(np.eye(4, dtype=bool), (2, 2))
    close(views, np.log(np.exp(z @ z.T / 2)[apart].mean()))


# Losses of scores, temperatures, means.


def test_soft_cross_entropy_from_a_teacher():
    def found(s, t):
        value, gradient = jax.value_and_grad(lambda s, t: losses.mean(losses.soft_cross_entropy(s, t)), argnums=(0, 1))(s, t)
        kept = losses.soft_cross_entropy(s, t, where=np.array([[True, True, False]] * 2), temperature=2.0, teacher_temperature=0.5)
        return value, gradient, losses.soft_cross_entropy(s, jnp.log(np.eye(3, dtype=f32)[:2])), kept

    student, teacher = f32([[2, 1, 0], [0.5, 1.5, -1]]), f32([[3, 1, -1], [0, 2, 1]])
    value, gradient, one_hot, kept = once(found, student, teacher)
    p, q = (
        np.array([[0.665241, 0.244728, 0.090031], [0.253716, 0.689672, 0.056612]]),
        [[0.866813, 0.117310, 0.015876], [0.090031, 0.665241, 0.244728]],
    )
    close(value, 0.815030)
    close(gradient[0], (p - q) / 2)
    np.testing.assert_array_equal(gradient[1], 0)
    close(one_hot, -np.log([p[0, 0], p[1, 1]]), atol=2e-6)
    target, log_p = 1 / (1 + np.exp([-4, 4])), -np.log1p(np.exp([[-0.5, 0.5], [0.5, -0.5]]))
    close(kept, -(target * log_p[:, 0] + (1 - target) * log_p[:, 1]))


def test_soft_cross_entropy_without_candidates_is_zero():
    def found(s, where):
        loss = lambda s, t: losses.mean(losses.soft_cross_entropy(s, s, where=where, temperature=t))  # noqa: E731
        return jax.value_and_grad(loss, argnums=(0, 1))(s, 0.5)

    value, gradient = once(found, f32([[1, -np.inf, 3], [np.nan, 1, 2]]), np.array([[True, False, True], [False, False, False]]))
    assert 0 < value < 1
    assert all(np.all(np.isfinite(g)) for g in gradient)


def test_bounded_temperature_stops_at_the_cap():
    scales = f32([np.log(1 / 0.07), np.log(100), 5, 1000, 1])  # exp(1000) is beyond float32
    values, slopes = once(jax.vmap(jax.value_and_grad(losses.bounded_temperature)), scales)
    close(values, [0.07, 0.01, 0.01, 0.01, np.exp(-1)])
    close(slopes, [-0.07, -0.01, 0, 0, -np.exp(-1)])
    assert once(lambda: losses.bounded_temperature(3.0, cap=10)) == pytest.approx(0.1)


def test_mean_weighs_and_leaves_out():
    def found(values):
        where = np.array([True, True, False])
        masked = losses.Masked(values, jnp.array(where))
        yield from (losses.mean(values, where), losses.mean(masked), losses.mean(masked, f32([3, 1, 1])), losses.mean(values))
        yield from (losses.mean(f32([[1, 2], [3, 6]])), losses.mean(f32([1, 3]), f32([3, 1])))

    kept, masked, weighed, everything, table, pair = once(lambda values: list(found(values)), f32([1, 3, np.nan]))
    assert (kept, masked, weighed, table, pair) == (2, 2, 1.5, 3, 1.5)
    assert np.isnan(everything)


def test_mean_of_nothing_is_zero_with_zero_gradient():
    def found(values, weights):
        nothing = np.zeros(3, bool)
        empty = jax.value_and_grad(lambda v: losses.mean(v, nothing))(values)
        return empty, losses.mean(losses.Masked(values, jnp.array(nothing)), weights), jax.grad(losses.mean, argnums=1)(values, weights)

    empty, masked, of_weights = once(found, f32([1, 4, 2.5]), f32([2, 0, 0]))
    assert empty[0] == masked == 0
    np.testing.assert_array_equal(empty[1], 0)
    close(of_weights, [0, 1.5, 0.75])
