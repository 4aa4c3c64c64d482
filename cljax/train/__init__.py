"""Training: configurations, one compiled loop over a step, batches, the gradient cache, checkpoints, progress and logs."""

from cljax.train.best import Best, best_slot, keep_best
from cljax.train.cached import cached_value_and_grad
from cljax.train.classifier import classifier
from cljax.train.config import config
from cljax.train.decay_mask import decay_mask
from cljax.train.descend import descend
from cljax.train.draws import draws
from cljax.train.fit import fit
from cljax.train.language import language_model
from cljax.train.minimise import minimise
from cljax.train.processes import join
from cljax.train.rewards import reward_model
from cljax.train.schedules import rise_and_fall

__all__ = [
    "Best",
    "best_slot",
    "cached_value_and_grad",
    "classifier",
    "config",
    "decay_mask",
    "descend",
    "draws",
    "fit",
    "join",
    "keep_best",
    "language_model",
    "minimise",
    "reward_model",
    "rise_and_fall",
]
