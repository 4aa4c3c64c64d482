"""A data set by its name, as arrays."""

import functools
import hashlib
import importlib
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from cljax.core import check, provenance
from cljax.core.check import KeyLike
from cljax.data import copies
from cljax.data.catalogue import DATASETS


def load(
    name: str,
    *,
    split: int | str | tuple[int, ...] | tuple[str, ...] | None = None,
    key: KeyLike | None = None,
    features: tuple[str, ...] | None = None,
    folder: str | os.PathLike | None = None,
):
    """Reads a data set into memory, whole or in parts.

    A small set out of a pinned package (`"digits"`) is found or downloaded on first use, its hash is checked, and it is written as array_record;
    later calls read that copy. `"tfds:cifar10"` is the set of TensorFlow Datasets that was prepared in `folder` as array_record. Neither needs
    TensorFlow.

    Args:
      name: a name in `DATASETS`, or `"tfds:<name>"`, also with configuration and version: `"tfds:cifar10_corrupted/fog_1:1.0.0"`.
      split: None: all rows. A count, or a tuple of counts: so many rows each, disjoint. A string, or a tuple of strings: splits as TensorFlow
        Datasets writes them, `"train"`, `"test[:10%]"`; a small set has one, `"train"`.
      key: a PRNG key that shuffles the rows, before they are counted off; of several named splits, each by itself. It may be traced. None: the order
        of the file.
      features: which columns, in this order: `("module", "docstring", "code")` of "stdlib_functions"; by default the inputs and the labels.
      folder: where copies lie; by default the environment variable `CLJAX_DATA`, else `~/.cache/cljax`.

    Returns:
      `(inputs, labels)`, or the columns that `features` names; where `split` is a tuple, a tuple of such tuples. Images are float32 in [0, 1],
      `[rows, height, width, channels]` (digits: `[rows, 8, 8]`), labels int32 `[rows]`, texts numpy arrays of strings.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: an unknown name, split or feature, counts that sum to more than the rows, a folder that can't be written, a file that isn't to be
        had or whose hash differs, a set that isn't prepared; the message says what to do.

    >>> (x, y), (test_x, test_y) = load("digits", split=(1200, 597), key=jax.random.key(0))
    >>> x.shape, test_y.shape
    ((1200, 8, 8), (597,))
    """
    single = not isinstance(split, (tuple, list))
    parts = (split,) if single else tuple(split)
    folder, counted = _check(name, folder), _counted(parts, key)
    if features is not None and (not isinstance(features, (tuple, list)) or not features or not all(isinstance(part, str) for part in features)):
        raise TypeError(f"features must be a tuple of names, at least one, got {features!r}")
    columns = None if features is None else tuple(features)
    if counted:
        whole = _rows(name, folder, "all", columns)
        size = len(whole[0])
        if sum(parts) > size:
            raise ValueError(f"split must sum to at most the {size} rows of {name!r}, got {' + '.join(map(str, parts))} = {sum(parts)}")
        order = np.arange(size) if key is None else jax.random.permutation(key, size)
        ends = np.cumsum(parts).tolist()
        pairs = [_take(whole, order[end - count : end]) for count, end in zip(parts, ends, strict=True)]
    else:
        pairs = [_rows(name, folder, "all" if part is None else part, columns) for part in parts]
        orders = [slice(None) if key is None else jax.random.permutation(jax.random.fold_in(key, i), len(pair[0])) for i, pair in enumerate(pairs)]
        pairs = [_take(pair, order) for pair, order in zip(pairs, orders, strict=True)]
    return pairs[0] if single else tuple(pairs)


def builder(name: str, *, folder: str | os.PathLike | None = None):
    """Opens a data set as a builder of TensorFlow Datasets, to be read row by row: `builder("digits").as_data_source("train")[0]`.

    What is too big for memory, or has more features than an input and a label, is read so, for instance by grain; TensorFlow isn't needed.

    Args:
      name, folder: as in `load`.

    Returns:
      A `tfds.core.DatasetBuilder`, prepared.
    """
    return _open(name, _check(name, folder))


def _check(name, folder):
    """Checks the arguments; returns the folder as an absolute path."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {type(name).__name__}")
    if not name.startswith("tfds:") and name not in DATASETS:
        raise ValueError(f"name must be one of {', '.join(map(repr, DATASETS))} or 'tfds:<name>', got {name!r}{check.nearest(name, DATASETS)}")
    return copies.root(folder)


def _counted(parts, key):
    """Checks the arguments; returns whether the parts are counts, not names."""
    if key is not None:
        check.key("key", key)
    if not parts:
        raise ValueError("split must name at least one part, got an empty tuple")
    if parts == (None,) or all(isinstance(part, str) for part in parts):
        return False
    for part in parts:
        if isinstance(part, str) or part is None:
            raise TypeError(f"split must be counts or names, not a mixture, got {parts!r}")
        check.integer("split", part, at_least=1)
    return True


def _open(name, folder):
    builders = importlib.import_module("cljax.data.builders")
    return builders.prepared(name.removeprefix("tfds:"), folder) if name.startswith("tfds:") else builders.prepare(DATASETS[name], folder)


def _rows(name, folder, split, features):
    if name.startswith("tfds:"):
        opened = _open(name, folder)
        digest = hashlib.sha256((pathlib.Path(opened.data_dir) / "dataset_info.json").read_bytes()).hexdigest()  # stands for files too big to hash
        facts = {"digest": f"sha256:{digest}", "package": f"tensorflow-datasets {opened.info.full_name}"}
        pair = importlib.import_module("cljax.data.builders").rows(opened, split, features)
        size = opened.info.splits["all"].num_examples
    else:
        pair = _read(DATASETS[name], folder, split, features)
        facts = {"digest": f"sha256:{DATASETS[name].sha256}", "package": DATASETS[name].packages}
        size = len(_read(DATASETS[name], folder, "all", features)[0])
    provenance.record(name, rows=size, **facts)
    return pair


@functools.lru_cache(maxsize=16)  # the cells of a study ask for the same rows again and again; a copy never changes, its path has the hash
def _read(dataset, folder, split, features):
    builders = importlib.import_module("cljax.data.builders")
    return builders.rows(builders.prepare(dataset, folder), split, features)


def _take(pair, order):
    return tuple(_taken(column, order) for column in pair)


def _taken(column, order):
    if isinstance(order, jax.core.Tracer):
        return jnp.asarray(column)[order]
    taken = column[np.asarray(order) if isinstance(order, jax.Array) else order]
    return taken.copy() if column.dtype == object else jnp.array(taken)  # copies: the columns are kept for the next call
