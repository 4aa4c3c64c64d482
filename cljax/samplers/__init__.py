"""Samplers: who meets whom, returned as indices, masks or weights."""

from cljax.samplers.active import cas_scores, cas_select, class_transferability, contrastive_margin, select_smallest, shuffled_rows
from cljax.samplers.balanced import Batches, class_batches, unique_batches
from cljax.samplers.batches import shuffled_batch, shuffled_batches, steps_per_epoch
from cljax.samplers.chains import Chain, Terms, generation_pairs, independence_step, majority, subsample_terms
from cljax.samplers.class_shares import class_shares
from cljax.samplers.clips import ClipPair, interval_pmf, sample_clip_pair, sample_interval, spread_clips
from cljax.samplers.corpora import chunk_stream, corpus_batch, corpus_mixture, mixture_rows, stream_windows
from cljax.samplers.devices import Devices, asynchronous, device_distances, select_devices, window
from cljax.samplers.episodes import Episodes, few_shot_episodes
from cljax.samplers.graphs import Edges, influence, knn_graph
from cljax.samplers.grouped import Buckets, bucket_batches, group_batches, held_out_groups
from cljax.samplers.mining import Mined, distance_weighted_negatives, mine_negatives, semi_hard_negatives
from cljax.samplers.pools import pool_batch
from cljax.samplers.propensity import draw_hard_or_random, draw_negatives, draw_weighted, inverse_propensity

__all__ = [
    "Batches",
    "Buckets",
    "Chain",
    "ClipPair",
    "Devices",
    "Edges",
    "Episodes",
    "Mined",
    "Terms",
    "asynchronous",
    "bucket_batches",
    "cas_scores",
    "cas_select",
    "chunk_stream",
    "class_batches",
    "class_shares",
    "class_transferability",
    "contrastive_margin",
    "corpus_batch",
    "corpus_mixture",
    "device_distances",
    "distance_weighted_negatives",
    "draw_hard_or_random",
    "draw_negatives",
    "draw_weighted",
    "few_shot_episodes",
    "generation_pairs",
    "group_batches",
    "held_out_groups",
    "independence_step",
    "influence",
    "interval_pmf",
    "inverse_propensity",
    "knn_graph",
    "majority",
    "mine_negatives",
    "mixture_rows",
    "pool_batch",
    "sample_clip_pair",
    "sample_interval",
    "select_devices",
    "select_smallest",
    "semi_hard_negatives",
    "shuffled_batch",
    "shuffled_batches",
    "shuffled_rows",
    "spread_clips",
    "steps_per_epoch",
    "stream_windows",
    "subsample_terms",
    "unique_batches",
    "window",
]
