"""What a reproduction claims, and the verdict over seeds."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from cljax.core import check

VERDICTS = ("holds", "not shown", "contradicted")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A number computed from the arms of one seed, and the bounds that its 95 % interval over seeds must keep.

    The claim `holds` where the interval lies inside `[at_least, at_most]`, is `contradicted` where it lies wholly outside, and else is `not shown`:
    so with one seed, which has no interval. A seed whose arms failed or were not run is left out and counted; a value that is not finite leaves
    nothing to conclude.

    Args:
      name: what is claimed, in words.
      of: `of({arm: {metric: value}}) -> float` for one seed; a curve arrives as a 1-D numpy array.
      at_least: the lower bound, or None.
      at_most: the upper bound, or None.
      expected: the size that was measured elsewhere. It decides nothing; it is printed as met where the mean reaches it in the direction of the
        bound: at most `expected` where there is an `at_most`, else at least `expected`.

    Raises:
      TypeError: `of` is not callable, or a bound is not a number.
      ValueError: an empty name, no bound at all, or bounds that exclude each other.

    >>> claim = Claim("hard negatives help", gain("accuracy", "hard", than="plain"), expected=0.1)
    >>> claim.of({"hard": {"accuracy": 0.75}, "plain": {"accuracy": 0.5}})
    0.25
    """

    name: str
    of: Callable
    at_least: float | int | None = 0.0
    at_most: float | int | None = None
    expected: float | int | None = None

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a text that says what is claimed, got {self.name!r}")
        if not callable(self.of):
            raise TypeError(f"of must be a function of {{arm: {{metric: value}}}}, got {type(self.of).__name__}")
        for name in ("at_least", "at_most", "expected"):
            if getattr(self, name) is not None:
                check.number(name, getattr(self, name))
        if self.at_least is None and self.at_most is None:
            raise ValueError("at_least and at_most must not both be None: a claim needs a bound")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_most must be at least at_least = {self.at_least}, got {self.at_most}")


def _measured(found, metric):
    """A metric of an arm, or the first of several that it has."""
    names = (metric,) if isinstance(metric, str) else metric
    return found[next((name for name in names if name in found), names[0])]


def _words(metric):
    return metric if isinstance(metric, str) else " or ".join(metric)


@dataclasses.dataclass(frozen=True)
class Gain:
    """What `gain` returns: a value that pickles and prints."""

    metric: str | tuple[str, ...]
    arm: str
    than: str
    over: str | tuple[str, ...]

    def __call__(self, arms):
        return _measured(arms[self.arm], self.metric) - _measured(arms[self.than], self.over)

    def __str__(self):
        over = _words(self.over)
        less = self.than if self.over == self.metric else over if self.than == self.arm else f"{over} of {self.than}"
        return f"{_words(self.metric)}: {self.arm} minus {less}"


def gain(metric: str | tuple[str, ...], arm: str, than: str | None = None, *, over: str | tuple[str, ...] | None = None) -> Gain:
    """One metric of one arm minus that of another, or minus another metric, as the `of` of a claim. Where lower is better, swap the two.

    Args:
      metric: its name. Of several names it is the first that an arm has: what is measured may depend on the data.
      arm: the arm's name.
      than: the other arm; by default the same.
      over: the other metric; by default the same.

    Returns:
      A function of `{arm: {metric: value}}`.

    Raises:
      ValueError: neither another arm nor another metric.

    >>> results = {"hard": {"knn": 3.0, "linear": 4.0}, "plain": {"knn": 1.0}}
    >>> gain("knn", "hard", than="plain")(results), gain("linear", "hard", over="knn")(results)
    (2.0, 1.0)
    """
    if than is None and over is None:
        raise ValueError(f"than or over must be given: another arm than {arm!r}, or another metric than {metric!r}")
    return Gain(metric, arm, arm if than is None else than, metric if over is None else over)


@dataclasses.dataclass(frozen=True)
class Value:
    """What `value` returns: a value that pickles and prints."""

    metric: str
    arm: str

    def __call__(self, arms):
        return arms[self.arm][self.metric]

    def __str__(self):
        return f"{self.metric}: {self.arm}"


def value(metric: str, arm: str) -> Value:
    """One metric of one arm, as the `of` of a claim.

    >>> value("knn", "hard")({"hard": {"knn": 3.0}})
    3.0
    """
    return Value(metric, arm)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """What `ratio` returns: a value that pickles and prints."""

    metric: str
    arm: str
    than: str

    def __call__(self, arms):
        return arms[self.arm][self.metric] / arms[self.than][self.metric]

    def __str__(self):
        return f"{self.metric}: {self.arm} over {self.than}"


def ratio(metric: str, arm: str, than: str) -> Ratio:
    """One metric of one arm over that of another, as the `of` of a claim.

    >>> ratio("seconds", "fast", than="slow")({"fast": {"seconds": 1.0}, "slow": {"seconds": 4.0}})
    0.25
    """
    return Ratio(metric, arm, than)


@dataclasses.dataclass(frozen=True)
class Margin:
    """What `margin` returns: a value that pickles and prints."""

    metric: str | tuple[str, ...]
    arms: tuple[str, ...]
    than: tuple[str, ...]

    def __call__(self, arms):
        return min(_measured(arms[arm], self.metric) for arm in self.arms) - max(_measured(arms[arm], self.metric) for arm in self.than)

    def __str__(self):
        return f"{_words(self.metric)}: {' and '.join(self.arms)} above each of {', '.join(self.than)}"


def margin(metric: str | tuple[str, ...], arms: str | Sequence[str], than: Sequence[str]) -> Margin:
    """By how much each of some arms is above each of others: the least of the ones minus the greatest of the others, as the `of` of a claim.

    Args:
      metric: its name, or several, as in `gain`.
      arms: the name of an arm, or of several.
      than: the names of the others.

    Returns:
      A function of `{arm: {metric: value}}`.

    Raises:
      ValueError: no arm on one of the sides.

    >>> margin("knn", "hard", than=("plain", "simple"))({"hard": {"knn": 3.0}, "plain": {"knn": 1.0}, "simple": {"knn": 2.0}})
    1.0
    """
    arms, than = (((names,) if isinstance(names, str) else tuple(names)) for names in (arms, than))
    if not arms or not than:
        raise ValueError(f"arms and than must name one arm each at least, got {arms!r} and {than!r}")
    return Margin(metric, arms, than)


def estimate(values):
    r"""Mean and 95 % interval over seeds, $\bar x \pm t_{0.975, n - 1} s / \sqrt n$ with the sample deviation s.

    Args:
      values: one entry a seed: a number, or a list of them (a curve), or None for a seed that failed, which is left out.

    Returns:
      `(mean, interval)`: a number and `(low, high)`, for curves a list of each. The interval is None with one seed; both are None without any, and
      for curves of unequal length; an entry that is not finite in some seed has None for both.
    """
    kept = [np.asarray(value, np.float64) for value in values if value is not None]
    if not kept or len({value.shape for value in kept}) > 1:
        return None, None
    kept = np.stack(kept)
    with np.errstate(invalid="ignore", over="ignore"):
        same = np.all(kept == kept[0], axis=0)  # where the seeds agree, the interval is that value itself, not its neighbour by rounding
        mean = np.where(same, kept[0], kept.mean(0))
        half = np.zeros_like(mean)
        if len(kept) > 1:
            from scipy.special import stdtrit  # the quantile of scipy.stats.t, without its second of import

            half = np.where(same, 0.0, stdtrit(len(kept) - 1, 0.975) * kept.std(0, ddof=1) / math.sqrt(len(kept)))
    if mean.ndim == 0:
        return _pair(mean, half, len(kept))
    means, intervals = zip(*(_pair(*entry, len(kept)) for entry in zip(mean, half, strict=True)), strict=True) if len(mean) else ((), ())
    return list(means), list(intervals) if len(kept) > 1 else None


def _pair(mean, half, seeds):
    if not (np.isfinite(mean) and np.isfinite(half)):
        return None, None
    return float(mean), (float(mean - half), float(mean + half)) if seeds > 1 else None


def verdict(interval, at_least=0.0, at_most=None):
    """`holds` where the interval lies inside the bounds, `contradicted` where it lies wholly outside, `not shown` else and without an interval."""
    if interval is None:
        return "not shown"
    low, high = interval
    floor = -math.inf if at_least is None else at_least
    ceiling = math.inf if at_most is None else at_most
    if floor <= low and high <= ceiling:
        return "holds"
    return "contradicted" if high < floor or low > ceiling else "not shown"


def met(mean, at_least, at_most, expected):
    """Whether the mean reaches the expected size in the direction of the bound; None where there is nothing to compare."""
    if mean is None or expected is None:
        return None
    return mean <= expected if at_most is not None else mean >= expected


def assess(claim, seeds, known, name=None, changed=False):
    """The report's entry of one claim.

    Args:
      claim: a `Claim`.
      seeds: one `{arm: {metric: value}}` a seed; an arm that failed is absent.
      known: the names of all arms that the script has: one of them missing is no mistake in the claim.
      name: the entry's name where it is not the claim's own.
      changed: whether fields of the arms were set to other values: a claim of something that no arm then measures does not apply, and is no mistake;
        the entry's `lacks` says what it is.

    Returns:
      The entry, and a line that says what is wrong with the claim, or None.
    """
    values, problem, lacks = [], None, None
    for arms in seeds:
        try:
            values.append(float(claim.of(arms)))
        except Exception as error:  # a mistake in one claim must not cost the report of a finished study
            values.append(None)
            wanted = error.args[0] if isinstance(error, KeyError) and error.args else None
            if not arms or (wanted in known and wanted not in arms):
                continue
            if changed and isinstance(wanted, str) and not any(wanted in metrics for metrics in arms.values()):
                lacks = wanted
            else:
                problem = f"claim {claim.name!r} could not be evaluated: {type(error).__name__}: {error}"
    mean, interval = estimate(values)
    bounds = {"at_least": claim.at_least, "at_most": claim.at_most}
    entry = {"name": name or claim.name, "values": values, "mean": mean, "interval": interval, **bounds, "expected": claim.expected}
    return entry | {"verdict": verdict(interval, **bounds)} | ({"lacks": lacks} if lacks else {}), problem
