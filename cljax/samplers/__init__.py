"""Samplers: who meets whom, returned as indices, masks or weights."""

from cljax.samplers.balanced import Batches, class_batches, unique_batches
from cljax.samplers.batches import shuffled_batch, shuffled_batches
from cljax.samplers.episodes import Episodes, few_shot_episodes
from cljax.samplers.grouped import Buckets, bucket_batches, group_batches
from cljax.samplers.mining import Mined, distance_weighted_negatives, mine_negatives, semi_hard_negatives

__all__ = [
    "Batches",
    "Buckets",
    "Episodes",
    "Mined",
    "bucket_batches",
    "class_batches",
    "distance_weighted_negatives",
    "few_shot_episodes",
    "group_batches",
    "mine_negatives",
    "semi_hard_negatives",
    "shuffled_batch",
    "shuffled_batches",
    "unique_batches",
]
