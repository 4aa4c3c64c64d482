"""Files out of pinned packages: where they are looked for, and what happens where they aren't as expected."""

import hashlib
import shutil
import sys
import zipfile

import numpy as np
import pytest

from cljax.data import Source, sources

TABLE = b"1,2,0\n3,4,1\n5,6,1\n"
BOMB = b"raise SystemExit('the code of a package must not run')\n"


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def wheel(tmp_path):
    """A wheel that pip accepts, in a folder of its own."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / "small_tables-1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("small_tables/__init__.py", BOMB)
        archive.writestr("small_tables/table.csv", TABLE)
        archive.writestr("small_tables/b.txt", b"second")
        archive.writestr("small_tables/a.txt", b"first")
        archive.writestr("small_tables-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: small-tables\nVersion: 1.2\n")
        archive.writestr("small_tables-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("small_tables-1.2.dist-info/RECORD", "")
    return folder


@pytest.fixture
def offline(monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_NO_CONFIG": "1"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


TABLE_SOURCE = Source("small-tables", "1.2", "small_tables/table.csv", sha(TABLE))


def test_a_wheel_in_the_folder_is_read_without_running_its_code(wheel, offline):
    assert TABLE_SOURCE.fetch(wheel) == {"small_tables/table.csv": TABLE}
    assert "small_tables" not in sys.modules


def test_wildcards_give_all_files_hashed_in_the_order_of_their_paths(wheel, offline):
    files = Source("small-tables", "1.2", "small_tables/*.txt", sha(b"firstsecond")).fetch(wheel)
    assert files == {"small_tables/a.txt": b"first", "small_tables/b.txt": b"second"}


def test_pip_downloads_what_is_missing_and_leaves_nothing_in_the_folder(wheel, offline, tmp_path):
    offline.setenv("PIP_FIND_LINKS", str(wheel))
    folder = tmp_path / "packages"
    assert TABLE_SOURCE.fetch(folder) == {"small_tables/table.csv": TABLE}
    assert not folder.exists()


def test_uv_downloads_where_pip_cannot(wheel, offline, tmp_path):
    if not (shutil.which("uv") or shutil.which("uv", path=sys.prefix + "/bin")):
        pytest.skip("uv is not installed")
    offline.setenv("UV_FIND_LINKS", str(wheel))
    assert TABLE_SOURCE.fetch(tmp_path / "packages") == {"small_tables/table.csv": TABLE}


def test_an_installed_file_serves_whatever_the_version_if_its_hash_is_the_pinned_one(offline, tmp_path):
    version = "0.0.1"  # never released: it could not be downloaded
    listed = next(iter(sources._installed(Source("numpy", version, "numpy/version.py", "")).items()))
    assert Source("numpy", version, listed[0], sha(listed[1])).fetch(tmp_path) == dict([listed])


@pytest.mark.errors
def test_another_hash_is_refused(wheel, offline):
    with pytest.raises(ValueError, match=f"small-tables==1.2 has SHA-256 {sha(TABLE)}, expected {'0' * 64}"):
        Source("small-tables", "1.2", "small_tables/table.csv", "0" * 64).fetch(wheel)


@pytest.mark.errors
def test_without_network_the_error_says_which_package_to_put_where(offline, tmp_path):
    with pytest.raises(ValueError, match=f"put the wheel of small-tables==1.2 into {tmp_path}"):
        TABLE_SOURCE.fetch(tmp_path)


@pytest.mark.errors
def test_an_installed_file_of_another_hash_is_not_taken(offline, tmp_path):
    with pytest.raises(ValueError, match="could not be downloaded"):
        Source("numpy", "0.0.1", "numpy/version.py", "0" * 64).fetch(tmp_path)
    assert np.__version__
