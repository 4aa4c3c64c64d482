"""Contrastive active sampling against worked numbers, its limits, and the rules of a selection."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import samplers

f32 = np.float32
NOW = f32([[0.50, 0.30, 0.20], [0.48, 0.32, 0.20], [0.90, 0.05, 0.05], [0.40, 0.35, 0.25], [0.80, 0.15, 0.05]])
BEFORE = f32([[0.60, 0.20, 0.20], [0.40, 0.40, 0.20], [0.70, 0.20, 0.10], [0.40, 0.35, 0.25], [0.85, 0.10, 0.05]])
LABELS = np.array([0, 1, 0, 2, 0])
margin = jax.jit(samplers.contrastive_margin, static_argnames="space")
scores = jax.jit(samplers.cas_scores, static_argnames=("confident", "space"))
select = jax.jit(samplers.cas_select, static_argnames=("count", "confident", "space"))
smallest = jax.jit(samplers.select_smallest, static_argnames="count")


def close(found, expected, atol=1.1e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_worked_margins_in_both_spaces():
    close(margin(NOW, BEFORE, contrast=0.5), [0.10, 0.24, 0.975, 0.05, 0.60])
    close(margin(NOW, BEFORE, contrast=0.5, space="log"), [0.216932, 0.608198, 3.362603, 0.133531, 1.440932], atol=3e-6)


def test_worked_class_term_and_scores():
    margins = margin(NOW, BEFORE, contrast=0.5)
    weights = samplers.class_transferability(margins, LABELS, 3, confident=2)
    np.testing.assert_array_equal(weights, [1, 0, 0])
    by_hand = margins / 0.975 + 0.1 * weights[LABELS]
    close(by_hand, [0.202564, 0.246154, 1.1, 0.051282, 0.715385])
    assert smallest(by_hand, 5).tolist() == [3, 0, 1, 4, 2]


def test_worked_selection():
    how = dict(contrast=0.5, confident=2)
    close(scores(NOW, BEFORE, **how), [0.202564, 0.346154, 1.1, 0.151282, 0.715385])  # each row's own best class is class 0
    assert select(NOW, BEFORE, 5, **how).tolist() == [3, 0, 1, 4, 2]
    assert select(NOW, BEFORE, 2, **how).tolist() == [3, 0]


def test_without_contrast_and_class_term_it_is_the_plain_margin():
    plain = np.sort(NOW.astype(float), axis=1)
    plain = plain[:, -1] - plain[:, -2]
    for found in (margin(NOW), margin(NOW, NOW, contrast=0.5), margin(NOW, BEFORE, contrast=0.0)):
        close(found, plain)
    close(scores(NOW, BEFORE, contrast=0.0, class_weight=0.0), plain / plain.max())


def test_classes_in_another_order_have_the_same_margins():
    order = [2, 0, 1]
    for space in ("prob", "log"):
        close(margin(NOW[:, order], BEFORE[:, order], contrast=0.5, space=space), margin(NOW, BEFORE, contrast=0.5, space=space))


def test_the_best_classes_are_those_after_the_contrast():
    now, before = f32([[0.5, 0.45, 0.05]]), f32([[0.9, 0.05, 0.05]])  # the second class overtakes the first
    close(margin(now, before, contrast=1.0), [0.85 - 0.1], atol=2e-6)


def test_the_labelled_count_nowhere_and_are_not_chosen():
    where = np.array([True, True, False, False, True])
    masked, alone = scores(NOW, BEFORE, confident=2, where=where), scores(NOW[where], BEFORE[where], confident=2)
    close(masked[where], alone)
    assert np.isinf(masked[~where]).all()
    assert select(NOW, BEFORE, 5, where=where)[3:].tolist() == [-1, -1]
    assert sorted(select(NOW, BEFORE, 5, where=where)[:3].tolist()) == [0, 1, 4]
    assert select(NOW, BEFORE, 2, where=np.zeros(5, bool)).tolist() == [-1, -1]


def test_frequent_sure_classes_are_pushed_back():
    now = f32([[0.55, 0.45], [0.45, 0.56], [0.9, 0.1], [0.95, 0.05]])
    assert select(now, None, 2, class_weight=0.0).tolist() == [0, 1]
    assert select(now, None, 2, class_weight=0.5, confident=2).tolist() == [1, 0]
    weights = samplers.class_transferability(f32([1, 2, 3]), np.array([0, 1, 1]), 3, confident=100)  # more than there are
    np.testing.assert_array_equal(weights, [0.5, 1, 0])
    np.testing.assert_array_equal(samplers.class_transferability(f32([1, 2]), np.array([0, 1]), 2, confident=1, where=np.zeros(2, bool)), 0)


def test_equal_predictions_tie_and_zero_probabilities_are_finite():
    assert select(np.full((4, 3), 1 / 3, f32), None, 3).tolist() == [0, 1, 2]
    sure = np.eye(3, dtype=f32)
    for space in ("prob", "log"):
        assert np.isfinite(scores(sure, sure[::-1], contrast=0.5, space=space)).all()


def test_nan_is_chosen_first_and_spoils_no_other_score():
    spoilt = np.where(np.arange(5)[:, None] == 4, np.nan, NOW).astype(f32)
    assert select(spoilt, BEFORE, 2, contrast=0.5, confident=2)[0] == 4
    found = scores(spoilt, BEFORE, contrast=0.5, confident=2)
    assert np.isnan(found[4]) and np.isfinite(found[:4]).all()
    assert smallest(f32([3, np.nan, -np.inf, np.inf]), 4).tolist() == [1, 2, 0, 3]
    assert smallest(f32([3, 0, np.inf]), 3, where=np.array([True, False, True])).tolist() == [0, 2, -1]


def test_low_precision_one_row_vmap_and_no_gradient():
    narrow = jnp.asarray(NOW, jnp.bfloat16)
    found = margin(narrow, contrast=0.5)
    assert found.dtype == jnp.float32
    close(found, margin(f32(narrow)))
    assert select(NOW[:1], None, 1).tolist() == [0]
    stacked = jax.jit(jax.vmap(partial(samplers.cas_select, count=3), in_axes=(0, None)))(np.stack([NOW, NOW[::-1]]), None)
    assert stacked.tolist() == [select(NOW, None, 3).tolist(), select(NOW[::-1], None, 3).tolist()]
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(samplers.cas_scores(p, BEFORE))))(NOW)
    np.testing.assert_array_equal(gradient, 0)


def test_a_stream_of_a_traced_number_of_rows_shows_each_once_an_epoch():
    rows = jax.jit(samplers.shuffled_rows)
    for count in (1, 5, 7):
        found = np.asarray(rows(jax.random.key(0), count, jnp.arange(3 * count))).reshape(3, count)
        np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(count), (3, 1)))
    assert (found[0] != found[1]).any()
    np.testing.assert_array_equal(rows(jax.random.key(0), 7, jnp.arange(9, 14)), found.ravel()[9:14])  # from any place on


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, r"previous must have shape \[N, K\] with N = 5", lambda: samplers.contrastive_margin(NOW, BEFORE[:3])),
        (ValueError, "probabilities must be of two classes at least, got 1", lambda: samplers.contrastive_margin(NOW[:, :1])),
        (ValueError, "space must be one of 'prob', 'log', got 'logs'; did you mean 'log'", lambda: samplers.cas_scores(NOW, space="logs")),
        (TypeError, "probabilities must have dtype float", lambda: samplers.cas_scores(LABELS[:, None])),
        (TypeError, "contrast must be an array", lambda: samplers.cas_scores(NOW, contrast="0.1")),
        (ValueError, "class_weight must be at least 0, got -1", lambda: samplers.cas_scores(NOW, class_weight=-1.0)),
        (ValueError, r"class_weight must have shape \[\], got \[5\]", lambda: samplers.cas_scores(NOW, class_weight=np.ones(5, np.float32))),
        (ValueError, "confident must be at least 1, got 0", lambda: samplers.cas_select(NOW, None, 2, confident=0)),
        (ValueError, r"where must have shape \[5\]", lambda: samplers.cas_select(NOW, None, 2, where=np.ones(4, bool))),
        (ValueError, "count must be at least 1 and at most 5, got 6", lambda: samplers.cas_select(NOW, None, 6)),
        (TypeError, "labels must have dtype int", lambda: samplers.class_transferability(f32([1]), f32([1]), 2, confident=1)),
        (ValueError, "classes must be at least 1", lambda: samplers.class_transferability(f32([1]), np.array([0]), 0, confident=1)),
        (TypeError, "count must be an integer", lambda: samplers.select_smallest(f32([1, 2]), 1.0)),
        (ValueError, "count must be at least 1, got 0", lambda: samplers.shuffled_rows(jax.random.key(0), 0, np.arange(3))),
        (TypeError, "places must have dtype int", lambda: samplers.shuffled_rows(jax.random.key(0), 3, f32([1]))),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
