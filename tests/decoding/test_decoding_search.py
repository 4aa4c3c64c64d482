"""Contrastive search: the numbers of the released code, a reference without a cache, and that other rows and padding change nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import decoding
from cljax.decoding.generate import likeliest

CONTEXT, CANDIDATES = np.float32([[[1, 0], [0, 2], [1, 1]]]), np.float32([[[1, 0.1], [-1, 1], [0, -1]]])
PROBS = np.float32([[0.6, 0.25, 0.15]])
rank = jax.jit(decoding.contrastive_rank)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 0), (0.3, 0), (0.6, 2), (1.0, 2)])
def test_the_best_candidate_is_that_of_the_released_code(alpha, expected):
    assert rank(CONTEXT, CANDIDATES, PROBS, alpha=alpha).tolist() == [expected]
    pads = np.concatenate([CANDIDATES[:, :2], CONTEXT, CANDIDATES[:, 2:]], axis=1)  # as padding they would change the choice
    mask = np.array([[False, False, True, True, True, False]])
    assert rank(pads, CANDIDATES, PROBS, alpha=alpha, mask=mask).tolist() == [expected]


@pytest.mark.parametrize("alpha", [0.3, 0.6])
def test_the_score_is_probability_less_the_nearest_state(alpha):
    """Of two candidates the second is chosen from that probability on at which its score is the first one's: the scores themselves."""
    cosines = np.array([0.995037, 0.707107, 0])
    scores = (1 - alpha) * PROBS[0] - alpha * cosines
    expected = {0.3: (0.121489, -0.037132, 0.105), 0.6: (-0.357022, -0.324264, 0.06)}[alpha]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    for other in (1, 2):
        border = (scores[0] + alpha * cosines[other]) / (1 - alpha)
        pair = CANDIDATES[:, [0, other]]
        for shift, chosen in ((-1e-4, 0), (1e-4, 1)):
            probs = np.float32([[PROBS[0, 0], border + shift]])
            assert rank(CONTEXT, pair, probs, alpha=alpha).tolist() == [chosen]


def test_lengths_and_turns_of_states_change_nothing_and_equal_states_leave_the_likeliest():
    rng = np.random.default_rng(0)
    context, candidates, probs = (rng.normal(size=(50, n, 6)).astype(np.float32) for n in (7, 4, 4))
    probs = jax.nn.softmax(probs[..., 0])
    expected = np.asarray(rank(context, candidates, probs, alpha=0.5))
    assert len(set(expected.tolist())) == 4
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    scales = [np.exp(rng.normal(size=(*x.shape[:2], 1))).astype(np.float32) for x in (context, candidates)]
    np.testing.assert_array_equal(rank(context * scales[0] @ turn, candidates * scales[1] @ turn, probs, alpha=0.5), expected)
    same = np.ones_like(candidates)
    np.testing.assert_array_equal(rank(np.ones_like(context), same, probs, alpha=0.5), np.argmax(probs, axis=1))
    none = np.zeros(context.shape[:2], bool)
    np.testing.assert_array_equal(rank(context, candidates, probs, alpha=0.5, mask=none), np.argmax(probs, axis=1))
    assert rank(context[:1, :0], candidates[:1], probs[:1], alpha=0.5).tolist() == [np.argmax(probs[0])]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize(("k", "alpha"), [(5, 0.6), (3, 0.3), (4, 1.0)])
def test_search_is_that_of_a_loop_without_a_cache(small, k, alpha):
    found = decoding.contrastive_search(small.model.apply, small.params, small.prompt, steps=6, k=k, alpha=alpha, mask=small.mask)
    texts = [list(text) for text in small.texts]
    for t in range(6):
        states, logits = small.states(texts)
        chances = [np.exp(z - z.max()) / np.exp(z - z.max()).sum() for z in logits]
        top = [np.argsort(-z, kind="stable")[:k] for z in logits]
        tried = [small.states([[*text, ids[place]] for text, ids in zip(texts, top, strict=True)])[0] for place in range(k)]
        for row in range(4):
            scores = [
                (1 - alpha) * chances[row][token] - alpha * (unit(states[row]) @ unit(tried[place][row][-1])).max()
                for place, token in enumerate(top[row])
            ]
            token = int(top[row][np.argmax(scores)])
            assert found.tokens[row, t] == token
            np.testing.assert_allclose(found.log_probs[row, t], np.log(chances[row][token]), atol=1e-4)
            texts[row].append(token)


def test_alpha_0_and_one_candidate_are_greedy(small, equal):
    how = dict(steps=10, mask=small.mask, stop=2)
    greedy = decoding.generate(None, small.model.apply, small.params, small.prompt, greedy=True, **how)
    search = partial(decoding.contrastive_search, small.model.apply, small.params, small.prompt, **how)
    equal(search(k=5, alpha=0.0), greedy)
    equal(search(k=1, alpha=0.7), greedy)
    assert (search(k=5, alpha=0.7).tokens != greedy.tokens).any()


def test_padding_and_other_rows_change_nothing(small, equal):
    run = partial(decoding.contrastive_search, small.model.apply, small.params, steps=8, k=4, alpha=0.6, stop=2)
    expected = run(small.prompt, mask=small.mask)
    assert not expected.mask.all()
    equal(run(small.front[0], mask=small.front[1]), expected)
    room = ((0, 0), (2, 3))
    some = run(np.pad(small.prompt[2:], room, constant_values=12), mask=np.pad(small.mask[2:], room))
    equal(some, jax.tree.map(lambda leaf: leaf[2:], expected))
    equal(run(small.prompt[2:3, :1]), jax.tree.map(lambda leaf: leaf[2:3], expected))


def test_a_head_makes_the_same_logits_of_the_winner_alone(small, equal):
    rows = []

    def head(params, hidden):
        rows.append(len(hidden))
        return small.model.head(params, hidden)

    run = partial(decoding.contrastive_search, small.model.apply, small.params, small.prompt, steps=6, k=4, alpha=0.6, mask=small.mask)
    equal(run(head=head), run())
    assert set(rows) == {4}


def test_a_token_takes_one_call_of_k_rows_and_alphas_and_prompts_share_a_program(small):
    small.counted.clear()
    for alpha, mask in ((0.4, small.mask), (0.6, small.front[1])):
        decoding.contrastive_search(small.apply, small.params, small.prompt, steps=5, k=3, alpha=alpha, mask=mask)
    assert set(small.counted) == {(4, 6), (12, 1)} and small.counted.count((4, 6)) == 1
    calls = []

    def apply(params, ids, mask, cache):
        jax.debug.callback(lambda rows: calls.append(int(rows)), len(ids))
        return small.model.apply(params, ids, mask, cache)

    jax.block_until_ready(decoding.contrastive_search(apply, small.params, small.prompt, steps=5, k=3, alpha=0.6, mask=small.mask))
    jax.effects_barrier()
    assert sorted(calls) == [4, 12, 12, 12, 12, 12]


def test_a_nan_is_flagged_in_its_row_alone(small):
    def broken(params, ids, mask, cache):
        hidden, logits, cache = small.model.apply(params, ids, mask, cache)
        bad = (jnp.arange(len(ids)) // (len(ids) // 4) == 1)[:, None, None]
        return hidden, jnp.where(bad & (jnp.arange(13) == 5), jnp.nan, logits), cache

    found = decoding.contrastive_search(broken, small.params, small.prompt, steps=4, k=3, alpha=0.6, mask=small.mask)
    assert np.isnan(found.log_probs).all(axis=1).tolist() == [False, True, False, False]
    assert np.isfinite(np.delete(found.log_probs, 1, axis=0)).all()


def test_search_under_jit_vmap_and_shard_map_is_the_same(small, same_everywhere):
    def local(params, prompt, mask):
        return decoding.contrastive_search(small.model.apply, params, prompt, steps=6, k=3, alpha=0.6, mask=mask, stop=2)

    same_everywhere(local, small.params, small.prompt, small.mask)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(k=0), ValueError, "k must be at least 1"),
        (dict(k=14), ValueError, "k must be at most 13, got 14"),
        (dict(alpha=1.5), ValueError, "alpha must be at least 0 and at most 1, got 1.5"),
        (dict(steps=0), ValueError, "steps must be at least 1"),
        (dict(mask=np.zeros((4, 6), bool)), ValueError, "prompt must have a real token in each row"),
    ],
)
def test_search_says_what_is_wrong(small, options, error, message):
    given = dict(steps=3, k=3, alpha=0.6) | options
    with pytest.raises(error, match=message):
        decoding.contrastive_search(small.model.apply, small.params, small.prompt, **given)


@pytest.mark.errors
def test_rank_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"candidates must have shape \[B, k, E\] with E = 2"):
        decoding.contrastive_rank(CONTEXT, CANDIDATES[..., :1], PROBS, alpha=0.5)
    with pytest.raises(ValueError, match="alpha must be at least 0 and at most 1, got -0.1"):
        decoding.contrastive_rank(CONTEXT, CANDIDATES, PROBS, alpha=-0.1)
    with pytest.raises(TypeError, match="mask must have dtype bool"):
        decoding.contrastive_rank(CONTEXT, CANDIDATES, PROBS, alpha=0.5, mask=np.ones((1, 3)))


@pytest.mark.parametrize(("size", "k"), [(13, 13), (130, 5), (1000, 5), (1001, 17), (20_000, 3)])
def test_the_likeliest_by_groups_are_those_of_one_sort_also_where_many_are_equal(size, k):
    rng = np.random.default_rng(size)
    rows = np.stack([rng.normal(size=size), rng.integers(0, 4, size), np.zeros(size), np.where(rng.uniform(size=size) < 0.9, -np.inf, 1.0)])
    for found, expected in zip(likeliest(rows.astype(np.float32), k), jax.lax.top_k(rows.astype(np.float32), k), strict=True):
        np.testing.assert_array_equal(found, expected)
