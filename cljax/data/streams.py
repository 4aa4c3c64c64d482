"""Texts of a data set one after the other, as one long array of tokens."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cljax.data.loading import load
from cljax.data.text import token_stream


def token_streams(
    tokenizer: Any, name: str, *, split: Sequence[str], feature: str = "text", end: str = "<|endoftext|>", folder: str | os.PathLike | None = None
) -> tuple[np.ndarray, ...]:
    """The texts of a data set as running text for a language model, of each split one stream; see `docstrings` for one that needs no download.

    Args:
      tokenizer: a `tokenizers.Tokenizer`, such as `encoders.load_pretrained` gives, or the path of a `tokenizer.json`.
      name: of the data set, as in `load`: "tfds:wiki40b/en".
      split: splits as `load` takes them: `("train[:2%]", "test")`.
      feature: the column that holds the texts.
      end: what is written behind each text; "" is nothing.
      folder: as in `load`.

    Returns:
      For each split an int32 array `[N]`.

    Raises:
      TypeError, ValueError: an argument of a wrong kind; as `load` and `token_stream`.

    >>> from cljax import data
    >>> tokenizer = data.train_tokenizer(["returns the number of items"], 50, kind="words", special=("<|endoftext|>",))
    >>> stream, = token_streams(tokenizer, "stdlib_functions", split=("train",), feature="docstring")
    >>> bool((stream == tokenizer.token_to_id("<|endoftext|>")).sum() > 1000)
    True
    """
    if isinstance(split, str) or not isinstance(split, Sequence) or not split or not all(isinstance(part, str) for part in split):
        raise TypeError(f"split must be a tuple of names, at least one, got {split!r}")
    for option, value in (("feature", feature), ("end", end)):
        if not isinstance(value, str):
            raise TypeError(f"{option} must be a string, got {type(value).__name__}")
    texts = load(name, split=tuple(split), features=(feature,), folder=folder)
    return tuple(token_stream(tokenizer, [f"{text}{end}" for text in part]) for (part,) in texts)
