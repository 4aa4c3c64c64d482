"""Generation: what is drawn, that other rows and padding change nothing, where it ends, and what is wrong with a call."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import decoding, encoders

KEY = jax.random.key(0)
FILTER = decoding.compose(decoding.temperature(0.9), decoding.typical(0.9))


def log_softmax(z):
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


def test_greedy_tokens_are_the_likeliest_one_after_the_other(small):
    found = decoding.generate(None, small.model.apply, small.params, small.prompt, steps=8, mask=small.mask, greedy=True)
    texts = [list(text) for text in small.texts]
    for t in range(8):
        for row, z in enumerate(small.states(texts)[1]):
            assert found.tokens[row, t] == z.argmax()
            np.testing.assert_allclose(found.log_probs[row, t], log_softmax(z).max(), atol=1e-4)
            texts[row].append(int(z.argmax()))
    assert found.mask.all() and len({tuple(row) for row in found.tokens.tolist()}) > 2


def test_log_probs_are_those_of_the_unfiltered_model_and_tokens_those_that_the_filter_leaves(small):
    run = partial(decoding.generate, KEY, small.model.apply, small.params, small.prompt, steps=8, mask=small.mask)
    found, free = run(filter=FILTER), run()
    texts = [list(text) for text in small.texts]
    for t in range(8):
        for row, z in enumerate(small.states(texts)[1]):
            token = int(found.tokens[row, t])
            np.testing.assert_allclose(found.log_probs[row, t], log_softmax(z)[token], atol=1e-4)
            assert np.isfinite(FILTER(jnp.float32(z))[token])
            texts[row].append(token)
    assert (found.tokens != free.tokens).any()


@pytest.mark.parametrize("options", [dict(filter=FILTER), dict(filter=FILTER, samples=3), dict(greedy=True, stop=2)])
def test_padding_and_other_rows_change_nothing(small, options, equal):
    run = partial(decoding.generate, KEY, small.model.apply, small.params, steps=8, **options)
    expected = run(small.prompt, mask=small.mask)
    equal(run(small.front[0], mask=small.front[1]), expected)
    chosen, room = np.array([2, 0]), ((0, 0), (2, 3))
    some = run(np.pad(small.prompt[chosen], room, constant_values=12), mask=np.pad(small.mask[chosen], room), index=chosen)
    equal(some, jax.tree.map(lambda leaf: leaf[chosen], expected))


def test_an_empty_batch_has_no_texts(small):
    apply, params, none, two = small.model.apply, small.params, small.prompt[:0], np.zeros((0, 2, 3), int)
    for found, shape in (
        (decoding.generate(KEY, apply, params, none, steps=3).tokens, (0, 3)),
        (decoding.generate(KEY, apply, params, none, steps=3, samples=2).log_probs, (0, 2, 3)),
        (decoding.contrastive_search(apply, params, none, steps=3, k=2, alpha=0.5).tokens, (0, 3)),
        (decoding.beam_search(apply, params, none, steps=3, beams=2).mask, (0, 3)),
        (decoding.continuation_logits(apply, params, none, two), (0, 2, 3, 13)),
        (decoding.final_states(apply, params, none, two), (0, 2, 16)),
    ):
        assert found.shape == shape


def test_a_row_ends_with_its_stop_token_and_the_loop_with_the_last_row(small):
    run = partial(decoding.generate, KEY, small.model.apply, small.params, small.prompt, steps=10, mask=small.mask)
    free, found = run(), run(stop=2, pad=7)
    ends = [row.index(2) if 2 in row else 9 for row in free.tokens.tolist()]
    assert len(set(ends)) > 1 and min(ends) < 9
    for row, end in enumerate(ends):
        assert found.mask[row].tolist() == [True] * (end + 1) + [False] * (9 - end)
        assert (found.tokens[row, : end + 1] == free.tokens[row, : end + 1]).all() and (found.tokens[row, end + 1 :] == 7).all()
        assert (found.log_probs[row, end + 1 :] == 0).all()
        np.testing.assert_allclose(found.log_probs[row, : end + 1], free.log_probs[row, : end + 1], atol=1e-6)

    calls = []

    def apply(params, ids, mask, cache):
        jax.debug.callback(lambda: calls.append(1))
        logits = jnp.broadcast_to(jax.nn.one_hot(3, 5) * 50, (*ids.shape, 5))
        return logits, logits, jnp.zeros(len(ids))

    short = jax.block_until_ready(decoding.generate(KEY, apply, None, np.zeros((2, 3), int), steps=50, stop=3))
    jax.effects_barrier()
    assert short.mask.sum(axis=1).tolist() == [1, 1] and len(calls) == 2


def test_samples_of_a_prompt_differ_and_have_the_frequencies_of_the_filtered_model():
    table = jnp.log(jnp.array([[0.5, 0.2, 0.15, 0.1, 0.05], [0.1, 0.1, 0.2, 0.3, 0.3]] + [[0.2] * 5] * 3))

    def apply(params, ids, mask, cache):
        return params[ids], params[ids], jnp.zeros(len(ids))

    found = decoding.generate(KEY, apply, table, np.array([[0], [1]]), steps=2, samples=20_000, filter=decoding.typical(0.6))
    assert found.tokens.shape == found.mask.shape == found.log_probs.shape == (2, 20_000, 2)
    for row, expected in enumerate(([0.588235, 0.235294, 0.176471, 0, 0], [0, 0, 0.25, 0.375, 0.375])):
        shares = np.bincount(found.tokens[row, :, 0], minlength=5) / 20_000
        np.testing.assert_allclose(shares, expected, atol=0.015)
    after = np.asarray(found.tokens[0])[np.asarray(found.tokens[0, :, 0]) == 0, 1]  # the draws of steps are independent
    np.testing.assert_allclose(np.bincount(after, minlength=5) / len(after), [0.588235, 0.235294, 0.176471, 0, 0], atol=0.02)


def test_prompts_keys_and_numbers_of_one_shape_share_a_program(small):
    small.counted.clear()
    for number, mask in ((0.5, small.mask), (0.8, small.front[1])):
        options = dict(steps=5, mask=mask, filter=decoding.compose(decoding.typical(number)))
        decoding.generate(jax.random.key(int(10 * number)), small.apply, small.params, small.prompt, **options)
    assert set(small.counted) == {(4, 6), (4, 1)} and small.counted.count((4, 6)) == 1


def test_a_nan_is_flagged_in_its_row_alone(small):
    def broken(params, ids, mask, cache):
        hidden, logits, cache = small.model.apply(params, ids, mask, cache)
        return hidden, jnp.where((jnp.arange(4) == 1)[:, None, None] & (jnp.arange(13) == 5), jnp.nan, logits), cache

    for options in (dict(), dict(greedy=True), dict(filter=FILTER), dict(filter=decoding.compose(decoding.top_k(2), decoding.top_p(0.5)))):
        found = decoding.generate(KEY, broken, small.params, small.prompt, steps=4, mask=small.mask, **options)
        assert np.isnan(found.log_probs).all(axis=1).tolist() == [False, True, False, False]
        assert np.isfinite(np.delete(found.log_probs, 1, axis=0)).all()


def test_a_filter_that_removes_everything_leaves_the_likeliest(small, equal):
    run = partial(decoding.generate, KEY, small.model.apply, small.params, small.prompt, steps=5, mask=small.mask)
    equal(run(filter=lambda logits: jnp.full_like(logits, -jnp.inf)), run(greedy=True))


def test_guidance_is_an_apply_of_two_branches(small):
    """The negative branch has a prompt of its own; both read what is written."""

    def guided(params, ids, mask, cache):
        first = isinstance(cache, int)
        hidden, logits, cache_a = small.model.apply(params, ids, mask, cache if first else cache[0])
        _, negative, cache_b = small.model.apply(params, jnp.zeros_like(ids) if first else ids, mask, cache if first else cache[1])
        return hidden, decoding.contrastive_logits(negative, weight=1.5)(logits), (cache_a, cache_b)

    found = decoding.generate(None, guided, small.params, small.prompt, steps=5, mask=small.mask, greedy=True)
    texts, empty = [list(text) for text in small.texts], [[0] * len(text) for text in small.texts]
    for t in range(5):
        for row, (z, other) in enumerate(zip(small.states(texts)[1], small.states(empty)[1], strict=True)):
            token = int((z + 1.5 * (z - other)).argmax())
            assert found.tokens[row, t] == token
            texts[row].append(token)
            empty[row].append(token)


def test_generation_under_jit_vmap_and_shard_map_is_the_same(small, same_everywhere):
    def local(params, prompt, mask, index):
        return decoding.generate(KEY, small.model.apply, params, prompt, steps=6, mask=mask, filter=FILTER, stop=2, index=index)

    same_everywhere(local, small.params, small.prompt, small.mask, np.arange(4))


def test_a_prefix_goes_to_the_first_call(small):
    prefix = np.random.default_rng(3).normal(size=(4, 2, 16)).astype(np.float32)
    found = decoding.generate(None, small.model.apply, small.params, small.prompt, steps=3, mask=small.mask, greedy=True, prefix=prefix)
    _, logits = small.model.apply(small.params, small.prompt[2:3, :1], prefix=prefix[2:3])
    assert found.tokens[2, 0] == jnp.argmax(logits[0, -1])


@pytest.mark.parametrize("options", [dict(filter=FILTER, samples=2), dict(greedy=True, stop=2)])
def test_a_head_makes_the_same_logits(small, equal, options):
    run = partial(decoding.generate, KEY, small.model.apply, small.params, small.prompt, steps=6, mask=small.mask, **options)
    equal(run(head=small.model.head), run())
    other = run(head=lambda params, hidden: -small.model.head(params, hidden))
    assert (other.tokens != run().tokens).any()


def test_with_a_head_no_logits_of_the_prompt_are_held():
    model = encoders.Decoder(4000, 8, layers=1, heads=1, positions="rotary")
    prompt = jnp.zeros((2, 100), int)
    params = jax.eval_shape(model.init, jax.random.key(0), prompt)
    held = {}
    for head in (None, model.head):
        run = partial(decoding.generate, None, model.apply, steps=2, greedy=True, head=head)
        held[head] = jax.jit(run).lower(params, prompt).compile().memory_analysis().temp_size_in_bytes
    assert held[None] >= 4 * 2 * 100 * 4000 > 4 * held[model.head]


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(steps=0), ValueError, "steps must be at least 1"),
        (dict(key=None), TypeError, "key must be a PRNG key"),
        (dict(apply="model"), TypeError, "apply must be a function, got str"),
        (dict(head="tied"), TypeError, "head must be a function or None, got str"),
        (dict(prompt=np.zeros((4, 6))), TypeError, "prompt must have dtype int"),
        (dict(prompt=np.zeros((4, 0), int), mask=None), ValueError, "prompt must have a real token in each row"),
        (dict(mask=np.arange(6) < np.array([[0], [1], [2], [3]])), ValueError, "prompt must have a real token in each row"),
        (dict(mask=np.ones((4, 5), bool)), ValueError, r"mask must have shape \[B, L\] with L = 6"),
        (dict(index=np.arange(3)), ValueError, r"index must have shape \[B\] with B = 4"),
        (dict(samples=0), ValueError, "samples must be at least 1"),
        (dict(stop="end"), TypeError, "stop must be an integer"),
        (dict(pad=-1), ValueError, "pad must be at least 0"),
        (dict(greedy=1), TypeError, "greedy must be True or False"),
        (dict(filter=0.9), TypeError, "filters must be functions of logits, got float"),
        (dict(filter=decoding.top_k(14)), ValueError, "k must be at most 13, got 14"),
    ],
)
def test_generate_says_what_is_wrong(small, options, error, message):
    given = dict(key=KEY, apply=small.model.apply, params=small.params, prompt=small.prompt, steps=3, mask=small.mask) | options
    with pytest.raises(error, match=message):
        decoding.generate(given.pop("key"), given.pop("apply"), given.pop("params"), given.pop("prompt"), **given)


@pytest.mark.errors
def test_more_tokens_than_the_model_has_places_is_an_error(small):
    model = small.model.clone(positions="learned", max_length=8)
    with pytest.raises(ValueError, match="cache must have at most max_length = 8 places, got 9"):
        decoding.generate(KEY, model.apply, small.params, small.prompt, steps=3)
