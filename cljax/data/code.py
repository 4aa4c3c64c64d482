"""Documented code: pairs of a docstring and the code that it describes."""

import functools
import os
from typing import NamedTuple

import numpy as np

from cljax.core import check
from cljax.data.loading import load
from cljax.data.text import words


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
