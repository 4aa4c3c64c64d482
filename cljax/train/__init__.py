"""Training: configurations, one compiled loop over a step, batches, checkpoints, progress and logs."""

from cljax.train.config import config
from cljax.train.descend import descend
from cljax.train.draws import draws
from cljax.train.fit import fit

__all__ = ["config", "descend", "draws", "fit"]
