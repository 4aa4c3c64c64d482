"""Sentences out of articles, pairs of shipped texts, and scored pairs out of a table or a prepared set."""

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from cljax import data
from cljax.data import sentences

WORDS = np.array([first + second + third for first in "bdfgk" for second in "aeiou" for third in "lmnrst"])


def test_sentences_come_from_random_articles_until_there_are_enough():
    rows = [{"text": f"One {row} is a sentence of seven words. Short! Is this one long enough, {row}, what?".encode()} for row in range(20)]
    found = data.sample_sentences(rows, 11, key=jax.random.key(0), most=8)
    assert len(found) == len(set(found)) == 11 and not any(text.startswith("Short") for text in found)
    assert found[0].endswith("words.") and found[1].endswith("what?") and found[0] != data.sample_sentences(rows, 1, key=jax.random.key(1))[0]
    assert len(data.sample_sentences(rows, 100, key=jax.random.key(0))) == 40  # all that there are
    assert data.sample_sentences(rows, 100, key=jax.random.key(0), least=9) == []


def texts(count, least, most):
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, size)) for size in draw.integers(least, most, count)]


def test_verses_are_paired_with_their_other_wording(monkeypatch):
    rows = [(text, text.upper(), "Gen") for text in texts(90, 4, 14)] + [("a b c d e f g", "A B C D E F G", "Matt")] * 3
    columns = dict(zip(("web", "kjv", "book"), (np.array(column, object) for column in zip(*rows, strict=True)), strict=True))
    monkeypatch.setattr(sentences, "load", lambda name, features, folder: tuple(columns[feature] for feature in features))
    known, first, second = data.sentence_pairs("verses", known=25, held_out=9, key=jax.random.key(0), most=11)
    assert (len(known), len(first), len(second)) == (25, 9, 9) and not set(known) & set(first)
    assert [text.upper() for text in first] == second.tolist()
    assert {len(text.split()) for text in [*known, *first]} == set(range(6, 12)) and "a b c d e f g" not in {*known, *first}
    with pytest.raises(ValueError, match="known and held_out must sum to at most the .* sentences of 'verses', got 80 \\+ 9"):
        data.sentence_pairs("verses", known=80, held_out=9, key=jax.random.key(0), most=11)
    other, *_ = data.sentence_pairs("verses", known=25, held_out=9, key=jax.random.key(1), most=11)
    assert other.tolist() != known.tolist()


def test_glosses_are_cut_in_halves(monkeypatch):
    found = np.array([*texts(40, 6, 12), "a; b, c", ""], object)
    monkeypatch.setattr(sentences, "load", lambda name, folder: (found, found) if name == "glosses" else (np.zeros((9, 8, 8)), np.zeros(9)))
    with pytest.raises(ValueError, match="name must be that of a set that has texts, got 'digits'"):
        data.sentence_pairs("digits", known=1, held_out=1, key=jax.random.key(0))
    known, first, second = data.sentence_pairs("glosses", known=30, held_out=5, key=jax.random.key(0))
    assert len(known) == 30 and len(first) == len(second) == 5
    assert {f"{a} {b}" for a, b in zip(first, second, strict=True)} < set(found) - set(known)
    assert all(0 <= len(b.split()) - len(a.split()) <= 1 for a, b in zip(first, second, strict=True))


class Scored(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes scored pairs as the builder of GLUE's STS-B does."""

    name, url_infos, VERSION = "glue", None, tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="stsb")]

    def _info(self):
        features = {"sentence1": tfds.features.Text(), "sentence2": tfds.features.Text(), "label": np.float32, "idx": np.int32}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "validation")}

    def _generate_examples(self, split):
        for row in range(3):
            yield row, {"sentence1": f"one {split}", "sentence2": "two", "label": row + 0.5, "idx": row}


def test_scored_pairs_come_from_a_prepared_set_or_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    Scored(config="stsb", data_dir=tmp_path, file_format="array_record").download_and_prepare()
    first, second, scores = data.scored_pairs("glue/stsb")
    assert set(first) == {"one validation"} and second[0] == "two" and sorted(scores.tolist()) == [0.5, 1.5, 2.5]
    assert data.scored_pairs("glue/stsb", split="train")[0][0] == "one train"
    (tmp_path / "sts.csv").write_text("label,sentence2,sentence1\n4.5,b,a\n0,d,c\n")
    for name in ("sts.csv", tmp_path / "sts.csv"):
        first, second, scores = data.scored_pairs(name)
        assert first.tolist() == ["a", "c"] and second.tolist() == ["b", "d"] and scores.tolist() == [4.5, 0] and scores.dtype == np.float32


@pytest.mark.errors
def test_bad_input_is_named():
    how = dict(known=1, held_out=1, key=jax.random.key(0))
    for call, error, message in (
        (lambda: data.sample_sentences([], 0, key=jax.random.key(0)), ValueError, "count must be at least 1, got 0"),
        (lambda: data.sentence_pairs("verse", **how), ValueError, "name must be one of .*; did you mean 'verses'?"),
        (lambda: data.sentence_pairs("verses", **how | {"known": 0}), ValueError, "known must be at least 1, got 0"),
        (lambda: data.sentence_pairs("verses", **how | {"key": 3}), TypeError, "key must be a PRNG key"),
        (lambda: data.scored_pairs("none.csv"), ValueError, "none.csv', which is not there"),
    ):
        with pytest.raises(error, match=message):
            call()
