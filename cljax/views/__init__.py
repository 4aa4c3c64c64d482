"""Views: changed arrays, as a pure function of a key and of the examples' indices."""

from cljax.views.blur import gaussian_blur
from cljax.views.clips import clip_augment, per_clip, spread_crops, take_clips
from cljax.views.colour import colour_jitter, greyscale, solarise
from cljax.views.compose import compose
from cljax.views.crops import centre_crop, multi_crop, random_crop, random_resized_crop, resize
from cljax.views.erasing import block_mask, random_erasing
from cljax.views.imagenet import imagenet
from cljax.views.images import IMAGENET, flip, shift_gain_noise, to_floats
from cljax.views.mixing import Mixed, cut_mix, mix_up, mixed_targets
from cljax.views.per_example import per_example
from cljax.views.rand_augment import RAND_AUGMENT, RAND_AUGMENT_TIMM, rand_augment
from cljax.views.signals import jitter, scaling
from cljax.views.tokens import crop_tokens, delete_tokens, frame_tokens, inverse_cloze, join_tokens, replace_tokens, soda

__all__ = [
    "IMAGENET",
    "Mixed",
    "RAND_AUGMENT",
    "RAND_AUGMENT_TIMM",
    "block_mask",
    "centre_crop",
    "clip_augment",
    "colour_jitter",
    "compose",
    "crop_tokens",
    "cut_mix",
    "delete_tokens",
    "flip",
    "frame_tokens",
    "gaussian_blur",
    "greyscale",
    "imagenet",
    "inverse_cloze",
    "jitter",
    "join_tokens",
    "mix_up",
    "mixed_targets",
    "multi_crop",
    "per_clip",
    "per_example",
    "rand_augment",
    "random_crop",
    "random_erasing",
    "random_resized_crop",
    "replace_tokens",
    "resize",
    "scaling",
    "shift_gain_noise",
    "soda",
    "solarise",
    "spread_crops",
    "take_clips",
    "to_floats",
]
