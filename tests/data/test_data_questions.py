"""Questions with hints: sums that are worked out, and answers behind a mark in a file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import processors

from cljax import data


def texts(rows):
    return ["".join(data.SUM_TOKENS[i] for i in row) for row in rows.tolist()]


def test_no_sums_are_no_questions():
    found, worked = data.worked_sums(np.zeros((0, 4), int))
    assert [part.shape for part in (*found, worked)] == [(0, 10), (0, 10), (0, 10), (0, 2), (0, 5)]


def test_sums_are_worked_out_one_digit_after_the_other():
    found, worked = data.worked_sums(jnp.array([[3, 7, 5, 9], [0, 0, 9, 9]]))
    assert texts(found.questions) == ["4:3+7+5+9=", "8:0+0+9+9="]
    assert texts(worked) == ["05:4.", "09:8."] and texts(found.answers) == ["4.", "8."]
    assert found.hinted.all() and found.real.tolist() == [[False] * 2 + [True] * 8] * 2


@pytest.mark.parametrize("count", [2, 3, 6])
def test_any_number_of_digits_gives_what_python_adds(count):
    digits = np.random.default_rng(0).integers(0, 10, (20, count))
    found, rationales = jax.jit(data.worked_sums)(digits)
    assert found.questions.shape == (20, 2 * count + 2) and rationales.shape == (20, count + 1)
    for row, question, worked in zip(digits, texts(found.questions), texts(rationales), strict=True):
        partial = [str(sum(row[: i + 1]) % 10) for i in range(1, count)]
        assert question == f"{partial[-1]}:" + "+".join(map(str, row)) + "="
        assert worked == "".join(partial[:-1]) + ":" + partial[-1] + "."


LINES = [{"question": "2 and 3 apples ?", "answer": "there are 5 . #### 5"}, {"question": "1 apples ?", "answer": "1 . #### 1"}]


@pytest.fixture
def tokenizer():
    words = "question answer the is and apples there are 0 1 2 3 4 5"
    tokenizer = data.train_tokenizer([words], 30, kind="words", special=("####", "\n"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return tokenizer


@pytest.fixture
def path(tmp_path):
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    return tmp_path / "train.jsonl"


def test_questions_are_read_with_their_hints(path, tokenizer):
    found = data.read_questions(path, tokenizer, lengths=(3, 8))

    def say(ids, mask):
        return [" ".join(tokenizer.id_to_token(int(token)) for token in row[kept]) for row, kept in zip(ids, mask, strict=True)]

    assert say(found.questions, found.real) == ["question 2 and 3 apples \n answer", "question 1 apples \n answer"]
    assert say(found.questions, found.hinted)[0] == "the answer is 5 \n question 2 and 3 apples \n answer"
    assert say(found.answers, found.answers >= 0) == ["5 \n", "1 \n"] and found.answers.dtype == np.int32
    short = data.read_questions(path, tokenizer, lengths=(3, 8), question="{}", hint="is {}")
    assert say(short.questions, short.hinted)[1] == "is 1 1 apples"


@pytest.mark.errors
def test_bad_input_is_named(path, tokenizer):
    for digits, error, match in [
        (np.ones(3, int), ValueError, r"digits must have shape \[N, K\], got \[3\]"),
        (np.ones((3, 1), int), ValueError, "the number of digits must be at least 2, got 1"),
        (np.ones((3, 2)), TypeError, "digits must have dtype int"),
        (np.full((3, 2), 10), ValueError, "digits must be at least 0 and at most 9, got 10"),
    ]:
        with pytest.raises(error, match=match):
            data.worked_sums(digits)
    with pytest.raises(ValueError, match="answer must hold '##=' before the answer, got 'there are 5"):
        data.read_questions(path, tokenizer, lengths=(3, 8), mark="##=")
    with pytest.raises(TypeError, match="lengths must be a tuple of 2, got 8"):
        data.read_questions(path, tokenizer, lengths=8)
    with pytest.raises(TypeError, match="hint must be a string, got NoneType"):
        data.read_questions(path, tokenizer, lengths=(3, 8), hint=None)
