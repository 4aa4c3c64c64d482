"""Beam search against a loop without a cache and against all texts that there are; padding, stop tokens, devices."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import decoding


def log_softmax(z):
    return z - np.log(np.exp(z - z.max()).sum()) - z.max()


def searched(small, beams, steps, stop=None, penalty=1.0):
    """The texts by plain lists, float64: the new tokens of the best one and their log-probabilities."""
    found = []
    for row, text in enumerate(small.texts):
        kept = [(0.0, [], [])]
        for _ in range(steps):
            wider = []
            for total, tokens, logs in kept:
                if stop is not None and tokens and tokens[-1] == stop:
                    wider.append((total, tokens, logs))
                    continue
                texts = [[*text, *tokens] if place == row else other for place, other in enumerate(small.texts)]
                log_p = log_softmax(small.states(texts)[1][row])
                wider += [(total + log_p[token], [*tokens, token], [*logs, log_p[token]]) for token in range(13)]
            kept = sorted(wider, key=lambda text: -text[0])[:beams]
        found.append(max(kept, key=lambda text: text[0] / len(text[1]) ** penalty)[1:])
    return found


@pytest.mark.parametrize(("beams", "stop", "penalty"), [(3, None, 1.0), (4, 2, 0.0), (4, 2, 1.0)])
def test_search_is_that_of_a_loop_without_a_cache(small, beams, stop, penalty):
    how = dict(steps=4, beams=beams, mask=small.mask, stop=stop, length_penalty=penalty)
    found = decoding.beam_search(small.model.apply, small.params, small.prompt, **how)
    for row, (tokens, logs) in enumerate(searched(small, beams, 4, stop, penalty)):
        assert found.tokens[row, : len(tokens)].tolist() == tokens and found.mask[row].sum() == len(tokens)
        np.testing.assert_allclose(found.log_probs[row, : len(logs)], logs, atol=1e-4)
        assert (found.tokens[row, len(tokens) :] == 0).all() and (found.log_probs[row, len(tokens) :] == 0).all()


def test_wide_beams_find_the_likeliest_of_all_texts(small):
    table = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32) * 2

    def apply(params, ids, mask, cache):
        return params[ids], params[ids], jnp.zeros(len(ids))

    found = decoding.beam_search(apply, table, np.array([[0]]), steps=2, beams=4)
    log_p = np.array([log_softmax(row) for row in np.float64(table)])
    texts = {text: log_p[0, text[0]] + log_p[text[0], text[1]] for text in itertools.product(range(4), repeat=2)}
    assert tuple(found.tokens[0].tolist()) == max(texts, key=texts.get)
    np.testing.assert_allclose(found.log_probs.sum(), max(texts.values()), rtol=1e-5)


def test_one_beam_is_greedy_and_more_are_likelier(small, equal):
    how = dict(steps=8, mask=small.mask)
    greedy = decoding.generate(None, small.model.apply, small.params, small.prompt, greedy=True, **how)
    equal(decoding.beam_search(small.model.apply, small.params, small.prompt, beams=1, **how), greedy)
    wide = decoding.beam_search(small.model.apply, small.params, small.prompt, beams=5, **how)
    assert wide.log_probs.sum() > greedy.log_probs.sum() + 0.1


def test_padding_other_rows_and_a_head_change_nothing(small, equal):
    run = partial(decoding.beam_search, small.model.apply, small.params, steps=6, beams=3, stop=2)
    expected = run(small.prompt, mask=small.mask)
    equal(run(small.front[0], mask=small.front[1]), expected)
    equal(run(small.prompt[2:3, :1]), jax.tree.map(lambda leaf: leaf[2:3], expected))
    equal(run(small.prompt, mask=small.mask, head=small.model.head), expected)


def test_a_token_takes_one_call_with_a_row_for_each_text_and_prompts_share_a_program(small):
    small.counted.clear()
    for penalty, mask in ((0.5, small.mask), (1.0, small.front[1])):
        decoding.beam_search(small.apply, small.params, small.prompt, steps=5, beams=3, mask=mask, length_penalty=penalty)
    assert set(small.counted) == {(4, 6), (12, 1)} and small.counted.count((4, 6)) == 1


def test_a_nan_is_flagged_in_its_row_alone(small):
    def broken(params, ids, mask, cache):
        hidden, logits, cache = small.model.apply(params, ids, mask, cache)
        bad = (jnp.arange(len(ids)) // (len(ids) // 4) == 1)[:, None, None]
        return hidden, jnp.where(bad & (jnp.arange(13) == 5), jnp.nan, logits), cache

    found = decoding.beam_search(broken, small.params, small.prompt, steps=3, beams=3, mask=small.mask)
    assert np.isnan(found.log_probs).all(axis=1).tolist() == [False, True, False, False]


def test_search_under_jit_vmap_and_shard_map_is_the_same(small, same_everywhere):
    def local(params, prompt, mask):
        return decoding.beam_search(small.model.apply, params, prompt, steps=5, beams=3, mask=mask, stop=2)

    same_everywhere(local, small.params, small.prompt, small.mask)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(beams=0), ValueError, "beams must be at least 1, got 0"),
        (dict(beams=14), ValueError, "beams must be at most 13, got 14"),
        (dict(beams=2.0), TypeError, "beams must be an integer"),
        (dict(length_penalty=-1.0), ValueError, "length_penalty must be at least 0"),
        (dict(steps=0), ValueError, "steps must be at least 1"),
        (dict(mask=np.zeros((4, 6), bool)), ValueError, "prompt must have a real token in each row"),
    ],
)
def test_beam_search_says_what_is_wrong(small, options, error, message):
    with pytest.raises(error, match=message):
        decoding.beam_search(small.model.apply, small.params, small.prompt, **dict(steps=3, beams=2) | options)
