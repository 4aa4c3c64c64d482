"""BM25 and tf-idf against their formulas in float64."""

import collections

import numpy as np
import pytest

from cljax import retrieval

DRAW = np.random.default_rng(0)
DOCUMENTS = [[f"w{int(x)}" for x in DRAW.zipf(1.4, size=size) if x < 40] for size in DRAW.integers(0, 30, 25)]
QUERIES = [["w1", "w2", "w2"], ["w7", "nowhere"], ["nowhere"], [], ["w30", "w3", "w1"], DOCUMENTS[4]]
COUNTS = [collections.Counter(text) for text in DOCUMENTS]
N = len(DOCUMENTS)


def frequency(word):
    return sum(word in counts for counts in COUNTS)


def reference_bm25(k1, b):
    mean = np.mean([len(text) for text in DOCUMENTS])

    def score(query, counts):
        long = k1 * (1 - b + b * sum(counts.values()) / mean)
        return sum(np.log(1 + (N - frequency(w) + 0.5) / (frequency(w) + 0.5)) * counts[w] / (counts[w] + long) for w in query if counts[w])

    return [[score(query, counts) for counts in COUNTS] for query in QUERIES]


def reference_tf_idf():
    words = sorted({word for text in DOCUMENTS for word in text})
    rows = np.array([[collections.Counter(text)[w] * np.log(N / frequency(w)) for w in words] for text in [*QUERIES, *DOCUMENTS]])
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return rows[: len(QUERIES)] @ rows[len(QUERIES) :].T


@pytest.mark.parametrize("options", [{}, dict(k1=0.9, b=0.4), dict(k1=2, b=1)])
def test_bm25_follows_its_formula(options):
    found = retrieval.bm25(QUERIES, DOCUMENTS, **options)
    assert found.shape == (len(QUERIES), N) and found.dtype == np.float32
    np.testing.assert_allclose(found, reference_bm25(**dict(k1=1.5, b=0.75) | options), rtol=1e-5, atol=1e-6)


def test_bm25_of_three_documents():
    found = retrieval.bm25(["a c"], ["a b a", "b c", "c c d a"], k1=1.2, b=0.75)
    np.testing.assert_allclose(found * 2.2, [[0.646255, 0.544215, 1.004465]], atol=2e-6)  # other variants multiply by k1 + 1


def test_tf_idf_follows_its_formula():
    found = retrieval.tf_idf(QUERIES, DOCUMENTS)
    assert found.dtype == np.float32 and found[5].argmax() == 4
    np.testing.assert_allclose(found, reference_tf_idf(), atol=1e-6)


@pytest.mark.parametrize("score", [retrieval.bm25, retrieval.tf_idf])
def test_a_query_without_a_known_word_scores_zero(score):
    assert not score(QUERIES, DOCUMENTS)[[2, 3]].any()
    assert not score(["x"], ["one document"]).any()


@pytest.mark.parametrize("score", [retrieval.bm25, retrieval.tf_idf])
def test_strings_words_and_ids_are_the_same_texts(score):
    texts = ["The cat sat, the mat.", "A dog; a mat!", "nothing"]
    words = [["the", "cat", "sat", "the", "mat"], ["a", "dog", "a", "mat"], ["nothing"]]
    ids = [np.array([5, 9, 11, 5, 3]), (1, 2, 1, 3), [0]]
    found = [score(q, d) for q, d in ((["the MAT"], texts), ([("the", "mat")], words), ([[5, 3]], ids))]
    np.testing.assert_allclose(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2])
    assert found[0][0, 0] > found[0][0, 1] > found[0][0, 2] == 0


@pytest.mark.errors
@pytest.mark.parametrize("score", [retrieval.bm25, retrieval.tf_idf])
@pytest.mark.parametrize(
    ("queries", "documents", "error", "match"),
    [
        ([], DOCUMENTS, ValueError, "queries must hold at least one text, got none"),
        (QUERIES, [], ValueError, "documents must hold at least one text, got none"),
        (QUERIES, [[], ["?"][:0]], ValueError, "documents must have at least one word, got none in 2 documents"),
        ("a query", DOCUMENTS, TypeError, "queries must be a list of texts, got str"),
        (QUERIES, [["a"], None], TypeError, r"documents\[1\] must be a string or a list of tokens, got NoneType"),
    ],
)
def test_bad_input_is_named(score, queries, documents, error, match):
    with pytest.raises(error, match=match):
        score(queries, documents)


@pytest.mark.errors
def test_numbers_out_of_range_are_named():
    with pytest.raises(ValueError, match="b must be at least 0 and at most 1, got 2"):
        retrieval.bm25(QUERIES, DOCUMENTS, b=2)
    with pytest.raises(ValueError, match="k1 must be at least 0, got -1"):
        retrieval.bm25(QUERIES, DOCUMENTS, k1=-1)
    with pytest.raises(ValueError, match=r"k1 must have shape \[\], got \[2\]"):
        retrieval.bm25(QUERIES, DOCUMENTS, k1=np.ones(2, np.float32))
