"""Metrics of embeddings and of rankings: numbers to report, not to train on."""

from cljax.metrics.geometry import alignment, penalty_entropy, relative_penalty, tolerance, topk_similarity_profile, uniformity
from cljax.metrics.neighbours import knn_accuracy
from cljax.metrics.probes import linear_probe, ridge_probe
from cljax.metrics.ranking import average_precision, mrr_at_k, ndcg_at_k, recall_at_k

__all__ = [
    "alignment",
    "average_precision",
    "knn_accuracy",
    "linear_probe",
    "mrr_at_k",
    "ndcg_at_k",
    "penalty_entropy",
    "recall_at_k",
    "relative_penalty",
    "ridge_probe",
    "tolerance",
    "topk_similarity_profile",
    "uniformity",
]
