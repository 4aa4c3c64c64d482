"""Which of two texts people preferred, as token ids."""

import os
from typing import Any, NamedTuple

import numpy as np

from cljax.data.tables import pairs
from cljax.data.text import tokenise


class Comparisons(NamedTuple):
    """Two continuations of each prompt, the better one first.

    Attributes:
      prompts: int32 `[N, L]`.
      real: `[N, L]` booleans, which of the prompt's tokens are real.
      texts: int32 `[N, 2, T]`, each with a token that ends it where there is room.
      mask: `[N, 2, T]` booleans, which of their tokens are real.
    """

    prompts: np.ndarray
    real: np.ndarray
    texts: np.ndarray
    mask: np.ndarray


def comparisons(
    path: str | os.PathLike,
    tokenizer: Any,
    *,
    lengths: tuple[int, int],
    columns: tuple[str, str, str] = ("prompt", "chosen", "rejected"),
    end: str = "<|endoftext|>",
) -> Comparisons:
    """Reads comparisons out of a table, for `train.reward_model`, `losses.dpo` and their like.

    Args:
      path: a table as `pairs` reads it, such as JSON lines `{"prompt": ..., "chosen": ..., "rejected": ...}`.
      tokenizer: a `tokenizers.Tokenizer`, or the path of a `tokenizer.json`.
      lengths: tokens of a prompt and of a continuation, L and T; what is longer is cut at its end, with a warning.
      columns: the names of the prompt, the better and the worse text.
      end: what is written behind each continuation; "" is nothing.

    Returns:
      `Comparisons`.

    Raises:
      TypeError, ValueError: an argument of another kind; as `pairs` and `tokenise`, such as for an empty text.
    """
    for option, value, count in (("lengths", lengths, 2), ("columns", columns, 3)):
        if not isinstance(value, tuple) or len(value) != count:
            raise TypeError(f"{option} must be a tuple of {count}, got {value!r}")
    if not isinstance(end, str):
        raise TypeError(f"end must be a string, got {type(end).__name__}")
    prompts, *sides = pairs(path, columns=columns)
    prompts = tokenise(tokenizer, prompts, length=lengths[0])
    sides = [tokenise(tokenizer, [f"{text}{end}" for text in side], length=lengths[1]) for side in sides]
    return Comparisons(*prompts, np.stack([side.ids for side in sides], axis=1), np.stack([side.mask for side in sides], axis=1))
