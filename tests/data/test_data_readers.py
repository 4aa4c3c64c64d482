"""A user's own files: a folder of pictures, a table of pairs."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from cljax import data
from cljax.core import provenance


@pytest.fixture
def folder(tmp_path):
    """Two classes; a picture wider than high, one with an orientation, one in a folder of its own, and what isn't a picture."""
    root = tmp_path / "animals"
    (root / "dog" / "small").mkdir(parents=True)
    (root / "cat").mkdir()
    grey = np.zeros((4, 4), np.uint8)
    Image.fromarray(grey + 51).save(root / "dog" / "b.png")
    Image.fromarray(grey + 102).save(root / "dog" / "small" / "c.PNG")
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6, 0] = 255  # red in its middle
    Image.fromarray(wide).save(root / "cat" / "a.png")
    (root / "dog" / "notes.txt").write_text("no picture")
    (root / "dog" / ".hidden.png").write_bytes(b"no picture")
    return root


def test_a_folder_a_class_is_read_in_the_order_of_names(folder):
    images, labels, names, skipped = data.images(folder, size=4)
    assert (images.shape, images.dtype, labels.dtype) == ((3, 4, 4, 3), np.float32, np.int32)
    assert (labels.tolist(), names, skipped) == ([0, 1, 1], ("cat", "dog"), ())
    np.testing.assert_allclose(images[:, 1, 1], [[1, 0, 0], [0.2, 0.2, 0.2], [0.4, 0.4, 0.4]], atol=1e-6)
    assert images[0].min(axis=(0, 1))[0] == 1  # scaled to cover the size, and cropped around the centre


def test_what_was_read_is_recorded_by_its_way_among_the_data(folder, monkeypatch):
    for place, name in (
        (folder.parent, "animals"),
        (folder.parent.parent, f"{folder.parent.name}/animals"),
        (folder, "animals"),
        (folder / "cat", "animals"),
    ):
        monkeypatch.setenv("CLJAX_DATA", str(place))
        read = data.images(folder, size=4, dtype="uint8").images
        expected = {"rows": 3, "digest": f"sha256:{hashlib.sha256(read.tobytes()).hexdigest()}", "package": "folder"}
        assert provenance.recorded()[name] == expected


def test_size_channels_and_dtype(folder):
    found = data.images(str(folder), size=(2, 6), channels=1, dtype="uint8")
    assert (found.images.shape, found.images.dtype) == ((3, 2, 6, 1), np.uint8)
    assert found.images[1:, 0, 0, 0].tolist() == [51, 102]


def test_pictures_without_folders_are_one_class_named_like_theirs(folder):
    images, labels, names, _ = data.images(folder / "cat")
    assert (images.shape, labels.tolist(), names) == ((1, 4, 8, 3), [0], ("cat",))


def test_a_picture_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    assert data.images(tmp_path).images.shape == (1, 8, 4, 3)


def test_broken_files_are_skipped_only_when_asked_and_named(folder):
    whole = (folder / "dog" / "b.png").read_bytes()
    (folder / "cat" / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dog" / "page.jpg").write_text("<html>")
    with pytest.raises(ValueError, match=r"'cat/broken.png' in '.*animals' is no picture that can be read .*; skip_broken=True leaves such out"):
        data.images(folder, size=4)
    found = data.images(folder, size=4, skip_broken=True)
    assert found.skipped == ("cat/broken.png", "dog/page.jpg") and found.labels.tolist() == [0, 1, 1]


def test_parts_of_a_set_have_the_same_classes(folder):
    both = data.image_sets(folder.parent, ("animals", "animals"), size=4, dtype="uint8")
    assert [found.names for found in both] == [("cat", "dog")] * 2 and both[1].images.dtype == np.uint8
    np.testing.assert_array_equal(both[0].images, data.images(folder, size=4, dtype="uint8").images)
    (folder / "cat").rename(folder.parent / "cat")
    with pytest.raises(ValueError, match=r"must have the same classes in animals and cat, got \('dog',\) and \('cat',\)"):
        data.image_sets(folder.parent, ("animals", "cat"), size=4)


@pytest.mark.errors
def test_what_is_no_folder_of_pictures_is_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("")
    for arguments, options, error, text in [
        ((folder,), {}, ValueError, r"the pictures in '.*' differ in height and width, \(4, 8\) and \(4, 4\) \('dog/b.png'\): give size="),
        ((folder / "none",), {}, ValueError, "folder must be a folder of pictures, got .*, which is not there"),
        ((folder / "cat" / "a.png",), {}, ValueError, "which is a file"),
        ((tmp_path / "empty",), {}, ValueError, "folder must hold a picture at least, got .* with 0 broken ones"),
        ((tmp_path / "broken",), {"skip_broken": True}, ValueError, "with 1 broken ones"),
        ((3,), {}, TypeError, "folder must be a path, got int"),
        ((folder,), {"size": 0}, ValueError, "size must be at least 1, got 0"),
        ((folder,), {"size": (4, 4, 4)}, TypeError, "size must be an integer, got tuple"),
        ((folder,), {"channels": 4}, ValueError, "channels must be one of 1, 3, got 4"),
        ((folder,), {"dtype": "float16"}, ValueError, "dtype must be one of 'float32', 'uint8', got 'float16'"),
    ]:
        with pytest.raises(error, match=text):
            data.images(*arguments, **options)
    for arguments, text in [((3,), "folder must be a path, got int"), ((folder, "cat"), "parts must be a tuple of names, at least one, got 'cat'")]:
        with pytest.raises(TypeError, match=text):
            data.image_sets(*arguments)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "stray.png")
    with pytest.raises(ValueError, match="got .* with both: 'stray.png' belongs to no class"):
        data.images(folder, size=4)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_file_gives_texts_as_they_are_written(tmp_path):
    path = write(tmp_path / "pairs.csv", '\ufeffdocument,id,query\n"a, b\nc",007,NA\n,8,é\n')
    queries, documents = data.pairs(path)
    assert queries.tolist() == ["NA", "é"] and documents.tolist() == ["a, b\nc", ""]
    assert type(queries) is np.ndarray and queries.dtype == object
    (ids,) = data.pairs(str(path), columns=["id"])
    assert ids.tolist() == ["007", "8"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert provenance.recorded()["pairs.csv"] == {"rows": 2, "digest": f"sha256:{digest}", "package": "folder"}


def test_a_tsv_file_is_separated_by_tabs(tmp_path):
    assert data.pairs(write(tmp_path / "a.tsv", "query\tdocument\na, b\tc\n"))[0].tolist() == ["a, b"]


def test_json_lines_give_texts_and_numbers(tmp_path):
    lines = ['{"query": "a", "document": "b", "score": 1, "id": 5}', "", '{"document": "d", "query": "NA", "score": 0.5, "id": 3000000000}']
    path = write(tmp_path / "pairs.jsonl", "\n".join(lines))
    queries, documents, scores, ids = data.pairs(path, columns=("query", "document", "score", "id"))
    assert (queries.tolist(), documents.tolist()) == (["a", "NA"], ["b", "d"])
    assert (scores.dtype, scores.tolist(), ids.tolist()) == (np.float32, [1, 0.5], [5, 3000000000])
    assert data.pairs(write(tmp_path / "b.jsonl", '{"n": 3}'), columns=("n",))[0].dtype == np.int32


@pytest.mark.errors
def test_what_is_no_table_of_pairs_is_named(tmp_path):
    good = write(tmp_path / "good.csv", "question,document\na,b\n")
    for path, options, error, text in [
        (good, {}, ValueError, "columns must be among those of '.*good.csv', 'question', 'document'; got 'query'"),
        (good, {"columns": "question"}, TypeError, "columns must be a tuple of names, got 'question'"),
        (good, {"columns": ()}, ValueError, "columns must name one column at least"),
        (3, {}, TypeError, "path must be a path, got int"),
        (tmp_path / "lost.csv", {}, ValueError, "path must be a file, got '.*lost.csv', which is not there"),
        (write(tmp_path / "a.xls", "x"), {}, ValueError, "path must end in one of .csv, .tsv, .jsonl, .ndjson, got"),
        (write(tmp_path / "empty.csv", ""), {}, ValueError, "must have the names of its columns in the first line, .*, which is empty"),
        (write(tmp_path / "none.csv", "query,document\n"), {}, ValueError, "path must have one row at least"),
        (write(tmp_path / "none.jsonl", "\n"), {}, ValueError, "path must have one row at least"),
        (write(tmp_path / "long.csv", "query,document\na,b\na,b,c\n"), {}, ValueError, "is no table: .* line 3, saw 3"),
        (write(tmp_path / "all.csv", "query,document\na,b,c\n"), {}, ValueError, "its rows have more cells than its first line"),
        (
            write(tmp_path / "bad.jsonl", '{"query": "a", "document": "b"}\n{"query": '),
            {},
            ValueError,
            "line 2 of '.*bad.jsonl' is not JSON: .* character 11",
        ),
        (write(tmp_path / "list.jsonl", "[1]"), {}, ValueError, "line 1 of '.*' must be a JSON object, got list"),
        (write(tmp_path / "lack.jsonl", '{"query": "a"}'), {}, ValueError, "among those of line 1 of '.*', 'query'; got 'document'"),
        (
            write(tmp_path / "kind.jsonl", '{"query": "a"}\n{"query": 1}'),
            {"columns": ["query"]},
            ValueError,
            "line 2 of .* as 'query', the same .* got 1",
        ),
        (write(tmp_path / "deep.jsonl", '{"query": ["a"]}'), {"columns": ["query"]}, ValueError, r"a text or a number as 'query'.*got \[\"a\"\]"),
    ]:
        with pytest.raises(error, match=text):
            data.pairs(path, **options)
    (tmp_path / "latin.csv").write_bytes("query,document\né,b\n".encode("latin-1"))
    with pytest.raises(ValueError, match="'.*latin.csv' is not in UTF-8"):
        data.pairs(tmp_path / "latin.csv")
