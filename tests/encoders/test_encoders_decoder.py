"""The decoder: GPT-2's formulas, and that reading in parts, padding and other rows change nothing."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from cljax import encoders

KEY = jax.random.key(0)
IDS = np.random.default_rng(0).integers(0, 11, (3, 7))
LENGTHS = np.array([7, 4, 2])
PREFIX = np.random.default_rng(1).normal(size=(3, 2, 8)).astype(np.float32)
SMALL = dict(vocab_size=11, features=8, layers=2, heads=2, hidden=12, max_length=12)
LEARNED, ROTARY = encoders.Decoder(**SMALL), encoders.Decoder(**SMALL, positions="rotary")
both = pytest.mark.parametrize("model", [LEARNED, ROTARY], ids=["learned", "rotary"])


@cache
def params_of(model):
    """Variables that are all different from their first values, zeros and ones among them."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(model.init, KEY, IDS))
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(structure, [rng.normal(size=leaf.shape).astype(np.float32) / 2 for leaf in leaves])


@partial(jax.jit, static_argnums=0, static_argnames="cache")
def whole(model, params, ids, mask=None, prefix=None, cache=None):
    return model.apply(params, ids, mask, cache, prefix)


@partial(jax.jit, static_argnums=0)
def further(model, params, ids, mask, cache):
    return model.apply(params, ids, mask, cache)


def padded(side, size=7):
    """The rows cut to their lengths and padded: the ids (999 where there is no token), and the mask."""
    ids, mask = np.full((3, size), 999), np.zeros((3, size), bool)
    for row, length in enumerate(LENGTHS):
        place = slice(0, length) if side == "right" else slice(size - length, size) if side == "left" else slice(1, 1 + length)
        ids[row, place], mask[row, place] = IDS[row, :length], True
    return ids, mask


def reference(model, row, prefix=None):
    """States and logits of one text in float64."""
    params = jax.tree.map(np.float64, params_of(model)["params"])

    def norm(x, name, params):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * params[name]["scale"] + params[name]["bias"]

    def dense(x, name, block):
        return x @ block[name]["kernel"] + block[name]["bias"]

    def turned(x):
        rates = 10000.0 ** (-np.arange(2) / 2)
        turns = np.exp(1j * np.arange(len(x))[:, None] * rates) * (x[:, :2] + 1j * x[:, 2:])
        return np.concatenate([turns.real, turns.imag], 1)

    def attend(x, block):
        queries, keys, values = np.split(dense(x, "query_key_value", block), 3, axis=-1)
        mixed = []
        for head in np.split(np.arange(8), 2):
            q, k = queries[:, head], keys[:, head]
            if model.positions == "rotary":
                q, k = turned(q), turned(k)
            weights = np.exp(q @ k.T / 2) * np.tri(len(x))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ values[:, head])
        return dense(np.concatenate(mixed, -1), "attention", block)

    def perceive(x, block):
        x = dense(x, "hidden", block)
        return dense(x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2, "perceptron", block)

    x = params["tokens"][row]
    x = x if prefix is None else np.concatenate([prefix, x])
    x = x + params["positions"][: len(x)] if model.positions == "learned" else x
    for number in range(2):
        block = params[f"block_{number}"]
        x = x + attend(norm(x, "attention_norm", block), block)
        x = x + perceive(norm(x, "perceptron_norm", block), block)
    x = norm(x, "norm", params)[-len(row) :]
    return x, x @ params["tokens"].T


@both
@pytest.mark.parametrize("side", ["right", "left", "middle"])
@pytest.mark.parametrize("prefix", [None, PREFIX], ids=["plain", "prefix"])
def test_states_and_logits_are_those_of_the_formulas_wherever_a_text_is_padded(model, side, prefix):
    ids, mask = padded(side, 8)
    hidden, logits = map(np.asarray, whole(model, params_of(model), ids, mask, prefix))
    assert hidden.dtype == logits.dtype == np.float32 and (hidden[~mask] == 0).all()
    for row, length in enumerate(LENGTHS):
        states, scores = reference(model, IDS[row, :length], None if prefix is None else prefix[row])
        np.testing.assert_allclose(hidden[row, mask[row]], states, atol=1e-4)
        np.testing.assert_allclose(logits[row, mask[row]], scores, atol=1e-4)


@both
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("prefix", [None, PREFIX], ids=["plain", "prefix"])
def test_reading_in_parts_equals_reading_at_once(model, side, prefix):
    """Padded prompts, then three tokens one at a time and two together, of which a row may lack some."""
    params, (ids, mask) = params_of(model), padded(side)
    more = np.random.default_rng(2).integers(0, 11, (3, 3))
    there = np.array([[True, True, True], [True, False, True], [False, True, True]])
    parts, state = [], None
    for ids_now, mask_now in ((ids, mask), (more[:, :1], there[:, :1]), (more[:, 1:], there[:, 1:])):
        call = partial(whole, prefix=prefix, cache=12) if state is None else partial(further, cache=state)
        *found, state = call(model, params, ids_now, mask_now)
        parts.append(found)
    hidden, logits = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    expected = whole(model, params, np.concatenate([ids, more], 1), np.concatenate([mask, there], 1), prefix)
    np.testing.assert_allclose(hidden, expected[0], atol=1e-5)
    np.testing.assert_allclose(logits, expected[1], atol=1e-5)
    assert state.used.tolist() == [10 if prefix is None else 12] * 3
    assert {leaf.shape[0] for leaf in jax.tree.leaves(state)} == {3}


@both
def test_rows_of_a_cache_can_be_taken_and_repeated(model):
    params = params_of(model)
    rows, more = np.array([2, 0, 2, 1]), np.array([[3], [4], [5], [6]])
    state = whole(model, params, *padded("left"), cache=9)[2]
    hidden, _, _ = further(model, params, more, np.ones((4, 1), bool), jax.tree.map(lambda leaf: leaf[rows], state))
    for place, row in enumerate(rows):
        text = np.append(IDS[row, : LENGTHS[row]], more[place])
        np.testing.assert_allclose(hidden[place, 0], reference(model, text)[0][-1], atol=1e-4)


@both
def test_continuations_may_share_a_row_of_a_cache(model):
    """Two tokens for each row, of which the second is kept; then one token more, on what the first row alone holds."""
    params, one = params_of(model), np.ones((6, 1), bool)
    state = whole(model, params, *padded("left"), cache=10)[2]
    tokens = np.array([[3], [4], [5], [6], [7], [8]])
    found, _, wide = further(model, params, tokens, one, state)
    assert len(wide.keys[0]) == 3 and len(wide.last[0][0]) == len(wide.mask) == len(wide.used) == 6
    kept = jax.tree.map(lambda leaf: leaf if len(leaf) == 3 else leaf[1::2], wide)
    after, _, _ = further(model, params, tokens[:3], one[:3], kept)
    for row in range(6):
        text = [*IDS[row // 2, : LENGTHS[row // 2]], tokens[row, 0]]
        np.testing.assert_allclose(found[row, 0], reference(model, text)[0][-1], atol=1e-4)
        if row % 2:
            np.testing.assert_allclose(after[row // 2, 0], reference(model, [*text, tokens[row // 2, 0]])[0][-1], atol=1e-4)
    with pytest.raises(ValueError, match="cache must have one row of last, mask and used for each of its 3 rows of keys, got 6"):
        model.apply(params, tokens, cache=wide)
    with pytest.raises(ValueError, match="cache must have the 6 rows of ids, or divide them where they are one token each, got 3 rows"):
        model.apply(params, np.repeat(tokens, 2, axis=1), cache=state)


@both
def test_what_follows_a_token_changes_neither_its_state_nor_a_gradient(model):
    params = params_of(model)
    other = np.concatenate([IDS[:, :4], (IDS[:, 4:] + 1) % 11], axis=1)
    np.testing.assert_array_equal(whole(model, params, IDS)[0][:, :4], whole(model, params, other)[0][:, :4])
    grads = jax.jit(jax.grad(lambda prefix: jnp.sum(model.apply(params, IDS, prefix=prefix)[0][0, 2] ** 2)))(PREFIX)
    assert np.abs(grads[0]).min() > 0 and (np.asarray(grads[1:]) == 0).all()


def test_an_id_outside_the_vocabulary_gives_nan_in_its_row_alone():
    ids = IDS.copy()
    ids[1, 3] = 11
    hidden = np.asarray(whole(LEARNED, params_of(LEARNED), ids)[0])
    assert np.isnan(hidden).all(axis=(1, 2)).tolist() == [False, True, False]
    assert np.isfinite(hidden[[0, 2]]).all()


@both
def test_more_than_the_cache_holds_is_nan_and_not_a_wrong_number(model):
    params = params_of(model)
    state = whole(model, params, IDS, cache=8)[2]
    step = IDS[:, :1], np.ones((3, 1), bool)
    hidden, _, state = further(model, params, *step, state)
    assert np.isfinite(hidden).all()
    assert np.isnan(further(model, params, *step, state)[0]).all()


@both
def test_decoder_computes_in_bfloat16_and_gives_float32(model):
    low = model.clone(dtype=jnp.bfloat16)
    hidden, logits, state = whole(low, params_of(model), IDS, cache=8)
    assert (hidden.dtype, logits.dtype, state.keys[0].dtype) == (jnp.float32, jnp.float32, jnp.bfloat16)
    exact = whole(model, params_of(model), IDS)
    np.testing.assert_allclose(hidden, exact[0], atol=0.25)
    assert np.mean(np.abs(logits - exact[1])) < 0.05
    again, _, _ = further(low, params_of(model), IDS[:, :1], np.ones((3, 1), bool), state)
    np.testing.assert_allclose(again[:, 0], whole(low, params_of(model), np.concatenate([IDS, IDS[:, :1]], 1))[0][:, -1], atol=0.1)


def test_dropout_follows_its_key_in_training_alone():
    model = LEARNED.clone(dropout=0.5)
    train = jax.jit(lambda key: model.apply(params_of(model), IDS, train=True, rngs={"dropout": key})[1])
    first, again, other = train(KEY), train(KEY), train(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_array_equal(whole(model, params_of(LEARNED), IDS)[1], whole(LEARNED, params_of(LEARNED), IDS)[1])


@both
def test_decoder_under_vmap_and_shard_map_equals_the_batch(model):
    params, (ids, mask) = params_of(model), padded("left")
    expected = whole(model, params, ids, mask, cache=9)
    step = IDS[:, :1], np.ones((3, 1), bool)
    last = further(model, params, *step, expected[2])[1]

    def local(params, ids, mask, step_ids, step_mask):
        state = model.apply(params, ids, mask, cache=9)[2]
        return model.apply(params, step_ids, step_mask, cache=state)[1]

    one = jax.jit(jax.vmap(lambda *rows: local(params, *(row[None] for row in rows))[0]))
    np.testing.assert_allclose(one(ids, mask, *step), last, atol=1e-5)
    mesh = jax.make_mesh((3,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:3])
    specs = (jax.P(), *[jax.P("data")] * 4)
    spread = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=jax.P("data")))
    np.testing.assert_allclose(spread(params, ids, mask, *step), last, atol=1e-5)


@both
def test_first_values_make_states_and_logits_of_ordinary_size(model):
    model = encoders.Decoder(50, 64, layers=2, heads=4, positions=model.positions, max_length=8)
    hidden, logits = whole(model, jax.jit(model.init)(KEY, IDS), IDS)
    assert 0.9 < np.std(hidden) < 1.1 and 0.3 < np.std(logits) < 3
    assert "positions" in jax.eval_shape(model.init, KEY, IDS)["params"] or model.positions == "rotary"


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(heads=3), "heads must divide features, got heads=3 and features=8"),
        (dict(heads=8, positions="rotary"), "heads must divide features into an even number, got heads=8 and features=8"),
        (dict(positions="absolute"), "positions must be one of 'learned', 'rotary', got 'absolute'"),
        (dict(vocab_size=0), "vocab_size must be at least 1"),
        (dict(dropout=1.5), "dropout must be at least 0 and at most 1"),
    ],
)
def test_decoder_says_what_an_attribute_must_be(options, message):
    with pytest.raises(ValueError, match=message):
        encoders.Decoder(**SMALL | options)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((IDS * 1.0,), TypeError, "ids must have dtype int"),
        ((IDS, np.ones((2, 7), bool)), ValueError, r"mask must have shape \[B, L\] with B = 3 as in ids"),
        ((IDS, np.ones((3, 7))), TypeError, "mask must have dtype bool"),
        ((np.zeros((1, 13), int),), ValueError, "ids must have at most max_length = 12 tokens a row, got 13"),
        ((IDS, None, 6), ValueError, "cache must have a place for each of the 7 tokens, got 6"),
        ((IDS, None, 8, PREFIX), ValueError, "cache must have a place for each of the 9 tokens, got 8"),
        ((IDS, None, 13), ValueError, "cache must have at most max_length = 12 places, got 13"),
        ((IDS, None, "8"), TypeError, "cache must be an integer"),
        ((IDS, None, None, PREFIX[..., :7]), ValueError, "prefix must have the width 8 of the states, got 7"),
        ((IDS, None, None, PREFIX[:2]), ValueError, r"prefix must have shape \[B, P, D\] with B = 3"),
    ],
)
def test_decoder_says_what_is_wrong_with_a_batch(arguments, error, message):
    with pytest.raises(error, match=message):
        LEARNED.apply(params_of(LEARNED), *arguments)


@pytest.mark.errors
def test_a_cache_of_other_rows_is_named():
    _, _, state = LEARNED.apply(params_of(LEARNED), IDS, cache=9)
    with pytest.raises(ValueError, match="cache must have the 2 rows of ids, or divide them where they are one token each, got 3 rows"):
        LEARNED.apply(params_of(LEARNED), IDS[:2, :1], cache=state)
