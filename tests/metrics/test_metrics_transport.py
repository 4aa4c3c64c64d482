"""Few-shot tasks with transported prototypes: worked numbers, an independent classifier, what no transport and no balance do."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from cljax import metrics, samplers

f32 = np.float32
QUERIES = f32([[0.5, 1], [0.3, 0.8], [0.4, 1.2], [2.5, 1], [2.3, 0.9], [2.6, 1.1]])
RNG = np.random.default_rng(0)
moved = jax.jit(metrics.opta, static_argnames=("passes", "iterations"))
logits = jax.jit(metrics.prototype_logits, static_argnames="iterations")
classify = jax.jit(metrics.opta_classifier, static_argnames=("passes", "iterations"))


def reference(s, q, passes, epsilon=0.05):
    """In float64, with the masses and the end of the released code."""
    for _ in range(passes):
        cost = ((s[:, None] - q) ** 2).sum(axis=-1)
        cost, u, v = cost / cost.max(), np.zeros(len(s)), np.zeros(len(q))
        for _ in range(1000):
            old = u
            u = u + epsilon * (np.log(1 / len(s) + 1e-8) - logsumexp((-cost + u[:, None] + v) / epsilon, axis=1))
            v = v + epsilon * (np.log(1 / len(q) + 1e-8) - logsumexp((-cost + u[:, None] + v) / epsilon, axis=0))
            if np.abs(u - old).sum() < 1e-4:
                break
        plan = np.exp((-cost + u[:, None] + v) / epsilon)
        s = plan @ q / plan.sum(axis=1, keepdims=True)
    return s


def test_worked_prototypes():
    near = moved(f32([[0, 0], [2, 0]]), QUERIES)
    np.testing.assert_allclose(near, [[0.399948, 0.999969], [2.464662, 1.000031]], atol=5e-6)
    off = f32([[0.9, 0], [1.5, 0]])
    np.testing.assert_allclose(moved(off, QUERIES), [[0.404620, 0.999777], [2.460028, 1.000223]], atol=5e-6)
    for passes in (2, 3):
        np.testing.assert_allclose(moved(off, QUERIES, passes=passes), [[0.4, 1], [2.466667, 1]], atol=5e-6)
    np.testing.assert_array_equal(moved(off, QUERIES, passes=0), off)


def test_prototypes_follow_the_released_code_and_the_order_of_queries_does_not_matter():
    s, q = RNG.normal(size=(4, 6)), RNG.normal(size=(20, 6))
    for passes in (1, 5):
        found = moved(s.astype(f32), q.astype(f32), passes=passes)
        np.testing.assert_allclose(found, reference(s, q, passes), atol=2e-3)
        np.testing.assert_allclose(moved(s.astype(f32), q[::-1].astype(f32), passes=passes), found, atol=1e-4)


def test_a_large_epsilon_sends_every_prototype_to_the_mean_and_equal_points_stay():
    np.testing.assert_allclose(moved(f32([[0, 0], [2, 0]]), QUERIES, epsilon=1e4), np.tile(QUERIES.mean(axis=0), (2, 1)), atol=1e-3)
    np.testing.assert_allclose(moved(np.ones((3, 2), f32), np.ones((5, 2), f32)), 1, atol=1e-6)


def test_logits_are_those_of_logistic_regression_on_one_point_a_way():
    for ways, dim, scale, penalty in ((5, 40, 1.0, 1.0), (4, 2, 0.3, 0.1), (3, 6, 4.0, 1.0)):  # more dimensions than ways, and fewer
        s, q = scale * RNG.normal(size=(ways, dim)), scale * RNG.normal(size=(9, dim))
        peer = LogisticRegression(C=1 / penalty, max_iter=10000, tol=1e-10).fit(s, np.arange(ways)).decision_function(q)
        found = np.asarray(logits(s.astype(f32), q.astype(f32), penalty=penalty))
        centred = [x - x.mean(axis=1, keepdims=True) for x in (found, peer)]
        np.testing.assert_allclose(*centred, atol=2e-3)


def test_equal_prototypes_say_nothing_and_are_finite():
    np.testing.assert_allclose(np.ptp(logits(np.ones((3, 2), f32), QUERIES), axis=1), 0, atol=1e-5)


def test_embeddings_are_standardised_over_their_own_dimensions():
    standardised = metrics.few_shot._standardised(f32([[1, 2, 3, 6], [5, 5, 5, 5]]))
    np.testing.assert_allclose(standardised, [[-0.925820, -0.462910, 0, 1.388730], [0, 0, 0, 0]], atol=1e-6)
    support, queries = RNG.normal(size=(3, 2, 5)).astype(f32), RNG.normal(size=(8, 5)).astype(f32)
    scaled = classify(3 * support + 1, 0.1 * queries - 7)
    np.testing.assert_array_equal(scaled, classify(support, queries))


def test_defaults_are_five_passes_for_one_shot_and_a_share_of_one_for_several():
    support, queries = RNG.normal(size=(3, 3, 6)).astype(f32), RNG.normal(size=(30, 6)).astype(f32)
    one = metrics.few_shot._standardised(support[:, :1]).mean(axis=1)
    many, asked = metrics.few_shot._standardised(support).mean(axis=1), metrics.few_shot._standardised(queries)
    for shots, start, passes, share in ((support[:, :1], one, 5, 1.0), (support, many, 1, 0.7)):
        expected = logits(share * moved(start, asked, passes=passes) + (1 - share) * start, asked).argmax(axis=1)
        np.testing.assert_array_equal(classify(shots, queries), expected)
    np.testing.assert_array_equal(classify(support, queries, passes=0), logits(many, asked).argmax(axis=1))


@pytest.fixture(scope="module")
def episodes_and_points():
    """Tasks of classes whose one shot is a poor guess: the clusters are clear, the shots lie at their edges."""
    labels = np.arange(300) % 5
    points = (2.0 * np.eye(5, 12)[labels] + 0.45 * RNG.normal(size=(300, 12))).astype(f32)
    draw = partial(samplers.few_shot_episodes, jax.random.key(0), labels, ways=3, shots=1, episodes=500)
    return points, draw(queries=12), draw(queries=(2, 30, 4))


def test_transport_helps_balanced_tasks_and_harms_others_in_one_program(episodes_and_points):
    points, balanced, unbalanced = episodes_and_points
    of = {n: jax.jit(partial(metrics.few_shot_accuracy, classify=partial(metrics.opta_classifier, passes=n, iterations=100))) for n in (0, 1)}
    gains = [np.mean(of[1](points, *episodes)) - np.mean(of[0](points, *episodes)) for episodes in (balanced, unbalanced)]
    assert gains[0] > 0.02 and gains[1] < -0.05


def test_low_precision_vmap_and_nan():
    support, queries = RNG.normal(size=(2, 3, 1, 4)).astype(f32), RNG.normal(size=(2, 6, 4)).astype(f32)
    several = jax.jit(jax.vmap(partial(metrics.opta_classifier, iterations=50)))(support, queries)
    for i in range(2):
        np.testing.assert_array_equal(several[i], classify(support[i], queries[i], iterations=50))
    assert metrics.opta(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((4, 3), jnp.bfloat16)).dtype == jnp.float32
    assert np.isnan(moved(f32([[np.nan, 0], [2, 0]]), QUERIES)).any()


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, r"queries must have shape \[Q, D\] with D = 2", lambda: metrics.opta(QUERIES[:2], QUERIES[:, :1])),
        (ValueError, "passes must be at least 0, got -1", lambda: metrics.opta(QUERIES[:2], QUERIES, passes=-1)),
        (ValueError, "epsilon must be greater than 0", lambda: metrics.opta(QUERIES[:2], QUERIES, epsilon=0.0)),
        (ValueError, "prototypes must be of two ways at least, got 1", lambda: metrics.prototype_logits(QUERIES[:1], QUERIES)),
        (ValueError, "penalty must be greater than 0", lambda: metrics.prototype_logits(QUERIES[:2], QUERIES, penalty=0.0)),
        (ValueError, r"penalty must have shape \[\]", lambda: metrics.prototype_logits(QUERIES[:2], QUERIES, penalty=np.ones(2, np.float32))),
        (ValueError, "iterations must be at least 1", lambda: metrics.prototype_logits(QUERIES[:2], QUERIES, iterations=0)),
        (ValueError, "share must be at least 0 and at most 1", lambda: metrics.opta_classifier(QUERIES[:2, None], QUERIES, share=1.5)),
        (ValueError, r"share must have shape \[\]", lambda: metrics.opta_classifier(QUERIES[:2, None], QUERIES, share=np.ones(2, np.float32))),
        (ValueError, "support must have two dimensions", lambda: metrics.opta_classifier(QUERIES[:2, None, :1], QUERIES[:, :1])),
        (TypeError, "prototypes must have dtype float", lambda: metrics.opta(np.ones((2, 2), int), QUERIES)),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
