"""Code search: functions split by file with their names hidden, CodeSearchNet's files, pieces with the types of their tokens."""

import json

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from cljax import data
from cljax.core import provenance
from cljax.data import code_search, stdlib

FILES = {
    "again.py": """
def edge_length(self):
    "Gives the length of an edge."
    return self.edge
""",
    "shapes.py": """
class Square:
    def areaOf(self, side=2):
        "Gives the area of a square. More."
        # multiply
        return side * side
    def edge_length(self):
        "Gives the length of an edge."
        return self.edge
    def short(self):
        "Too short."
""",
    "files.py": """
def read_all(path):
    "Reads all lines of a file."
    return read_all(open(path))
def close(file):
    "Closes the file at once."
    file.close()
""",
    "words.py": """
def split(text):
    "Splits a text into words."
    return text.split(' ')
""",
}


@pytest.fixture
def library(monkeypatch):
    """A standard library of five functions, one of them twice, in four files."""
    rows = stdlib.definitions({name: text.encode() for name, text in FILES.items()})
    monkeypatch.setattr(code_search, "load", lambda name, features, folder: tuple(np.array(rows[feature], object) for feature in features))


def texts_of(pieces):
    return {" ".join(word for word, _ in text) for text in pieces}


def test_functions_are_split_by_file_and_their_names_are_hidden(library):
    found = data.described_functions(3, key=jax.random.key(0))
    known, held = texts_of(found.known_queries), texts_of(found.queries)
    files = [{"gives the area of a square"}, {"gives the length of an edge"}, {"reads all lines of a file", "closes the file at once"}]
    files += [{"splits a text into words"}]
    assert known | held == set.union(*files) and not known & held and len(held) == len(found.codes) == 3
    assert found.answers.tolist() == [0, 1, 2] and found.answers.dtype == np.int32
    assert all(file <= known or file <= held for file in files)
    rows = codes_by_description(found)
    read = [("def", "keyword"), ("(", "separator"), ("path", "identifier"), (")", "separator"), (":", "separator"), ("return", "keyword")]
    read += [("(", "separator"), ("open", "identifier"), ("(", "separator"), ("path", "identifier"), (")", "separator"), (")", "separator")]
    assert rows["reads all lines of a file"] == read
    assert ("multiply", "comment") in rows["gives the area of a square"] and ("*", "operator") in rows["gives the area of a square"]
    shown = codes_by_description(data.described_functions(3, key=jax.random.key(0), hide_name=False))
    assert shown["gives the area of a square"][:3] == [("def", "keyword"), ("area", "identifier"), ("of", "identifier")]
    assert {kind for text in found.queries for _, kind in text} == {"comment"}


def codes_by_description(found):
    pairs = zip([*found.known_queries, *found.queries], [*found.known_codes, *found.codes], strict=True)
    return {" ".join(word for word, _ in query): code for query, code in pairs}


def test_sentences_are_long_enough_and_each_pair_is_there_once(library):
    found = data.described_functions(1, key=jax.random.key(0), least=6)
    texts = [*found.known_queries, *found.queries]
    assert texts_of(texts) == {"gives the area of a square", "gives the length of an edge", "reads all lines of a file"}
    assert len(texts) == 3 and len(found.queries) == 1  # the length of an edge is told in two files


@pytest.fixture
def net(tmp_path):
    """A language of CodeSearchNet: three functions, and a query whose code is not there."""
    rows = [{"code_tokens": ["func", word, "(", " ", ")"], "docstring_tokens": ["Does", word], "url": word} for word in ("read", "close", "max")]
    parts = {"train": rows, "test": [*rows[:2], rows[0] | {"url": "none"}], "codebase": rows[::-1]}
    for part, chosen in parts.items():
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen) + "\n")
    return tmp_path


def test_code_search_net_pairs_queries_with_candidates_by_their_address(net):
    found = data.code_search_net(net, "go")
    assert found.answers.tolist() == [2, 1] and len(found.codes) == 3
    assert found.known_codes[0] == [("func", "keyword"), ("read", "identifier"), ("(", "separator"), (")", "separator")]
    assert found.known_queries[1] == [("does", "comment"), ("close", "comment")]
    assert data.code_search_net(net, "python").codes[0][0] == ("func", "identifier")
    assert provenance.recorded()[net.name]["rows"] == 3


def test_parts_of_a_piece_have_its_type():
    tokenizer = tokenizers.Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(["[UNK]", "[CLS]", "[SEP]", "ab", "##c", "1"])}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    text = [("abc", "identifier"), ("1", "number")]
    found = data.tokenise_pieces(tokenizer, [text, text], length=6, first_type=10)
    assert found.ids[0].tolist() == [1, 3, 4, 5, 2, 0] and found.mask.sum(axis=1).tolist() == [5, 5]
    assert found.types[1].tolist() == [-1, 11, 11, 14, -1, -1]
    assert data.tokenise_pieces(tokenizer, [text], length=4, first_type=10).ids.tolist() == [[1, 3, 4, 2]]


def test_a_task_is_read_side_by_side():
    query, code = [("gives", "comment"), ("it", "comment")], [("x", "identifier"), ("+", "operator"), ("1", "number")]
    task = data.CodeSearch([query] * 3, [code] * 3, [query], [code] * 2, np.array([1], np.int32))
    tokenizer = data.piece_tokenizer([query, code], 9)
    one, two = data.tokenise_code_search(tokenizer, task, task, lengths=(3, 2), first_type=20)
    shapes = [side.ids.shape for side in one[:4]]
    assert shapes == [(3, 3), (3, 2), (1, 3), (2, 2)] and one.answers is task.answers
    for side, texts, length in zip(two[:4], task[:4], (3, 2, 3, 2), strict=True):
        jax.tree.map(np.testing.assert_array_equal, side, data.tokenise_pieces(tokenizer, texts, length=length, first_type=20))


def test_the_most_frequent_pieces_have_a_token():
    texts = [[("A", "identifier"), ("b", "identifier")], [("a", "identifier"), ("c", "keyword"), ("b", "number"), ("a", "string")]]
    tokenizer = data.piece_tokenizer(texts, 2)
    assert tokenizer.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "a": 3, "b": 4}
    assert data.tokenise_pieces(tokenizer, texts, length=4).ids.tolist() == [[3, 4, 0, 0], [3, 1, 4, 3]]


@pytest.mark.errors
def test_bad_input_is_named(net, library):
    for call, error, message in (
        (lambda: data.described_functions(9, key=jax.random.key(0)), ValueError, "test must leave whole files on both sides, of 5 functions, got 9"),
        (lambda: data.described_functions(0, key=jax.random.key(0)), ValueError, "test must be at least 1, got 0"),
        (lambda: data.described_functions(3, key=0), TypeError, "key must be a PRNG key"),
        (lambda: data.piece_tokenizer([], 0), ValueError, "size must be at least 1"),
        (lambda: data.tokenise_pieces(data.piece_tokenizer([], 1), [], length=0), ValueError, "length must be at least 1"),
        (lambda: data.code_search_net(net, "perl"), ValueError, "language must be one of"),
    ):
        with pytest.raises(error, match=message):
            call()
    (net / "test.jsonl").write_text('{"url": "none", "docstring_tokens": [], "code_tokens": []}')
    with pytest.raises(ValueError, match="must have a test query whose code is in codebase.jsonl, by `url`; of 1 none has"):
        data.code_search_net(net, "go")
    (net / "test.jsonl").unlink()
    with pytest.raises(ValueError, match="must have test.jsonl$"):
        data.code_search_net(net, "go")
