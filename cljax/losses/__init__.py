"""Pure functions on embeddings, scores and log-probabilities; one value an anchor, `losses.mean` makes the scalar.

In every pairwise loss:
  `ids` are integers `[B]`, or sets of integers `[B, R]` padded with -1: pairs whose ids meet are never each other's negatives.
  `where` `[B]` names the valid rows: any other is neither an anchor (its value is 0) nor a key, as if it were not there.
  `similarity`, `axis_name`, `collective`, `block_size` and `implementation` are those of `pairwise.reduce`.
"""

from cljax.losses.averaging import Masked, mean
from cljax.losses.distillation import soft_cross_entropy
from cljax.losses.geometry import alignment, uniformity
from cljax.losses.grouped import grouped_info_nce
from cljax.losses.hard import hard_contrastive, simple_contrastive
from cljax.losses.sigmoid import sigmoid_contrastive
from cljax.losses.softmax import info_nce, nt_xent, symmetric_info_nce
from cljax.losses.supervised import multi_positive_info_nce, sup_con
from cljax.losses.temperature import bounded_temperature

__all__ = [
    "Masked",
    "alignment",
    "bounded_temperature",
    "grouped_info_nce",
    "hard_contrastive",
    "info_nce",
    "mean",
    "multi_positive_info_nce",
    "nt_xent",
    "sigmoid_contrastive",
    "simple_contrastive",
    "soft_cross_entropy",
    "sup_con",
    "symmetric_info_nce",
    "uniformity",
]
