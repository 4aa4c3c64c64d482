"""Code search: descriptions and the code that they describe, as pieces with lexical types, out of the standard library or out of CodeSearchNet."""

import collections
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.data import copies
from cljax.data.lexemes import LEXICAL_TYPES, lexical_type, python_tokens
from cljax.data.loading import load
from cljax.data.text import words

Pieces = list[tuple[str, str]]


class TypedTokens(NamedTuple):
    """Texts as token ids with the types of the tokens.

    Attributes:
      ids: `[N, L]` int32, 0 behind the end of a text.
      mask: `[N, L]` bool, whether a place holds a token of the text.
      types: `[N, L]` int32, a number for each lexical type; -1 at special tokens and behind the end.
    """

    ids: np.ndarray
    mask: np.ndarray
    types: np.ndarray


class CodeSearch(NamedTuple):
    """Descriptions and code to learn from, and descriptions that are to find theirs; a text is a list of pieces, see `typed_pieces`.

    Of token ids all texts of a side are `TypedTokens`, see `tokenise_code_search`.

    Attributes:
      known_queries, known_codes: `[M]` texts each, pairs.
      queries: `[Q]` texts.
      codes: `[N]` texts, the candidates.
      answers: `[Q]` int32, the candidate that each query describes.
    """

    known_queries: list[Pieces] | TypedTokens
    known_codes: list[Pieces] | TypedTokens
    queries: list[Pieces] | TypedTokens
    codes: list[Pieces] | TypedTokens
    answers: np.ndarray


def typed_pieces(tokens: Iterable[tuple[str, str]]) -> Pieces:
    """The pieces of tokens, each with the type of its token: a token's `words`, or the token itself where it has none.

    Args:
      tokens: pairs of a token and its type, as `python_tokens` gives them.

    Returns:
      Pairs of a piece and a type.

    >>> typed_pieces(python_tokens("readAll(x)"))
    [('read', 'identifier'), ('all', 'identifier'), ('(', 'separator'), ('x', 'identifier'), (')', 'separator')]
    """
    return [(piece, kind) for token, kind in tokens for piece in words(token) or [token]]


def described_functions(
    test: int, *, key: KeyLike, hide_name: bool = True, least: int = 3, most: int = 30, folder: str | os.PathLike | None = None
) -> CodeSearch:
    """The functions of the running Python's standard library, each found by the first sentence of its docstring; files are for one side alone.

    Each pair of sentence and code is there once. About 6,400 remain of Python 3.11.

    Args:
      test: so many functions, or a few less, are to be found: those of whole files.
      key: a PRNG key, which chooses the files.
      hide_name: whether a function's own name is left out of its code.
      least, most: how many `words` the sentence has.
      folder: as in `load`.

    Returns:
      `CodeSearch`; the pieces of a sentence have the type "comment".

    Raises:
      TypeError, ValueError: an argument of another kind or range, or a test of no file or of all; as `load`.
    """
    check.key("key", key)
    for name, value in (("test", test), ("least", least), ("most", most)):
        check.integer(name, value, at_least=1)
    found = {}
    columns = load("stdlib_functions", features=("kind", "module", "name", "docstring", "code"), folder=folder)
    for kind, module, name, docstring, code in zip(*columns, strict=True):
        sentence = re.split(r"(?<=[.!?])\s|\n\s*\n", docstring.strip(), maxsplit=1)[0]
        if kind == "function" and least <= len(words(sentence)) <= most:
            found.setdefault((sentence, code), (module, name.split(".")[-1] if hide_name else None))
    sizes = collections.Counter(module for module, _ in found.values())
    modules, held, count = sorted(sizes), set(), 0
    for place in jax.random.permutation(key, len(modules)).tolist():
        if count + sizes[modules[place]] <= test:
            count += sizes[modules[place]]
            held.add(modules[place])
    if not 0 < count < len(found):
        raise ValueError(f"test must leave whole files on both sides, of {len(found)} functions, got {test}")
    sides = {True: ([], []), False: ([], [])}
    for (sentence, code), (module, name) in found.items():
        queries, codes = sides[module in held]
        queries.append(_described(sentence))
        codes.append([*_python_pieces(code, name)])
    return CodeSearch(*sides[False], *sides[True], np.arange(count, dtype=np.int32))


def code_search_net(folder: str | os.PathLike, language: str) -> CodeSearch:
    """One language of CodeSearchNet as the authors of GraphCodeBERT cleaned it.

    Args:
      folder: with `train.jsonl`, `test.jsonl` and `codebase.jsonl`, the candidates; each line is an object with the lists `code_tokens` and
        `docstring_tokens` and the text `url`, by which a test query knows its candidate.
      language: whose keywords count, as in `lexical_type`.

    Returns:
      `CodeSearch`; test queries without a candidate are left out.

    Raises:
      TypeError, ValueError: an unknown language; a file is missing; no test query has a candidate.
    """
    folder, parts, digest = pathlib.Path(folder), {}, hashlib.sha256()
    if missing := [name for name in ("train.jsonl", "test.jsonl", "codebase.jsonl") if not (folder / name).is_file()]:
        raise ValueError(f"{folder} must have {', '.join(missing)}")
    for part in ("train", "test", "codebase"):
        content = (folder / f"{part}.jsonl").read_bytes()
        digest.update(content)
        parts[part] = [json.loads(line) for line in content.splitlines() if line.strip()]
    copies.note(folder, len(parts["train"]), digest.hexdigest())
    place = {row["url"]: number for number, row in enumerate(parts["codebase"])}
    asked = [row for row in parts["test"] if row["url"] in place]
    if not asked:
        raise ValueError(f"{folder} must have a test query whose code is in codebase.jsonl, by `url`; of {len(parts['test'])} none has")
    queries = [[_described(row["docstring_tokens"]) for row in rows] for rows in (parts["train"], asked)]
    codes = [
        [typed_pieces((token, lexical_type(token, language)) for token in row["code_tokens"] if token.strip()) for row in parts[part]]
        for part in ("train", "codebase")
    ]
    return CodeSearch(queries[0], codes[0], queries[1], codes[1], np.array([place[row["url"]] for row in asked], np.int32))


def piece_tokenizer(texts: Iterable[Pieces], size: int) -> Any:
    """A tokenizer with one token for each of the most frequent pieces, in lower case.

    Its first tokens are `[PAD]` (id 0), `[UNK]` (1) and `[MASK]` (2); it frames nothing.

    Args:
      texts: lists of pieces, see `typed_pieces`.
      size: the number of pieces that have a token, at most; of those with the same count the first that is seen.

    Returns:
      A `tokenizers.Tokenizer` of texts that are cut into pieces already.

    Raises:
      TypeError, ValueError: size is no integer from 1 on.
    """
    import tokenizers

    check.integer("size", size, at_least=1)
    counts = collections.Counter(piece.lower() for text in texts for piece, _ in text)
    vocabulary = ["[PAD]", "[UNK]", "[MASK]", *(piece for piece, _ in counts.most_common(size))]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({piece: place for place, piece in enumerate(vocabulary)}, "[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    return tokenizer


def tokenise_pieces(tokenizer: Any, texts: Sequence[Pieces], *, length: int, first_type: int = 0) -> TypedTokens:
    """Texts as a rectangle of ids, with the type of each token; parts of a piece have its type.

    Args:
      tokenizer: a `tokenizers.Tokenizer`, of `piece_tokenizer` or a pretrained one.
      texts: N lists of pieces, see `typed_pieces`.
      length: L, in tokens, special ones included; a longer text is cut at its end.
      first_type: the number of the first of `LEXICAL_TYPES`; where types are tokens of their own, the size of the vocabulary.

    Returns:
      `TypedTokens`, numpy arrays `[N, L]`.

    Raises:
      TypeError, ValueError: a number of another kind or range, a length with no room for a token.

    >>> text = typed_pieces(python_tokens("x + 1"))
    >>> tokenise_pieces(piece_tokenizer([text], 5), [text], length=4)
    TypedTokens(ids=array([[3, 4, 5, 0]], dtype=int32), mask=array([[ True,  True,  True, False]]), types=array([[ 1,  3,  4, -1]], dtype=int32))
    """
    frame = tokenizer.num_special_tokens_to_add(False)
    check.integer("length", length, at_least=frame + 1)
    check.integer("first_type", first_type, at_least=0)
    shape = len(texts), length
    found = TypedTokens(np.zeros(shape, np.int32), np.zeros(shape, bool), np.full(shape, -1, np.int32))
    for row, text in enumerate(texts):
        encoding = tokenizer.encode([piece for piece, _ in text], is_pretokenized=True, add_special_tokens=False)
        encoding.truncate(length - frame)
        encoding = tokenizer.post_process(encoding)
        count = len(encoding.ids)
        found.ids[row, :count], found.mask[row, :count] = encoding.ids, True
        types = [-1 if place is None else first_type + LEXICAL_TYPES.index(text[place][1]) for place in encoding.word_ids]
        found.types[row, :count] = types
    return found


def tokenise_code_search(tokenizer: Any, *tasks: CodeSearch, lengths: tuple[int, int], first_type: int = 0) -> tuple[CodeSearch, ...]:
    """The same tasks as token ids.

    Args:
      tokenizer: as in `tokenise_pieces`.
      *tasks: of pieces.
      lengths: tokens of a description and of code, see `tokenise_pieces`.
      first_type: as there.

    Returns:
      A `CodeSearch` of `TypedTokens` for each.

    Raises:
      TypeError, ValueError: as `tokenise_pieces`.

    >>> query, code = typed_pieces([("adds", "comment")]), typed_pieces(python_tokens("x + 1"))
    >>> task = CodeSearch([query], [code], [query], [code], np.zeros(1, np.int32))
    >>> found, = tokenise_code_search(piece_tokenizer([query, code], 5), task, lengths=(2, 4))
    >>> found.queries.ids.tolist(), found.known_codes.ids.tolist()
    ([[3, 0]], [[4, 5, 6, 0]])
    """
    read = functools.partial(tokenise_pieces, tokenizer, first_type=first_type)
    sides = lengths * 2  # queries and codes to learn from, and those to test on
    return tuple(CodeSearch(*(read(texts, length=length) for texts, length in zip(task[:4], sides, strict=True)), task.answers) for task in tasks)


def _described(text):
    """A description, a sentence or a list of tokens, as pieces."""
    return [(word, "comment") for word in (words(text) if isinstance(text, str) else [token.lower() for token in text if token.strip()])]


@functools.lru_cache(maxsize=2**16)  # the cells of a study ask for the same texts again and again
def _python_pieces(code, name):
    return typed_pieces(pair for pair in python_tokens(code) if pair[0] != name)
