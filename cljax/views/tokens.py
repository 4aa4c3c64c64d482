"""Views of texts: arrays of token ids with a mask, of which a part is cut out, left out or replaced.

`ids` `[B, L]` are integers, `mask` `[B, L]` is True where there is a token; what a mask leaves out is never changed and never counted. Shapes stay as
they are, so that one program serves all texts: a view that takes tokens away moves the others to the front and fills up with `pad_id`.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int32, Integer, Num

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.views import _images
from cljax.views.per_example import per_example

Ids = Integer[ArrayLike, "B L"]
Mask = Bool[ArrayLike, "B L"]
Index = Integer[ArrayLike, " B"] | None
Number = Num[ArrayLike, ""]
Text = tuple[Integer[Array, "B _"], Bool[Array, "B _"]]


def crop_tokens(
    key: KeyLike,
    ids: Ids,
    mask: Mask,
    *,
    index: Index = None,
    ratio: Sequence[Number] = (0.05, 0.5),
    at_least: int = 1,
    length: int | None = None,
    pad_id: int = 0,
) -> Text:
    r"""A random span of each text.

    Of n tokens the span has $\max(\text{at\_least}, \lfloor n r \rfloor)$ with $r \sim U(\text{ratio})$, but no more than n; it starts with equal
    probability at each place where it fits.

    Args:
      key: a PRNG key.
      ids, mask: `[B, L]`, the texts.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      ratio: the smallest and the largest share of a text.
      at_least: the shortest span.
      length: the width of the result, at which spans are cut; None is L.
      pad_id: what stands where there is no token.

    Returns:
      `(ids, mask)`, `[B, length]` each; the span stands at the front.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Izacard et al., "Unsupervised Dense Information Retrieval with Contrastive Learning" (Contriever), TMLR 2022, section 3.1 (independent
      cropping).

    >>> ids, mask = crop_tokens(jax.random.key(0), jnp.arange(10)[None], jnp.ones((1, 10), bool), ratio=(0.3, 0.3))
    >>> int(mask.sum()), (ids[0, 1:3] - ids[0, :2]).tolist()
    (3, [1, 1])
    """
    width = _check(key, ids, mask, index)
    _check_span(ratio, at_least)
    check.integer("length", width if length is None else length, at_least=1)
    return _crop(key, ids, mask, index, tuple(ratio), at_least, width if length is None else length, pad_id)


def frame_tokens(ids: Ids, mask: Mask, first: Integer[ArrayLike, ""], last: Integer[ArrayLike, ""], *, pad_id: int = 0) -> Text:
    """A token before each text and one behind it, such as `[CLS] … [SEP]` about a view, which lacks those of the text that it was cut out of.

    Args:
      ids, mask: `[B, L]`, the texts, which begin at the front and have no gaps, as `crop_tokens` and `delete_tokens` leave them.
      first, last: the ids of the two tokens.
      pad_id: what stands where there is no token.

    Returns:
      `(ids, mask)`, `[B, L + 2]` each.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    >>> ids, mask = frame_tokens(jnp.array([[7, 8], [7, 0]]), jnp.array([[True, True], [True, False]]), 2, 3)
    >>> ids.tolist(), mask.sum(axis=1).tolist()
    ([[2, 7, 8, 3], [2, 7, 3, 0]], [4, 3])
    """
    sizes = check.arrays(ids=(ids, "B L", "int"), mask=(mask, "B L", "bool"), first=(first, "", "int"), last=(last, "", "int"))
    count = jnp.sum(jnp.asarray(mask), axis=1, keepdims=True)
    places, ids = jnp.arange(sizes["L"] + 2), jnp.pad(jnp.asarray(ids), ((0, 0), (1, 1)))
    framed = jnp.where(places == 0, first, jnp.where(places <= count, ids, jnp.where(places == count + 1, last, pad_id)))
    return framed.astype(ids.dtype), places <= count + 1


def join_tokens(
    ids: Integer[ArrayLike, "*batch L"],
    mask: Bool[ArrayLike, "*batch L"],
    other_ids: Integer[ArrayLike, "*other M"],
    other_mask: Bool[ArrayLike, "*other M"],
    *,
    skip: int = 1,
) -> tuple[Integer[Array, "*both N"], Bool[Array, "*both N"], Int32[Array, "*both N"]]:
    """Two texts as one, for a cross-encoder that reads them together: `[CLS] … [SEP] … [SEP]` of two texts that are framed both.

    Where the first text ends with padding it stays where it is, under its mask.

    Args:
      ids, mask: `[..., L]`, the first texts.
      other_ids, other_mask: `[..., M]`, the second ones. Axes before the last are broadcast: a query `[B, 1, L]` is joined to each of its documents
        `[B, K, M]`.
      skip: how many tokens of the second texts are left out at their front; 1 is their `[CLS]`.

    Returns:
      `(ids, mask, types)`, `[..., L + M - skip]` each; types are 0 at the places of the first text and 1 behind.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Nogueira & Cho, "Passage Re-ranking with BERT", 2019, section 2.

    >>> ids, mask, types = join_tokens(jnp.array([2, 7, 3]), jnp.ones(3, bool), jnp.array([[2, 8, 3], [2, 9, 3]]), jnp.ones((2, 3), bool))
    >>> ids.tolist(), types.tolist()
    ([[2, 7, 3, 8, 3], [2, 7, 3, 9, 3]], [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]])
    """
    first = check.arrays(ids=(ids, "... L", "int"), mask=(mask, "... L", "bool"))["L"]
    size = check.arrays(other_ids=(other_ids, "... M", "int"), other_mask=(other_mask, "... M", "bool"))["M"]
    check.integer("skip", skip, at_least=0, at_most=size)
    lead = jnp.broadcast_shapes(jnp.shape(ids)[:-1], jnp.shape(other_ids)[:-1])
    sides = ((ids, other_ids), (mask, other_mask))
    ids, mask = (
        jnp.concatenate([jnp.broadcast_to(a, (*lead, first)), jnp.broadcast_to(jnp.asarray(b)[..., skip:], (*lead, size - skip))], axis=-1)
        for a, b in sides
    )
    return ids, mask, jnp.broadcast_to(jnp.arange(ids.shape[-1]) >= first, ids.shape).astype(jnp.int32)


def inverse_cloze(
    key: KeyLike,
    ids: Ids,
    mask: Mask,
    *,
    index: Index = None,
    ratio: Sequence[Number] = (0.05, 0.5),
    at_least: int = 1,
    length: int | None = None,
    keep: Number = 0.0,
    pad_id: int = 0,
) -> tuple[Text, Text]:
    """A random span of each text, as a query, and the text without it, as its key: the inverse cloze task.

    The span is drawn as by `crop_tokens`, but leaves a token over. A text of one token is its own key.

    Args:
      key: a PRNG key.
      ids, mask: `[B, L]`, the texts.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      ratio: the smallest and the largest share of a text that the span has.
      at_least: the shortest span.
      length: the width of the spans, at which they are cut; None is L.
      keep: the probability that the span stays in the key; published: 0.1.
      pad_id: what stands where there is no token.

    Returns:
      `(ids, mask)` of the spans, `[B, length]`, and `(ids, mask)` of what they leave, `[B, L]`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Lee et al., "Latent Retrieval for Weakly Supervised Open Domain Question Answering", ACL 2019, section 4 (of sentences).

    >>> (query, _), (rest, _) = inverse_cloze(jax.random.key(0), jnp.arange(1, 7)[None], jnp.ones((1, 6), bool), ratio=(0.5, 0.5))
    >>> sorted(query[0].tolist() + rest[0].tolist())
    [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    """
    width = _check(key, ids, mask, index)
    _check_span(ratio, at_least)
    check.integer("length", width if length is None else length, at_least=1)
    check.number("keep", keep, at_least=0, at_most=1)
    return _cloze(key, ids, mask, index, tuple(ratio), keep, at_least, width if length is None else length, pad_id)


def delete_tokens(key: KeyLike, ids: Ids, mask: Mask, rate: Number, *, index: Index = None, eligible: Mask | None = None, pad_id: int = 0) -> Text:
    """Leaves each token out with a probability; at least one stays.

    Args:
      key: a PRNG key.
      ids, mask: `[B, L]`, the texts.
      rate: the probability, from 0 to 1.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      eligible: `[B, L]` booleans, the tokens that may go; None is all.
      pad_id: what stands where there is no token.

    Returns:
      `(ids, mask)`, `[B, L]` each; what stays is moved to the front.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> ids, mask = delete_tokens(jax.random.key(0), jnp.arange(1, 5)[None], jnp.ones((1, 4), bool), 1.0)
    >>> mask.tolist(), ids[0, 1:].tolist()
    ([[True, False, False, False]], [0, 0, 0])
    """
    _check(key, ids, mask, index, eligible)
    check.number("rate", rate, at_least=0, at_most=1)
    return _delete(key, ids, mask, index, eligible, rate, pad_id)


def replace_tokens(
    key: KeyLike,
    ids: Ids,
    mask: Mask,
    rate: Number,
    *,
    to: Integer[ArrayLike, ""] | Ids | None,
    vocabulary: int | Sequence[int] | None = None,
    share: Number = 0.8,
    random_share: Number = 0.1,
    index: Index = None,
    eligible: Mask | None = None,
) -> tuple[Integer[Array, "B L"], Bool[Array, "B L"]]:
    """Chooses each token with a probability, and puts another in its place: a given one, a random one, or, for the rest of the chosen, the same.

    With the id of the mask token this is the rule of BERT's masked language model. `share=1, random_share=0` masks all that are chosen,
    `share=0, random_share=1` replaces them by random tokens, and `to` `[B, L]` gives each place its own, as the token that names its type.

    Args:
      key: a PRNG key.
      ids, mask: `[B, L]`, the texts.
      rate: the probability that a token is chosen, from 0 to 1.
      to: what takes the place of a token: one id, or `[B, L]`; None where `share` is 0.
      vocabulary: random ids are drawn from `range(vocabulary)`, or from `range(first, end)` of a pair.
      share: the share of the chosen that become `to`.
      random_share: the share of the chosen that become random ones; both sum to 1 at most.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      eligible: `[B, L]` booleans, the tokens that may be chosen: no special ones, say; None is all.

    Returns:
      The ids `[B, L]`, and `[B, L]` booleans, which were chosen, also of those that stayed: the places of a masked language model's loss.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; random tokens without a vocabulary.

    Reference:
      Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019, section 3.1.

    >>> ids, chosen = replace_tokens(jax.random.key(0), jnp.full((1, 4), 7), jnp.arange(4)[None] < 3, 1.0, to=1, share=1.0, random_share=0.0)
    >>> ids.tolist(), chosen.tolist()
    ([[1, 1, 1, 7]], [[True, True, True, False]])
    """
    _check(key, ids, mask, index, eligible)
    for name, value in (("rate", rate), ("share", share), ("random_share", random_share)):
        check.number(name, value, at_least=0, at_most=1)
    if not any(isinstance(x, jax.core.Tracer) for x in (share, random_share)) and share + random_share > 1 + 1e-6:
        raise ValueError(f"share and random_share must sum to at most 1, got {share} and {random_share}")
    if to is None and (isinstance(share, jax.core.Tracer) or share > 0):
        raise ValueError(f"to must be given where share is not 0, got None and share={share}")
    to = jnp.asarray(0 if to is None else to)
    check.arrays(to=(to, " ".join(map(str, jnp.shape(ids)[: 2 * (to.ndim > 0)])), "int"))
    return _replace(key, ids, mask, index, eligible, to, rate, share, random_share, _range(vocabulary, random_share))


def soda(
    key: KeyLike,
    ids: Ids,
    mask: Mask,
    type_tokens: Ids,
    rate: Number,
    *,
    types: Integer[ArrayLike, " T"],
    mask_id: int,
    vocabulary: int | Sequence[int],
    kind: Integer[ArrayLike, ""] | None = None,
    share: Number = 0.8,
    index: Index = None,
    eligible: Mask | None = None,
) -> Integer[Array, "B L"]:
    """Soft data augmentation of code: tokens are masked, or give way to the token that names their lexical type; one of four kinds for the batch.

    0, dynamic masking: the rule of BERT. 1, dynamic replacement: a share of the chosen tokens become the token of their type. 2 and 3, of one
    specified type: one of `types` is drawn for the whole batch, tokens of this type alone are chosen, and a share of them become the type's token (2)
    or the mask (3).

    Args:
      key: a PRNG key; it alone draws the kind and the type.
      ids, mask: `[B, L]`, the texts.
      type_tokens: `[B, L]`, for each place the id of the token that names its type.
      rate: the probability that a token is chosen, from 0 to 1; published: 0.15.
      types: `[T]`, the ids of all such tokens; each is equally likely.
      mask_id: the id of the mask token.
      vocabulary: random ids of kind 0 are drawn from `range(vocabulary)`, or from `range(first, end)` of a pair.
      kind: an integer from 0 to 3, such as `step % 4`, which may be traced; None draws one, each equally likely.
      share: the share of the chosen that are changed; of kind 0 a tenth more become random tokens.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      eligible: `[B, L]` booleans, the tokens that may be chosen: no special ones, say; None is all.

    Returns:
      The ids, `[B, L]`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Shi et al., "CoCoSoDa: Effective Contrastive Learning for Code Search", ICSE 2023, section III-B; the released code cycles through the kinds.

    >>> ids, types = jnp.array([[11, 12, 13]]), jnp.array([[2, 3, 2]])
    >>> options = dict(types=jnp.array([2, 3]), mask_id=1, vocabulary=20, share=1.0)
    >>> soda(jax.random.key(0), ids, ids > 0, types, 1.0, kind=1, **options).tolist()
    [[2, 3, 2]]
    """
    _check(key, ids, mask, index, eligible)
    check.arrays(type_tokens=(type_tokens, " ".join(map(str, jnp.shape(ids))), "int"), types=(types, "T", "int"), kind=(kind, "?", "int"))
    check.integer("the number of types", jnp.shape(types)[0], at_least=1)
    check.integer("mask_id", mask_id)
    if kind is not None:
        check.number("kind", kind, at_least=0, at_most=3)
    for name, value in (("rate", rate), ("share", share)):
        check.number(name, value, at_least=0, at_most=1)
    bounds = _range(vocabulary, 0.1)
    return _soda(key, ids, mask, index, eligible, type_tokens, jnp.asarray(types), kind, rate, share, bounds, mask_id)


@partial(jax.jit, static_argnames=("at_least", "length", "pad_id"))
def _crop(key, ids, mask, index, ratio, at_least, length, pad_id):
    def view(key, text):
        ids, mask = text
        return _packed(ids, _span(key, mask, ratio, at_least, jnp.minimum(jnp.sum(mask), length)), length, pad_id)

    return per_example(view, key, (ids, mask), index=index)


@partial(jax.jit, static_argnames=("at_least", "length", "pad_id"))
def _cloze(key, ids, mask, index, ratio, keep, at_least, length, pad_id):
    def view(key, text):
        (ids, mask), (k_span, k_keep) = text, jax.random.split(key)
        count = jnp.sum(mask)
        span = _span(k_span, mask, ratio, at_least, jnp.minimum(jnp.where(count > 1, count - 1, count), length))
        stays = (jax.random.uniform(k_keep) < keep) | (count < 2)
        return _packed(ids, span, length, pad_id), _packed(ids, mask & (stays | ~span), len(ids), pad_id)

    return per_example(view, key, (ids, mask), index=index)


@partial(jax.jit, static_argnames="pad_id")
def _delete(key, ids, mask, index, eligible, rate, pad_id):
    def view(key, text):
        ids, mask, eligible = text
        draw = jnp.where(mask, jnp.where(eligible, jax.random.uniform(key, mask.shape), 2), -1)
        last = jnp.arange(len(ids)) == jnp.argmax(draw)  # it goes only where all go
        return _packed(ids, mask & ((draw >= rate) | last), len(ids), pad_id)

    return per_example(view, key, (ids, mask, mask if eligible is None else eligible), index=index)


@jax.jit
def _replace(key, ids, mask, index, eligible, to, rate, share, random_share, bounds):
    def view(key, text):
        ids, eligible, to = text
        k_draw, k_id = jax.random.split(key)
        choose, place = jax.random.uniform(k_draw, (2, len(ids)))
        chosen = eligible & (choose < rate)
        others = jax.random.randint(k_id, ids.shape, *bounds).astype(ids.dtype)
        changed = jnp.where(place < share, to, jnp.where(place < share + random_share, others, ids))
        return jnp.where(chosen, changed, ids), chosen

    ids = jnp.asarray(ids)
    eligible = mask if eligible is None else mask & eligible
    return per_example(view, key, (ids, eligible, jnp.broadcast_to(to.astype(ids.dtype), ids.shape)), index=index)


@jax.jit
def _soda(key, ids, mask, index, eligible, type_tokens, types, kind, rate, share, bounds, mask_id):
    k_kind, k_type, k_tokens = jax.random.split(key, 3)
    kind = jax.random.randint(k_kind, (), 0, 4) if kind is None else kind
    of_type = type_tokens == jax.random.choice(k_type, types)
    allowed = (mask if eligible is None else mask & eligible) & ((kind < 2) | of_type)  # so one program serves all kinds
    to = jnp.where((kind == 0) | (kind == 3), mask_id, type_tokens)
    return _replace(k_tokens, ids, mask, index, allowed, to, rate, share, jnp.where(kind == 0, 0.1, 0.0), bounds)[0]


def _span(key, mask, ratio, at_least, at_most):
    """Which tokens of one text belong to a random span, `[L]`."""
    share, place = jax.random.uniform(key, (2,))
    count = jnp.sum(mask)
    wanted = jnp.floor(count * (ratio[0] + (ratio[1] - ratio[0]) * share)).astype(jnp.int32)
    length = jnp.minimum(jnp.maximum(wanted, at_least), at_most)
    start = jnp.minimum(jnp.floor(place * (count - length + 1)).astype(jnp.int32), count - length)
    number = jnp.cumsum(mask) - 1
    return mask & (number >= start) & (number < start + length)


def _packed(ids, kept, length, pad_id):
    """The kept tokens of one text at the front of `[length]`, and its mask."""
    place = jnp.where(kept, jnp.cumsum(kept) - 1, length)
    packed = jnp.full(length, pad_id, ids.dtype).at[place].set(ids, mode="drop")
    return packed, jnp.arange(length) < jnp.sum(kept)


def _range(vocabulary, random_share):
    """Where random ids begin and end."""
    if vocabulary is None:
        if isinstance(random_share, jax.core.Tracer) or random_share > 0:
            raise ValueError("vocabulary must be given where tokens become random ones, got None")
        return 0, 1
    pair = tuple(vocabulary) if isinstance(vocabulary, Sequence) and not isinstance(vocabulary, str) else (0, vocabulary)
    if len(pair) != 2:
        raise ValueError(f"vocabulary must be a number or a pair (first, end), got {vocabulary!r}")
    check.integer("vocabulary", pair[0], at_least=0)
    check.integer("vocabulary", pair[1], at_least=pair[0] + 1)
    return pair


def _check(key, ids, mask, index, eligible=None):
    """Checks what all views of tokens share; returns L."""
    check.key("key", key)
    arrays = dict(ids=(ids, "B L", "int"), mask=(mask, "B L", "bool"), index=(index, "B?", "int"), eligible=(eligible, "B L?", "bool"))
    return check.arrays(**arrays)["L"]


def _check_span(ratio, at_least):
    _images.check_range("ratio", ratio, at_most=1)
    check.integer("at_least", at_least, at_least=1)
