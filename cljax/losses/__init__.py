"""Pure functions on embeddings, scores and log-probabilities; one value an anchor, `losses.mean` makes the scalar.

In every pairwise loss:
  `ids` are integers `[B]`, or sets of integers `[B, R]` padded with -1: pairs whose ids meet are never each other's negatives.
  `where` `[B]` names the valid rows: any other is neither an anchor (its value is 0) nor a key, as if it were not there.
  `references` `[M, D]` are further rows, beside those of the batch (or, with `in_batch=False`, in their place), with which a loss of labels compares
    its anchors: a memory of past batches, a bank. They are no anchors, and are used as this device holds them; where each holds a part of them
    `references_axis_name` is the axis over which they are split. `reference_labels` and `reference_ids` are theirs as `labels` and `ids` are the
    batch's; `reference_where` `[M]` names those that exist, so that slots that are not filled yet count nowhere. `negatives` of the softmax losses
    are such rows without a positive among them.
  `similarity`, `axis_name`, `collective`, `block_size` and `implementation` are those of `pairwise.reduce`.
"""

from cljax.losses.adversarial import adversarial_retriever
from cljax.losses.averaging import Masked, mean
from cljax.losses.clusters import dec_kl, graph_info_nce, meta_node_contrast, student_t_assign, target_distribution
from cljax.losses.debiased import debiased_info_nce, decoupled_info_nce, hard_negative_info_nce
from cljax.losses.distillation import soft_cross_entropy
from cljax.losses.geometry import alignment, negative_cosine, uniformity
from cljax.losses.grouped import grouped_info_nce
from cljax.losses.hard import hard_contrastive, simple_contrastive
from cljax.losses.information import anchor_entropy, entropy, info_max
from cljax.losses.margins import pairwise_contrastive, triplet_margin
from cljax.losses.policy import (
    TriceCoefficients,
    copg,
    copg_group,
    leave_one_out,
    marginal_log_prob,
    reinforce,
    rejection_coefficients,
    trice_coefficients,
)
from cljax.losses.preferences import bradley_terry, dpo, ipo
from cljax.losses.redundancy import barlow_twins, covariance, variance
from cljax.losses.sequences import sequence_logprob, simctg, token_cross_entropy
from cljax.losses.sigmoid import sigmoid_contrastive
from cljax.losses.softmax import info_nce, nt_xent, symmetric_info_nce
from cljax.losses.supervised import multi_positive_info_nce, sup_con
from cljax.losses.temperature import bounded_temperature

__all__ = [
    "Masked",
    "TriceCoefficients",
    "adversarial_retriever",
    "alignment",
    "anchor_entropy",
    "barlow_twins",
    "bounded_temperature",
    "bradley_terry",
    "copg",
    "copg_group",
    "covariance",
    "debiased_info_nce",
    "dec_kl",
    "decoupled_info_nce",
    "dpo",
    "entropy",
    "graph_info_nce",
    "grouped_info_nce",
    "hard_contrastive",
    "hard_negative_info_nce",
    "info_max",
    "info_nce",
    "ipo",
    "leave_one_out",
    "marginal_log_prob",
    "mean",
    "meta_node_contrast",
    "multi_positive_info_nce",
    "negative_cosine",
    "nt_xent",
    "pairwise_contrastive",
    "reinforce",
    "rejection_coefficients",
    "sequence_logprob",
    "sigmoid_contrastive",
    "simctg",
    "simple_contrastive",
    "soft_cross_entropy",
    "student_t_assign",
    "sup_con",
    "symmetric_info_nce",
    "target_distribution",
    "token_cross_entropy",
    "trice_coefficients",
    "triplet_margin",
    "uniformity",
    "variance",
]
