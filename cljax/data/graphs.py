"""Graphs whose nodes have features and a class."""

import hashlib
import os
import pathlib
import re
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from cljax.core import check, provenance
from cljax.data import copies

SECTIONS = ("science", "games", "sound", "graphics", "math", "editors", "mail")


class Graph(NamedTuple):
    """What `graph` and `package_graph` read, in numpy.

    Attributes:
      features: float32 `[N, F]`.
      labels: `[N]` integers.
      edges: integers `[2, E]`, two nodes each, or None where a set says nothing of them.
    """

    features: Float[np.ndarray, "N F"]
    labels: Integer[np.ndarray, " N"]
    edges: Integer[np.ndarray, "2 E"] | None


def graph(path: str | os.PathLike) -> Graph:
    """Reads the files of a graph in the layout of SDCN's release, which many papers on the clustering of graphs share.

    `usps.txt` has a row of numbers a node, its features; `usps_label.txt` an integer a row; `usps_graph.txt`, where there is one, two nodes a row,
    counted from 0.

    Args:
      path: of these files, without their endings: `"sdcn/usps"`.

    Returns:
      `Graph`.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: a file that isn't there, or files of different lengths.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a path, got {type(path).__name__}")
    path = pathlib.Path(path)
    files = {kind: path.with_name(f"{path.name}{kind}.txt") for kind in ("", "_label", "_graph")}
    for kind in ("", "_label"):
        if not files[kind].is_file():
            raise ValueError(f"path={str(path)!r} needs the file {files[kind]}, which is not there")
    tables = {kind: np.loadtxt(file, ndmin=2) for kind, file in files.items() if file.is_file()}
    features, labels = tables[""].astype(np.float32), tables["_label"][:, 0].astype(int)
    if len(features) != len(labels):
        raise ValueError(f"{files['']} and {files['_label']} must have a row a node, got {len(features)} and {len(labels)}")
    copies.note(path, len(labels), hashlib.sha256(b"".join(files[kind].read_bytes() for kind in tables)).hexdigest())
    return Graph(features, labels, tables["_graph"].T.astype(int) if "_graph" in tables else None)


def package_graph(*, sections: Sequence[str] = SECTIONS, words: int = 1000) -> Graph:
    """The packages of Debian in some sections that depend on each other, by the words of their names and descriptions; the section is the class.

    It is built from the index of `apt`, and is another one wherever that is.

    Args:
      sections: of the packages; those without an edge to another one of them are left out.
      words: so many of the most frequent words are features, 1 where a package has it.

    Returns:
      `Graph`; the labels are places in `sections`.

    Raises:
      TypeError, ValueError: an argument of another kind or range; no `apt-cache`, or no such package in its index.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    if isinstance(sections, str) or not isinstance(sections, Sequence):
        raise TypeError(f"sections must be a tuple of names, got {sections!r}")
    check.integer("words", words, at_least=1)
    try:
        text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"package_graph needs apt-cache and its index ({error}): on Debian run apt-get update once") from None
    records = (dict(re.findall(r"^([A-Z][\w-]*): (.*)$", block, re.M)) for block in text.split("\n\n"))
    packages = {record["Package"]: record for record in records if record.get("Section", "").split("/")[-1] in sections and "Package" in record}
    needs = {name: re.split(r"\s*[,|]\s*", record.get("Depends", "")) for name, record in packages.items()}
    pairs = [(name, re.split(r"[ (:]", other)[0]) for name, others in needs.items() for other in others]
    pairs = [pair for pair in pairs if pair[1] in packages and pair[0] != pair[1]]
    names = sorted({name for pair in pairs for name in pair})
    if not names:
        raise ValueError(f"package_graph found no two packages of {', '.join(sections)} in the index of apt: run apt-get update once")
    place = {name: i for i, name in enumerate(names)}
    counts = CountVectorizer(binary=True, max_features=words, stop_words="english")
    features = counts.fit_transform([f"{name} {packages[name].get('Description', '')}" for name in names]).toarray().astype(np.float32)
    labels = np.array([list(sections).index(packages[name]["Section"].split("/")[-1]) for name in names])
    digest = hashlib.sha256(text.encode()).hexdigest()
    provenance.record("package_graph", rows=len(names), digest=f"sha256:{digest}", package="apt index")
    return Graph(features, labels, np.array([[place[a], place[b]] for a, b in pairs]).T)
