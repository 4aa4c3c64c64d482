"""Pictures of a report: what is drawn where."""

import matplotlib
import pytest

from cljax import study


def report(**arms):
    entry = lambda values: {"mean": values, "interval": None, "values": [values]}  # noqa: E731
    return {"arms": {arm: {"matrix": entry(values)} for arm, values in arms.items()}, "claims": []}


def test_matrices_are_written_row_by_row_with_the_names_of_their_rows():
    built = report(small=[1.0, 2.0, 3.0, 4.0], large=[float(i) for i in range(9)])
    first, second = study.matrices(built, "matrix", {"a": "large", "b": "small"}, names={"b": ("x", "y")}).axes
    assert [text.get_text() for text in second.texts] == ["1.00", "2.00", "3.00", "4.00"]
    assert [text.get_position() for text in second.texts] == [(0, 0), (1, 0), (0, 1), (1, 1)]  # columns run to the right, rows down
    assert [label.get_text() for label in second.get_yticklabels()] == ["x", "y"] and first.get_title() == "a"
    assert [label.get_text() for label in first.get_xticklabels()] == ["0", "1", "2"]
    assert matplotlib.colors.to_rgb(second.texts[3].get_color()) == (1, 1, 1)  # white on what is dark


def test_curves_have_the_size_that_is_asked_for():
    arms = {"one": [1.0, 2.0], "two": [2.0, 3.0]}
    assert study.curves(report(**arms), ["matrix"], size=(8, 3)).get_size_inches().tolist() == [8, 3]  # both names in one row
    many = {f"an arm of quite a long name, number {i}": [1.0] for i in range(9)}
    assert study.curves(report(**many), ["matrix"], size=(8, 3)).get_figheight() > 3


def test_curves_begin_where_it_is_said():
    for how, places in (({}, [1, 2, 3]), ({"first": 0}, [0, 1, 2]), ({"x": [5, 7, 9], "first": 0}, [5, 7, 9])):
        (panel,) = study.curves(report(one=[1.0, 2.0, 3.0]), ["matrix"], **how).axes
        assert panel.lines[0].get_xdata().tolist() == places


@pytest.mark.errors
def test_what_is_no_matrix_is_named():
    with pytest.raises(ValueError, match="metric must be the entries of a square matrix, got 3 of them for arm 'odd'"):
        study.matrices(report(odd=[1.0, 2.0, 3.0]), "matrix", {"a": "odd"})
    with pytest.raises(ValueError, match="arms must be one of 'odd', got 'even'"):
        study.matrices(report(odd=[1.0]), "matrix", {"a": "even"})
    with pytest.raises(ValueError, match="metric must be one of 'matrix', got 'scores'"):
        study.matrices(report(odd=[1.0]), "scores", {"a": "odd"})
    with pytest.raises(ValueError, match="arms must name at least one of 'odd'"):
        study.matrices(report(odd=[1.0]), "matrix", {})
