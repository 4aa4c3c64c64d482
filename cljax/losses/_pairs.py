"""What the pairwise losses share: their arguments checked, and who counts against whom."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import ArrayLike, Bool, Float, Integer

from cljax import pairwise
from cljax.core import check, vary
from cljax.core.ids import integers, meet
from cljax.pairwise.similarity import SIMILARITIES

Scalar = float | int | Float[ArrayLike, ""]
Temperature = Scalar | Float[ArrayLike, " B"]
Ids = Integer[ArrayLike, "B ..."] | None
Where = Bool[ArrayLike, " B"] | None
Similarity = Literal["dot", "cosine", "sqeuclidean"]
Collective = Literal["gather", "ring"]
Implementation = Literal["auto", "dense", "blockwise"]


# Arguments.


def scale(temperature, batch, where=None):
    """1 / temperature as a row leaf `[B]`: a product with it is cheaper than a quotient in every pair."""
    check.positive("temperature", temperature, several=True)
    if np.shape(temperature) not in ((), (batch,)):
        raise ValueError(f"temperature must be a scalar or have shape [{batch}], got {list(np.shape(temperature))}")
    temperature = float_array(temperature)
    return 1 / (drop(where, temperature, filler=1) if temperature.ndim else jnp.broadcast_to(temperature, (batch,)))


def float_array(x):
    """An array of float32 at least."""
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def drop(where, x, filler=0):
    """`x` with its invalid rows overwritten, so that nothing in them (a NaN of a padded row) reaches a gradient."""
    return x if where is None else jnp.where(jnp.reshape(where, (-1,) + (1,) * (jnp.ndim(x) - 1)), x, jnp.asarray(filler, jnp.result_type(x)))


def present(**leaves):
    """The row or column leaves that were given."""
    return {name: leaf for name, leaf in leaves.items() if leaf is not None}


def sources(queries, keys, negatives, *, in_batch, ids, key_ids, negative_ids, negative_where, negatives_axis_name, where, axis_name):
    """Checks the arguments of a one-sided loss and lists the sets that a query is compared with: the keys of the batch and the extra negatives.

    Returns:
      queries, keys: with invalid rows blanked.
      index: int32 `[B]`, where the own key stands among the keys of the batch.
      ids: of the queries.
      sources: a list of (keys, their column leaves, the axis over which they are split); only keys of the batch have the leaf "index".
    """
    arrays = dict(queries=(queries, "B D"), keys=(keys, "B D"), negatives=(negatives, "M D?"), where=(where, "B?", "bool"))
    batch = check.arrays(**arrays, negative_where=(negative_where, "M?", "bool"))["B"]
    of_negatives = dict(negative_ids=negative_ids, negative_where=negative_where, negatives_axis_name=negatives_axis_name)
    _needs("negatives", negatives, in_batch, of_negatives)
    if ids is None and (key_ids is not None or negative_ids is not None):
        raise ValueError(f"{'negative_ids' if key_ids is None else 'key_ids'} needs ids (of the queries), got ids=None")
    index = pairwise.index(batch, axis_name)
    check.axis("negatives_axis_name", negatives_axis_name)
    ids = integers("ids", ids, batch)
    key_ids = ids if key_ids is None else integers("key_ids", key_ids, batch)
    queries, keys, found = drop(where, queries), drop(where, keys), []
    if in_batch:
        found.append((keys, present(index=index, ids=key_ids, where=where), axis_name))
    if negatives is not None:
        columns = present(ids=integers("negative_ids", negative_ids, len(negatives)), where=negative_where)
        found.append((drop(negative_where, negatives), columns, negatives_axis_name))
    return queries, keys, index, ids, found


def labelled(
    embeddings, labels, references, reference_labels, *, in_batch, ids, reference_ids, reference_where, references_axis_name, where, axis_name
):
    """Checks the arguments of a loss whose positives are named by labels and lists what an anchor is compared with: its batch, the references.

    Returns:
      embeddings: with invalid rows blanked.
      rows: their row leaves.
      sources: a list of (keys, their column leaves, the axis over which they are split), as `pairwise.reduce` takes them: None is the batch itself.
    """
    arrays = dict(embeddings=(embeddings, "B D"), where=(where, "B?", "bool"), references=(references, "M D?"))
    batch = check.arrays(**arrays, reference_where=(reference_where, "M?", "bool"))["B"]
    of_references = dict(reference_labels=reference_labels, reference_ids=reference_ids, reference_where=reference_where)
    _needs("references", references, in_batch, of_references | dict(references_axis_name=references_axis_name))
    if ids is None and reference_ids is not None:
        raise ValueError("reference_ids needs ids (of the anchors), got ids=None")
    check.axis("references_axis_name", references_axis_name)
    index = pairwise.index(batch, axis_name)
    rows = present(index=index, self=index, labels=integers("labels", labels, batch), ids=integers("ids", ids, batch), where=where)
    found = [(None, None, axis_name)] if in_batch else []
    if references is not None:
        size = len(references)
        names = dict(labels=integers("reference_labels", reference_labels, size), ids=integers("reference_ids", reference_ids, size))
        found.append((drop(reference_where, references), present(where=reference_where, **names), references_axis_name))
    return drop(where, embeddings), rows, found


def two_views(a, b, *, temperature, ids, where, axis_name):
    """Checks the arguments of a loss whose anchors are both views of each example; the embeddings `[2B, D]`, invalid rows blanked, and row leaves."""
    batch = check.arrays(a=(a, "B D"), b=(b, "B D"), where=(where, "B?", "bool"))["B"]
    index = pairwise.index(2 * batch, axis_name)
    example = dict(ids=integers("ids", ids, batch), where=where, scale=scale(temperature, batch, where))
    views = {name: jnp.concatenate([leaf, leaf]) for name, leaf in present(**example).items()}
    rows = views | {"index": index, "self": index, "partner": jnp.roll(index, batch)}
    return jnp.concatenate([drop(where, a), drop(where, b)]), rows


def _needs(name, value, in_batch, belongings):
    """Raises where one of the arguments that belong to an optional set of keys is given without it, or nothing to compare with is."""
    if value is None:
        if not in_batch:
            raise ValueError(f"{name} must be given where in_batch=False, got None: there is nothing else to compare with")
        for belonging, given in belongings.items():
            if given is not None:
                raise ValueError(f"{belonging} needs {name}, got {name}=None")


# Masks: elementwise maths on the leaves of a block, rows `[b, 1, ...]` and columns `[1, n, ...]`.


def kept(row, column, positive=None):
    """Which pairs a row is compared with, `[b, n]`; None where with all.

    A pair counts where the column is valid (leaf "where") and no id is shared (leaves "ids"), or where it is `positive`; never where the
    column is the anchor itself (row leaf "self" equal to column leaf "index").
    """
    where = column.get("where")
    if "ids" in row and "ids" in column:
        where = both(where, ~meet(row["ids"], column["ids"]))
    if where is not None and positive is not None:
        where = positive | where
    if "self" in row and "index" in column:
        where = both(where, row["self"] != column["index"])
    return where


def own(row, column):
    """Which pair is the row's positive (row leaf "partner" equal to column leaf "index"); None where the columns hold none."""
    return row["partner"] == column["index"] if "index" in column else None


def positives(row, column):
    """Which pairs share a label and are valid, `[b, n]`; never the anchor itself."""
    not_self = row["self"] != column["index"] if "self" in row and "index" in column else None
    return both(meet(row["labels"], column["labels"]), column.get("where"), not_self)


def both(*masks):
    """The conjunction of masks of which some may be None (all)."""
    masks = [mask for mask in masks if mask is not None]
    return None if not masks else masks[0] if len(masks) == 1 else masks[0] & both(*masks[1:])


# Results of several sets of keys, of several devices.


def over(sources, queries, terms, rows, how, params=None):
    """The reductions over each of several sets of keys, a list."""
    return [
        pairwise.reduce(queries, keys, terms, rows=rows, columns=columns, params=params, axis_name=axis, **how) for keys, columns, axis in sources
    ]


def join(one, other):
    """The sums over two sets together, and the log-sum-exps, whose names end in "lse"; a set that is empty (-inf) adds nothing."""
    return {name: _log_add(one[name], value) if name.endswith("lse") else one[name] + value for name, value in other.items()}


def _log_add(x, y):
    pair = jnp.stack([x, y], axis=-1)
    return log_sum_exp(pair, pair != -jnp.inf)


def total(x, axis_name, axis=None):
    """The sum over the axis (all by default) and over devices."""
    summed = jnp.sum(x, axis=axis)
    return summed if axis_name is None else lax.psum(vary(summed, {axis_name}), axis_name)


def valid(batch, where, axis_name):
    """How many rows of all devices are valid."""
    return total(jnp.ones(batch, jnp.float32) if where is None else jnp.asarray(where, jnp.float32), axis_name)


# Pairs that stand side by side.


def aligned(a, b, similarity):
    """The similarity of vectors that stand side by side, `[..., D]` with `[..., D]`, in float32 at least."""
    check.choice("similarity", similarity, SIMILARITIES)
    return pairwise.similarity.aligned(similarity, jnp.asarray(a), jnp.asarray(b))


def log_sum_exp(logits, where):
    """log(sum(exp(logits))) along the last axis over what is kept; the lowest finite number, with zero gradient, where nothing is."""
    return jax.nn.logsumexp(jnp.where(where, logits, jnp.finfo(logits.dtype).min), axis=-1)


def size(source):
    """The number of keys of one of `sources`, over all devices, that can be a row's negatives."""
    keys, columns, axis_name = source
    return max(0, len(keys) * (1 if axis_name is None else lax.axis_size(axis_name)) - ("index" in columns))
