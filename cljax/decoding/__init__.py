"""Decoding: what the next token is, by filters of logits and compiled loops with a cache; any model that gives states and logits will do."""

from cljax.decoding.beam import beam_search
from cljax.decoding.filters import Filter, compose, contrastive_logits, plausibility, temperature, top_k, top_p, typical
from cljax.decoding.generate import Generation, generate
from cljax.decoding.score import continuation_log_probs, continuation_logits, final_states, until
from cljax.decoding.search import contrastive_rank, contrastive_search

__all__ = [
    "Filter",
    "Generation",
    "beam_search",
    "compose",
    "continuation_log_probs",
    "continuation_logits",
    "contrastive_logits",
    "contrastive_rank",
    "contrastive_search",
    "final_states",
    "generate",
    "plausibility",
    "temperature",
    "top_k",
    "top_p",
    "typical",
    "until",
]
