"""Search: queries, passages, and which passage answers which query, as texts and as tokens."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.data.chunks import seed_of
from cljax.data.code import documented_code
from cljax.data.loading import load
from cljax.data.tables import pairs
from cljax.data.text import Tokens, tokenise


class SearchTask(NamedTuple):
    """Queries, the passages among which each is to find its own, and which that is.

    Attributes:
      queries: `[Q]` strings, or `Tokens` of them.
      passages: `[N]` strings, or `Tokens`.
      answers: `[Q]` int32, the passage that answers each query.
      ids: `[N]` int32; passages with the same number answer the same queries, and are not each other's negatives.
    """

    queries: np.ndarray | Tokens
    passages: np.ndarray | Tokens
    answers: np.ndarray
    ids: np.ndarray


def documented_search(split: Sequence[int], *, key: KeyLike, folder: str | os.PathLike | None = None) -> tuple[SearchTask, ...]:
    """The running Python's standard library, code by its docstring: the pairs of `documented_code`, shuffled and counted off.

    Args:
      split: a count for each part, such as `(1400, 1060)`: parts are disjoint, and the passages of a part are its own code.
      key: a PRNG key, which shuffles.
      folder: as in `load`.

    Returns:
      One `SearchTask` a part: docstrings, code; code with the same docstring has one id.

    Raises:
      TypeError, ValueError: counts that are none, or sum to more than there are pairs; as `load`.
    """
    check.key("key", key)
    if isinstance(split, str) or not isinstance(split, Sequence) or not split:
        raise TypeError(f"split must be a tuple of counts, at least one, got {split!r}")
    for count in split:
        check.integer("split", count, at_least=1)
    found = documented_code(folder=folder)
    if sum(split) > len(found.code):
        raise ValueError(f"split must sum to at most the {len(found.code)} pairs that there are, got {' + '.join(map(str, split))} = {sum(split)}")
    order = np.random.default_rng(seed_of(key)).permutation(len(found.code))
    rows = np.split(order[: sum(split)], np.cumsum(split)[:-1])
    return tuple(_paired(found.docstring[part], found.code[part]) for part in rows)


def paired_search(
    name: str, *, features: Sequence[str] | None = None, share: float = 0.9, most: int | None = None, folder: str | os.PathLike | None = None
) -> tuple[np.ndarray, SearchTask]:
    """A set that says everything twice, a row each: the first texts of most rows to learn from, and of the rest each is to find its second one.

    Args:
      name: of a set whose rows are two texts: `"verses"` in two wordings, `"glosses"` with their words.
      features: which two columns: of `"gramps"` `("de", "en")`, German messages that look for the English ones. None: inputs and labels.
      share: of the rows, from the first on, to learn from.
      most: how many of the rest are queries, at most; they are passages, too.
      folder: as in `load`.

    Returns:
      `(texts, task)`: strings `[N]`, and a `SearchTask`.

    Raises:
      TypeError, ValueError: an argument of another kind or range; as `load`.
    """
    check.number("share", share, at_least=0, at_most=1)
    if most is not None:
        check.integer("most", most, at_least=1)
    if features is not None and (isinstance(features, str) or len(features) != 2):
        raise ValueError(f"features must be two columns, got {features!r}")
    first, second = load(name, features=features, folder=folder)
    if not first.dtype == second.dtype == object:
        raise ValueError(f"name must be that of a set whose rows are two texts, got {name!r}")
    known = int(len(first) * share)
    queries, passages = (side[known:][:most] for side in (first, second))
    rows = np.arange(len(queries), dtype=np.int32)
    return first[:known], SearchTask(queries, passages, rows, rows)


def read_search(folder: str | os.PathLike, parts: Sequence[str] = ("train", "test")) -> tuple[SearchTask, ...]:
    """A collection of your own, and queries in several parts that are all looked for in it.

    Args:
      folder: with `passages.jsonl`, lines `{"text": ...}`, and for each part such as "test" a `test.jsonl`, lines `{"query": ..., "passage": the
        number of its line, from 0 on}`.
      parts: the names of the parts.

    Returns:
      One `SearchTask` a part; they share their passages, each of which has an id of its own.

    Raises:
      TypeError, ValueError: as `pairs`; a passage that isn't there.
    """
    folder = pathlib.Path(folder)
    (passages,) = pairs(folder / "passages.jsonl", columns=("text",))
    ids, found = np.arange(len(passages), dtype=np.int32), []
    for part in parts:
        queries, answers = pairs(folder / f"{part}.jsonl", columns=("query", "passage"))
        if answers.dtype != np.int32 or answers.min() < 0 or answers.max() >= len(passages):
            raise ValueError(f"{folder / part}.jsonl must have numbers from 0 to {len(passages) - 1} as its passages")
        found.append(SearchTask(queries, passages, answers, ids))
    return tuple(found)


def tokenise_search(
    tokenizer: Any, *tasks: SearchTask, lengths: tuple[int, int], special_tokens: bool = True, allow_empty: bool = False
) -> tuple[SearchTask, ...]:
    """The same tasks as token ids; passages that tasks share are read once.

    Args:
      tokenizer: as in `tokenise`.
      *tasks: of strings.
      lengths: tokens of a query and of a passage, see `tokenise`.
      special_tokens, allow_empty: as in `tokenise`.

    Returns:
      A `SearchTask` of `Tokens` for each.

    Raises:
      TypeError, ValueError: as `tokenise`.
    """
    how, seen, found = dict(special_tokens=special_tokens, allow_empty=allow_empty), {}, []
    for task in tasks:
        if id(task.passages) not in seen:
            seen[id(task.passages)] = tokenise(tokenizer, task.passages, length=lengths[1], **how)
        queries = tokenise(tokenizer, task.queries, length=lengths[0], **how)
        found.append(task._replace(queries=queries, passages=seen[id(task.passages)]))
    return tuple(found)


def _paired(queries, passages):
    _, same = np.unique(queries, return_inverse=True)
    return SearchTask(queries, passages, np.arange(len(queries), dtype=np.int32), same.astype(np.int32))
