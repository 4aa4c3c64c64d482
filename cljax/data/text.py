"""Texts as tokens: words, tokenizers that are trained on a corpus, and rectangles of ids of few static lengths."""

import collections
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cljax.core import check
from cljax.core.texts import read_tokenizer

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What a word is, in two dialects: that of Python, and that of the library of tokenizers, whose \w takes combining marks in.
_CAMEL = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
_WORD, _LIBRARY_WORD = r"[^\W\d_]+|\d+", r"[\p{L}\p{Nl}\p{No}]+|\p{Nd}+"
_MARKED = r"\w+|[^\w\s]"  # of the library alone
_camel, _word = re.compile(_CAMEL), re.compile(_WORD)
_ROWS = 4096  # encoded at a time: an encoding holds much more than its ids


class Tokens(NamedTuple):
    """Texts as token ids.

    Attributes:
      ids: `[N, L]` int32; behind the end of a text the id of `[PAD]`.
      mask: `[N, L]` bool, whether a place holds a token of the text.
    """

    ids: np.ndarray
    mask: np.ndarray


def words(text: str) -> list[str]:
    """The words of a text or of code, in lower case: runs of letters and runs of digits; identifiers are split at underscores and camel case.

    Args:
      text: a string.

    Returns:
      The words, in their order.

    Raises:
      TypeError: text is not a string.

    >>> words("Parse_url(HTTPResponse) isn't utf8")
    ['parse', 'url', 'http', 'response', 'isn', 't', 'utf', '8']
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, got {type(text).__name__}")
    text = _camel.sub(" ", text if text.isascii() else unicodedata.normalize("NFC", text))
    return _word.findall(text.replace("Σ", "σ").lower())  # Python alone would make a sigma at the end of a word another letter


def train_tokenizer(texts: Iterable[str], size: int, *, kind: str = "wordpiece", special: Sequence[str] = ()) -> Any:
    """Makes a tokenizer for a corpus; the same texts give the same tokenizer, bit for bit.

    Its first tokens are `[PAD]` (id 0), `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`, then those of `special`; it frames a text as `[CLS] … [SEP]`.
    `tokenizer.save(path)` writes it, and `tokenizers.Tokenizer.from_file(path)` reads it.

    Args:
      texts: the corpus.
      size: of `"wordpiece"` the number of all tokens, at most; of words the number of words, at most: the most frequent ones, and of those with the
        same count the first by alphabet.
      kind: `"wordpiece"`: pieces of words as BERT has them, in lower case and without accents. `"words"`: what `words` finds; a word that is not
        among the frequent ones is `[UNK]`. `"words and marks"`: runs of letters, digits and underscores, in lower case, and every other mark but
        space by itself, so that a text can be read again.
      special: further tokens that stand for no text, such as `("[KEYWORD]", "[NUMBER]")`.

    Returns:
      A `tokenizers.Tokenizer`.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: an unknown kind, no text, a size with no room for all letters of the corpus, a special token that is there twice.

    >>> tokenizer = train_tokenizer(["to be or not to be"], 3, kind="words")
    >>> tokenizer.encode("To be, or not?").tokens
    ['[CLS]', 'to', 'be', '[UNK]', 'not', '[SEP]']
    """
    from tokenizers import processors

    check.choice("kind", kind, ("wordpiece", "words", "words and marks"))
    check.integer("size", size, at_least=1)
    special, texts = [*_SPECIAL, *_strings("special", special)], _strings("texts", texts)
    if len(set(special)) < len(special):
        raise ValueError(f"special must name each token once, and none of {', '.join(_SPECIAL)}, got {special[len(_SPECIAL) :]}")
    if not texts:
        raise ValueError("texts must hold at least one text, got none")
    tokenizer = _pieces(texts, size, special) if kind == "wordpiece" else _most_frequent(texts, size, special, marks=kind != "words")
    tokenizer.add_special_tokens(special)
    frame = [(token, special.index(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=frame)
    return tokenizer


def tokenise(tokenizer: Any, texts: Iterable[str], *, length: int | Sequence[int], special_tokens: bool = True, allow_empty: bool = False) -> Tokens:
    """Texts as a rectangle of ids, of one of a few static lengths, so that little is compiled for them.

    A text that is too long is cut at its end, before the special token that closes it; one warning says how many were.

    Args:
      tokenizer: a `tokenizers.Tokenizer`, or the path of a `tokenizer.json`. Where it has a longest length of its own, that holds too.
      texts: N strings.
      length: L, in tokens, special ones included. Of several lengths it is the smallest that holds the longest text, else the largest.
      special_tokens: whether the tokenizer frames a text, as by `[CLS] … [SEP]`.
      allow_empty: whether a text may have no token of its own.

    Returns:
      `Tokens(ids, mask)`, numpy arrays `[N, L]`; special tokens that frame a text belong to it.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: a text without a token (the message has the first one and their number), a length with no room for a token, a file that is no
        tokenizer.

    >>> tokenizer = train_tokenizer(["to be or not to be"], 4, kind="words")
    >>> ids, mask = tokenise(tokenizer, ["not to be", "or"], length=(4, 6, 8))
    >>> ids
    array([[2, 7, 6, 5, 3, 0],
           [2, 8, 3, 0, 0, 0]], dtype=int32)
    >>> mask.sum(axis=1)
    array([5, 3])
    """
    tokenizer, texts = _read(tokenizer), _strings("texts", texts)
    frame = tokenizer.num_special_tokens_to_add(False) if special_tokens else 0
    lengths = _lengths(length, frame)
    rows, cut = [], []
    for start in range(0, len(texts), _ROWS):
        for encoding in tokenizer.encode_batch_fast(texts[start : start + _ROWS], add_special_tokens=special_tokens):
            cut.append(bool(encoding.overflowing))
            rows.append(_row(encoding))
    empty = [place for place, row in enumerate(rows) if len(row) <= frame]
    if empty and not allow_empty:
        raise ValueError(
            f"texts must have a token each, {len(empty)} of {len(texts)} have none, the first is texts[{empty[0]}]={texts[empty[0]][:40]!r}"
        )
    longest = max(map(len, rows), default=0)
    size = next((size for size in lengths if size >= longest), lengths[-1])
    for place, row in enumerate(rows):
        if len(row) > size:
            encoding = tokenizer.encode(texts[place], add_special_tokens=False)
            encoding.truncate(size - frame)
            rows[place], cut[place] = _row(tokenizer.post_process(encoding, add_special_tokens=special_tokens)), True
    if any(cut):
        warnings.warn(f"{sum(cut)} of {len(texts)} texts are longer than {min(size, longest)} tokens and were cut", stacklevel=2)
    ids = np.full((len(rows), size), _padding(tokenizer), np.int32)
    mask = np.arange(size) < np.array([len(row) for row in rows], dtype=int)[:, None]
    ids[mask] = [token for row in rows for token in row]
    return Tokens(ids, mask)


def token_stream(tokenizer: Any, texts: Iterable[str]) -> np.ndarray:
    """Texts one after the other as one long array of ids, for `train.language_model`: none is framed, cut or filled up.

    Where texts shall end with a token, write it behind each: `f"{text}<|endoftext|>"`.

    Args:
      tokenizer: a `tokenizers.Tokenizer`, or the path of a `tokenizer.json`.
      texts: strings.

    Returns:
      int32 `[N]`, a numpy array.

    Raises:
      TypeError, ValueError: an argument of a wrong kind, a file that is no tokenizer.

    >>> token_stream(train_tokenizer(["to be or not to be"], 4, kind="words"), ["to be", "or not"])
    array([6, 5, 8, 7], dtype=int32)
    """
    tokenizer, texts, rows = _read(tokenizer), _strings("texts", texts), [np.zeros(0, np.int32)]
    tokenizer = type(tokenizer).from_str(tokenizer.to_str())  # a copy, which may be changed
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for start in range(0, len(texts), _ROWS):
        rows += [np.array(row.ids, np.int32) for row in tokenizer.encode_batch_fast(texts[start : start + _ROWS], add_special_tokens=False)]
    return np.concatenate(rows)


def _most_frequent(texts, size, special, marks):
    """A tokenizer of whole words."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers

    camel = [] if marks else [normalizers.Replace(tokenizers.Regex(_CAMEL), " ")]
    normalizer = normalizers.Sequence([normalizers.NFC(), *camel, normalizers.Lowercase()])
    split = pre_tokenizers.Split(tokenizers.Regex(_MARKED if marks else _LIBRARY_WORD), "removed", invert=True)
    found = ([word for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text))] if marks else words(text) for text in texts)
    counts = collections.Counter(word for row in found for word in row)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:size]
    tokenizer = tokenizers.Tokenizer(models.WordLevel({token: place for place, token in enumerate([*special, *frequent])}, "[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, split
    return tokenizer


def _pieces(texts, size, special):
    """A tokenizer of pieces of words, as BERT's."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    def train(size, first):
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False))
        return tokenizer, tokenizer.get_vocab()

    # The trainer numbers letters within words in the order of a hash table, another one in each process, and breaks ties by numbers: so it is told
    # them, as tokens that come first. With room for nothing else it finds out which there are.
    _, letters = train(1, special)
    if len(letters) > size:
        raise ValueError(f"size must be at least {len(letters)}, the special tokens and the letters of the corpus, got {size}")
    tokenizer, vocabulary = train(size, [*special, *sorted(token for token in letters if token.startswith("##"))])
    trained = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # for which letters are no special tokens
    trained.normalizer, trained.pre_tokenizer, trained.decoder = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder
    return trained


def _read(tokenizer):
    import tokenizers

    if isinstance(tokenizer, (str, os.PathLike)):
        return read_tokenizer(tokenizer)
    if not isinstance(tokenizer, tokenizers.Tokenizer):
        raise TypeError(f"tokenizer must be a tokenizers.Tokenizer or the path of a tokenizer.json, got {type(tokenizer).__name__}")
    return tokenizer


def _row(encoding):
    """The ids of a text, without what its tokenizer filled up with."""
    return (
        encoding.ids if all(encoding.attention_mask) else [token for token, real in zip(encoding.ids, encoding.attention_mask, strict=True) if real]
    )


def _padding(tokenizer):
    """The id of the token that fills up."""
    found = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((place for place in found if place is not None), 0)


def _lengths(length, frame):
    lengths = [length] if isinstance(length, (int, np.integer)) else length
    if isinstance(lengths, str) or not isinstance(lengths, Sequence) or not lengths:
        raise TypeError(f"length must be an integer or several, got {length!r}")
    for size in lengths:
        check.integer("length", size, at_least=frame + 1)
    return sorted(lengths)


def _strings(name, texts):
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be strings, one after another, got {type(texts).__name__}")
    texts = list(texts)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name} must be strings, got {type(text).__name__} as {name}[{place}]")
    return texts
