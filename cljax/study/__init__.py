"""Studies: arms, seeds, sweeps, claims, tables and pictures; the command line of every experiment."""

from cljax.study.claims import Claim, gain, margin, ratio, value
from cljax.study.figures import curves, default_figures, matrices, scores, trends, verdicts
from cljax.study.history import over_steps, thinned
from cljax.study.main import main
from cljax.study.shared import shared
from cljax.study.sweep import load, sweep

__all__ = [
    "Claim",
    "curves",
    "default_figures",
    "gain",
    "load",
    "main",
    "margin",
    "matrices",
    "over_steps",
    "ratio",
    "scores",
    "shared",
    "sweep",
    "thinned",
    "trends",
    "value",
    "verdicts",
]
