"""What holds of every loss for any input: permutation, shift, scale, and that masking is deletion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cljax import losses

B, D, M, KEPT = 6, 4, 3, 4
T = np.float32(0.3)
seeds = st.integers(0, 2**32 - 1)


def drawn(seed):
    """Views, negatives, and a dict of all else in which some ids and labels repeat."""
    rng = np.random.default_rng(seed)
    a, b, c = (rng.normal(size=(n, D)).astype(np.float32) for n in (B, B, M))
    options = dict(where=rng.random(B) < 0.8, ids=rng.integers(0, 5, B), labels=rng.integers(0, 3, B), negative_ids=rng.integers(0, 5, M))
    return a, b, c, options, rng


def rows(x, order):
    """Rows in another order, or fewer; both halves of what has two views."""
    return x if len(x) not in (B, 2 * B) else x.reshape(-1, B, *x.shape[1:])[:, order].reshape(-1, *x.shape[1:])


def reordered(options, order):
    return {name: leaf if name == "negative_ids" else leaf[order] for name, leaf in options.items()}


def assert_close(found, expected, name):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=name)


@given(seeds)
def test_permuting_the_batch_permutes_values_and_gradients(every, seed):
    a, b, c, options, rng = drawn(seed)
    order, others = rng.permutation(B), rng.permutation(M)
    before = jax.device_get(every(a, b, c, T, options))
    moved = reordered(options, order) | dict(negative_ids=options["negative_ids"][others])
    for name, (values, gradients) in jax.device_get(every(a[order], b[order], c[others], T, moved)).items():
        assert_close(values, rows(before[name][0], order), name)
        for got, want in zip(gradients[:2], before[name][1][:2], strict=True):
            assert_close(got, want[order], name)


@given(seeds)
def test_masking_is_deletion(every, seed):
    a, b, c, options, rng = drawn(seed)
    kept = np.sort(rng.permutation(B)[:KEPT])
    where = np.isin(np.arange(B), kept)
    masked = jax.device_get(every(a, b, c, T, options | dict(where=where)))
    for name, (values, gradients) in jax.device_get(every(a[kept], b[kept], c, T, reordered(options | dict(where=where), kept))).items():
        assert_close(rows(masked[name][0], kept), values, name)
        for got, want in zip(masked[name][1], gradients, strict=True):
            assert_close(got if np.ndim(got) == 0 else rows(got, kept), want, name)
        assert not masked[name][1][0][~where].any() and not masked[name][1][1][~where].any(), name


@given(seeds)
def test_cosine_losses_do_not_see_lengths(every, raw, seed):
    a, b, c, options, rng = drawn(seed)
    scaled = [x * np.exp(rng.uniform(-6, 6, (len(x), 1))).astype(np.float32) for x in (a, b, c)]
    before, after = every(a, b, c, T, options), every(*scaled, T, options)
    for name in set(before) - set(raw):
        assert_close(after[name][0], before[name][0], name)


@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def of_longer_vectors(a, b, c, labels, entry):
    """Losses of vectors with one more entry, the same in all: it adds its square to every dot product."""
    a, b, c = (jnp.pad(x, ((0, 0), (0, 1)), constant_values=entry) for x in (a, b, c))
    how = dict(temperature=T, similarity="dot")
    return {
        "info_nce": losses.info_nce(a, b, negatives=c, label_smoothing=0.1, **how),
        "symmetric_info_nce": losses.symmetric_info_nce(a, b, **how),
        "nt_xent": losses.nt_xent(a, b, **how),
        "sup_con": losses.sup_con(a, labels, **how).values,
        "multi_positive_info_nce": losses.multi_positive_info_nce(a, b, labels, combine="inside", **how).values,
        "hard_contrastive": losses.hard_contrastive(a, b, k=2, **how),
        "simple_contrastive": losses.simple_contrastive(a, b, similarity="dot"),
    }


@given(seeds, st.floats(0, 3, width=32))
def test_softmax_losses_do_not_see_a_shift_of_all_scores(seed, entry):
    a, b, c, options, _ = drawn(seed)
    before, after = (of_longer_vectors(a, b, c, options["labels"], np.float32(x)) for x in (0, entry))
    for name in before:
        assert_close(after[name], before[name], name)
