"""Claims: intervals over seeds, verdicts, and what is left out."""

import math
import pickle

import pytest

from cljax import study
from cljax.study.claims import assess, estimate, met, verdict

ONE_TO_FIVE = [1.0, 2.0, 3.0, 4.0, 5.0]  # t(0.975, 4) = 2.776445, s = 1.581139: 3 -+ 1.963243


def test_interval_is_the_students_t_one():
    mean, (low, high) = estimate(ONE_TO_FIVE)
    assert mean == 3
    assert low == pytest.approx(1.036757, abs=1e-6) and high == pytest.approx(4.963243, abs=1e-6)
    mean, (low, high) = estimate([0.2, 0.4])  # t(0.975, 1) = 12.706205, s / sqrt 2 = 0.1
    assert mean == pytest.approx(0.3) and low == pytest.approx(0.3 - 1.2706205) and high == pytest.approx(0.3 + 1.2706205)


def test_failed_seeds_are_left_out_and_one_seed_has_no_interval():
    assert estimate([None, *ONE_TO_FIVE, None]) == estimate(ONE_TO_FIVE)
    assert estimate([None, 0.5]) == (0.5, None)
    assert estimate([None, None]) == (None, None)
    assert estimate([]) == (None, None)


def test_equal_values_give_that_value_and_no_width():
    assert estimate([0.1] * 3) == (0.1, (0.1, 0.1))
    assert verdict(estimate([0.1] * 3)[1], at_least=0.1) == "holds"
    assert verdict(estimate([0.0] * 5)[1]) == "holds"


def test_a_value_that_is_not_finite_leaves_nothing_to_conclude():
    for bad in (math.nan, math.inf, -math.inf):
        assert estimate([1.0, bad, 1.0]) == (None, None)
        assert verdict(estimate([1.0, bad, 1.0])[1]) == "not shown"


def test_curves_get_an_interval_at_each_point():
    mean, interval = estimate([[1.0, 7.0, math.nan], [2.0, 7.0, 1.0], [3.0, 7.0, 1.0], [4.0, 7.0, 1.0], [5.0, 7.0, 1.0], None])
    assert mean == [3.0, 7.0, None]
    assert interval[0] == pytest.approx((1.036757, 4.963243), abs=1e-6)
    assert interval[1:] == [(7.0, 7.0), None]
    assert estimate([[1.0, 2.0]]) == ([1.0, 2.0], None)
    assert estimate([[1.0, 2.0], [1.0]]) == (None, None)  # curves of unequal length


@pytest.mark.parametrize(
    "at_least, at_most, expected",
    [
        (1.0, None, "holds"),
        (2.0, None, "not shown"),
        (4.9, None, "not shown"),
        (5.0, None, "contradicted"),
        (None, 5.0, "holds"),
        (None, 4.0, "not shown"),
        (None, 1.0, "contradicted"),
        (1.0, 5.0, "holds"),
        (1.1, 5.0, "not shown"),
        (2.0, 3.0, "not shown"),
        (-1.0, 1.0, "contradicted"),
        (5.0, 6.0, "contradicted"),
    ],
)
def test_verdict_of_an_interval_from_1_04_to_4_96(at_least, at_most, expected):
    assert verdict(estimate(ONE_TO_FIVE)[1], at_least, at_most) == expected


def test_bounds_belong_to_the_claim():
    assert verdict((0.0, 0.5), at_least=0.0) == "holds"
    assert verdict((-0.5, 0.0), at_least=0.0) == "not shown"
    assert verdict((-0.5, 0.0), at_least=None, at_most=0.0) == "holds"
    assert verdict(None) == "not shown"


def test_expected_is_met_in_the_direction_of_the_bound():
    assert met(0.2, 0.0, None, 0.15) is True and met(0.1, 0.0, None, 0.15) is False
    assert met(0.02, 0.0, 0.03, 0.01) is False and met(0.005, None, 0.03, 0.01) is True
    assert met(None, 0.0, None, 0.15) is None and met(0.2, 0.0, None, None) is None


def test_gain_is_one_metric_of_two_arms_and_pickles():
    of = pickle.loads(pickle.dumps(study.gain("knn", "hard", than="plain")))
    assert of({"hard": {"knn": 3.0}, "plain": {"knn": 1.0}}) == 2.0
    assert str(of) == "knn: hard minus plain"


def test_gain_may_be_over_another_metric():
    results = {"hard": {"knn": 3.0, "linear": 3.5}, "plain": {"linear": 1.0}}
    for how, expected, text in (({"over": "linear"}, -0.5, "knn: hard minus linear"), (dict(than="plain", over="linear"), 2.0, "linear of plain")):
        of = pickle.loads(pickle.dumps(study.gain("knn", "hard", **how)))
        assert of(results) == expected and str(of).endswith(text)
    with pytest.raises(ValueError, match="than or over must be given"):
        study.gain("knn", "hard")


def test_value_is_one_metric_of_one_arm_and_pickles():
    of = pickle.loads(pickle.dumps(study.value("knn", "hard")))
    assert of({"hard": {"knn": 3.0}, "plain": {"knn": 1.0}}) == 3.0 and str(of) == "knn: hard"


def test_ratio_and_margin_compare_arms_and_pickle():
    results = {"a": {"knn": 6.0}, "b": {"knn": 3.0}, "c": {"knn": 1.0}, "d": {"knn": 2.0}}
    share, each = (pickle.loads(pickle.dumps(of)) for of in (study.ratio("knn", "a", than="d"), study.margin("knn", ["a", "b"], than=("c", "d"))))
    assert share(results) == 3.0 and str(share) == "knn: a over d"
    assert each(results) == 1.0 and str(each) == "knn: a and b above each of c, d"
    assert study.margin("knn", "a", than="b")(results) == 3.0
    with pytest.raises(ValueError, match="arms and than must name one arm each at least"):
        study.margin("knn", [], than=["b"])


def test_of_several_metrics_it_is_the_first_that_an_arm_has():
    results = {"a": {"knn": 6.0, "R@1": 9.0}, "b": {"R@1": 3.0}, "c": {"R@1": 1.0}}
    gain, each = study.gain(("knn", "R@1"), "a", than="b"), study.margin(("knn", "R@1"), ["a", "b"], than=["c"])
    assert (gain(results), each(results)) == (3.0, 2.0) and pickle.loads(pickle.dumps(gain))(results) == 3.0
    assert str(gain) == "knn or R@1: a minus b" and str(each) == "knn or R@1: a and b above each of c"
    assert str(study.gain("loss", "a", over=("knn", "R@1"))) == "loss: a minus knn or R@1"
    with pytest.raises(KeyError, match="knn"):
        gain({"a": {}, "b": {}})


def arms(better, plain=0.0):
    return {"better": {"score": better}, "plain": {"score": plain}}


def test_an_entry_has_a_value_a_seed_and_counts_what_failed():
    claim = study.Claim("better", study.gain("score", "better", than="plain"), expected=4)
    entry, problem = assess(claim, [arms(1.0), arms(2.0), arms(3.0), {"plain": {"score": 0.0}}, arms(4.0), arms(5.0)], known=["better", "plain"])
    assert problem is None
    assert entry["values"] == [1.0, 2.0, 3.0, None, 4.0, 5.0]
    assert entry["mean"] == 3 and entry["verdict"] == "holds"
    assert list(entry) == ["name", "values", "mean", "interval", "at_least", "at_most", "expected", "verdict"]


def test_a_seed_that_diverged_cannot_be_left_out_of_a_claim():
    claim = study.Claim("better", study.gain("score", "better", than="plain"))
    entry, _ = assess(claim, [arms(5.0), arms(math.nan), arms(5.0)], known=["better", "plain"])
    assert entry["mean"] is None and entry["verdict"] == "not shown"


def test_a_mistake_in_a_claim_is_told_apart_from_an_arm_that_was_not_run():
    seeds = [{"plain": {"score": 0.0}}] * 2
    entry, problem = assess(study.Claim("c", study.gain("score", "better", than="plain")), seeds, known=["better", "plain"])
    assert problem is None and entry["values"] == [None, None] and entry["verdict"] == "not shown"
    _, problem = assess(study.Claim("c", study.gain("scroe", "plain", than="plain")), seeds, known=["better", "plain"])
    assert problem == "claim 'c' could not be evaluated: KeyError: 'scroe'"
    _, problem = assess(study.Claim("c", study.gain("score", "btter", than="plain")), seeds, known=["better", "plain"])
    assert "btter" in problem


def test_a_claim_of_what_nothing_measures_where_fields_were_set_does_not_apply():
    claim = study.Claim("c", study.gain("score", "better", than="plain"))
    elsewhere = [{"plain": {"other": 0.0}, "better": {"other": 1.0}}] * 2
    entry, problem = assess(claim, elsewhere, known=["better", "plain"], changed=True)
    assert problem is None and entry["lacks"] == "score" and entry["verdict"] == "not shown"
    assert assess(claim, elsewhere, known=["better", "plain"])[1] == "claim 'c' could not be evaluated: KeyError: 'score'"
    half = [{"plain": {"score": 0.0}, "better": {"other": 1.0}}]  # one arm measures it: that the other does not is a mistake
    assert "KeyError: 'score'" in assess(claim, half, known=["better", "plain"], changed=True)[1]
    arithmetic = study.Claim("c", lambda arms: 1 / arms["plain"]["other"])
    assert "ZeroDivisionError" in assess(arithmetic, elsewhere, known=["better", "plain"], changed=True)[1]
    assert "lacks" not in assess(claim, [{}, {"plain": {"other": 0.0}}], known=["better", "plain"], changed=True)[0]


@pytest.mark.errors
@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (dict(name="", of=max), ValueError, "name"),
        (dict(name="a", of=3), TypeError, "of must be a function"),
        (dict(name="a", of=max, at_least="0"), TypeError, "at_least"),
        (dict(name="a", of=max, expected="0"), TypeError, "expected"),
        (dict(name="a", of=max, at_least=None), ValueError, "needs a bound"),
        (dict(name="a", of=max, at_least=1, at_most=0), ValueError, "at_most must be at least at_least = 1, got 0"),
    ],
)
def test_a_claim_checks_its_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        study.Claim(**arguments)
