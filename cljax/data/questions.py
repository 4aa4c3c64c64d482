"""Questions whose answers are worked out: rows for a model that writes rationales, and for one that is told the answer."""

import os
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int, Int32

from cljax.core import check
from cljax.data.tables import pairs
from cljax.data.text import tokenise

SUM_TOKENS = "0123456789+=:."  # a digit is its own id


class Questions(NamedTuple):
    """N questions, each with a hint in front that gives the answer away.

    Attributes:
      questions: int32 `[N, L]`, the hint and the question behind it.
      real: `[N, L]` booleans, the tokens of the question alone: what a model sees.
      hinted: `[N, L]` booleans, those of the hint too: what one sees that is told the answer (a guide, or STaR's rationalisation).
      answers: int32 `[N, A]`, the tokens that end a right rationale; -1 where there are none.
    """

    questions: Int32[ArrayLike, "N L"]
    real: Bool[ArrayLike, "N L"]
    hinted: Bool[ArrayLike, "N L"]
    answers: Int32[ArrayLike, "N A"]


def worked_sums(digits: Int[ArrayLike, "N K"]) -> tuple[Questions, Int32[Array, "N T"]]:
    """Sums of digits modulo ten, with a chain of thought: each addition is easy, to say the answer at once is not.

    Tokens are the places of `SUM_TOKENS`; all texts of a kind have one length.

    Args:
      digits: integers `[N, K]` from 0 to 9, at least two a row: what is added.

    Returns:
      `Questions`, "4:3+7+5+9=" with the hint "4:" and the answer "4."; and int32 `[N, K + 1]`, worked out, the sums of the first two digits, of three
      and so on, "05:4.".

    Raises:
      TypeError, ValueError: digits of another shape, dtype or range.

    Reference: Nye et al., "Show Your Work: Scratchpads for Intermediate Computation with Language Models", 2021, adds so.

    >>> found, worked = worked_sums(jnp.array([[3, 7, 5, 9]]))
    >>> ["".join(SUM_TOKENS[i] for i in row[0].tolist()) for row in (found.questions, worked, found.answers)]
    ['4:3+7+5+9=', '05:4.', '4.']
    """
    sizes = check.arrays(digits=(digits, "N K", "int"))
    check.integer("the number of digits", sizes["K"], at_least=2)
    check.number("digits", digits, at_least=0, at_most=9, several=True)
    digits = jnp.asarray(digits, jnp.int32)
    totals = jnp.cumsum(digits, axis=1) % 10
    signs = jnp.array([SUM_TOKENS.index("+")] * (sizes["K"] - 1) + [SUM_TOKENS.index("=")], jnp.int32)
    mark, end = (jnp.full((sizes["N"], 1), SUM_TOKENS.index(sign), jnp.int32) for sign in ":.")
    asked = jnp.stack([digits, jnp.broadcast_to(signs, digits.shape)], axis=2).reshape(sizes["N"], 2 * sizes["K"])
    questions, answers = _beside(totals[:, -1:], mark, asked), _beside(totals[:, -1:], end)
    hinted = jnp.ones(questions.shape, bool)
    return Questions(questions, hinted.at[:, :2].set(False), hinted, answers), _beside(totals[:, 1:-1], mark, answers)


def read_questions(
    path: str | os.PathLike,
    tokenizer: Any,
    *,
    lengths: tuple[int, int],
    columns: tuple[str, str] = ("question", "answer"),
    mark: str = "####",
    question: str = "Question: {}\nAnswer:",
    hint: str = "The answer is {}.\n",
) -> Questions:
    """Reads questions out of a table, with answers as GSM8K has them: a text whose end, behind a mark, is the answer. Only that is read.

    Args:
      path: a table as `pairs` reads it, such as JSON lines `{"question": ..., "answer": "... #### 42"}`.
      tokenizer: a `tokenizers.Tokenizer`, or the path of a `tokenizer.json`.
      lengths: tokens of an answer and of a question; of a hint there are four more than of an answer. What is longer is cut, with a warning.
      columns: the names of the question and of the answer.
      mark: what stands before the answer.
      question, hint: how the question and the hint are put, `{}` in the place of the question and of the answer.

    Returns:
      `Questions` as numpy arrays. An answer is tokenised with a space in front and a new line behind it, as it stands in a text.

    Raises:
      TypeError, ValueError: an argument of another kind; an answer without the mark (with its number); as `pairs` and `tokenise`.
    """
    for option, value in (("lengths", lengths), ("columns", columns)):
        if not isinstance(value, tuple) or len(value) != 2:
            raise TypeError(f"{option} must be a tuple of 2, got {value!r}")
    for option, value in (("mark", mark), ("question", question), ("hint", hint)):
        if not isinstance(value, str):
            raise TypeError(f"{option} must be a string, got {type(value).__name__}")
    asked, texts = pairs(path, columns=columns)
    if (place := next((place for place, text in enumerate(texts) if mark not in str(text)), None)) is not None:
        raise ValueError(f"{columns[1]} must hold {mark!r} before the answer, got {str(texts[place])[:40]!r} in row {place} of {str(path)!r}")
    answers = [text.rpartition(mark)[2].strip() for text in texts]
    said = tokenise(tokenizer, [f" {answer}\n" for answer in answers], length=lengths[0])
    hints = tokenise(tokenizer, [hint.format(answer) for answer in answers], length=lengths[0] + 4)
    prompts = tokenise(tokenizer, [question.format(text) for text in asked], length=lengths[1])
    ids, hinted = (np.concatenate([before, behind], axis=1) for before, behind in zip(hints, prompts, strict=True))
    real = hinted & (np.arange(ids.shape[1]) >= hints.ids.shape[1])
    return Questions(ids, real, hinted, np.where(said.mask, said.ids, -1).astype(np.int32))


def _beside(*parts) -> Array:
    return jnp.concatenate(parts, axis=1)
