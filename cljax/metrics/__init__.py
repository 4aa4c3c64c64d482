"""Metrics of embeddings, of rankings and of texts: numbers to report, not to train on."""

from cljax.metrics.balanced_accuracy import balanced_accuracy
from cljax.metrics.clusters import cluster_accuracy, match_clusters
from cljax.metrics.collapse import collapse_watch, effective_rank, isotropy, isotropy_sums
from cljax.metrics.few_shot import few_shot_accuracy, nearest_centroid, opta, opta_classifier, prototype_logits
from cljax.metrics.geometry import (
    alignment,
    contrast_accuracy,
    contrast_entropy,
    length_bias,
    penalty_entropy,
    relative_penalty,
    softmax_entropy,
    tolerance,
    topk_similarity_profile,
    uniformity,
)
from cljax.metrics.neighbours import hubness, knn_accuracy
from cljax.metrics.policies import grad_variance, kl_regularised_value, regret
from cljax.metrics.probes import linear_probe, ridge_probe
from cljax.metrics.ranking import average_precision, average_precision_at_r, label_retrieval, mrr_at_k, ndcg_at_k, r_precision, recall_at_k
from cljax.metrics.retrieval_summary import retrieval_summary
from cljax.metrics.similarity import sts_spearman
from cljax.metrics.text import answer_behind, coherence, diversity, entropy_deviation, rep_n, zipf

__all__ = [
    "alignment",
    "answer_behind",
    "average_precision",
    "average_precision_at_r",
    "balanced_accuracy",
    "cluster_accuracy",
    "coherence",
    "collapse_watch",
    "contrast_accuracy",
    "contrast_entropy",
    "diversity",
    "effective_rank",
    "entropy_deviation",
    "few_shot_accuracy",
    "grad_variance",
    "hubness",
    "isotropy",
    "isotropy_sums",
    "kl_regularised_value",
    "knn_accuracy",
    "label_retrieval",
    "length_bias",
    "linear_probe",
    "match_clusters",
    "mrr_at_k",
    "ndcg_at_k",
    "nearest_centroid",
    "opta",
    "opta_classifier",
    "penalty_entropy",
    "prototype_logits",
    "r_precision",
    "recall_at_k",
    "regret",
    "relative_penalty",
    "rep_n",
    "retrieval_summary",
    "ridge_probe",
    "softmax_entropy",
    "sts_spearman",
    "tolerance",
    "topk_similarity_profile",
    "uniformity",
    "zipf",
]
