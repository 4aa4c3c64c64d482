"""Texts as tokens: how much they repeat themselves, and how they stand to what a model expects."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from cljax import losses
from cljax.core import check
from cljax.losses import Masked

Where = Bool[ArrayLike, "... T"] | None


def rep_n(tokens: Int[ArrayLike, "... T"], n: int, *, where: Where = None) -> Float[Array, ""]:
    r"""The share of n-grams that repeat an earlier one of the same text, $1 - \sum_i \text{unique}_i \,/\, \sum_i \text{all}_i$ over texts i.

    A fraction; some papers print percent. The counts are summed over the texts before they are divided, as in the released code, so long texts weigh
    more. That code drops each text's last n-gram, which is the same as to give this function the texts without their last token.

    Args:
      tokens: integers `[..., T]`, a text a row.
      n: the length of an n-gram, at least 1.
      where: `[..., T]` booleans, the tokens that count; the others are as good as deleted.

    Returns:
      A float32 scalar in [0, 1); 0 where there is no n-gram.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Welleck et al., "Neural Text Generation with Unlikelihood Training", ICLR 2020 (seq-rep-n); over a corpus Su & Collier, "Contrastive Search Is
      What You Need For Neural Text Generation", TMLR 2023, section 5.

    >>> print(f"{rep_n(jnp.array([[0, 1, 2, 0, 1, 2, 0, 1, 2, 3]]), 2):.4f}")
    0.5556
    """
    check.integer("n", n, at_least=1)
    tokens, length = _texts(tokens, where)
    places = max(0, tokens.shape[-1] - n + 1)
    beyond = jnp.arange(places) > length - n
    grams = lax.sort([beyond, *(tokens[:, i : i + places] for i in range(n))], num_keys=n + 1)
    first = jnp.pad(jnp.any(jnp.stack([gram[:, 1:] != gram[:, :-1] for gram in grams]), axis=0), ((0, 0), (1, 0)), constant_values=True)
    count = jnp.sum(~beyond, dtype=jnp.float32)
    return 1 - jnp.where(count == 0, 1, jnp.sum(first[:, :places] & ~grams[0], dtype=jnp.float32) / jnp.maximum(count, 1))


def diversity(tokens: Int[ArrayLike, "... T"], *, where: Where = None) -> Float[Array, ""]:
    r"""How little texts repeat themselves, $\prod_{n=2}^4 (1 - \text{rep}_n)$.

    Args:
      tokens, where: as in `rep_n`.

    Returns:
      A float32 scalar, from nearly 0 for a text that goes in circles to 1.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      Su et al., "A Contrastive Framework for Neural Text Generation", NeurIPS 2022, section 4.1.

    >>> print(f"{diversity(jnp.array([[0, 1, 2, 0, 1, 2, 0, 1, 2, 3]])):.6f}")
    0.126984
    """
    value = jnp.float32(1)
    for n in (2, 3, 4):
        value *= 1 - rep_n(tokens, n, where=where)
    return value


def zipf(tokens: Int[ArrayLike, "... T"], *, where: Where = None, top: int | None = None) -> Float[Array, ""]:
    r"""The exponent of Zipf's law, minus the slope of the least squares line of $\log$ frequency on $\log$ rank; about 1 in natural text.

    Args:
      tokens: integers `[..., T]`; frequencies are of all texts together.
      where: `[..., T]` booleans, the tokens that count.
      top: how many of the most frequent tokens make the line, at least 2; None: all that occur.

    Returns:
      A float32 scalar; NaN where there are not two different tokens.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020, section 5.1.

    >>> print(f"{zipf(jnp.array([[0, 0, 0, 0, 1, 1]])):.4f}")
    1.0000
    """
    if top is not None:
        check.integer("top", top, at_least=2)
    tokens, length = _texts(tokens, where)
    beyond, tokens = (part.ravel() for part in (jnp.arange(tokens.shape[1]) >= length, tokens))
    beyond, tokens = lax.sort([beyond, tokens], num_keys=2)
    kind = jnp.cumsum(jnp.pad(tokens[1:] != tokens[:-1], (1, 0)) & ~beyond)
    counts = -jnp.sort(-jax.ops.segment_sum(jnp.where(beyond, 0.0, 1.0), kind, num_segments=len(tokens)))
    rank = jnp.arange(1, len(tokens) + 1, dtype=jnp.float32)
    kept = (counts > 0) & (rank <= (len(tokens) if top is None else top))
    x, y = (jnp.log(jnp.where(kept, value, 1)) for value in (rank, counts))
    x = jnp.where(kept, x - jnp.sum(x) / jnp.sum(kept), 0)
    return -jnp.sum(x * y) / jnp.sum(x * x)


def entropy_deviation(logits: Float[ArrayLike, "... T V"], tokens: Int[ArrayLike, "... T"]) -> Float[Array, "... T"]:
    r"""How much less surprising each token is than was to be expected, $\delta_t = H_t + \log p_t(y_t)$, in nats: 0 is a typical token.

    $H_t = -\sum_v p_t(v) \log p_t(v)$ is the mean surprisal of what the model itself would write, so $\delta$ has the mean 0 there; over natural text
    its mean is minus what the model lacks in calibration.

    Args:
      logits: `[..., T, V]`; those at t predict token t.
      tokens: integers `[..., T]`.

    Returns:
      float32 `[..., T]`; -inf where a token is impossible, NaN where it is outside the vocabulary.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      Meister et al., "Locally Typical Sampling", TACL 2023, section 4.

    >>> print(f"{entropy_deviation(jnp.log(jnp.array([[0.5, 0.25, 0.25]])), jnp.array([0]))[0]:.4f}")
    0.3466
    """
    surprisal = losses.token_cross_entropy(logits, tokens).values
    log_p = jax.nn.log_softmax(jnp.asarray(logits, surprisal.dtype), axis=-1)
    entropy = -jnp.sum(jnp.where(log_p == -jnp.inf, 0, jnp.exp(log_p) * log_p), axis=-1)
    return entropy - surprisal


def coherence(logits: Float[ArrayLike, "... T V"], tokens: Int[ArrayLike, "... T"], *, where: Where = None) -> Masked:
    r"""How likely another model finds a continuation of its prompt: the mean of $\log p(y_t \mid \text{prompt}, y_{<t})$ over a text's tokens.

    Args:
      logits: `[..., T, V]` of the other model; those at t predict token t (`decoding.continuation_logits` gives them).
      tokens: integers `[..., T]`, the continuations.
      where: `[..., T]` booleans, the tokens that count. None: all.

    Returns:
      `Masked` of `[...]`, one value a text, in nats a token; `losses.mean` gives that of a corpus. A text without a token doesn't count.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      Su & Collier, "Contrastive Search Is What You Need For Neural Text Generation", TMLR 2023, section 5.1.

    >>> logits = jnp.log(jnp.array([[[0.5, 0.5], [0.125, 0.875]]]))
    >>> print(f"{coherence(logits, jnp.array([[1, 0]])).values[0] / jnp.log(2):.4f}")
    -2.0000
    """
    _check(tokens, where)
    surprisal, kept = losses.token_cross_entropy(logits, tokens, where)
    count = jnp.sum(kept, axis=-1)
    return Masked(-jnp.sum(surprisal, axis=-1) / jnp.maximum(count, 1), count > 0)


def answer_behind(tokens: Int[ArrayLike, "*batch T"], mark: int, length: int) -> Int[Array, "*batch length"]:
    """What a text says behind a mark: the answer that can be read off a rationale, to be compared with the right one or voted on.

    Args:
      tokens: integers `[..., T]`, a text a row, such as what `decoding.generate` writes.
      mark: the token before the answer; the first one of a text counts.
      length: how many tokens an answer has at most.

    Returns:
      int32 `[..., length]`, the tokens behind the mark; -1 where the text ends, and everywhere where it has no mark.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Cobbe et al., "Training Verifiers to Solve Math Word Problems" (GSM8K), 2021, whose answers stand behind "####".

    >>> answer_behind(jnp.array([[5, 1, 9, 4, 2], [9, 3, 9, 0, 0], [5, 5, 5, 5, 9], [1, 2, 3, 4, 5]]), 9, 2).tolist()
    [[4, 2], [3, 9], [-1, -1], [-1, -1]]
    """
    check.arrays(tokens=(tokens, "... T", "int"))
    check.integer("mark", mark)
    check.integer("length", length, at_least=1)
    tokens = jnp.asarray(tokens).astype(jnp.int32)
    marked = tokens == mark
    place = jnp.where(jnp.any(marked, axis=-1), jnp.argmax(marked, axis=-1), tokens.shape[-1])[..., None] + 1 + jnp.arange(length)
    return jnp.take_along_axis(tokens, place, axis=-1, mode="fill", fill_value=-1)


def _check(tokens, where):
    check.arrays(tokens=(tokens, "... T", "int"), where=(where, "... T?", "bool"))
    if where is not None and jnp.shape(where) != jnp.shape(tokens):
        raise ValueError(f"where must have shape {list(jnp.shape(tokens))} as tokens, got {list(jnp.shape(where))}")


def _texts(tokens, where):
    """Texts `[R, T]` whose tokens that count come first, and how many those are, `[R, 1]`."""
    _check(tokens, where)
    tokens = jnp.reshape(tokens, (-1, jnp.shape(tokens)[-1]))
    if where is None:
        return tokens, jnp.full((len(tokens), 1), tokens.shape[1])
    where = jnp.reshape(where, tokens.shape)
    return jnp.take_along_axis(tokens, jnp.argsort(~where, axis=1, stable=True), axis=1), jnp.sum(where, axis=1, keepdims=True)
