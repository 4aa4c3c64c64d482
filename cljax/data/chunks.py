"""Batches of running text out of corpora that are too large for memory."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.data.text import token_stream


class Chunks:
    """Batches of chunks of corpora, for ever: an iterator for `train.fit`, which saves where it is.

    The articles of a corpus come in an order of its own each epoch, a part of them at a time; those of a part are put one behind the other, whatever
    article a token belongs to, cut into chunks of one length from a random place on, and the chunks are shuffled. Of several processes that train as
    one each gets its share of a batch.

    Args:
      sources: corpora, data sources such as `data.builder("tfds:wikipedia/20190301.en").as_data_source("train")`: `len(source)` articles, and
        `source.__getitems__(rows)` gives dicts that have a `text`.
      tokenizer: a `tokenizers.Tokenizer`; no text is framed or cut.
      length: tokens of a chunk.
      batch: chunks of a batch, those of all processes together.
      key: a PRNG key, of all draws.
      shares: how often a chunk is taken from each corpus, in proportion, such as `samplers.corpus_mixture` gives. None: from each as often.
      articles: of a part, at most: what is held in memory of a corpus.

    Yields:
      `{"ids": [batch, length] int32, "mask": all true, "index": [batch]}`, numpy arrays; `index` are the chunks' places in the whole batch.

    Raises:
      TypeError, ValueError: an argument of another kind or range; a part with too few tokens.
    """

    def __init__(self, sources: Sequence[Any], tokenizer: Any, *, length: int, batch: int, key: KeyLike, shares: Any = None, articles: int = 20_000):
        for name, value in (("length", length), ("batch", batch), ("articles", articles)):
            check.integer(name, value, at_least=1)
        check.key("key", key)
        shares = np.ones(len(sources)) if shares is None else np.array(shares, np.float64)
        if not len(sources) or any(not len(source) for source in sources):
            raise ValueError("sources must be corpora with an article each, at least one")
        if shares.shape != (len(sources),) or not np.all(shares >= 0) or not 0 < shares.sum() < np.inf:
            raise ValueError(
                f"shares must be a number of at least 0 for each of the {len(sources)} sources, not all of them 0, got {shares.tolist()}"
            )
        self._sources, self._tokenizer, self._shares = sources, tokenizer, shares / shares.sum()
        self._length, self._batch, self._articles = length, batch, articles
        self._seed = seed_of(key)
        self.set_state({"drawn": 0, "places": [(0, 0)] * len(sources)})

    def get_state(self) -> dict[str, Any]:
        """Where it is: how many batches were drawn, and of each corpus the part and the chunk that come next."""
        return {"drawn": self._drawn, "places": list(self._places)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._drawn, self._places, self._parts = state["drawn"], [tuple(map(operator.index, place)) for place in state["places"]], {}

    def __iter__(self):
        return self

    def __next__(self):
        chosen = np.random.default_rng((self._seed, self._drawn)).choice(len(self._sources), self._batch, p=self._shares)
        ids = np.stack([self._take(corpus) for corpus in chosen])
        self._drawn += 1
        index = np.arange(self._batch)[jax.process_index() :: jax.process_count()]
        return {"ids": ids[index], "mask": np.ones((len(index), self._length), bool), "index": index}

    def _take(self, corpus):
        part, row = self._places[corpus]
        if corpus not in self._parts:
            self._parts[corpus] = self._read(corpus, part)
        chunks = self._parts[corpus]
        last = row + 1 == len(chunks)
        self._places[corpus] = (part + 1, 0) if last else (part, row + 1)
        return (self._parts.pop(corpus) if last else chunks)[row]

    def _read(self, corpus, part):
        source = self._sources[corpus]
        epoch, place = divmod(part, parts := -(-len(source) // self._articles))
        order = np.random.default_rng((self._seed, corpus, epoch)).permutation(len(source))
        chosen = np.array_split(order, parts)[place].tolist()  # parts of one size: a last one may have too little for a chunk
        draw = np.random.default_rng((self._seed, corpus, epoch, place))
        stream = token_stream(self._tokenizer, [row["text"].decode() for row in source.__getitems__(chosen)])
        count, offset = (len(stream) - self._length + 1) // self._length, draw.integers(self._length)
        if count < 1:
            raise ValueError(f"sources[{corpus}] must have {2 * self._length - 1} tokens in {len(chosen)} articles, got {len(stream)}")
        return stream[offset : offset + count * self._length].reshape(count, self._length)[draw.permutation(count)]


def seed_of(key):
    """What numpy's generators begin with, out of a PRNG key of either kind."""
    return np.ravel(jax.random.key_data(key) if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else key).tolist()
