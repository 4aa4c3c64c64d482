"""Memories: pairs of pure functions (init, update) over an explicit state."""

from cljax.memory.averages import EMAState, ema
from cljax.memory.banks import BankState, bank
from cljax.memory.pair import Memory
from cljax.memory.queues import QueueState, queue

__all__ = ["BankState", "EMAState", "Memory", "QueueState", "bank", "ema", "queue"]
