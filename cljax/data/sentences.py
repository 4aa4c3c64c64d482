"""Sentences to learn from, and pairs of sentences to test with: out of large corpora, of shipped texts, of what people scored."""

import os
import re
from typing import Any

import numpy as np

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.data.catalogue import DATASETS
from cljax.data.chunks import seed_of
from cljax.data.copies import root
from cljax.data.loading import load
from cljax.data.tables import pairs
from cljax.data.text import words


def sample_sentences(source: Any, count: int, *, key: KeyLike, least: int = 6, most: int = 40) -> list[str]:
    """Sentences of articles that are drawn without replacement, until there are enough.

    A sentence ends with a full stop, an exclamation or a question mark, and space after it; abbreviations end some too.

    Args:
      source: a data source, as of `Chunks`.
      count: how many, or fewer where the corpus has no more.
      key: a PRNG key.
      least, most: how many `words` a sentence has.

    Returns:
      A list of strings, in the order of the draw.

    Raises:
      TypeError, ValueError: an argument of another kind or range.
    """
    check.key("key", key)
    for name, value in (("count", count), ("least", least), ("most", most)):
        check.integer(name, value, at_least=1)
    found = []
    for row in np.random.default_rng(seed_of(key)).permutation(len(source)).tolist():
        parts = re.split(r"(?<=[.!?])\s+", source[row]["text"].decode())
        found += [part for part in parts if least <= len(words(part)) <= most]
        if len(found) >= count:
            break
    return found[:count]


def sentence_pairs(
    name: str, *, known: int, held_out: int, key: KeyLike, least: int = 6, most: int = 40, folder: str | os.PathLike | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sentences of a shipped set, and pairs of other ones that mean the same: each first one is to find its second one.

    Of `"verses"` the sentences are the Old Testament's in the World English Bible, and the second of a pair is the King James wording of the first.
    Of any other set they are its first texts, such as the definitions of `"glosses"`, and a pair are the words of their first and their second half.

    Args:
      name: of a set in `DATASETS` that has texts.
      known: how many sentences.
      held_out: how many pairs of others.
      key: a PRNG key, which shuffles.
      least, most: how many `words` a sentence has, and at most its other wording.
      folder: as in `load`.

    Returns:
      `(sentences [known], first [held_out], second [held_out])`, numpy arrays of strings.

    Raises:
      TypeError, ValueError: an argument of another kind or range, more sentences than there are; as `load`.
    """
    check.key("key", key)
    check.choice("name", name, tuple(DATASETS))
    for option, value in (("known", known), ("held_out", held_out), ("least", least), ("most", most)):
        check.integer(option, value, at_least=1)
    if name == "verses":
        web, kjv, book = load(name, features=("web", "kjv", "book"), folder=folder)
        old = np.cumsum(book == "Matt") == 0
        found = list(zip(web[old], web[old], kjv[old], strict=True))
    else:
        texts, _ = load(name, folder=folder)
        if texts.dtype != object:
            raise ValueError(f"name must be that of a set that has texts, got {name!r}")
        found = [(text, *_halves(words(text))) for text in texts]
    found = [row for row in found if len(words(row[0])) >= least and max(len(words(text)) for text in row) <= most]
    if known + held_out > len(found):
        raise ValueError(f"known and held_out must sum to at most the {len(found)} sentences of {name!r}, got {known} + {held_out}")
    rows = np.random.default_rng(seed_of(key)).permutation(len(found))[: known + held_out]
    texts, first, second = (np.array([found[row][side] for row in rows], object) for side in range(3))
    return texts[:known], first[known:], second[known:]


def scored_pairs(name: str | os.PathLike, *, split: str = "validation") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of sentences with how similar people find them, in the columns `sentence1`, `sentence2` and `label` of STS-B.

    Args:
      name: a table, `"sts.jsonl"`, a path or one in the folder where data lie (see `root`), which ends as `pairs` accepts; or a set of TensorFlow
        Datasets that is prepared there, `"glue/stsb"`.
      split: of such a set.

    Returns:
      `(first [N], second [N], scores [N])`: strings, strings, float32.

    Raises:
      TypeError, ValueError: as `pairs` and `load`.
    """
    columns = ("sentence1", "sentence2", "label")
    if str(name).endswith((".csv", ".tsv", ".jsonl", ".ndjson")):
        first, second, scores = pairs(root() / name, columns=columns)
    else:
        first, second, scores = load(f"tfds:{name}", split=split, features=columns)
    return first, second, np.asarray(scores, np.float32)


def _halves(found):
    return " ".join(found[: len(found) // 2]), " ".join(found[len(found) // 2 :])
