"""A picture of the image views: a row a view, a column a draw, on the two photographs that scikit-learn ships.

    python benchmarks/views_contact_sheet.py [docs/views.png]

What a person looks at after a change of a view: whether the colours are plausible, boxes lie where they may, and draws differ.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from cljax import views

SIZE, DRAWS, LABELS = 64, 4, 130  # pixels of a cell; draws of each photograph; pixels for the names of the rows

SIMCLR = views.compose(
    partial(views.random_resized_crop, scale=(0.2, 1.0)),
    views.flip,
    partial(views.colour_jitter, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    views.greyscale,
    partial(views.gaussian_blur, kernel_size=9),
)


def crops(key, images, *, index, kind):
    """The crops of one kind, one a draw."""
    found = views.multi_crop(key, images, sizes=(SIZE, SIZE * 3 // 7), counts=(1, 1), index=index)[kind][0]
    border = (SIZE - found.shape[1]) // 2
    return jnp.pad(found, ((0, 0), (border, SIZE - found.shape[1] - border), (border, SIZE - found.shape[1] - border), (0, 0)), constant_values=1)


def mixed(view, key, images, *, index):
    """Mixtures with the other photograph."""
    return view(key, images, index=index, alpha=1.0).images


ROWS = {
    "the photograph": lambda key, images, *, index: images,
    "random_resized_crop": views.random_resized_crop,
    "random_crop": partial(views.random_crop, size=SIZE, padding=16),
    "multi_crop, large": partial(crops, kind=0),
    "multi_crop, small": partial(crops, kind=1),
    "flip": views.flip,
    "shift_gain_noise": partial(views.shift_gain_noise, shift=10),
    "colour_jitter, 0.4 0.4 0.4 0.1": partial(views.colour_jitter, probability=1.0),
    "colour_jitter, 0.8 0.8 0.8 0.2": partial(views.colour_jitter, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=1.0),
    "greyscale, half of them": partial(views.greyscale, probability=0.5),
    "gaussian_blur": partial(views.gaussian_blur, kernel_size=9, probability=1.0),
    "solarise": partial(views.solarise, probability=1.0),
    "rand_augment, 2 of 9": views.rand_augment,
    "random_erasing": partial(views.random_erasing, probability=1.0),
    "random_erasing, noise": partial(views.random_erasing, value=None, probability=1.0),
    "block_mask": partial(views.block_mask, patch=8),
    "mix_up": partial(mixed, views.mix_up),
    "cut_mix": partial(mixed, views.cut_mix),
    "SimCLR, composed": SIMCLR,
}


def photographs():
    """`[2, SIZE, SIZE, 3]` floats in [0, 1]: the middle square of each."""
    from sklearn.datasets import load_sample_images

    found = []
    for photograph in load_sample_images().images:
        height, width = photograph.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = Image.fromarray(photograph[top : top + side, left : left + side])
        found.append(np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS), np.float32) / 255)
    return np.stack(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, default=Path(__file__).parents[1] / "docs" / "views.png")
    path = parser.parse_args().path
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    images, index = np.repeat(photographs(), DRAWS, axis=0), np.arange(2 * DRAWS)
    rows = []
    for i, view in enumerate(ROWS.values()):
        row = np.clip(view(jax.random.fold_in(jax.random.key(3), i), images, index=index), 0, 1)
        rows.append(np.concatenate(np.pad(row, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1), axis=1))  # a white frame around each
    sheet = np.concatenate(rows)
    height, width = sheet.shape[:2]
    figure = plt.figure(figsize=((LABELS + width) / 100, height / 100), dpi=100)  # a pixel of the sheet is one of the picture
    axis = figure.add_axes((LABELS / (LABELS + width), 0, width / (LABELS + width), 1))
    axis.imshow(sheet, interpolation="none")
    axis.axis("off")
    for i, name in enumerate(ROWS):
        axis.text(-8, (i + 0.5) * height / len(ROWS), name.replace(", ", "\n"), ha="right", va="center", fontsize=8)
    figure.savefig(path, dpi=100)
    picture = Image.open(path).convert("RGB")
    picture.quantize(palette=picture.quantize(256), dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)  # a third of the bytes
    print(f"{path}: {len(ROWS)} views, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
