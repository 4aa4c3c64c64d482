"""Views: changed arrays, as a pure function of a key and of the examples' indices."""

from cljax.views.images import flip, random_resized_crop, shift_gain_noise
from cljax.views.per_example import per_example

__all__ = ["flip", "per_example", "random_resized_crop", "shift_gain_noise"]
