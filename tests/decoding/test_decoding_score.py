"""What a model makes of continuations that are there already is what it makes of the text as a whole, wherever prompts are padded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import decoding, encoders, losses

MODEL = encoders.Decoder(11, 8, layers=2, heads=2, max_length=16)
RNG = np.random.default_rng(0)
PROMPT, TOKENS = RNG.integers(1, 11, (3, 4)), RNG.integers(1, 11, (3, 2, 5))
PARAMS = jax.jit(MODEL.init)(jax.random.key(0), PROMPT)
LENGTHS, KEPT = np.array([4, 1, 3]), np.array([[5, 2], [1, 5], [3, 4]])
TOKEN_MASK = np.arange(5) < KEPT[..., None]


@jax.jit
def score(prompt, mask, tokens, token_mask):
    return decoding.continuation_logits(MODEL.apply, PARAMS, prompt, tokens, mask=mask, token_mask=token_mask)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_are_those_of_each_text_alone(side):
    place = np.arange(4) if side == "right" else np.arange(4)[::-1]
    mask = place < LENGTHS[:, None]
    found = score(PROMPT, mask, TOKENS, TOKEN_MASK)
    assert found.shape == (3, 2, 5, 11)
    for row in range(3):
        for sample in range(2):
            kept = KEPT[row, sample]
            text = np.concatenate([PROMPT[row][mask[row]], TOKENS[row, sample, :kept]])
            alone = MODEL.apply(PARAMS, text[None])[1][0, LENGTHS[row] - 1 : -1]
            np.testing.assert_allclose(found[row, sample, :kept], alone, atol=1e-5)


def test_they_give_the_log_probabilities_that_generate_tells():
    mask = np.arange(4) < LENGTHS[:, None]
    drawn = decoding.generate(jax.random.key(1), MODEL.apply, PARAMS, PROMPT, mask=mask, steps=5, samples=2, stop=3)
    logits = score(PROMPT, mask, drawn.tokens, drawn.mask)
    np.testing.assert_allclose(losses.sequence_logprob(logits, drawn.tokens, drawn.mask), drawn.log_probs.sum(axis=2), atol=1e-4)
    one = decoding.continuation_logits(MODEL.apply, PARAMS, PROMPT, drawn.tokens[:, 1], mask=mask, token_mask=drawn.mask[:, 1])
    np.testing.assert_allclose(one, logits[:, 1], atol=1e-5)


def test_log_probabilities_are_those_of_the_losses_and_padding_hides_what_it_holds():
    mask = np.arange(4) < LENGTHS[:, None]

    def likelihood(params, tokens):
        return decoding.continuation_log_probs(MODEL.apply, params, PROMPT, tokens, mask=mask, token_mask=TOKEN_MASK)

    found = jax.jit(likelihood)(PARAMS, TOKENS)
    expected = losses.token_cross_entropy(score(PROMPT, mask, TOKENS, TOKEN_MASK), TOKENS, TOKEN_MASK).values
    np.testing.assert_array_equal(found, -expected)
    assert (found[~TOKEN_MASK] == 0).all() and (found[TOKEN_MASK] < 0).all()
    grads = jax.jit(jax.grad(lambda params, tokens: likelihood(params, tokens).sum()))
    spoiled = np.where(TOKEN_MASK, TOKENS, 99)  # outside the vocabulary: its states are NaN
    jax.tree.map(np.testing.assert_array_equal, grads(PARAMS, spoiled), grads(PARAMS, TOKENS))
    outside = decoding.continuation_log_probs(MODEL.apply, PARAMS, PROMPT, np.where(np.arange(5) == 4, 11, TOKENS))
    assert np.isnan(outside[..., 4]).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_final_states_have_seen_all_of_the_text(side):
    mask = (np.arange(4) if side == "right" else np.arange(4)[::-1]) < LENGTHS[:, None]
    token_mask = TOKEN_MASK & (np.arange(3) > 0)[:, None, None]  # the first prompt's continuations are empty
    found = decoding.final_states(MODEL.apply, PARAMS, PROMPT, TOKENS, mask=mask, token_mask=token_mask)
    assert found.shape == (3, 2, 8)
    for row, sample in np.ndindex(3, 2):
        text = np.concatenate([PROMPT[row][mask[row]], TOKENS[row, sample][token_mask[row, sample]]])
        np.testing.assert_allclose(found[row, sample], MODEL.apply(PARAMS, text[None])[0][0, -1], atol=1e-5)
    nothing = np.array([[False] * 4, [True] * 4, [True] * 4])
    one = decoding.final_states(MODEL.apply, PARAMS, PROMPT, TOKENS[:, 0], mask=nothing, token_mask=token_mask[:, 0])
    assert np.isnan(one[0]).all() and np.isfinite(one[1:]).all()


def test_texts_that_were_kept_are_real_up_to_their_stop_token():
    drawn = decoding.generate(jax.random.key(1), MODEL.apply, PARAMS, PROMPT, steps=5, samples=4, stop=3)
    assert 0 < drawn.mask.mean() < 1
    np.testing.assert_array_equal(jax.jit(decoding.until, static_argnums=1)(drawn.tokens, 3), drawn.mask)


def test_a_prefix_goes_in_front_and_a_prompt_without_a_token_shows():
    prefix = jnp.asarray(RNG.normal(size=(3, 2, 8)), jnp.float32)
    found = decoding.continuation_logits(MODEL.apply, PARAMS, PROMPT, TOKENS[:, 0], prefix=prefix)
    whole = MODEL.apply(PARAMS, np.concatenate([PROMPT, TOKENS[:, 0]], axis=1), prefix=prefix)[1]
    np.testing.assert_allclose(found, whole[:, 3:-1], atol=1e-5)
    empty = score(PROMPT, np.array([[True] * 4, [False] * 4, [True] * 4]), TOKENS, TOKEN_MASK)
    assert np.isnan(empty[1, :, 0]).all() and np.isfinite(empty[jnp.array([0, 2])]).all()


@pytest.mark.errors
@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: decoding.continuation_logits(MODEL, PARAMS, PROMPT, TOKENS[:2]), ValueError, r"tokens must have shape \[3, T\] or \[3, S, T\]"),
        (lambda: decoding.continuation_logits(MODEL.apply, PARAMS, PROMPT, np.float32(TOKENS)), TypeError, "tokens must have dtype int"),
        (
            lambda: decoding.continuation_logits(MODEL.apply, PARAMS, PROMPT, TOKENS, token_mask=TOKEN_MASK[0]),
            ValueError,
            r"token_mask must have the shape of tokens, \[3, 2, 5\]",
        ),
        (lambda: decoding.continuation_logits(MODEL.apply, PARAMS, PROMPT[:, :0], TOKENS), ValueError, "prompt and tokens must hold a token each"),
        (lambda: decoding.continuation_logits("model", PARAMS, PROMPT, TOKENS), TypeError, "apply must be a function, got str"),
        (lambda: decoding.continuation_log_probs(MODEL, PARAMS, PROMPT, TOKENS[:2]), ValueError, r"tokens must have shape \[3, T\] or \[3, S, T\]"),
        (lambda: decoding.until(np.float32(TOKENS), 3), TypeError, "tokens must have dtype int"),
        (lambda: decoding.until(TOKENS, 3.5), TypeError, "stop must be an integer"),
        (lambda: decoding.final_states("model", PARAMS, PROMPT, TOKENS), TypeError, "apply must be a function, got str"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("weight", "reward", "first"), [(-1.0, 1.871067, 0.025288), (-0.5, 1.599351, None), (0.5, 1.048904, None), (1.0, 0.801950, 0.351414)]
)
def test_two_models_as_one_have_the_worked_texts(weight, reward, first):
    """All texts of three bits: a chain, and the same tuned towards ones, its conditionals exact."""
    chain = np.array([[0.5, 0.5], [0.7, 0.3]])
    texts = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    before = np.array([np.prod(chain[[0, a, b], [a, b, c]]) for a, b, c in texts])
    tuned = before * np.exp(texts.sum(axis=1))
    tuned /= tuned.sum()
    table = np.zeros((2, 3, 2, 2))  # which model, how many bits are there, the last one; what follows
    for place in range(3):
        for last in (0, 1):
            for bit in (0, 1):
                of = (texts[:, place] == bit) & ((place == 0) | (texts[:, place - 1] == last))
                table[:, place, last, bit] = before[of].sum(), tuned[of].sum()
    table = jnp.log(table / table.sum(axis=-1, keepdims=True))

    def apply(params, ids, mask):
        z, tuned = params[:, jnp.minimum(jnp.arange(ids.shape[1]), 2), ids]
        return None, decoding.contrastive_logits(tuned, weight=weight)(z)

    found = decoding.continuation_log_probs(apply, table, np.zeros((8, 1), int), texts).sum(axis=1)
    shares = np.exp(found)
    np.testing.assert_allclose([shares.sum(), shares @ texts.sum(axis=1)], [1, reward], atol=1e-5)
    if first is not None:
        np.testing.assert_allclose(shares[0], first, atol=1e-5)
