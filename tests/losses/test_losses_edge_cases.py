"""Where losses usually break: narrow dtypes, zero vectors, NaN, nothing to compare with, ids at the end of their range."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses

B, D, T = 6, 4, np.float32(0.05)
RNG = np.random.default_rng(0)
A, BB, C = (RNG.normal(size=(n, D)).astype(np.float32) for n in (B, B, 3))
VALID = np.ones(B, bool)
OPTIONS = dict(where=VALID, ids=np.arange(B), labels=np.array([0, 1, 0, 2, 1, 0]), negative_ids=np.arange(3) + 100)
QUICKLY = {"xla_backend_optimization_level": 0}  # compiling is nearly all the time that these tests take


def test_bfloat16_embeddings_give_the_float32_loss_of_their_values(every, every_loss):
    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def narrow(a, b, c, t):
        found = {name: loss(a, b, OPTIONS | dict(negatives=c, bank=c), t, None) for name, loss in every_loss.items()}
        return {name: jnp.atleast_1d(x.values if isinstance(x, losses.Masked) else x) for name, x in found.items()}

    arrays = [jnp.asarray(x, jnp.bfloat16) for x in (A, BB, C)]
    for temperature in (0.005, 1.0):
        t = np.float32(temperature)
        expected = every(*(np.float32(x) for x in arrays), t, OPTIONS)
        for name, values in narrow(*arrays, t).items():
            assert values.dtype == jnp.float32, name
            np.testing.assert_allclose(values, expected[name][0], rtol=2e-7, atol=2e-5 + 2e-7 / temperature, err_msg=name)


def test_gradients_have_the_dtype_of_their_embeddings():
    def loss(a, b, c):
        return losses.info_nce(a, b, temperature=T, negatives=c).sum()

    mixed = jnp.asarray(A, jnp.bfloat16), BB, jnp.asarray(C, jnp.float16)
    found = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), compiler_options=QUICKLY)
    narrow, wide = found(*mixed), found(*(np.float32(x) for x in mixed))
    for x, got, want in zip(mixed, narrow, wide, strict=True):
        assert got.dtype == x.dtype
        np.testing.assert_allclose(np.float32(got), want, rtol=0, atol=5e-3 * np.abs(want).max())


def test_a_masked_row_of_nan_reaches_neither_values_nor_gradients(every):
    where, a, b = VALID.copy(), A.copy(), BB.copy()
    where[2], a[2], b[2] = False, np.nan, np.nan
    for name, (values, gradients) in jax.device_get(every(a, b, C, T, OPTIONS | dict(where=where))).items():
        assert np.isfinite(values).all(), name
        assert all(np.isfinite(g).all() for g in gradients), name
        assert not gradients[0][2].any() and not gradients[1][2].any(), name
        assert name == "uniformity" or not values[2::B].any(), name


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers_of_a_valid_row_surface(every, bad):
    a = A.copy()
    a[0, 1] = bad
    for name, (values, _) in jax.device_get(every(a, BB, C, T, OPTIONS)).items():
        assert not np.isfinite(values[0]), name


@pytest.mark.parametrize("loss", [losses.decoupled_info_nce, functools.partial(losses.debiased_info_nce, positive_prior=0.1)])
def test_nan_surfaces_where_there_is_nothing_to_compare_with(loss):
    a = A.copy()
    a[0, 1] = np.nan
    values = loss(a, BB, temperature=0.5, ids=np.zeros(B, np.int32))
    assert np.flatnonzero(np.isnan(values)).tolist() == [0, B] and not np.any(values[1:B])


def test_nothing_valid_gives_zeros(every):
    for name, (values, gradients) in jax.device_get(every(A, BB, C, T, OPTIONS | dict(where=~VALID))).items():
        assert not values.any(), name
        assert not any(np.any(g) for g in gradients), name


def test_zero_vectors_have_finite_values_and_no_gradient(every, raw):
    a, b, c = A.copy(), BB.copy(), C.copy()
    a[0], b[0], b[3], c[1] = 0, 0, 0, 0
    for name, (values, gradients) in jax.device_get(every(a, b, c, np.float32(0.005), OPTIONS)).items():
        assert np.isfinite(values).all() and all(np.isfinite(g).all() for g in gradients), name
        assert name in raw or not (gradients[0][0].any() or gradients[1][3].any() or gradients[2][1].any()), name


def test_values_do_not_fall_below_zero_at_low_temperature(every):
    x = np.eye(B, D, dtype=np.float32) + 1e-3 * A
    found = jax.device_get(every(x, x * 3, C, np.float32(0.005), OPTIONS))
    for name in set(found) - {"simple_contrastive", "uniformity", "decoupled_info_nce", "info_max"}:
        assert found[name][0].min() >= -2e-5, name
    for name in ("negatives alone", "hard_contrastive", "grouped_info_nce", "positives apart"):
        assert found[name][0].min() >= 0, name


def test_one_row_has_nothing_to_tell_apart(every_loss):
    names = "symmetric_info_nce", "nt_xent", "sup_con", "positives outside", "positives apart", "uniformity"
    names += "decoupled_info_nce", "hard_negative_info_nce"
    options = dict(where=None, ids=None, labels=np.zeros(1, int))

    def total(a, b, name):
        found = every_loss[name](a, b, options, T, None)
        return jnp.sum(found.values if isinstance(found, losses.Masked) else found)

    def found(a, b):
        return {name: jax.value_and_grad(total)(a, b, name) for name in names}

    for name, (value, gradient) in jax.jit(found, compiler_options=QUICKLY)(A[:1], BB[:1]).items():
        assert value == 0, name
        np.testing.assert_array_equal(gradient, 0, err_msg=name)


def test_an_empty_batch_has_no_values_and_zero_for_the_whole(every_loss):
    no_ids, edges = np.zeros(0, int), (np.zeros(0, int), np.zeros(0, int), np.zeros(0, np.float32))
    options = dict(where=VALID[:0], ids=no_ids, labels=no_ids, negatives=C, negative_ids=np.arange(3), bank=C)

    def found(a, b):
        values = {name: loss(a, b, options, T, None) for name, loss in every_loss.items()}
        for mining in ("all", "semi_hard", "hard"):
            values[mining] = losses.triplet_margin(a, no_ids, margin=T, mining=mining, implementation="blockwise")
        values["meta nodes"] = losses.meta_node_contrast(a, no_ids, *edges, temperature=T, num_clusters=2)
        values["graph"] = losses.graph_info_nce(a, *edges, temperature=T)
        return {name: (x.values if isinstance(x, losses.Masked) else x) for name, x in values.items()}

    for name, values in jax.jit(found, compiler_options=QUICKLY)(A[:0], BB[:0]).items():
        assert values.shape == (0,) or values == 0, name


def test_no_positive_gives_zero_and_is_left_out():
    labels = np.arange(B)

    def total(a):
        alone = losses.sup_con(a, labels, temperature=T), losses.multi_positive_info_nce(a, BB, labels, labels + B, temperature=T, combine="inside")
        weights = np.zeros((B, 1), bool)
        return losses.mean(alone[0]) + losses.mean(alone[1]), (
            alone,
            losses.grouped_info_nce(a, BB[:, None], BB[:, None], temperature=T, positive_weights=weights),
        )

    (value, (alone, listed)), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(A)
    assert value == 0 and not alone[0].where.any() and not alone[1].where.any() and not listed.any()
    np.testing.assert_array_equal(gradient, 0)


def test_nothing_to_compare_with_gives_zero_with_finite_gradients():
    ids = np.zeros(B, int)
    options = dict(ids=ids, negatives=C, negative_ids=np.zeros(3, int))

    def found(a, t):
        values = (
            losses.info_nce(a, BB, temperature=t, in_batch=False, **options),
            losses.info_nce(a, BB, temperature=t, label_smoothing=0.3, **options),
            losses.hard_contrastive(a, BB, k=4, temperature=t, **options),
            losses.simple_contrastive(a, BB, **options) + losses.alignment(a, BB, power=2) / -2 + 1,
            losses.simple_contrastive(a, BB, k=4, **options) + losses.alignment(a, BB, power=2) / -2 + 1,
            losses.grouped_info_nce(a, BB[:, None], BB[:, None], temperature=t, negative_weights=np.zeros(1, bool)),
        )
        return sum(jnp.sum(v) for v in values), jnp.stack(values)

    (_, values), gradients = jax.jit(jax.value_and_grad(found, argnums=(0, 1), has_aux=True))(A, T)
    np.testing.assert_allclose(values, 0, atol=2e-6)
    assert all(np.isfinite(g).all() for g in gradients)


def test_fewer_negatives_than_k_are_all_taken():
    ids = np.array([0, 0, 0, 1, 1, 2])
    found = jax.jit(lambda a, b: (losses.hard_contrastive(a, b, k=5, temperature=T, ids=ids), losses.info_nce(a, b, temperature=T, ids=ids)))
    np.testing.assert_allclose(*found(A, BB), rtol=1e-5, atol=1e-5)


def test_a_list_entry_of_weight_zero_may_hold_anything():
    positives, negatives = np.stack([BB, np.full_like(BB, np.nan)], axis=1), np.stack([np.full_like(BB, np.inf), A[::-1]], axis=1)

    def total(a, positives, negatives):
        return losses.grouped_info_nce(
            a, positives, negatives, temperature=T, positive_weights=np.array([1.0, 0.0], np.float32), negative_weights=np.array([False, True])
        ).sum()

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(A, positives, negatives)
    clean = jax.jit(lambda a: losses.grouped_info_nce(a, BB[:, None], A[::-1][:, None], temperature=T).sum())(A)
    np.testing.assert_allclose(value, clean, rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)


# Ids.


def kept_with(ids, key_ids=None):
    """Which keys each query is compared with: key j has score log 2^j, so the sum in the denominator is a binary number."""
    keys = np.log(2.0 ** np.arange(len(ids)), dtype=np.float32)[:, None]
    options = dict(temperature=1.0, ids=ids, key_ids=key_ids, similarity="dot")
    values = jax.jit(lambda: losses.info_nce(np.ones_like(keys), keys, **options), compiler_options=QUICKLY)()
    total = np.round(np.exp(values + keys[:, 0])).astype(int)
    return (total[:, None] >> np.arange(len(ids))) % 2 == 1


BIG = 2**31


@pytest.mark.parametrize(
    "ids",
    [
        np.array([BIG - 1, BIG - 2, BIG - 1, 5], np.int32),
        np.array([BIG - 1, BIG - 2, BIG - 1, -1], np.int32),
        np.array([BIG + 1, BIG, BIG + 1, BIG - 1], np.uint32),
        np.array([2**32 - 1, BIG, 2**32 - 1, 0], np.uint32),
        np.array([BIG + 1, BIG, BIG + 1, BIG - 1], np.int64),
        np.array([250, 251, 250, 3], np.uint8),
    ],
    ids=str,
)
def test_ids_are_compared_as_whole_numbers(ids):
    different = ids[:, None] != ids[None]
    np.testing.assert_array_equal(kept_with(ids), different | np.eye(4, dtype=bool))


@pytest.mark.parametrize("dtype, padding", [(np.int32, -1), (np.int8, -1), (np.uint32, 2**32 - 1)])
def test_padding_of_sets_never_meets(dtype, padding):
    sets = np.array([[1, padding], [padding, padding], [2, 1], [3, padding]], dtype)
    expected = np.ones((4, 4), bool)
    expected[0, 2] = expected[2, 0] = False
    np.testing.assert_array_equal(kept_with(sets), expected)
    np.testing.assert_array_equal(kept_with(sets, np.array([5, 1, 2, 9])), ~np.array([[0, 1, 0, 0], [0] * 4, [0, 1, 0, 0], [0] * 4], bool))


def test_ids_of_two_dtypes_meet_only_where_the_numbers_are_equal():
    signed, unsigned = np.array([-5, 7, 3], np.int32), np.array([7, 2**32 - 5, 8], np.uint32)  # 2^32 - 5 has the bits of -5
    np.testing.assert_array_equal(kept_with(signed, unsigned), [[True, True, True], [False, True, True], [True, True, True]])


def test_label_smoothing_may_be_traced():
    loss = lambda s: losses.info_nce(A, BB, temperature=T, label_smoothing=s)  # noqa: E731
    traced = jax.jit(jax.vmap(loss))(jnp.array([0.0, 0.2]))
    np.testing.assert_allclose(traced, jax.jit(lambda: [loss(0.0), loss(0.2)])(), rtol=1e-5)


def test_temperature_of_each_pair_is_that_of_its_anchors():
    temperatures = np.linspace(0.1, 0.6, B, dtype=np.float32)
    ways = dict(symmetric=losses.symmetric_info_nce, nt_xent=losses.nt_xent, one_way=losses.info_nce)

    def found(a, b):
        many = {name: loss(a, b, temperature=temperatures) for name, loss in ways.items()}
        one = {name: jax.lax.map(lambda t, loss=loss: loss(a, b, temperature=t), temperatures) for name, loss in ways.items()}
        return many, one

    many, one = jax.jit(found)(A, BB)
    for name, values in many.items():
        rows = np.arange(len(values))
        np.testing.assert_allclose(values, one[name][rows % B, rows], rtol=1e-5, err_msg=name)
