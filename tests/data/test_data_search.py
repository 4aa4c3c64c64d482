"""Search tasks of the standard library and of a folder, as texts and tokens; chunks of large corpora, which go on where they were."""

import json

import jax
import numpy as np
import pytest

from cljax import data
from cljax.data import search

WORDS = np.array([first + second + third for first in "bdfgk" for second in "aeiou" for third in "lmnrst"])


@pytest.fixture
def library(monkeypatch):
    """Twelve pairs, two of them with one docstring."""
    docstrings, code = (np.array([f"{word} number {row}" for row in range(12)], object) for word in ("docstring", "code"))
    docstrings[7] = docstrings[2]
    monkeypatch.setattr(search, "documented_code", lambda folder: data.DocumentedCode(code, code, docstrings, code))
    return docstrings, code


def test_the_library_is_shuffled_and_counted_off(library):
    docstrings, code = library
    known, test = data.documented_search((8, 4), key=jax.random.key(3))
    assert (len(known.queries), len(test.passages)) == (8, 4) and known.answers.tolist() == list(range(8)) and known.answers.dtype == np.int32
    rows = [int(text.split()[-1]) for text in [*known.passages, *test.passages]]
    assert sorted(rows) == list(range(12)) != rows
    assert [*known.queries, *test.queries] == docstrings[rows].tolist()
    (whole,) = data.documented_search((12,), key=jax.random.key(3))
    places = [whole.passages.tolist().index(code[row]) for row in (2, 7)]
    assert whole.ids[places[0]] == whole.ids[places[1]] and len(set(whole.ids)) == 11
    again = data.documented_search((8, 4), key=jax.random.key_data(jax.random.key(3)))
    assert again[0].passages.tolist() == known.passages.tolist()  # a key of the older kind
    assert data.documented_search((8, 4), key=jax.random.key(4))[0].passages.tolist() != known.passages.tolist()


def test_a_set_in_two_wordings_is_learnt_from_and_searched(monkeypatch):
    columns = {"de": [f"eins {row}" for row in range(20)], "en": [f"one {row}" for row in range(20)], "fr": [""] * 20}
    load = lambda name, features, folder: tuple(np.array(columns[one], object) for one in features or ("en", "fr"))  # noqa: E731
    monkeypatch.setattr(search, "load", load)
    texts, task = data.paired_search("messages", features=("de", "en"), share=0.8, most=3)
    assert texts.tolist() == columns["de"][:16] and task.queries.tolist() == columns["de"][16:19] and task.passages.tolist() == columns["en"][16:19]
    assert task.answers.tolist() == task.ids.tolist() == [0, 1, 2] and task.answers.dtype == np.int32
    monkeypatch.setattr(search, "load", lambda name, features, folder: (np.zeros((20, 8, 8)), np.zeros(20, int)))
    with pytest.raises(ValueError, match="name must be that of a set whose rows are two texts, got 'digits'"):
        data.paired_search("digits")
    monkeypatch.setattr(search, "load", load)
    texts, task = data.paired_search("messages")
    assert texts.tolist() == columns["en"][:18] and task.queries.tolist() == columns["en"][18:] and task.passages.tolist() == ["", ""]


@pytest.fixture
def folder(tmp_path):
    lines = {"passages": [{"text": f"text {row}"} for row in range(3)], "test": [{"query": "two", "passage": 2}, {"query": "nought", "passage": 0}]}
    for name, rows in (lines | {"wrong": [{"query": "three", "passage": 3}]}).items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_parts_of_a_folder_share_its_passages_which_are_read_once(folder, monkeypatch):
    one, two = data.read_search(folder, ("test", "test"))
    assert (
        one.passages is two.passages
        and one.queries.tolist() == ["two", "nought"]
        and one.answers.tolist() == [2, 0]
        and one.ids.tolist() == [0, 1, 2]
    )
    calls, tokenise = [], search.tokenise
    monkeypatch.setattr(search, "tokenise", lambda tokenizer, texts, **how: calls.append(len(texts)) or tokenise(tokenizer, texts, **how))
    tokenizer = data.train_tokenizer(["text two nought"], 5, kind="words")
    first, second = data.tokenise_search(tokenizer, one, two, lengths=(3, 4))
    assert sorted(calls) == [2, 2, 3] and first.passages is second.passages
    assert first.queries.ids.shape == (2, 3) and first.passages.mask.shape == (3, 4) and first.answers is one.answers
    plain, _ = data.tokenise_search(tokenizer, one, two, lengths=(3, 4), special_tokens=False)
    assert plain.queries.mask.sum() == 2


class Articles(list):
    def __getitems__(self, rows):
        return [{"text": self[row].encode()} for row in rows]


@pytest.fixture
def chunks():
    draw = np.random.default_rng(1)
    source = Articles(" ".join(draw.choice(WORDS, 24)) for _ in range(30))
    tokenizer = data.train_tokenizer(list(WORDS), 200, kind="words")
    return lambda **how: data.Chunks([source, source], tokenizer, **dict(length=12, batch=4, key=jax.random.key(7), articles=7) | how)


def test_articles_are_read_in_chunks_and_resumed(chunks):
    whole, resumed = chunks(), chunks()
    batches = [next(whole) for _ in range(60)]  # 240 chunks, two epochs of each corpus
    for _ in range(23):
        next(resumed)
    kept, after = json.loads(json.dumps(resumed.get_state())), chunks()
    after.set_state(kept)
    for batch in batches[23:]:
        np.testing.assert_array_equal(next(after)["ids"], batch["ids"])
    seen = np.concatenate([batch["ids"] for batch in batches])
    assert seen.shape == (240, 12) and np.all(seen >= 5) and len(np.unique(seen, axis=0)) > 100
    assert batches[0]["mask"].all() and batches[0]["index"].tolist() == [0, 1, 2, 3] and seen.dtype == np.int32
    assert not np.array_equal(next(chunks(key=jax.random.key(8)))["ids"], batches[0]["ids"])


def test_each_process_gets_its_share_of_a_batch(chunks, monkeypatch):
    whole, shares = [next(alone)["ids"] for alone in [chunks()] for _ in range(3)], []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for number in range(2):
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        own = chunks()
        shares.append([next(own) for _ in range(3)])
    for batch, *parts in zip(whole, *shares, strict=True):
        for part in parts:
            np.testing.assert_array_equal(part["ids"], batch[part["index"]])
        assert sorted(np.concatenate([part["index"] for part in parts])) == [0, 1, 2, 3]


def test_a_part_gives_each_of_its_tokens_once(chunks):
    alone = chunks(shares=[1, 0], articles=30, batch=1)
    count = (30 * 24 - 11) // 12
    epoch = np.concatenate([next(alone)["ids"].ravel() for _ in range(count)])
    assert alone.get_state() == {"drawn": count, "places": [(1, 0), (0, 0)]}
    tokens = data.token_stream(alone._tokenizer, list(alone._sources[0]))
    left = np.bincount(tokens, minlength=200) - np.bincount(epoch, minlength=200)
    assert np.all(left >= 0) and left.sum() == 30 * 24 - count * 12 < 24


def test_shares_say_how_often_a_corpus_is_drawn_from(chunks):
    drawn = chunks(shares=[3, 1], batch=400, articles=30)
    next(drawn)
    state = drawn.get_state()["places"]
    each = (30 * 24 - 11) // 12
    taken = [part * each + row for part, row in state]
    assert sum(taken) == 400 and abs(taken[0] - 300) < 40


@pytest.mark.errors
def test_bad_input_is_named(chunks, library, folder):
    for call, error, message in (
        (lambda: chunks(length=0), ValueError, "length must be at least 1, got 0"),
        (lambda: chunks(key=7), TypeError, "key must be a PRNG key"),
        (lambda: chunks(shares=[0, 0]), ValueError, "shares must be a number of at least 0 for each of the 2 sources"),
        (lambda: data.Chunks([[]], None, length=2, batch=1, key=jax.random.key(0)), ValueError, "sources must be corpora with an article each"),
        (lambda: next(chunks(length=400)), ValueError, r"sources\[\d\] must have 799 tokens in \d articles, got \d+"),
        (lambda: data.documented_search((8, 5), key=jax.random.key(0)), ValueError, "at most the 12 pairs that there are, got 8 \\+ 5 = 13"),
        (lambda: data.documented_search(8, key=jax.random.key(0)), TypeError, "split must be a tuple of counts, at least one, got 8"),
        (lambda: data.documented_search((), key=jax.random.key(0)), TypeError, r"split must be a tuple of counts, at least one, got \(\)"),
        (lambda: data.documented_search((8.0,), key=jax.random.key(0)), TypeError, "split must be an integer"),
        (lambda: data.paired_search("verses", features=("web",)), ValueError, "features must be two columns, got \\('web',\\)"),
        (lambda: data.paired_search("verses", share=1.5), ValueError, "share must be at least 0 and at most 1, got 1.5"),
        (lambda: data.paired_search("verses", most=0), ValueError, "most must be at least 1, got 0"),
        (lambda: data.read_search(folder, ("wrong",)), ValueError, "must have numbers from 0 to 2 as its passages"),
        (lambda: data.read_search(folder, ("train",)), ValueError, "train.jsonl', which is not there"),
    ):
        with pytest.raises(error, match=message):
            call()
