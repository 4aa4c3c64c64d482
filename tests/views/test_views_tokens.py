"""Views of token ids: what each may change, and how often it does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cljax import views

KEY = jax.random.key(11)
B, L = 2000, 12
COUNTS = np.arange(B) % L + 1  # texts of every length from 1 to L
MASK = np.arange(L) < COUNTS[:, None]
IDS = np.where(MASK, 100 + np.arange(L), 7).astype(np.int32)  # each token says where it stood; padding is 7
FULL = np.ones((B, L), bool)
ALL = np.broadcast_to(100 + np.arange(L, dtype=np.int32), (B, L))
FIRST, TYPES = 3, np.array([1, 2, 9])  # special places at the front; ids of types
TYPE_TOKENS = np.broadcast_to(np.take(TYPES, np.arange(L) % 3), (B, L)).astype(np.int32)
ELIGIBLE = np.broadcast_to(np.arange(L) >= FIRST, (B, L))
SODA = dict(types=TYPES, mask_id=5, vocabulary=(200, 300), eligible=ELIGIBLE)


def views_of(key, ids, mask, types, eligible, index, ratio, rate):
    of = dict(index=index)
    return {
        "crop": views.crop_tokens(key, ids, mask, ratio=ratio, at_least=2, length=8, pad_id=-1, **of),
        "cloze": views.inverse_cloze(key, ids, mask, ratio=ratio, keep=0.3, **of),
        "delete": views.delete_tokens(key, ids, mask, rate, eligible=eligible, pad_id=7, **of),
        "bert": views.replace_tokens(key, ids, mask, rate, to=5, vocabulary=(200, 300), eligible=eligible, **of),
        "random": views.replace_tokens(key, ids, mask, rate, to=None, vocabulary=4, share=0.0, random_share=1.0, **of),
        "type": views.replace_tokens(key, ids, mask, rate, to=types, random_share=0.0, **of),
        "soda": views.soda(key, ids, mask, types, rate, index=index, **SODA | dict(eligible=eligible)),
    }


compiled = jax.jit(views_of)  # all views in one program


def every(key=KEY, ids=IDS, mask=MASK, types=TYPE_TOKENS, eligible=ELIGIBLE, index=np.arange(B), ratio=(0.2, 0.9), rate=0.3):  # noqa: B008
    return jax.device_get(compiled(key, ids, mask, types, eligible, index, ratio, rate))


@pytest.fixture(scope="module")
def found():
    return every()


def even(counts, expected=None):
    """Whether counts are as expected (evenly, where nothing is said) by a chi-square test."""
    counts = np.asarray(counts)
    expected = np.full(len(counts), counts.sum() / len(counts)) if expected is None else np.asarray(expected) * counts.sum() / np.sum(expected)
    return stats.chisquare(counts, expected).pvalue > 1e-3


def texts(ids, mask):
    """The tokens of each text as a list of places; nothing may stand behind a gap."""
    assert (np.sort(~mask, axis=1) == ~mask).all()
    return [(row[: m.sum()] - 100).tolist() for row, m in zip(ids, mask, strict=True)]


def test_a_crop_is_a_span_of_the_length_asked_for_and_padded(found):
    ids, mask = found["crop"]
    assert ids.shape == (B, 8) and (ids[~mask] == -1).all() and ids.dtype == np.int32
    for count, span in zip(COUNTS, texts(ids, mask), strict=True):
        assert span == list(range(span[0], span[0] + len(span))) and span[-1] < count
        assert min(count, max(2, int(0.2 * count))) <= len(span) <= min(8, max(2, int(0.9 * count)), count)


def test_the_places_and_the_lengths_of_crops_are_even():
    ids, mask = every(ids=ALL, mask=FULL, ratio=(0.25, 0.25))["crop"]
    starts = np.array([span[0] for span in texts(ids, mask)])
    assert (mask.sum(1) == 3).all() and even(np.bincount(starts, minlength=10))
    ids, mask = every(ids=ALL, mask=FULL, ratio=(0.25, 0.75))["crop"]
    assert even(np.bincount(mask.sum(1))[3:9])  # 3 to 8 tokens


def test_a_cloze_and_its_span_make_up_the_text_or_it_stays_as_often_as_asked(found):
    (q, q_mask), (k, k_mask) = found["cloze"]
    long = COUNTS > 1
    whole = k_mask.sum(1) == COUNTS
    assert whole[~long].all() and stats.binomtest(int(whole[long].sum()), int(long.sum()), 0.3).pvalue > 1e-3
    for count, span, rest, all_of_it in zip(COUNTS, texts(q, q_mask), texts(k, k_mask), whole, strict=True):
        assert span == list(range(span[0], span[0] + len(span))) and len(span) <= max(1, count - 1)
        assert rest == [i for i in range(count) if all_of_it or i not in span]


def test_deletion_keeps_the_order_and_what_is_not_eligible(found):
    rows = texts(*found["delete"])
    assert all(sorted(set(row)) == row and row[-1] < count for row, count in zip(rows, COUNTS, strict=True))
    kept = np.bincount(np.concatenate([row for row, count in zip(rows, COUNTS, strict=True) if count == L]), minlength=L)
    total = int((COUNTS == L).sum())
    assert (kept[:FIRST] == total).all() and even(kept[FIRST:])
    assert stats.binomtest(int(kept[FIRST:].sum()), total * (L - FIRST), 0.7).pvalue > 1e-3
    rows = texts(*every(rate=1.0)["delete"])
    assert all(row == list(range(min(count, FIRST))) for row, count in zip(rows, COUNTS, strict=True))


def test_at_rate_zero_nothing_changes():
    (ids, mask), *replaced, soda = (every(rate=0.0)[name] for name in ("delete", "bert", "random", "type", "soda"))
    np.testing.assert_array_equal(mask, MASK)
    for same in (ids, soda, *(same for same, _ in replaced)):
        np.testing.assert_array_equal(same, IDS)
    assert not any(chosen.any() for _, chosen in replaced)


def test_the_rule_of_bert(found):
    ids, chosen = found["bert"]
    allowed = MASK & ELIGIBLE
    assert not chosen[~allowed].any() and (ids[~chosen] == IDS[~chosen]).all()
    assert stats.binomtest(int(chosen.sum()), int(allowed.sum()), 0.3).pvalue > 1e-3
    masked, same, drawn = chosen & (ids == 5), chosen & (ids == IDS), chosen & (ids >= 200)
    assert even([masked.sum(), drawn.sum(), same.sum()], [0.8, 0.1, 0.1]) and (masked | same | drawn)[chosen].all()
    assert even(np.bincount(ids[drawn] // 20, minlength=15)[10:])  # 200 to 299 evenly


def test_random_replacement_and_replacement_by_type(found):
    ids, chosen = found["random"]
    assert even(np.bincount(ids[chosen], minlength=4)) and (ids[~chosen] == IDS[~chosen]).all()
    ids, chosen = found["type"]
    changed = ids != IDS
    assert (ids[changed] == TYPE_TOKENS[changed]).all() and not changed[~chosen].any()
    assert stats.binomtest(int(changed.sum()), int(chosen.sum()), 0.8).pvalue > 1e-3


@pytest.fixture(scope="module")
def sodas():
    """Many steps of each kind on few texts."""
    keys = jax.random.split(KEY, 300)
    few = slice(60, 72)
    options = SODA | dict(eligible=ELIGIBLE[few])

    def step(key):
        view = lambda **kind: views.soda(key, IDS[few], MASK[few], TYPE_TOKENS[few], 0.5, **kind, **options)  # noqa: E731
        return jax.vmap(lambda kind: view(kind=kind))(jnp.arange(4)), view()

    kinds, drawn = jax.device_get(jax.jit(jax.vmap(step))(keys))
    return few, kinds.swapaxes(0, 1), drawn


def test_soda_never_touches_what_is_not_eligible(sodas):
    few, kinds, drawn = sodas
    for ids in (*kinds, drawn):
        assert (ids != IDS[few]).any() and not (ids != IDS[few])[:, ~(MASK & ELIGIBLE)[few]].any()


def test_soda_masks_or_gives_way_to_the_type(sodas):
    few, (masks, types, one_type, mask_one), _ = sodas
    allowed, total = (MASK & ELIGIBLE)[few], 300 * (MASK & ELIGIBLE)[few].sum()
    assert set(np.unique(masks[masks != IDS[few]])) <= {5, *range(200, 300)}
    assert even([(masks == 5).sum(), total - (masks == 5).sum()], [0.4, 0.6])
    for ids in (types, one_type):
        changed = ids != IDS[few]
        assert (ids == TYPE_TOKENS[few])[changed].all()
    assert even([(types != IDS[few]).sum(), total - (types != IDS[few]).sum()], [0.4, 0.6])
    assert set(np.unique(mask_one[mask_one != IDS[few]])) == {5}
    for ids in (one_type, mask_one):  # one type a step, each equally often, and of its tokens as many as of all
        touched = [np.unique(TYPE_TOKENS[few][step != IDS[few]]) for step in ids]
        assert all(len(kinds) == 1 for kinds in touched)
        chosen = np.array([kinds[0] for kinds in touched])
        assert even([(chosen == t).sum() for t in TYPES])
        tried = sum((allowed & (TYPE_TOKENS[few] == t)).sum() for t in chosen)
        assert even([(ids != IDS[few]).sum(), tried - (ids != IDS[few]).sum()], [0.4, 0.6])


def test_soda_draws_each_kind_equally_often(sodas):
    few, _, drawn = sodas
    number = []
    for ids in drawn:
        changed = ids != IDS[few]
        of_type = len(np.unique(TYPE_TOKENS[few][changed])) == 1
        masked = (ids[changed] == 5).any()
        number.append(2 * of_type + masked)
    assert even(np.bincount(number, minlength=4))


def test_draws_hang_on_the_index_alone(found):
    order = np.random.default_rng(0).permutation(B)
    again = every(KEY, *(x[order] for x in (IDS, MASK, TYPE_TOKENS, ELIGIBLE)), order)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[order]), again, found)
    other = every(jax.random.key(12))
    assert all((other[name][0] != found[name][0]).any() for name in ("crop", "delete", "bert", "random", "type"))


def test_four_devices_make_the_views_of_one(found):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = dict(in_specs=(jax.P(), *[jax.P("data")] * 5, jax.P(), jax.P()), out_specs=jax.P("data"))
    split = jax.jit(jax.shard_map(views_of, mesh=mesh, **specs))(KEY, IDS, MASK, TYPE_TOKENS, ELIGIBLE, np.arange(B), (0.2, 0.9), 0.3)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(split), found)


def test_gaps_in_the_mask_and_empty_texts():
    mask = np.zeros((B, L), bool)
    mask[::2, [1, 3, 4]] = True
    got = every(mask=mask, eligible=FULL, ratio=(1.0, 1.0), rate=1.0)
    np.testing.assert_array_equal(got["crop"][0][[0, 1]], [[IDS[0, 1], IDS[0, 3], IDS[0, 4]] + [-1] * 5, [-1] * 8])
    assert got["crop"][1].sum(axis=1)[:2].tolist() == [3, 0]
    for (_, kept), count in ((got["delete"], 1), (got["cloze"][0], 2)):
        assert (kept.sum(axis=1)[::2] == count).all() and not kept[1::2].any()
    assert set(got["cloze"][1][1].sum(axis=1)[::2]) == {1, 3} and not got["cloze"][1][1][1::2].any()


def test_a_frame_stands_around_the_text_and_padding_behind_it():
    ids, mask = views.frame_tokens(jnp.array([[7, 8, 9], [7, 5, 5], [5, 5, 5]]), jnp.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]], bool), 2, 3, pad_id=1)
    assert ids.tolist() == [[2, 7, 8, 9, 3], [2, 7, 3, 1, 1], [2, 3, 1, 1, 1]] and mask.sum(axis=1).tolist() == [5, 3, 2]
    assert np.array_equal(mask, np.asarray(ids) != 1)
    assert views.frame_tokens(jnp.zeros((1, 2), jnp.int16), jnp.ones((1, 2), bool), 2, 3)[0].dtype == jnp.int16


def test_texts_are_joined_behind_their_first_token_to_each_of_a_list():
    query, documents = jnp.array([[2, 7, 3, 0]]), jnp.array([[[2, 8, 9, 3], [2, 5, 3, 0]]])
    ids, mask, types = views.join_tokens(query[:, None], query[:, None] > 0, documents, documents > 0)
    assert ids.tolist() == [[[2, 7, 3, 0, 8, 9, 3], [2, 7, 3, 0, 5, 3, 0]]] and np.array_equal(mask, np.asarray(ids) > 0)
    assert types.tolist() == [[[0, 0, 0, 0, 1, 1, 1]] * 2] and types.dtype == jnp.int32
    assert views.join_tokens(query, query > 0, query, query > 0, skip=0)[0].tolist() == [[2, 7, 3, 0, 2, 7, 3, 0]]


def test_ids_keep_their_dtype():
    shapes = jax.eval_shape(views_of, KEY, IDS.astype(np.uint16), MASK, TYPE_TOKENS, ELIGIBLE, np.arange(B), (0.2, 0.9), 0.3)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.uint16), jnp.dtype(bool)}


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: views.crop_tokens(KEY, IDS.astype(np.float32), MASK), TypeError, "ids must have dtype int, got float32"),
        (lambda: views.crop_tokens(KEY, IDS, MASK[:, :3]), ValueError, r"mask must have shape \[B, L\] with L = 12 as in ids, got \[2000, 3\]"),
        (lambda: views.crop_tokens(KEY, IDS, MASK.astype(int)), TypeError, "mask must have dtype bool"),
        (lambda: views.crop_tokens(KEY, IDS, MASK, ratio=(0.5, 0.1)), ValueError, "ratio must be a pair"),
        (lambda: views.crop_tokens(KEY, IDS, MASK, ratio=(0.5, 1.1)), ValueError, r"ratio\[1\] must be at least 0 and at most 1, got 1.1"),
        (lambda: views.crop_tokens(KEY, IDS, MASK, at_least=0), ValueError, "at_least must be at least 1, got 0"),
        (lambda: views.frame_tokens(IDS, MASK[:2], 2, 3), ValueError, r"mask must have shape \[B, L\] with B = 2000 as in ids, got \[2, 12\]"),
        (lambda: views.join_tokens(IDS, MASK, IDS, MASK, skip=13), ValueError, "skip must be at least 0 and at most 12, got 13"),
        (lambda: views.join_tokens(IDS, MASK, IDS, MASK[:, :3]), ValueError, r"other_mask must have shape"),
        (lambda: views.frame_tokens(IDS, MASK, 2.0, 3), TypeError, "first must have dtype int"),
        (lambda: views.inverse_cloze(KEY, IDS, MASK, length=0), ValueError, "length must be at least 1, got 0"),
        (lambda: views.inverse_cloze(KEY, IDS, MASK, keep=2), ValueError, "keep must be at least 0 and at most 1, got 2"),
        (lambda: views.delete_tokens(KEY, IDS, MASK, -0.1), ValueError, "rate must be at least 0 and at most 1, got -0.1"),
        (lambda: views.delete_tokens(0, IDS, MASK, 0.1), TypeError, "key must be a PRNG key"),
        (lambda: views.replace_tokens(KEY, IDS, MASK, 0.1, to=5), ValueError, "vocabulary must be given where tokens become random ones, got None"),
        (lambda: views.replace_tokens(KEY, IDS, MASK, 0.1, to=None, vocabulary=9), ValueError, "to must be given where share is not 0"),
        (lambda: views.replace_tokens(KEY, IDS, MASK, 0.1, to=5, vocabulary=(9, 9)), ValueError, "vocabulary must be at least 10, got 9"),
        (
            lambda: views.replace_tokens(KEY, IDS, MASK, 0.1, to=5, vocabulary=9, share=0.95),
            ValueError,
            "share and random_share must sum to at most",
        ),
        (lambda: views.replace_tokens(KEY, IDS, MASK, 0.1, to=TYPES, vocabulary=9), ValueError, r"to must have shape \[2000, 12\], got \[3\]"),
        (lambda: views.soda(KEY, IDS, MASK, TYPE_TOKENS[:4], 0.1, **SODA), ValueError, r"type_tokens must have shape \[2000, 12\], got \[4, 12\]"),
        (lambda: views.soda(KEY, IDS, MASK, TYPE_TOKENS, 0.1, kind=4, **SODA), ValueError, "kind must be at least 0 and at most 3, got 4"),
        (lambda: views.soda(KEY, IDS, MASK, TYPE_TOKENS, 0.1, **SODA | dict(types=TYPES[:0])), ValueError, "the number of types must be at least 1"),
        (lambda: views.soda(KEY, IDS, MASK, TYPE_TOKENS, 0.1, **SODA | dict(eligible=MASK[:2])), ValueError, r"eligible must have shape \[B, L\]"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
