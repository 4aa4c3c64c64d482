"""Graphs: the files of a user, and what packages depend on."""

import numpy as np
import pytest

from cljax import data
from cljax.core import provenance

INDEX = """Package: alpha
Section: science
Depends: beta (>= 1), gamma | zeta, elsewhere
Description: counts the stars

Package: beta
Section: contrib/math
Depends: libc6
Description: sums and products

Package: gamma
Section: games
Description: a game of stars

Package: alone
Section: games
Description: depends on nothing

Package: elsewhere
Section: libs
Depends: alpha
Description: not of these sections
"""


@pytest.fixture
def apt(monkeypatch, tmp_path):
    (tmp_path / "apt-cache").write_text(f"#!/bin/sh\ncat <<'END'\n{INDEX}END\n")
    (tmp_path / "apt-cache").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")


def test_packages_are_joined_by_what_they_need(apt):
    features, labels, edges = data.package_graph()
    assert labels.tolist() == [0, 4, 1] and features.shape == (3, 8)  # alpha, beta, gamma
    assert sorted(map(tuple, edges.T.tolist())) == [(0, 1), (0, 2)]
    assert features[0] @ features[2] == 1  # both speak of stars
    assert provenance.recorded()["package_graph"]["rows"] == 3
    features, labels, edges = data.package_graph(sections=("games", "science"), words=3)
    assert labels.tolist() == [1, 0] and features.shape == (2, 3) and edges.tolist() == [[0], [1]]


def test_files_of_a_graph_are_read_with_and_without_edges(tmp_path, monkeypatch):
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    (tmp_path / "sdcn").mkdir()
    np.savetxt(tmp_path / "sdcn" / "acm.txt", [[1.5, 2], [3, 4], [5, 6]])
    np.savetxt(tmp_path / "sdcn" / "acm_label.txt", [2, 0, 2], fmt="%d")
    features, labels, edges = data.graph(tmp_path / "sdcn" / "acm")
    assert (features.tolist(), features.dtype, labels.tolist(), edges) == ([[1.5, 2], [3, 4], [5, 6]], np.float32, [2, 0, 2], None)
    before = provenance.recorded()["sdcn/acm"]
    np.savetxt(tmp_path / "sdcn" / "acm_graph.txt", [[0, 1], [2, 1]], fmt="%d")
    assert data.graph(tmp_path / "sdcn" / "acm").edges.tolist() == [[0, 2], [1, 1]]
    after = provenance.recorded()["sdcn/acm"]
    assert before["rows"] == after["rows"] == 3 and before["digest"] != after["digest"]


@pytest.mark.errors
def test_what_cannot_be_read_is_named(apt, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="needs the file .*usps.txt, which is not there"):
        data.graph(tmp_path / "usps")
    np.savetxt(tmp_path / "usps.txt", [[1, 2]])
    np.savetxt(tmp_path / "usps_label.txt", [1, 2], fmt="%d")
    with pytest.raises(ValueError, match="must have a row a node, got 1 and 2"):
        data.graph(tmp_path / "usps")
    with pytest.raises(TypeError, match="path must be a path, got int"):
        data.graph(3)
    with pytest.raises(TypeError, match="sections must be a tuple of names, got 'games'"):
        data.package_graph(sections="games")
    with pytest.raises(ValueError, match="no two packages of games in the index"):
        data.package_graph(sections=("games",))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="needs apt-cache and its index"):
        data.package_graph()
