"""Vectors of words out of which stand together."""

import numpy as np
from jaxtyping import Bool, Float, Integer

from cljax.core import check


def ppmi_vectors(ids: Integer[np.ndarray, "N L"], where: Bool[np.ndarray, "N L"], size: int, features: int) -> Float[np.ndarray, "size features"]:
    r"""Word vectors by factors of the positive pointwise mutual information of two words in a text.

    $$M_{ab} = \max\left(0, \log \frac{n_{ab} n}{n_a n_b}\right) \approx U S V^\top, \qquad e_a = U_a \sqrt{S}$$

    $n_{ab}$ is the number of texts that have both words, once each; $n_a$ sums it over the other words, and n over all pairs. $M_{aa}$ is 0.

    Args:
      ids: `[N, L]` integers from 0 to size - 1, texts as tokens.
      where: `[N, L]` booleans, which of them count.
      size: of the vocabulary.
      features: the number of factors, less than size.

    Returns:
      float64 `[size, features]`; a word that stands with no other has zeros.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Levy & Goldberg, "Neural Word Embedding as Implicit Matrix Factorization", NeurIPS 2014, section 4.2.

    >>> vectors = ppmi_vectors(np.array([[0, 1], [2, 3]]), np.ones((2, 2), bool), 4, 2)
    >>> (vectors @ vectors.T).round(2).shape
    (4, 4)
    """
    from scipy import sparse

    check.integer("size", size, at_least=2)
    check.integer("features", features, at_least=1, at_most=size - 1)
    check.arrays(ids=(ids, "N L", "int"), where=(where, "N L", "bool"))
    ids, where = np.asarray(ids), np.asarray(where)
    present = sparse.csr_matrix((np.ones(where.sum()), (np.nonzero(where)[0], ids[where])), (len(ids), size))
    present.data[:] = 1  # of a word that a text has twice
    together = (present.T @ present).tocoo()
    apart = together.row != together.col
    row, column, count = together.row[apart], together.col[apart], together.data[apart]
    degree = np.bincount(row, count, size)
    information = np.maximum(0, np.log(count * degree.sum() / (degree[row] * degree[column])))
    if not information.any():
        return np.zeros((size, features))
    factors, values, _ = sparse.linalg.svds(sparse.csr_matrix((information, (row, column)), (size, size)), features, v0=np.ones(size))
    return factors * np.sqrt(values)
