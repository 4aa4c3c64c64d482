"""The cache of data sets: a file that is not what was written is made anew or named, and never gives other numbers."""

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import cljax
from cljax import data
from cljax.core import provenance
from cljax.data import builders, loading

ROWS = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 1), dtype=np.uint8)
CONTENT = ROWS.tobytes()


def read(files):
    (content,) = files.values()
    return {"image": np.frombuffer(content, np.uint8).reshape(ROWS.shape), "label": np.arange(40) % 3}


NOISE = data.Dataset(
    name="noise",
    description="Forty pictures.",
    sources=(data.Source("noise-pictures", "1.0", "noise/raw.bin", hashlib.sha256(CONTENT).hexdigest()),),
    read=read,
    features=lambda tfds: {"image": tfds.features.Image(shape=(6, 5, 1)), "label": tfds.features.ClassLabel(num_classes=3)},
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(data.DATASETS, "noise", NOISE)
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX", "UV_OFFLINE", "UV_NO_CONFIG"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    (tmp_path / "packages").mkdir()
    with zipfile.ZipFile(tmp_path / "packages/noise_pictures-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("noise/raw.bin", CONTENT)
    return tmp_path


def load(folder, name="noise"):
    loading._read.cache_clear()  # what this process has read once it keeps
    return data.load(name, folder=folder)


def damages(content):
    flips = {}
    for place in (0, len(content) // 3, len(content) // 2, len(content) - 1):
        flipped = bytearray(content)
        flipped[place] ^= 16
        flips[f"byte {place} flipped"] = bytes(flipped)
    return flips | {"truncated": content[: len(content) // 2], "empty": b"", "zeroed": bytes(len(content)), "removed": None}


def copies(folder):
    return [path for path in (folder / "noise").rglob("manifest.json")]


def damaged_in_turn(place):
    """Damages each file of a folder in each way, and mends it again."""
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for damage, other in damages(content).items():
            path.unlink()
            if other is not None:
                path.write_bytes(other)
            yield path, damage
            place.mkdir(exist_ok=True)
            path.write_bytes(content)


def test_any_damage_to_a_copy_is_mended_from_the_package(folder):
    load(folder)
    (manifest,) = copies(folder)
    for path, damage in damaged_in_turn(manifest.parent):
        with pytest.warns(UserWarning, match=rf"{path.parent}/.* is damaged or missing: the copy is made anew"):
            images, labels = load(folder)
        np.testing.assert_array_equal(images, ROWS / np.float32(255), err_msg=f"{path.name} {damage}")
        np.testing.assert_array_equal(labels, np.arange(40) % 3)
    assert [path.name for path in manifest.parents[1].iterdir()] == ["1.0.0"]  # nothing half written is left
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder)


@pytest.mark.errors
def test_damage_to_a_copy_whose_package_is_gone_is_named(folder):
    load(folder)
    shutil.rmtree(folder / "packages")
    (manifest,) = copies(folder)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(data.sources, "_download", lambda source, folder: "there is no network")
    record = next(manifest.parent.glob("*.array_record*"))
    content = record.read_bytes()
    record.write_bytes(content[:-1])
    with monkey.context(), pytest.warns(UserWarning), pytest.raises(ValueError, match=f"{record.name} is damaged or missing, and the copy cannot be"):
        load(folder)
    monkey.undo()
    record.write_bytes(content)
    assert len(load(folder)[1]) == 40


@pytest.mark.errors
def test_a_set_prepared_elsewhere_gives_its_rows_or_an_error_that_says_where(folder):
    """It has no manifest of ours: array_record's own checks find what is damaged in it."""
    builder = builders._Builder(NOISE, read({"": CONTENT}), data_dir=folder / "catalogue", file_format="array_record")
    builder.download_and_prepare()
    place = Path(builder.data_dir)
    wanted = load(folder / "catalogue", "tfds:noise")
    refused = 0
    for path, damage in damaged_in_turn(place):
        if path.name == "features.json" or path.name == "dataset_info.json" and "flipped" in damage:
            continue  # texts without a digest: another word in a description is no damage
        try:
            images, labels = load(folder / "catalogue", "tfds:noise")
        except ValueError as error:
            assert str(folder) in str(error), (path, damage)
            refused += 1
        else:
            np.testing.assert_array_equal(images, wanted[0], err_msg=f"{path.name} {damage}")
            np.testing.assert_array_equal(labels, wanted[1])
    assert refused >= 8


@pytest.mark.errors
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_leaves_no_copy_and_one_line(folder, monkeypatch, number):
    def full(*arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "seal", full)
        with pytest.raises(ValueError, match=f"cannot be written: {os.strerror(number)}"):
            load(folder)
    assert [path for path in (folder / "noise").rglob("*") if path.is_file()] == []
    assert len(load(folder)[1]) == 40


@pytest.mark.errors
def test_a_damaged_wheel_is_named(folder):
    (wheel,) = (folder / "packages").iterdir()
    content = wheel.read_bytes()
    for damage, other in damages(content).items():
        if other is None:
            continue
        wheel.write_bytes(other)
        try:
            images, _ = load(folder)
            np.testing.assert_array_equal(images, ROWS / np.float32(255), err_msg=damage)  # a flip in what nobody reads
        except ValueError as error:
            assert re.search(r"noise_pictures-1.0-py3-none-any.whl|noise-pictures==1.0", str(error)), damage
        shutil.rmtree(folder / "noise", ignore_errors=True)


def test_no_module_reads_a_pickle():
    """Neither by name nor by numpy's leave; processes of a pool exchange theirs with nobody else."""
    pattern = r"^\s*(import|from) (pickle|cloudpickle|dill|joblib|marshal|shelve)\b|allow_pickle=True|\.read_pickle\("
    found = [path.name for path in Path(cljax.__file__).parent.rglob("*.py") if re.search(pattern, path.read_text(), re.M)]
    assert found == []


def test_a_seal_is_cheap_and_knows_every_file(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "below/b").write_bytes(b"b")
    assert provenance.broken(tmp_path) == "manifest.json"
    provenance.seal(tmp_path)
    assert provenance.broken(tmp_path) is None
    (tmp_path / "surplus").touch()
    assert provenance.broken(tmp_path) == "surplus"
    (tmp_path / "surplus").unlink()
    (tmp_path / "below/b").write_bytes(b"c")
    assert provenance.broken(tmp_path) == "below/b"


@pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by make soak")
def test_a_disk_that_is_really_full(folder):
    """On file systems in memory of several sizes, in a mount namespace of its own."""
    code = f"""
import sys
from cljax import data
from cljax.data import builders
exec(open({__file__!r}).read().split('@pytest.fixture')[0])
data.DATASETS["noise"] = NOISE
try:
    print("rows", len(data.load("noise", folder=sys.argv[1])[1]))
except ValueError as error:
    print("error", error)
"""
    statuses = set()
    for size in (8, 16, 40, 300, 600, 4000):
        place = folder / f"disk-{size}"
        place.mkdir()
        setup = f"mount -t tmpfs -o size={size}k none {place} && mkdir {place}/packages && cp {folder}/packages/* {place}/packages/"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XLA_")}
        result = subprocess.run(
            ["unshare", "-rm", "sh", "-c", f'{setup} && exec {sys.executable} -c "$0" {place}', code], capture_output=True, text=True, env=environment
        )
        if "unshare" in result.stderr:
            pytest.skip("no namespaces here")
        assert result.returncode == 0, result.stderr
        statuses.add(result.stdout.split()[0])
        assert result.stdout.startswith("rows 40" if result.stdout.startswith("rows") else "error folder="), result.stdout
    assert statuses == {"rows", "error"}


assert tfds  # the tests stand and fall with its format
