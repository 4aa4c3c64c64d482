"""Texts out of corpora: how often each is drawn from, and a stream of tokens in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int32, Integer, Num, Shaped

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.samplers.active import shuffled_rows


def corpus_mixture(sizes: Num[ArrayLike, " C"], exponent: Num[ArrayLike, ""]) -> Float[Array, " C"]:
    r"""How often an example comes from each corpus, $p_c \propto n_c^\alpha$.

    Exponent 1 takes all examples alike, 0 all corpora; between them small corpora are seen more often than their share. `mixture_rows`
    draws by it.

    Args:
      sizes: `[C]` numbers, how much each corpus holds; an empty one is never drawn.
      exponent: $\alpha$.

    Returns:
      float32 `[C]`, with sum 1.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range, or nothing in any corpus.

    Reference: Conneau & Lample, "Cross-lingual Language Model Pretraining", NeurIPS 2019, section 3.1; Izacard et al., "Unsupervised Dense
    Information Retrieval with Contrastive Learning" (Contriever), TMLR 2022 (exponent 0).

    >>> print(corpus_mixture(jnp.array([900, 100]), 0.5).round(4))
    [0.75 0.25]
    """
    check.arrays(sizes=(sizes, "C", "number"), exponent=(exponent, "", "number"))
    if not isinstance(sizes, jax.core.Tracer):
        check.number("sizes", sizes, at_least=0, several=True)
        if not np.any(np.asarray(sizes) > 0):
            raise ValueError(f"sizes must hold one above 0, got {np.asarray(sizes).tolist()}")
    sizes = jnp.asarray(sizes, jnp.float32)
    log_weights = jnp.where(sizes > 0, exponent * jnp.log(jnp.where(sizes > 0, sizes, 1)), -jnp.inf)
    return jax.nn.softmax(log_weights)


def mixture_rows(key: KeyLike, sizes: Integer[ArrayLike, " C"], count: int, *, exponent: Num[ArrayLike, ""] = 0.0) -> Integer[Array, " count"]:
    r"""Rows of corpora that lie one behind the other: each draws its corpus first, by $p_c \propto n_c^\alpha$, and then any row of it.

    Rows are drawn with replacement.

    Args:
      key: a PRNG key.
      sizes: `[C]` integers, the rows of each corpus; an empty one is never drawn from.
      count: how many rows.
      exponent: $\alpha$, as in `corpus_mixture`.

    Returns:
      int32 `[count]`, from 0 to the sum of the sizes - 1.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range, or nothing in any corpus.

    Reference: Izacard et al., "Unsupervised Dense Information Retrieval with Contrastive Learning" (Contriever), TMLR 2022, section 4.

    >>> rows = mixture_rows(jax.random.key(0), jnp.array([900, 100]), 1000)
    >>> 400 < int((rows >= 900).sum()) < 600
    True
    """
    check.key("key", key)
    check.arrays(sizes=(sizes, "C", "int"))
    check.integer("count", count, at_least=0)
    shares, sizes = corpus_mixture(sizes, exponent), jnp.asarray(sizes)
    k_corpus, k_row = jax.random.split(key)
    corpus = jax.random.choice(k_corpus, len(sizes), (count,), p=shares)
    ends = jnp.cumsum(sizes)
    return jax.random.randint(k_row, (count,), (ends - sizes)[corpus], ends[corpus], jnp.int32)


def corpus_batch(
    key: KeyLike, order: KeyLike, sizes: Integer[ArrayLike, " C"], batch: int, step: Integer[ArrayLike, ""], *, exponent: Num[ArrayLike, ""] = 0.0
) -> Int32[Array, " batch"]:
    r"""The rows of a batch out of one corpus of several that lie one behind the other: which one is drawn by $p_c \propto n_c^\alpha$.

    So an example's negatives are of its own language. The rows of a corpus come in shuffled epochs, at the places that they would have if it were
    drawn at every step: a batch may have those of an epoch's end and of the next one's beginning, and a small corpus some of them twice.

    Args:
      key: a PRNG key, another one at each step, which draws the corpus.
      order: a PRNG key, the same at every step, which shuffles.
      sizes: `[C]` integers, the rows of each corpus; an empty one is never drawn from.
      batch: how many rows.
      step: t, from 0 on; may be traced.
      exponent: $\alpha$, as in `corpus_mixture`.

    Returns:
      int32 `[batch]`, from 0 to the sum of the sizes - 1.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range, or nothing in any corpus.

    Reference: Conneau & Lample, "Cross-lingual Language Model Pretraining", NeurIPS 2019, section 3.1.

    >>> rows = corpus_batch(jax.random.key(0), jax.random.key(1), jnp.array([0, 4]), 4, 0)
    >>> sorted(rows.tolist())
    [0, 1, 2, 3]
    """
    check.key("key", key)
    check.key("order", order)
    check.arrays(sizes=(sizes, "C", "int"), step=(step, "", "int"))
    check.number("step", step, at_least=0)
    check.integer("batch", batch, at_least=1)
    shares, sizes = corpus_mixture(sizes, exponent), jnp.asarray(sizes)
    corpus = jax.random.choice(key, len(sizes), p=shares)
    row = shuffled_rows(order, sizes[corpus], step * batch + jnp.arange(batch))
    return ((jnp.cumsum(sizes) - sizes)[corpus] + row).astype(jnp.int32)


def chunk_stream(tokens: Shaped[ArrayLike, " N"], length: int, offset: Integer[ArrayLike, ""] = 0) -> Shaped[Array, "chunks length"]:
    """A stream of tokens, all texts of a corpus one after the other, cut into chunks of one length from an offset on.

    With another offset from `range(length)` in each epoch, texts are cut at other places; how many chunks there are doesn't depend on it, so up to
    2 (length - 1) tokens are left out.

    Args:
      tokens: `[N]`.
      length: of a chunk, at most (N + 1) / 2.
      offset: from 0 to `length - 1`; may be traced.

    Returns:
      `[(N - length + 1) // length, length]`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Izacard et al., "Unsupervised Dense Information Retrieval with Contrastive Learning" (Contriever), TMLR 2022, released code.

    >>> chunk_stream(jnp.arange(8), 3, offset=2).tolist()
    [[2, 3, 4], [5, 6, 7]]
    """
    total = check.arrays(tokens=(tokens, "N", None), offset=(offset, "", "int"))["N"]
    check.integer("length", length, at_least=1, at_most=(total + 1) // 2)
    check.number("offset", offset, at_least=0, at_most=length - 1)
    count = (total - length + 1) // length
    return lax.dynamic_slice_in_dim(jnp.asarray(tokens), offset, count * length).reshape(count, length)


def stream_windows(key: KeyLike, tokens: Shaped[ArrayLike, " N"], count: int, length: int) -> Shaped[Array, "count length"]:
    """Windows of a stream of tokens that begin anywhere, each place alike often; two may overlap.

    Args:
      key: a PRNG key.
      tokens: `[N]`.
      count: how many windows.
      length: of a window, at most N.

    Returns:
      `[count, length]`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> jnp.diff(stream_windows(jax.random.key(0), jnp.arange(9), 2, 4)).tolist()
    [[1, 1, 1], [1, 1, 1]]
    """
    check.key("key", key)
    total = check.arrays(tokens=(tokens, "N", None))["N"]
    check.integer("count", count, at_least=0)
    check.integer("length", length, at_least=1, at_most=total)
    start = jax.random.randint(key, (count, 1), 0, total - length + 1)
    return jnp.asarray(tokens)[start + jnp.arange(length)]
