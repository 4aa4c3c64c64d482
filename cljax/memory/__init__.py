"""Memories: pairs of pure functions (init, update) over an explicit state."""

from cljax.memory.averages import EMAState, ema, rising_decay
from cljax.memory.banks import BankState, bank
from cljax.memory.clusters import ClusterState, Neighbours, cluster_capacity, cluster_memory, cluster_neighbours, recluster
from cljax.memory.labels import LabelsState, labels
from cljax.memory.pair import Memory
from cljax.memory.queues import QueueState, queue
from cljax.memory.rationales import RationalesState, rationales
from cljax.memory.stacked import stacked

__all__ = [
    "BankState",
    "ClusterState",
    "EMAState",
    "LabelsState",
    "Memory",
    "Neighbours",
    "QueueState",
    "RationalesState",
    "bank",
    "cluster_capacity",
    "cluster_memory",
    "cluster_neighbours",
    "ema",
    "labels",
    "queue",
    "rationales",
    "recluster",
    "rising_decay",
    "stacked",
]
