"""retrieval.search: blocks however cut give what one search of the whole gives; files, generators, what is excluded, bad input."""

import functools
import importlib

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies

from cljax import pairwise, retrieval


@functools.cache
def whole():
    """Queries, 100 keys with many equal scores and some that are NaN or infinite, and their 7 nearest."""
    draw = np.random.default_rng(0)
    queries, keys = (draw.integers(-2, 3, size=(n, 3)).astype(np.float32) for n in (5, 100))
    keys[[70, 40, 99]] = [[np.inf, np.inf, np.inf], [np.nan, 0, 0], [-np.inf, 0, 0]]
    return queries, keys, [np.asarray(x) for x in pairwise.top_k(queries, keys, 7)]


def search(blocks, k=7, **options):
    return retrieval.search(whole()[0], blocks, k, progress=False, **options)


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@hypothesis.given(cuts=strategies.lists(strategies.integers(0, 100), max_size=6), kind=strategies.sampled_from((list, iter)))
def test_any_cut_finds_what_top_k_finds_of_the_whole(cuts, kind):
    _, keys, wanted = whole()
    same(search(kind(np.split(keys, sorted(cuts))), block_size=20), wanted)


def test_memory_mapped_files_are_searched_in_blocks(tmp_path):
    _, keys, wanted = whole()
    np.save(tmp_path / "all.npy", keys)
    same(search(np.load(tmp_path / "all.npy", mmap_mode="r"), block_size=20), wanted)
    for number, part in enumerate(np.split(keys, [35, 60])):
        np.save(tmp_path / f"{number}.npy", part)
    same(search((np.load(file, mmap_mode="r") for file in sorted(tmp_path.glob("[012].npy"))), block_size=20), wanted)


def test_a_generator_may_fill_one_array_again_and_again():
    _, keys, wanted = whole()

    def parts():
        held = np.empty((10, 3), np.float32)
        for part in np.split(keys, 10):
            held[:] = part
            yield held
            held[:] = 99

    same(search(parts(), block_size=20), wanted)


@pytest.mark.parametrize("similarity", ("cosine", "sqeuclidean"))
def test_other_similarities(similarity):
    draw = np.random.default_rng(1)
    queries, keys = (draw.normal(size=(n, 3)).astype(np.float32) for n in (5, 100))
    wanted, order = pairwise.top_k(queries, keys, 7, similarity=similarity)
    scores, indices = retrieval.search(queries, keys, 7, similarity=similarity, block_size=20, progress=False)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(scores, wanted, atol=1e-5)


def test_a_key_that_is_excluded_is_not_found():
    queries, keys, (_, nearest) = whole()
    first = nearest[:, 0] * (np.arange(5) != 2) - (np.arange(5) == 2)
    wanted = pairwise.top_k(queries, keys, 7, rows=first, columns=np.arange(100), where=lambda row, column: row != column)
    same(search(keys, exclude=first, block_size=20), wanted)


@pytest.fixture
def module():
    return importlib.import_module("cljax.retrieval.search")  # the room hands out the function under the same name


def test_one_program_serves_all_blocks(monkeypatch, module):
    step, shapes = module._step, []
    monkeypatch.setattr(
        module, "_step", lambda best, queries, keys, *others, **options: shapes.append(keys.shape) or step(best, queries, keys, *others, **options)
    )
    for cut in (3, 40, 55):
        same(search(iter(np.split(whole()[1], [cut])), block_size=20), whole()[2])
    assert shapes == 15 * [(20, 3)]


def test_indices_pass_int32(monkeypatch, module):
    """As if there were two blocks of 2^31 keys, and the nearest were in the second."""

    def step(best, *others, similarity):
        return best, np.tile(np.arange(best.shape[1]), (5, 1))

    monkeypatch.setattr(module, "_step", step)
    monkeypatch.setattr(module, "_chunks", lambda *arguments: iter(2 * [(np.broadcast_to(whole()[1][0], (2**31, 3)), 2**31)]))
    np.testing.assert_array_equal(search(whole()[1])[1], np.tile(2**31 + np.arange(7), (5, 1)))


def test_too_few_keys_of_a_generator_leave_places_empty():
    scores, indices = search(iter([whole()[1][:2]]))
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices[:, 2:], -1)
    np.testing.assert_array_equal(scores[:, 2:], -np.inf)
    assert set(indices[:, :2].ravel()) == {0, 1}


def test_a_bar_counts_the_keys(capsys):
    retrieval.search(whole()[0], whole()[1], 7, block_size=20)
    assert "100/100" in capsys.readouterr().err


def late(*blocks):
    """A generator that would fail if it were asked for more than is needed to see the error."""
    yield from blocks
    raise AssertionError("read on")


X = np.ones((4, 3), np.float32)


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, r"blocks\[1\] must have shape \[n, 3\], got \[4, 2\]", lambda: search([X, X[:, :2]], 2)),
        (ValueError, r"blocks\[1\] must have shape \[n, 3\], got \[4, 2\]", lambda: search(late(X, X[:, :2]), 2)),
        (ValueError, r"blocks\[0\] must have shape \[n, 3\], got \[3\]", lambda: search(late(X[0]), 2)),
        (ValueError, r"blocks must have shape \[N, 3\], got \[4, 2\]", lambda: search(X[:, :2], 2)),
        (TypeError, r"blocks\[1\] must have dtype float, got int32", lambda: search([X, X.astype(np.int32)], 2)),
        (TypeError, r"blocks\[1\] must have dtype float32 as blocks\[0\], got float16", lambda: search([X, X.astype(np.float16)], 2)),
        (TypeError, r"blocks\[0\] must be an array, got '0.npy' \(str\)", lambda: search(["0.npy"], 2)),
        (TypeError, r"blocks must be an array \[N, 3\] or an iterable of such, got str", lambda: search("0.npy", 2)),
        (TypeError, r"blocks must be an array \[N, 3\] or an iterable of such, got NoneType", lambda: search(None, 2)),
        (ValueError, "blocks must hold at least one array, got an empty iterable", lambda: search([], 2)),
        (ValueError, "blocks must hold at least one array, got an empty iterable", lambda: search(iter([]), 2)),
        (ValueError, "blocks must hold at least one key, got none", lambda: search(iter([X[:0]]), 2)),
        (ValueError, "k must be at least 1 and at most 4, got 5", lambda: search(X, 5)),
        (ValueError, "k must be at least 1 and at most 8, got 9", lambda: search([X, X], 9)),
        (ValueError, "k must be at least 1, got 0", lambda: search(late(), 0)),
        (ValueError, "similarity must be one of", lambda: search(X, 2, similarity="euclid")),
        (ValueError, "block_size must be at least 1, got 0", lambda: search(X, 2, block_size=0)),
        (ValueError, r"exclude must have shape \[B\] with B = 5", lambda: search(X, 2, exclude=np.arange(4))),
        (TypeError, "exclude must have dtype int", lambda: search(X, 2, exclude=np.ones(5))),
        (TypeError, "must be concrete arrays", lambda: jax.jit(lambda x: search(x, 2)[0])(X)),
    ],
)
def test_bad_input_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call()
