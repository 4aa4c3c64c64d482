"""Log-probabilities of sequences, preferences, and states that keep apart: worked numbers, float64, masks, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses

f32 = np.float32
RNG = np.random.default_rng(0)
LOGITS, TOKENS = f32(RNG.normal(size=(3, 4, 5)) * 3), RNG.integers(0, 5, (3, 4))
MASK = np.array([[True, True, True, False], [False, True, True, True], [False] * 4])
QUICKLY = {"xla_backend_optimization_level": 0}


def compiled(function, *arguments):
    return jax.device_get(jax.jit(function, compiler_options=QUICKLY)(*arguments))


def close(found, expected, atol=1.1e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def reference(logits, tokens):
    """Log-probabilities of tokens and the gradient of their sum, float64."""
    p = np.exp(np.float64(logits))
    p /= p.sum(-1, keepdims=True)
    chosen = np.eye(p.shape[-1])[tokens]
    return np.log((p * chosen).sum(-1)), chosen - p


def both(logits, tokens, mask):
    of_tokens = lambda logits: losses.mean(losses.token_cross_entropy(logits, tokens, mask))  # noqa: E731
    values, gradient = jax.value_and_grad(lambda logits: jnp.sum(losses.sequence_logprob(logits, tokens, mask)))(logits)
    return losses.sequence_logprob(logits, tokens, mask), values, gradient, *jax.value_and_grad(of_tokens)(logits)


def test_sequences_sum_their_tokens_and_a_language_models_loss_averages_them():
    log_p, gradient = reference(LOGITS, TOKENS)
    for mask in (None, MASK):
        kept = np.ones((3, 4), bool) if mask is None else mask
        values, total, by_logits, loss, of_loss = compiled(lambda x, mask=mask: both(x, TOKENS, mask), LOGITS)
        close(values, (log_p * kept).sum(1), atol=1e-5)
        close(total, (log_p * kept).sum(), atol=1e-5)
        close(by_logits, gradient * kept[..., None], atol=2e-6)
        close(loss, -(log_p * kept).sum() / kept.sum(), atol=1e-5)
        close(of_loss, -gradient * kept[..., None] / kept.sum())


def test_padding_counts_nowhere_whatever_it_holds_and_a_token_outside_the_vocabulary_shows():
    logits, tokens = np.where(MASK[..., None], LOGITS, np.nan), np.where(MASK, TOKENS, [-1, 9, -7, 5])
    for found, expected in zip(compiled(lambda x: both(x, tokens, MASK), logits), compiled(lambda x: both(x, TOKENS, MASK), LOGITS), strict=True):
        np.testing.assert_array_equal(found, expected)
    for wrong in (-1, 5):
        assert np.isnan(losses.sequence_logprob(LOGITS, np.where(MASK, wrong, TOKENS))).tolist() == [True, True, False]
    assert np.isnan(losses.sequence_logprob(logits, TOKENS)).all()


def test_impossible_tokens_and_large_logits():
    logits = f32([[[0, -np.inf, 0], [1e4, 0, -1e4], [300, 300, 300]]])
    value, gradient = compiled(jax.value_and_grad(lambda x: losses.sequence_logprob(x, np.array([[0, 0, 2]]))[0]), logits)
    close(value, -np.log(2) - np.log(3), atol=1e-5)
    assert np.isfinite(gradient).all()
    assert losses.sequence_logprob(logits, np.array([[1, 0, 2]]))[0] == -np.inf


def test_leading_axes_and_narrow_dtypes():
    narrow = jnp.asarray(LOGITS, jnp.bfloat16)
    found = losses.sequence_logprob(narrow, TOKENS)
    assert found.dtype == jnp.float32
    close(found, reference(np.asarray(narrow, np.float64), TOKENS)[0].sum(1), atol=1e-5)
    many = losses.token_cross_entropy(LOGITS[:, None].repeat(2, 1), TOKENS[:, None].repeat(2, 1), MASK[:, None].repeat(2, 1))
    assert many.values.shape == many.where.shape == (3, 2, 4)
    close(losses.sequence_logprob(LOGITS[:, :0], TOKENS[:, :0]), 0)


CHOSEN, REJECTED, OF_CHOSEN, OF_REJECTED = f32([-10, -3, -7]), f32([-12, -2, -7]), f32([-11, -3, -6]), f32([-11.5, -4, -6])


def test_worked_numbers_of_a_preference():
    chosen, rejected, nothing = f32([3, -2, 1.5, 0.5]), f32([1, -4, 2, 0.5]), f32([0, 0, 0, 0])
    found = [jnp.mean(losses.dpo(chosen, rejected, nothing, nothing, beta=beta)) for beta in (0.02, 1.0)]
    close(found, [0.684500, 0.480270])


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_losses_of_preferences_and_their_gradients(beta):
    def found(chosen, rejected):
        total = lambda name, *pair: jnp.sum(getattr(losses, name)(*pair, OF_CHOSEN, OF_REJECTED, beta=beta))  # noqa: E731
        grads = {name: jax.grad(lambda *pair, name=name: total(name, *pair), argnums=(0, 1))(chosen, rejected) for name in ("dpo", "ipo")}
        return {name: getattr(losses, name)(chosen, rejected, OF_CHOSEN, OF_REJECTED, beta=beta) for name in ("dpo", "ipo")}, grads

    values, gradients = compiled(found, CHOSEN, REJECTED)
    margin = np.float64([1.5, -2, 0])
    close(values["dpo"], np.log1p(np.exp(-beta * margin)))
    slope = -beta / (1 + np.exp(beta * margin))
    close(gradients["dpo"], [slope, -slope])
    np.testing.assert_allclose(values["ipo"], (margin - 0.5 / beta) ** 2, rtol=1e-5)
    slope = 2 * (margin - 0.5 / beta)
    np.testing.assert_allclose(gradients["ipo"], [slope, -slope], rtol=1e-5)


def test_a_generation_twice_gives_no_gradient_to_the_policy():
    for loss in (losses.dpo, losses.ipo):
        gradient = jax.grad(lambda x, loss=loss: loss(x, x, OF_CHOSEN, OF_CHOSEN, beta=0.1).sum())(CHOSEN)
        assert not gradient.any()


def test_pairs_that_do_not_count_hide_what_they_hold():
    where, spoilt = np.array([True, False, True]), f32([0, np.nan, 0])

    def found(spoilt, where):
        terms = losses.dpo(CHOSEN + spoilt, REJECTED, OF_CHOSEN, OF_REJECTED, beta=0.1, where=where)
        terms += losses.ipo(CHOSEN, REJECTED + spoilt, OF_CHOSEN, OF_REJECTED, beta=0.1, where=where)
        return jnp.sum(terms + losses.bradley_terry(CHOSEN + spoilt, REJECTED, where=where)), terms

    (total, terms), gradient = compiled(jax.value_and_grad(found, has_aux=True), spoilt, where)
    clean, of_clean = compiled(jax.value_and_grad(found, has_aux=True), 0 * CHOSEN, where)
    close(total, clean[0])
    close(gradient, of_clean)
    assert terms[1] == gradient[1] == 0 and (gradient[[0, 2]] != 0).all()
    assert np.isnan(found(spoilt, np.ones(3, bool))[1]).tolist() == [False, True, False]


def test_a_reward_model_learns_the_order():
    scores = f32([2, -1, 1e4]), f32([0, 1, -1e4])
    value, gradient = compiled(jax.value_and_grad(lambda *two: losses.bradley_terry(*two).sum(), argnums=(0, 1)), *scores)
    close(value, np.log1p(np.exp(-2)) + np.log1p(np.exp(2)))
    slope = [-1 / (1 + np.exp(2)), -1 / (1 + np.exp(-2)), 0]
    close(gradient, [slope, np.negative(slope)])


# Two sequences, of four and of three tokens.
HIDDEN = f32([[[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], [[3, 4], [4, 3], [1, 1], [7, 7]]])
PADDED = np.array([[True] * 4, [True] * 3 + [False]])


@pytest.mark.parametrize("margin, expected", [(0.5, 0.204433), (1.0, 0.482211), (0.0, 0.0)])
def test_simctg_is_the_mean_over_all_pairs_of_all_sequences(margin, expected):
    close(losses.simctg(HIDDEN, margin=margin, mask=PADDED), expected)
    if margin == 0.5:
        one, other = losses.simctg(HIDDEN[:1]), losses.simctg(HIDDEN[1:], mask=PADDED[1:])
        close([one, other], [0.066667, 0.479966])
        close((12 * one + 6 * other) / 18, expected)


def gradient_of(hidden, mask, margin=0.5):
    """Value and gradient, float64, pair by pair."""
    hidden, gradient, total, count = np.float64(hidden), np.zeros(hidden.shape), 0.0, 0
    for b, rows in enumerate(mask):
        for i in np.flatnonzero(rows):
            for j in np.flatnonzero(rows):
                if i == j:
                    continue
                (x, y), count = hidden[b, [i, j]], count + 1
                n, m = np.linalg.norm(x), np.linalg.norm(y)
                cosine = x @ y / (n * m)
                if margin - 1 + cosine > 0:
                    total += margin - 1 + cosine
                    gradient[b, i] += (y / m - cosine * x / n) / n
                    gradient[b, j] += (x / n - cosine * y / m) / m
    return total / max(count, 1), gradient / max(count, 1)


def test_the_gradient_of_simctg_and_what_padding_holds():
    hidden = f32(RNG.normal(size=(3, 4, 3)))
    expected, by_hidden = gradient_of(hidden, MASK)
    found = jax.value_and_grad(lambda h: losses.simctg(h, mask=MASK))
    value, gradient = compiled(found, np.where(MASK[..., None], hidden, np.nan))
    close(value, expected)
    close(gradient, by_hidden)
    apart = f32([[[1, 0], [0.4, 0.917], [-1, 0]]])  # cosines below 1 - margin
    assert not compiled(jax.grad(losses.simctg), apart).any()


def test_simctg_sees_directions_alone():
    turn = np.linalg.qr(RNG.normal(size=(2, 2)))[0]
    scaled = HIDDEN * f32(RNG.uniform(0.1, 10, (2, 4, 1)))
    close([losses.simctg(x, mask=PADDED) for x in (scaled, f32(HIDDEN @ turn))], 0.204433)
    close(losses.simctg(np.ones((1, 3, 2), f32)), 0.5)
    zeros = compiled(jax.value_and_grad(losses.simctg), np.zeros((2, 3, 2), f32))
    assert zeros[0] == 0 and not zeros[1].any()
    for mask in (np.zeros((2, 4), bool), np.eye(2, 4, dtype=bool)):
        value, gradient = compiled(jax.value_and_grad(lambda h, mask=mask: losses.simctg(h, mask=mask)), HIDDEN)
        assert value == 0 and not gradient.any()
    assert np.isnan(losses.simctg(np.where(PADDED[..., None], HIDDEN, np.nan)))


@pytest.mark.parametrize("check_vma", [True, False])
def test_four_devices_give_the_numbers_of_one(check_vma):
    hidden, logits, tokens = f32(RNG.normal(size=(4, 4, 5))), f32(RNG.normal(size=(4, 4, 5))), RNG.integers(0, 5, (4, 4))
    mask = np.array([[True] * 4, [False] * 4, [True, True, False, False], [False, True, True, True]])  # a device with no pair
    mesh, split = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)), jax.P("data")

    def found(hidden, logits, tokens, mask, axis_name=None):
        def total(w):
            text = losses.mean(losses.token_cross_entropy(logits @ w, tokens, mask), axis_name=axis_name)
            return text + losses.simctg(hidden @ w, mask=mask, axis_name=axis_name)

        value, gradient = jax.value_and_grad(total)(f32(np.eye(5) + 0.1))
        return value, gradient if axis_name is None else jax.lax.pmean(gradient, axis_name)

    inputs = hidden, logits, tokens, mask
    many = jax.shard_map(lambda *x: found(*x, axis_name="data"), mesh=mesh, in_specs=(split,) * 4, out_specs=jax.P(), check_vma=check_vma)
    for value, expected in zip(compiled(many, *inputs), compiled(found, *inputs), strict=True):
        close(value, expected)


@pytest.mark.errors
@pytest.mark.parametrize(
    "call, error, match",
    [
        (
            lambda: losses.sequence_logprob(LOGITS, TOKENS[:, :3]),
            ValueError,
            r"tokens must have shape \[..., T\] with T = 4 as in logits",
        ),
        (lambda: losses.sequence_logprob(LOGITS, TOKENS[:2]), ValueError, r"tokens must have shape \[3, 4\] as logits without the last axis"),
        (lambda: losses.token_cross_entropy(LOGITS, f32(TOKENS)), TypeError, "tokens must have dtype int, got float32"),
        (lambda: losses.token_cross_entropy(LOGITS, TOKENS, f32(MASK)), TypeError, "mask must have dtype bool"),
        (lambda: losses.simctg(HIDDEN, margin=1.5), ValueError, "margin must be at least -1 and at most 1, got 1.5"),
        (lambda: losses.simctg(HIDDEN[0]), ValueError, r"hidden must have shape \[B, S, E\], got \[4, 2\]"),
        (lambda: losses.simctg(HIDDEN, axis_name="data"), ValueError, "axis_name='data' is not mapped here"),
        (lambda: losses.dpo(CHOSEN, REJECTED, OF_CHOSEN, OF_REJECTED, beta=0.0), ValueError, "beta must be greater than 0, got 0.0"),
        (lambda: losses.ipo(CHOSEN, REJECTED[:2], OF_CHOSEN, OF_REJECTED, beta=0.1), ValueError, r"rejected must have shape \[B\] with B = 3"),
        (lambda: losses.bradley_terry(CHOSEN, np.array([1, 2, 3])), TypeError, "rejected must have dtype float"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
