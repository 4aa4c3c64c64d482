"""Samplers: who meets whom, returned as indices, masks or weights."""

from cljax.samplers.batches import shuffled_batch, shuffled_batches

__all__ = ["shuffled_batch", "shuffled_batches"]
