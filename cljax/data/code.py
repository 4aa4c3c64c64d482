"""Documented code: pairs of a docstring and the code that it describes, and the docstrings as one long text."""

import functools
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.data.loading import load
from cljax.data.text import token_stream, train_tokenizer, words


class DocumentedCode(NamedTuple):
    """Functions and classes, one a row.

    Attributes:
      module: `[N]` strings, such as "json.decoder": the file, by which training and test can be kept apart.
      name: `[N]` strings, such as "JSONDecoder.decode".
      docstring: `[N]` strings.
      code: `[N]` strings, without the docstring.
    """

    module: np.ndarray
    name: np.ndarray
    docstring: np.ndarray
    code: np.ndarray


def documented_code(*, least_docstring: int = 6, least_code: int = 20, folder: str | os.PathLike | None = None) -> DocumentedCode:
    """The functions and classes of the running Python's standard library whose docstring and code say enough, each pair once.

    Two definitions are the same where the `words` of their docstrings and of their code are; the first is kept. About 4,000 remain of Python 3.11.

    Args:
      least_docstring, least_code: the number of `words` that a docstring and its code must have.
      folder: as in `load`.

    Returns:
      `DocumentedCode`, in the order of the modules and of their code.

    Raises:
      TypeError, ValueError: a number is not an integer from 1 on; as `load`.
    """
    check.integer("least_docstring", least_docstring, at_least=1)
    check.integer("least_code", least_code, at_least=1)
    kind, *columns = load("stdlib_functions", features=("kind", "module", "name", "docstring", "code"), folder=folder)
    kept = _chosen(kind, *columns[2:], least_docstring, least_code)
    return DocumentedCode(*(column[kept] for column in columns))


class Docstrings(NamedTuple):
    """Docstrings one after the other, as tokens.

    Attributes:
      known: `[N]` int32, those to learn from.
      held_out: `[M]` int32, those of other modules.
      tokenizer: a `tokenizers.Tokenizer` of words and marks; `tokenizer.decode(ids)` gives a text.
    """

    known: np.ndarray
    held_out: np.ndarray
    tokenizer: Any


def docstrings(*, vocabulary: int = 1000, held_out: int = 60, key: KeyLike | None = None, folder: str | os.PathLike | None = None) -> Docstrings:
    """The docstrings of the running Python's standard library as running text for a language model, each once, in the order of modules and code.

    Of Python 3.11 they are about 350,000 tokens of 525 modules; 1000 words and marks cover 87 % of them.

    Args:
      vocabulary: the most frequent words and marks of what is known have a token, the others are `[UNK]`; see `train_tokenizer`.
      held_out: so many modules are held out. A docstring that several modules have belongs to the first of them.
      key: a PRNG key that shuffles the modules, the last of which are held out. None: in alphabetical order.
      folder: as in `load`.

    Returns:
      `Docstrings`.

    Raises:
      TypeError, ValueError: an argument of another kind or range, more modules to hold out than there are; as `load`.
    """
    check.integer("vocabulary", vocabulary, at_least=1)
    check.integer("held_out", held_out, at_least=1)
    module, text = load("stdlib_functions", features=("module", "docstring"), folder=folder)
    once = np.sort(np.unique(text, return_index=True)[1])
    once = once[text[once] != ""]
    module, text = module[once], text[once]
    names = np.unique(module)
    check.integer("held_out", held_out, at_most=len(names) - 1)
    order = np.arange(len(names)) if key is None else np.asarray(jax.random.permutation(key, len(names)))
    apart = np.isin(module, names[order[-held_out:]])
    tokenizer = train_tokenizer(text[~apart], vocabulary, kind="words and marks")
    return Docstrings(token_stream(tokenizer, text[~apart]), token_stream(tokenizer, text[apart]), tokenizer)


def _chosen(kind, docstrings, codes, least_docstring, least_code):
    """Which rows are asked for."""
    seen, kept = set(), []
    for place in np.flatnonzero(kind != "module").tolist():
        pair = _words(docstrings[place]), _words(codes[place])
        if len(pair[0]) >= least_docstring and len(pair[1]) >= least_code and pair not in seen:
            seen.add(pair)
            kept.append(place)
    return np.array(kept, int)


@functools.lru_cache(maxsize=2**16)  # the cells of a study ask for the same texts again and again
def _words(text):
    return tuple(words(text))
