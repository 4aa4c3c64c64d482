"""Pictures of a report: scores of all arms, verdicts, curves, and a metric against what the arms differ in; always with 95 % intervals over seeds."""

import math

import numpy as np

from cljax.core import check
from cljax.study.report import curve_metrics, expectation, has_value, number, scalar_metrics

# Okabe & Ito's colours, told apart by all common kinds of colour blindness; the yellow is left out, as it is faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")
_VERDICTS = {"holds": "#009E73", "not shown": "#7F7F7F", "contradicted": "#D55E00"}


def curves(report, metrics=None, arms=None, *, x=None, first=1, xlabel="evaluation", columns=4, size=None):
    """Curves of several arms in one set of axes a metric: the mean over seeds, and the 95 % interval as a band.

    Args:
      report: the report of a study, as `figures(report)` gets it or `report.json` holds it.
      metrics: names of metrics that are curves; by default all of them.
      arms: names of arms; by default all that have a curve.
      x: the places of a curve's points: a sequence, or the name of a metric that holds them; by default `first`, `first` + 1, ...
      first: such as 0 where a curve's first point is what was before training.
      xlabel: what x is, with its unit.
      columns: how many axes stand side by side at most.
      size: width and height in inches, but for rows of the legend beyond the first; by default what the axes need.

    Returns:
      A matplotlib Figure.

    Raises:
      ValueError: an unknown metric or arm.
    """
    metrics = _chosen("metrics", metrics, curve_metrics(report))
    arms = _chosen("arms", arms, list(report["arms"]))
    figure, panels = _grid(len(metrics), columns, width=2.9, height=2.5, share_x=True)
    for panel, metric in zip(panels, metrics, strict=True):
        for place, arm in enumerate(arms):
            entry = report["arms"][arm].get(metric)
            if entry is None or not isinstance(entry["mean"], list):
                continue
            at = report["arms"][arm][x]["mean"] if isinstance(x, str) else x if x is not None else range(first, first + len(entry["mean"]))
            _band(panel, at, entry["mean"], entry["interval"], arm, place)
        panel.set_title(metric.removesuffix(" over steps"), fontsize=10)
        panel.set_xlabel(xlabel)
    if size is not None:
        figure.set_size_inches(size)
    _legend(figure, panels)
    return figure


def trends(report, metrics, series, *, xlabel, log=False, columns=4):
    """Metrics against a quantity in which the arms of a series differ: means over seeds joined by lines, 95 % intervals as bands.

    Args:
      report: the report of a study.
      metrics: names of metrics that are one number a seed.
      series: `{label: {x: arm}}`, such as `{"contrastive": {0.1: "contrastive 0.1", 1.0: "contrastive 1.0"}}`; arms that the report lacks are left
        out.
      xlabel: what x is, with its unit.
      log: whether the x axis is logarithmic.
      columns: how many axes stand side by side at most.

    Returns:
      A matplotlib Figure.

    Raises:
      ValueError: an unknown metric.
    """
    metrics = _chosen("metrics", metrics, scalar_metrics(report))
    figure, panels = _grid(len(metrics), columns, width=2.9, height=2.5, share_x=True)
    for panel, metric in zip(panels, metrics, strict=True):
        for place, (label, arms) in enumerate(series.items()):
            found = {at: report["arms"][arm][metric] for at, arm in sorted(arms.items()) if metric in report["arms"].get(arm, {})}
            intervals = [entry["interval"] for entry in found.values()]
            if found:
                _band(panel, list(found), [entry["mean"] for entry in found.values()], intervals, label, place, marker="o")
        panel.set_title(metric, fontsize=10)
        panel.set_xlabel(xlabel)
        if log:
            places = sorted({at for arms in series.values() for at in arms})
            panel.set_xscale("log")
            panel.set_xticks(places, [f"{at:g}" for at in places])
            panel.minorticks_off()
    _legend(figure, panels)
    return figure


def matrices(report, metric, arms, *, names=None):
    """The means over seeds of square matrices, each as a table that is the darker the larger its entries.

    Args:
      report: the report of a study.
      metric: the name of a metric that is the entries of a matrix, row by row.
      arms: `{title: arm}`, one set of axes each.
      names: `{title: names of the rows}`; where there are none, rows are numbered from 0.

    Returns:
      A matplotlib Figure.

    Raises:
      ValueError: an unknown metric or arm, no arms, not as many names as rows, or entries that are no square matrix.
    """
    chosen = dict(zip(arms, _chosen("arms", list(dict(arms).values()), list(report["arms"])), strict=True))
    _chosen("metric", metric, curve_metrics(report))
    figure, panels = _grid(len(chosen), 4, width=4.0, height=3.6)
    for panel, (title, arm) in zip(panels, chosen.items(), strict=True):
        values = _floats(report["arms"][arm][metric]["mean"] if metric in report["arms"][arm] else [])
        side = math.isqrt(len(values))
        if side == 0 or side**2 != len(values):
            raise ValueError(f"metric must be the entries of a square matrix, got {len(values)} of them for arm {arm!r}")
        values = values.reshape(side, side)
        panel.grid(False)
        panel.imshow(values, cmap="Blues")
        for (i, j), value in np.ndenumerate(values):
            panel.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 * values.max() else "black")
        rows = (names or {}).get(title, range(side))
        panel.set_xticks(range(side), rows)
        panel.set_yticks(range(side), rows)
        panel.set_title(title, fontsize=10)
    return figure


def scores(report, metrics=None, arms=None, *, columns=4):
    """Every arm's mean and 95 % interval, the seeds as small dots; one set of axes a metric.

    Args:
      report: the report of a study.
      metrics: names of metrics that are one number a seed; by default all of them.
      arms: names of arms, from the top down; by default all.
      columns: how many axes stand side by side at most.

    Returns:
      A matplotlib Figure.

    Raises:
      ValueError: an unknown metric or arm.
    """
    metrics = _chosen("metrics", metrics, scalar_metrics(report))
    arms = _chosen("arms", arms, list(report["arms"]))
    names = [arm if len(arm) <= 60 else f"{arm[:59]}…" for arm in arms]
    figure, panels = _grid(len(metrics), columns, width=2.7, height=0.9 + 0.27 * len(arms), share_y=True, beside=0.08 * max(map(len, names)))
    for panel, metric in zip(panels, metrics, strict=True):
        for place, arm in enumerate(arms):
            entry = report["arms"][arm].get(metric)
            if entry is not None:
                _dot(panel, place, entry["mean"], entry["interval"], entry["values"], PALETTE[0])
        panel.set_title(metric, fontsize=10)
        panel.set_yticks(range(len(arms)), names)
        panel.set_ylim(len(arms) - 0.5, -0.5)
    return figure


def verdicts(report):
    """Every claim's mean, 95 % interval, seeds, bounds (the shaded side keeps the claim) and expected size (a diamond), coloured by the verdict."""
    entries = [entry for entry in report["claims"] if has_value(entry)]
    if not entries:
        raise ValueError("report must have a claim with a value, got none")
    figure, panels = _grid(len(entries), 1, width=9.0, height=0.85)
    for panel, entry in zip(panels, entries, strict=True):
        colour = _VERDICTS[entry["verdict"]]
        _dot(panel, 0, entry["mean"], entry["interval"], entry["values"], colour)
        if entry["expected"] is not None:
            panel.plot([entry["expected"]], [0], "D", markersize=5, markerfacecolor="none", markeredgecolor="black", zorder=4)
        marks = [value for value in (entry["at_least"], entry["at_most"]) if value is not None]
        for value in marks:
            panel.axvline(value, color="black", linewidth=0.8)
        low, high = _span(panel, marks)
        panel.axvspan(
            low if entry["at_least"] is None else entry["at_least"],
            high if entry["at_most"] is None else entry["at_most"],
            color="#009E73",
            alpha=0.1,
            linewidth=0,
        )
        panel.set_xlim(low, high)
        panel.set_ylim(-1, 1)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        size = number(entry["mean"], entry["interval"], entry["values"])
        wanted = f" (expected {expectation(entry)})" if expectation(entry) else ""
        panel.set_title(f"{entry['name']}: {entry['verdict']}", loc="left", color=colour, fontsize=9)
        panel.set_title(size + wanted, loc="right", fontsize=8)
    return figure


def default_figures(report):
    """The pictures of a script that draws none of its own: `scores`, `curves` where there are any, `claims` where there are any."""
    figures = {}
    if scalar_metrics(report):
        figures["scores"] = scores(report)
    if curve_metrics(report):
        figures["curves"] = curves(report)
    if any(map(has_value, report["claims"])):
        figures["claims"] = verdicts(report)
    return figures


def _chosen(argument, names, known):
    names = [names] if isinstance(names, str) else known if names is None else list(names)
    if not names:
        raise ValueError(f"{argument} must name at least one of {', '.join(map(repr, known)) or 'the report, which has none of this kind'}")
    for name in names:
        check.choice(argument, name, known)
    return names


def _grid(count, columns, width, height, share_x=False, share_y=False, beside=0.0):
    from matplotlib.figure import Figure  # draws without pyplot: no window, no state

    lines = math.ceil(count / columns)
    columns = math.ceil(count / lines)
    figure = Figure(figsize=(max(width * columns, 4.0) + beside, max(height * lines, 1.6)), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=share_x, sharey=share_y).ravel()
    for panel in panels[count:]:
        panel.set_visible(False)
    for place, panel in enumerate(panels[:count]):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="both" if not share_y else "x", color="0.92", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8, labelbottom=True)
        panel.xaxis.label.set_fontsize(9)
        if share_y and place % columns:
            panel.tick_params(labelleft=False, left=False)
    return figure, list(panels[:count])


def _floats(values):
    return np.asarray([math.nan if value is None else value for value in values], np.float64)


def _band(panel, x, mean, interval, label, place, marker=None):
    x, colour = np.asarray(x, np.float64), PALETTE[place % len(PALETTE)]
    style = DASHES[place // len(PALETTE) % len(DASHES)]
    panel.plot(x, _floats(mean), style, color=colour, marker=marker, markersize=4, linewidth=1.5, label=label)
    pairs = [pair or (None, None) for pair in interval] if interval else []
    if pairs:
        panel.fill_between(x, _floats([low for low, _ in pairs]), _floats([high for _, high in pairs]), color=colour, alpha=0.18, linewidth=0)


def _dot(panel, y, mean, interval, values, colour):
    seeds = _floats(value for value in values if value is not None)
    panel.plot(seeds, np.full(len(seeds), y), ".", color="0.6", markersize=4, zorder=2)
    if mean is not None:
        if interval:
            panel.plot(interval, [y, y], "-", color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3)
        panel.plot([mean], [y], "o", color=colour, markersize=5, zorder=3)


def _span(panel, marks):
    low, high = panel.dataLim.intervalx
    low, high = min([low, *marks]) if math.isfinite(low) else min(marks), max([high, *marks]) if math.isfinite(high) else max(marks)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def _legend(figure, panels):
    found = {}
    for panel in panels:
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, line)
    if len(found) > 1:
        fitting = int(figure.get_figwidth() / (0.6 + 0.07 * max(map(len, found))))  # columns, in inches
        columns = max(1, min(len(found), 4, fitting))
        figure.set_figheight(figure.get_figheight() + 0.18 * (-(-len(found) // columns) - 1))  # panels keep their height
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
