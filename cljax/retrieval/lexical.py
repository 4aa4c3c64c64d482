"""Scores by the words that a query and a document share: the baselines of every learned retriever. They run on the host, outside of compiled code."""

import logging
import re
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from cljax.core import check

Texts = Sequence[str | Sequence[Hashable] | np.ndarray] | np.ndarray
_WORDS = re.compile(r"\w+")


def bm25(queries: Texts, documents: Texts, *, k1: float | int = 1.5, b: float | int = 0.75) -> Float[np.ndarray, "Q N"]:
    r"""The BM25 score of each document for each query.

    $$\sum_{w \in q} \log\left(1 + \frac{N - n_w + 1/2}{n_w + 1/2}\right) \frac{f_{wd}}{f_{wd} + k_1 (1 - b + b\, l_d / \bar l)}$$

    $f_{wd}$ is how often the word w stands in document d of $l_d$ words, $n_w$ the number of documents that have it. A word that a query has twice
    counts twice; one that no document has counts nothing, so that a query of such words has the score 0 everywhere. This is Lucene's variant.

    Args:
      queries, documents: lists of texts. A text is a list of tokens (words or ids), or a string, which is cut into lower-case words.
      k1: how soon more of the same word stops to count, at least 0.
      b: how much a document's length counts, from 0 to 1.

    Returns:
      float32 `[Q, N]`, a numpy array, higher is better: as the ranking metrics take it.

    Raises:
      TypeError: an argument that is no list of texts.
      ValueError: no queries, no documents, not a word in any document, a number out of its range.

    Reference: Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; the variants are compared in Kamphuis et al.,
    "Which BM25 Do You Mean?", ECIR 2020.

    >>> bm25(["the cat"], ["a cat sat", "a dog sat"]).argmax(axis=1).tolist()
    [0]
    """
    check.number("k1", k1, at_least=0)
    check.number("b", b, at_least=0, at_most=1)
    queries, documents, vocabulary = _numbered(queries, documents)

    from bm25s import BM25  # importing it starts JAX

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for all that it has to say
    index = BM25(k1=k1, b=b, method="lucene")
    index.index((documents, {str(number): number for number in range(len(vocabulary))}), show_progress=False)
    scores = [index.get_scores_from_ids(query) if query else np.zeros(len(documents)) for query in queries]
    return np.stack(scores).astype(np.float32)


def tf_idf(queries: Texts, documents: Texts) -> Float[np.ndarray, "Q N"]:
    r"""The cosine of query and document as vectors of words, $f_{w} \log (N / n_w)$ for each word w.

    $f_w$ is how often the text has the word, $n_w$ the number of documents that have it: a word that all documents have counts nothing, and so does
    one that none has.

    Args:
      queries, documents: lists of texts. A text is a list of tokens (words or ids), or a string, which is cut into lower-case words.

    Returns:
      float32 `[Q, N]`, a numpy array; 0 where a text has no word that counts.

    Raises:
      TypeError: an argument that is no list of texts.
      ValueError: no queries, no documents, not a word in any document.

    >>> tf_idf(["the cat"], ["a cat", "a dog"]).tolist()
    [[1.0, 0.0]]
    """
    queries, documents, vocabulary = _numbered(queries, documents)
    queries, documents = (_counts(texts, len(vocabulary)) for texts in (queries, documents))
    weights = np.log(documents.shape[0] / np.bincount(documents.indices, minlength=len(vocabulary)))
    queries, documents = (_unit_rows(counts.multiply(weights).tocsr()) for counts in (queries, documents))
    return (queries @ documents.T).toarray().astype(np.float32)


def _counts(texts, size):
    """How often each text has each word, a sparse matrix without duplicate entries."""
    from scipy.sparse import csr_matrix

    ends = np.cumsum([0, *map(len, texts)])
    counts = csr_matrix((np.ones(ends[-1]), np.fromiter((word for text in texts for word in text), np.int64, ends[-1]), ends), (len(texts), size))
    counts.sum_duplicates()
    return counts


def _unit_rows(matrix):
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)))
    return matrix.multiply(1 / np.where(norms == 0, 1, norms)).tocsr()


def _numbered(queries, documents):
    """The texts as lists of numbers of words, the queries without words that no document has; and the words' numbers."""
    queries, documents = _split("queries", queries), _split("documents", documents)
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(word for document in documents for word in document))}
    if not vocabulary:
        raise ValueError(f"documents must have at least one word, got none in {len(documents)} documents")
    known = [[vocabulary[word] for word in query if word in vocabulary] for query in queries]
    return known, [[vocabulary[word] for word in document] for document in documents], vocabulary


def _split(name, texts):
    if isinstance(texts, (str, bytes)) or not isinstance(texts, (Sequence, np.ndarray)):
        raise TypeError(f"{name} must be a list of texts, got {type(texts).__name__}")
    if not len(texts):
        raise ValueError(f"{name} must hold at least one text, got none")
    found = []
    for number, text in enumerate(texts):
        if not isinstance(text, (str, Sequence, np.ndarray)) or isinstance(text, bytes):
            raise TypeError(f"{name}[{number}] must be a string or a list of tokens, got {type(text).__name__}")
        found.append(_WORDS.findall(text.lower()) if isinstance(text, str) else text.tolist() if isinstance(text, np.ndarray) else list(text))
    return found
