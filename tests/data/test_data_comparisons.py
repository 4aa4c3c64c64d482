"""Comparisons of texts: read from a table, the better one first, each with its end."""

import json

import numpy as np
import pytest

from cljax import data

LINES = [
    {"prompt": "which is it", "chosen": "the long one", "rejected": "it"},
    {"prompt": "it", "chosen": "one", "rejected": "the long long one"},
]


@pytest.fixture
def tokenizer():
    return data.train_tokenizer(["which is it the long one"], 9, kind="words", special=("<|endoftext|>",))


@pytest.fixture
def path(tmp_path):
    (tmp_path / "comparisons.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    return tmp_path / "comparisons.jsonl"


def words(tokenizer, ids, mask):
    return " ".join(tokenizer.id_to_token(int(token)) for token in ids[mask])


def test_the_better_text_comes_first_and_each_ends(path, tokenizer):
    found = data.comparisons(path, tokenizer, lengths=(6, 8))
    assert found.prompts.shape == found.real.shape == (2, 6) and found.texts.shape == found.mask.shape == (2, 2, 8)
    assert words(tokenizer, found.prompts[0], found.real[0]) == "[CLS] which is it [SEP]"
    texts = [[words(tokenizer, ids, mask) for ids, mask in zip(*row, strict=True)] for row in zip(found.texts, found.mask, strict=True)]
    assert texts[0] == ["[CLS] the long one <|endoftext|> [SEP]", "[CLS] it <|endoftext|> [SEP]"]
    assert texts[1] == ["[CLS] one <|endoftext|> [SEP]", "[CLS] the long long one <|endoftext|> [SEP]"]


def test_columns_have_names_and_what_is_too_long_is_cut(path, tokenizer):
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 5 tokens"):
        found = data.comparisons(path, tokenizer, lengths=(6, 5), columns=("prompt", "rejected", "chosen"), end="")
    assert words(tokenizer, found.texts[1, 0], found.mask[1, 0]) == "[CLS] the long long [SEP]"
    assert words(tokenizer, found.texts[1, 1], found.mask[1, 1]) == "[CLS] one [SEP]" and found.texts.dtype == np.int32


@pytest.mark.errors
def test_bad_input_is_named(path, tokenizer):
    with pytest.raises(TypeError, match="lengths must be a tuple of 2, got 8"):
        data.comparisons(path, tokenizer, lengths=8)
    with pytest.raises(TypeError, match=r"columns must be a tuple of 3, got \('prompt',\)"):
        data.comparisons(path, tokenizer, lengths=(6, 8), columns=("prompt",))
    with pytest.raises(TypeError, match="end must be a string, got NoneType"):
        data.comparisons(path, tokenizer, lengths=(6, 8), end=None)
    with pytest.raises(ValueError, match="columns must be among those of line 1 .*got 'best'"):
        data.comparisons(path, tokenizer, lengths=(6, 8), columns=("prompt", "best", "rejected"))
