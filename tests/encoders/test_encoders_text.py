"""Encoders of tokens: the values of their formulas, and that what is masked changes nothing."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from cljax import encoders

KEY = jax.random.key(0)
IDS = np.array([[2, 5, 7, 3, 0, 0], [2, 9, 9, 4, 8, 3], [2, 3, 0, 0, 0, 0]])
MASK = np.arange(6) < np.array([4, 6, 2])[:, None]
SMALL = dict(vocab_size=11, features=8, layers=2, heads=2, hidden=12, max_length=10)
POST, PRE = encoders.TextTransformer(**SMALL), encoders.TextTransformer(**SMALL, norm="pre", types=2, pool="first")
BAG = encoders.BagOfTokens(11, 8, deviation=1.0)


@cache
def params_of(model):
    """Variables that are all different from their first values, zeros and ones among them."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(model.init, KEY, IDS))
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(structure, [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


@cache
def program(model):
    return jax.jit(
        lambda params, ids, mask, types=None: model.apply(params, ids, mask, types) if types is not None else model.apply(params, ids, mask)
    )


def run(model, ids=IDS, mask=MASK, *types):
    return np.asarray(program(model)(params_of(model), ids, mask, *types))


def reference(model, ids, mask, types=None):
    """The last states, one text at a time and in float64, without what is masked."""
    params = jax.tree.map(np.float64, params_of(model)["params"])

    def norm(x, name, params):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * params[name]["scale"] + params[name]["bias"]

    def dense(x, name, block):
        return x @ block[name]["kernel"] + block[name]["bias"]

    def attend(x, block):
        queries, keys, values = np.split(dense(x, "query_key_value", block), 3, axis=-1)
        mixed = []
        for head in np.split(np.arange(8), 2):
            weights = np.exp(queries[:, head] @ keys[:, head].T / 2)
            mixed.append(weights / weights.sum(-1, keepdims=True) @ values[:, head])
        return dense(np.concatenate(mixed, -1), "attention", block)

    def perceive(x, block):
        hidden = dense(x, "hidden", block)
        return dense(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, "perceptron", block)

    found = []
    for row, real in enumerate(mask):
        x = params["tokens"][ids[row, real]] + params["positions"][: real.sum()]
        if model.types:
            x = x + params["types"][types[row, real]]
        x = norm(x, "norm", params) if model.norm == "post" else x
        layers = []
        for number in range(2):
            block = params[f"block_{number}"]
            for change, name in ((attend, "attention_norm"), (perceive, "perceptron_norm")):
                x = norm(x + change(x, block), name, block) if model.norm == "post" else x + change(norm(x, name, block), block)
            layers.append(x if model.norm == "post" else norm(x, "norm", params))
        found.append(layers)
    return found


def test_transformer_is_attention_and_a_perceptron_with_their_norms_behind():
    expected = [layers[-1].mean(0) for layers in reference(POST, IDS, MASK)]
    np.testing.assert_allclose(run(POST), expected, atol=1e-4)


def test_transformer_with_norms_in_front_takes_types_and_pools_the_first_token():
    types = np.random.default_rng(1).integers(0, 2, IDS.shape)
    expected = [layers[-1][0] for layers in reference(PRE, IDS, MASK, types)]
    np.testing.assert_allclose(run(PRE, IDS, MASK, types), expected, atol=1e-4)


def test_pools_share_their_parameters():
    first, every, top = (encoders.TextTransformer(**SMALL, pool=pool, top=2) for pool in ("first", None, "top"))
    layers = reference(POST, IDS, MASK)
    states = run(every)
    assert states.shape == (3, 6, 8) and (states[~MASK] == 0).all()
    for row, (below, last) in enumerate(layers):
        np.testing.assert_allclose(states[row][MASK[row]], last, atol=1e-4)
        np.testing.assert_allclose(run(top)[row], np.concatenate([below.mean(0), last.mean(0)]), atol=1e-4)
        np.testing.assert_allclose(run(first)[row], last[0], atol=1e-4)


@pytest.mark.parametrize("model", [POST, BAG], ids=["transformer", "bag"])
def test_masked_tokens_change_nothing_wherever_they_stand(model):
    expected = run(model)
    for shift in (1, 2):  # from padded behind to padded in front
        rolled = np.stack([np.roll(row, shift if real.sum() < 5 else 0) for row, real in zip(IDS, MASK, strict=True)])
        masks = np.stack([np.roll(real, shift if real.sum() < 5 else 0) for real in MASK])
        np.testing.assert_allclose(run(model, rolled, masks), expected, atol=1e-5)
    np.testing.assert_array_equal(run(model, np.where(MASK, IDS, 999)), expected)
    np.testing.assert_allclose(run(model, IDS[:, :4], MASK[:, :4])[[0, 2]], expected[[0, 2]], atol=1e-5)
    np.testing.assert_allclose(run(model, IDS[1:2], None), expected[1:2], atol=1e-5)  # no mask: all are real


@pytest.mark.parametrize("model", [POST, BAG], ids=["transformer", "bag"])
def test_only_real_tokens_get_a_gradient_and_a_row_without_one_is_zero(model):
    mask = MASK & (np.arange(3) < 2)[:, None]
    ids = np.where(mask, IDS, 999)

    def value(params):
        embeddings = model.apply(params, ids, mask)
        return jnp.sum(embeddings**2 * jnp.arange(8)), embeddings

    grads, embeddings = jax.jit(jax.grad(value, has_aux=True))(params_of(model))
    assert (np.asarray(embeddings)[2] == 0).all() and np.abs(embeddings[:2]).min() > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    table = np.asarray(grads["params"]["vectors" if model is BAG else "tokens"])
    assert {*np.flatnonzero(np.abs(table).sum(1))} == {2, 3, 4, 5, 7, 8, 9}


@pytest.mark.parametrize("model", [POST, BAG, encoders.DeepAveraging(11, 8)], ids=lambda model: type(model).__name__)
def test_an_empty_batch_has_no_embeddings(model):
    found = jax.eval_shape(model.apply, params_of(model), IDS[:0], MASK[:0])
    assert found.shape == (0, 8) and found.dtype == jnp.float32


@pytest.mark.parametrize("model", [POST, BAG], ids=["transformer", "bag"])
def test_an_id_outside_the_vocabulary_gives_nan_in_its_row_alone(model):
    ids = IDS.copy()
    ids[0, 1] = 11
    assert np.isnan(run(model, ids)).all(axis=1).tolist() == [True, False, False]


def test_text_encoders_compute_in_bfloat16_and_give_float32_and_unit_length():
    for model in (POST, BAG):
        low = model.clone(dtype=jnp.bfloat16, normalise=True)
        got = run(low)
        assert got.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
        exact = run(model)
        np.testing.assert_allclose(got, exact / np.linalg.norm(exact, axis=1, keepdims=True), atol=0.06)


def test_dropout_follows_its_key_in_training_alone():
    model = POST.clone(dropout=0.5)
    train = jax.jit(lambda key: model.apply(params_of(model), IDS, MASK, train=True, rngs={"dropout": key}))
    first, again, other = train(KEY), train(KEY), train(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_array_equal(run(model), run(POST))


def test_transformer_under_vmap_equals_row_by_row():
    one = jax.vmap(lambda ids, mask: POST.apply(params_of(POST), ids[None], mask[None])[0])
    np.testing.assert_allclose(jax.jit(one)(IDS, MASK), run(POST), atol=1e-5)


def test_first_values_make_states_of_ordinary_size():
    for model in (POST, PRE):
        params = jax.jit(model.init)(KEY, IDS)
        assert 0.2 < np.std(program(model)(params, IDS, MASK)) < 2


def test_bag_is_the_gated_mean():
    vectors, gates = (np.float64(params_of(BAG)["params"][name]) for name in ("vectors", "gates"))
    weights = np.log1p(np.exp(gates))[IDS] * MASK
    expected = np.einsum("bl,bld->bd", weights, vectors[IDS]) / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(run(BAG), expected, atol=1e-5)
    tokens, shares = BAG.apply(params_of(BAG), IDS, MASK, method="tokens")
    np.testing.assert_allclose(tokens, vectors[IDS] * MASK[..., None], atol=1e-6)
    np.testing.assert_allclose(shares, weights, atol=1e-6)


def test_bag_without_gates_is_the_mean_of_the_real_tokens():
    model = encoders.BagOfTokens(3, 2, gate=False)
    vectors = np.array([[1, 2], [3, 4], [100, 100]], np.float32)
    assert list(jax.eval_shape(model.init, KEY, IDS)["params"]) == ["vectors"]
    np.testing.assert_allclose(model.apply({"params": {"vectors": vectors}}, np.array([[0, 1, 2]]), np.array([[True, True, False]])), [[2, 3]])


def test_deep_averaging_adds_a_perceptron_of_the_mean_to_it():
    model = encoders.DeepAveraging(50, 6, hidden=[5], normalise=True)
    params = jax.jit(model.init)(KEY, jnp.ones((1, 2), int))
    (bag, dense), ids, mask = params["params"].values(), jnp.array([[5, 7, 3], [6, 0, 0]]), jnp.array([[True, True, True], [True, False, False]])
    mean = np.float64([np.mean([bag["vectors"][i] for i in row], axis=0) for row in ([5, 7, 3], [6])])
    first, second = ((np.float64(dense[name]["kernel"]), np.float64(dense[name]["bias"])) for name in sorted(dense))
    z = mean + np.maximum(mean @ first[0] + first[1], 0) @ second[0] + second[1]
    np.testing.assert_allclose(model.apply(params, ids, mask), z / np.linalg.norm(z, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(encoders.DeepAveraging(50, 6, hidden=(5,)).apply(params, ids, mask, train=True), z, atol=1e-6)
    assert first[0].shape == (6, 5) and hash(model) and encoders.DeepAveraging(50, 6).hidden is None
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        encoders.DeepAveraging(50, 0)


def test_bag_begins_with_equal_gates_and_vectors_of_unit_length():
    params = jax.jit(encoders.BagOfTokens(50, 200).init)(KEY, IDS)["params"]
    assert (np.asarray(params["gates"]) == 0).all()
    np.testing.assert_allclose(np.linalg.norm(params["vectors"], axis=1), 1, atol=0.25)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(heads=3), "heads must divide features, got heads=3 and features=8"),
        (dict(pool="max"), "pool must be one of 'mean', 'first', 'top', None, got 'max'"),
        (dict(norm="after"), "norm must be one of"),
        (dict(pool="top", top=3), "top must be at least 1 and at most 2, got 3"),
        (dict(layers=0), "layers must be at least 1"),
        (dict(dropout=1.5), "dropout must be at least 0 and at most 1"),
    ],
)
def test_transformer_says_what_an_attribute_must_be(options, message):
    with pytest.raises(ValueError, match=message):
        encoders.TextTransformer(**SMALL | options)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((IDS * 1.0,), TypeError, "ids must have dtype int"),
        ((IDS[0],), ValueError, r"ids must have shape \[B, L\]"),
        ((IDS, MASK[:2]), ValueError, r"mask must have shape \[B, L\] with B = 3 as in ids"),
        ((IDS, MASK * 1), TypeError, "mask must have dtype bool"),
        ((np.zeros((1, 11), int),), ValueError, "ids must have at most max_length = 10 tokens a row, got 11"),
        ((IDS, MASK, IDS), ValueError, "types must be None, the module has none"),
    ],
)
def test_transformer_says_what_is_wrong_with_a_batch(arguments, error, message):
    with pytest.raises(error, match=message):
        POST.apply(params_of(POST), *arguments)


@pytest.mark.errors
def test_bag_says_what_is_wrong():
    with pytest.raises(ValueError, match="features must be at least 1"):
        encoders.BagOfTokens(5, 0)
    with pytest.raises(TypeError, match="mask must have dtype bool"):
        BAG.apply(params_of(BAG), IDS, MASK * 1)
    with pytest.raises(TypeError, match="train must be True or False"):
        BAG.apply(params_of(BAG), IDS, MASK, train=1)
