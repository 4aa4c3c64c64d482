"""CVRL: Spatiotemporal Contrastive Video Representation Learning (Qian et al., CVPR 2021; arXiv 2008.03800).

Two clips of a video attract, clips of different videos repel. How far apart in time may the two be, and how are frames augmented without destroying
the motion? The paper draws near clips often and far ones seldom, and makes one random draw for all frames of a clip.

Shown on digits that move over a torus. The direction of the first frames is a label that is local in time: half-way the digit turns, and a far clip
has another direction. What digit it is stays the same, but in the arms "half" it is drawn in a random half of the frames only: what one clip lacks
another shows. Every arm is probed for both, the direction from the first frames, the digit from the mean over clips of the whole video. Real films
without labels (`--set data=films`, for which the extra `video` must be installed) are cut into videos of 16 frames, and every other one is held out:
"found" is how often the nearest of all their last clips is that of the same video, and the other way round.

    python experiments/cvrl.py --workers
    python experiments/cvrl.py --arm cvrl --set power=0.5,1,2,5
    python experiments/cvrl.py --arm cvrl --arm untrained --set tuned=0.1:1   # fine-tuned too, on a tenth and on all of the labels
    python experiments/cvrl.py --arm cvrl --arm zero --arm "per frame" --arm untrained --set data=films
    python experiments/cvrl.py --full --data-dir DIR --set targets=ucf101:hmdb51

In full: Kinetics-400 or -600 (`--set data=kinetics-600`) as pictures of its frames, DIR/kinetics-400/train/abseiling/VIDEO/0001.jpg, and likewise in
DIR/kinetics-400/validate. UCF101 and HMDB51 lie so too, a split each: DIR/ucf101/train/Archery/v_Archery_g08_c01/0001.jpg. A linear classifier
(logistic regression, where the paper trains one by SGD on random clips) sees the mean over ten clips and three crops. How we fine-tune is our own.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import core, data, encoders, losses, metrics, samplers, study, train, views


@train.config
class Config:
    kind: str = "decreasing"  # the distribution of the interval between two clips; also "uniform", "increasing", "zero"
    power: float = 1.0  # of the first and the third
    augmentation: Literal["clip", "frame", "none"] = "clip"  # one draw for each
    shown: float = 1.0  # the share of a video's frames in which the digit is drawn
    summed: bool = False  # the loss is the sum of both views', as in the released code, not their mean: twice as much against weight decay
    temperature: float = 0.1
    frames: int = 6  # of a clip
    stride: int = 1
    clips: int = 4  # of a video in evaluation
    clip: int = 6  # frames of these
    tuned: tuple[float, ...] = ()  # the shares of the labels, as many of each class, from which encoder and a linear layer learn
    tune_rate: float = 1e-3
    tune_steps: int = 150
    targets: tuple[str, ...] = ()  # further folders of videos to evaluate on, also fine-tuned on all of their labels
    data: str = "digits"  # or "films", or the name of a folder of videos
    videos: tuple[int, int] = (600, 200)  # made of digits: to learn from, and to test on
    pixels: tuple[int, int] = (256, 340)  # height and width of the frames of a folder's videos
    size: int | None = None  # of the crops of these
    channels: tuple[int, ...] = (16, 32, 64)
    hidden: int = 64
    layers: int = 2  # of the head
    features: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warm_up: int | None = None  # steps; SGD, whose rate then falls to 0, instead of Adam
    batch: int = 48
    steps: int = 250


KINDS = {"zero": "zero", "cvrl": "decreasing", "uniform": "uniform", "increasing": "increasing"}
ARMS = {name: Config(kind=kind) for name, kind in KINDS.items()}
ARMS |= {"per frame": Config(augmentation="frame"), "no augmentation": Config(augmentation="none"), "untrained": Config(steps=0)}
ARMS |= {f"half, {name}": Config(kind=kind, shown=0.5) for name, kind in KINDS.items()} | {"half, untrained": Config(steps=0, shown=0.5)}
CONTRAST = "contrast accuracy", "contrast entropy"  # how far the task is solved in training


def sets(config, key, name):
    """By label, or "found" where there is none: videos to learn from with their labels, and those to test on. The last are seen without labels."""
    if name == "films":
        return {"found": [(data.film_videos()[start::2], None) for start in (0, 1)]}
    if name != "digits":
        return {"accuracy": [(found, found.labels) for found in data.video_sets(data.root() / name)]}
    k_glyphs, *k_moving = jax.random.split(key, 3)
    glyphs = data.load("digits", key=k_glyphs, split=config.videos)
    made = [data.moving_glyphs(k, images, shown=config.shown) for k, (images, _) in zip(k_moving, glyphs, strict=True)]
    first = [(found.videos[:, : 1 + (config.clip - 1) * config.stride], found.direction) for found in made]
    return {"direction": first, "digit": [(found.videos, y) for found, (_, y) in zip(made, glyphs, strict=True)]}


def pair(config, key, length, index):
    """The frames of the two clips of each video."""
    return samplers.sample_clip_pair(key, length, config.frames, config.stride, config.kind, power=config.power, index=index)._asdict()


def one(config, key, length, index):
    """The frames of a clip of each video."""
    return {"clip": samplers.sample_clip_pair(key, length, config.clip, config.stride, "zero", index=index).first}


def batches(config, key, videos, draw, **labels):
    """Of a folder clips, of an array whole videos, from which `clips_of` cuts them."""
    if isinstance(videos, data.Videos):
        return data.ClipBatches(key, videos, config.batch, draw, size=config.pixels)
    return train.draws({"videos": videos, **labels}, min(config.batch, len(videos)))


def clips_of(batch, draw, key):
    return views.take_clips(batch["videos"], draw(key, batch["videos"].shape[1], batch["index"])) if "videos" in batch else batch


def shake(key, image):
    """A cyclic shift, a gain and an offset."""
    k_shift, k_light = jax.random.split(key)
    gain, offset = jax.random.uniform(k_light, (2,), minval=jnp.array([0.5, -0.3]), maxval=jnp.array([1.5, 0.3]))
    return gain * jnp.roll(image, jax.random.randint(k_shift, (2,), -4, 5), axis=(0, 1)) + offset


SHAKE = partial(views.per_example, shake)


def seen(config, clips, key=None, index=None, second=False):
    """Clips as the network sees them; without a key as they are."""
    how = dict(index=index, consistent=config.augmentation == "clip")
    plain = key is None or config.augmentation == "none"
    if config.data == "digits":
        return clips if plain else views.per_clip(SHAKE, key, clips, **how)
    clips = views.to_floats(clips)
    return 2 * (clips if plain else views.clip_augment(key, clips, second=second, size=config.size, **how)) - 1


def network(config):
    """The encoder and its head."""
    if config.data in ("digits", "films"):
        return encoders.Chain([encoders.ConvNet3D(config.channels, axis_name="data"), encoders.ProjectionHead(config.hidden, config.features)])
    trunk = encoders.resnet3d50(width=config.channels[0], momentum=0.997, dtype=jnp.bfloat16, axis_name="data")
    head = encoders.ProjectionHead(config.hidden, config.features, layers=config.layers, batch_norm=True, axis_name="data")
    return encoders.Chain([trunk, head])


def optimiser(config):
    if config.warm_up is None:
        return optax.adam(config.learning_rate)
    rate = optax.warmup_cosine_decay_schedule(0.0, 1.0, config.warm_up, config.steps)
    decay = optax.add_decayed_weights(config.weight_decay, train.decay_mask)
    return optax.chain(decay, optax.sgd(rate, momentum=0.9), optax.scale(config.learning_rate))


def contrast(model, config, variables, batch, key):
    k_pair, *k_views = jax.random.split(key, 3)
    index, clips = batch["index"], clips_of(batch, partial(pair, config), k_pair)
    clips = [seen(config, clips[name], k, index, second=name == "second") for name, k in zip(("first", "second"), k_views, strict=True)]
    z, variables = encoders.apply_in_training(model, variables, jnp.concatenate(clips))
    first, second = jnp.split(z, 2)
    values = losses.nt_xent(first, second, temperature=config.temperature, similarity="cosine", ids=index, axis_name="data")
    entropy = metrics.contrast_entropy(first, second, temperature=config.temperature, axis_name="data")
    solved = dict(zip(CONTRAST, (metrics.contrast_accuracy(first, second, axis_name="data"), entropy), strict=True))
    solved = {name: losses.mean(value, axis_name="data") for name, value in solved.items()}
    return losses.mean(values, axis_name="data") * (2 if config.summed else 1), solved, variables


def classify(model, config, variables, batch, key):
    k_clip, k_view = jax.random.split(key)
    clips = seen(config, clips_of(batch, partial(one, config), k_clip)["clip"], k_view, batch["index"])
    logits, variables = encoders.apply_in_training(model, variables, clips)
    return losses.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]), axis_name="data"), {}, variables


@partial(jax.jit, static_argnums=(0, 1))
def represent(config, model, variables, clips):
    """What the model says of each clip of each video, `[videos, clips, ...]`; of a folder's its mean over clips and three crops, of unit length."""
    crops = clips[None] if config.size is None else views.spread_crops(clips)
    z = model.apply(variables, seen(config, crops.reshape(-1, *crops.shape[3:]))).reshape(*crops.shape[:3], -1)
    return z[0] if config.size is None else core.safe_normalize(z.mean(axis=(0, 2)))[:, None]


def said(config, model, variables, videos):
    """Of clips that are spread over each video; the first begins with the first frame and the last ends with the last."""
    clips = config.clips if isinstance(videos, data.Videos) else max(1, min(config.clips, videos.shape[1] - (config.clip - 1) * config.stride))
    spread = partial(samplers.spread_clips, frames=config.clip, stride=config.stride, clips=clips)
    parts = data.evaluation_clips(videos, spread, batch=100, size=config.pixels)
    return jnp.concatenate([represent(config, model, variables, clips) for clips in parts])


def fine_tuned(config, key, fit, encoder, variables, known, test, share, name):
    """The accuracy once the encoder and a linear layer have learned from a share of the labels."""
    k_some, k_init, k_fit = jax.random.split(key, 3)
    (videos, y), (tested, wanted) = ((part, np.asarray(labels)) for part, labels in (known, test))
    chosen = samplers.class_shares(k_some, y, share)
    sizes = dict(batch=min(config.batch, len(chosen)), steps=config.tune_steps, warm_up=config.warm_up and 0)
    config = dataclasses.replace(config, learning_rate=config.tune_rate, **sizes)
    model, variables = encoders.with_head(k_init, encoder, variables, encoders.ProjectionHead(1, int(y.max()) + 1, layers=1))
    drawn = batches(config, k_fit, videos[chosen], partial(one, config), label=y[chosen])
    how = dict(optimiser=partial(optimiser, config), steps=config.steps, name=name, fit=fit)
    variables, _ = train.minimise(k_fit, partial(classify, model, config), variables, drawn, **how)
    return np.mean(np.argmax(said(config, model, variables, tested).mean(axis=1), axis=1) == wanted)


def evaluate(config, key, fit, encoder, variables, asked):
    """The frozen encoder, and the fine-tuned one, on each set of videos and each of its labels."""
    places, found = {"": (asked, config.tuned)} | {f"{name} ": (sets(config, key, name), (1.0,)) for name in config.targets}, {}
    for place, (asked, shares) in places.items():
        for label, (known, test) in asked.items():
            reference, z = (said(config, encoder, variables, videos) for videos, _ in (known, test))
            if label == "found":
                found[label] = sum(metrics.contrast_accuracy(z[:, a], z[:, b]).mean() for a, b in ((0, -1), (-1, 0))) / 2
                continue
            found[place + label] = metrics.linear_probe(z.mean(axis=1), test[1], reference.mean(axis=1), known[1])
            for share in shares:
                name = f"{place}{label} tuned on {share:g}"
                found[name] = fine_tuned(config, key, fit, encoder, variables, known, test, share, name)
    return found


def run(config, key, fit=train.fit):
    k_data, k_init, k_fit = jax.random.split(key, 3)
    asked, model, found = sets(config, k_data, config.data), network(config), {}
    *_, ((videos, _), _) = asked.values()
    first = jnp.zeros((1, config.frames, config.size, config.size, 3)) if isinstance(videos, data.Videos) else videos[:1, : config.frames]
    variables = jax.jit(model.init)(k_init, first)
    if config.steps:
        drawn, how = batches(config, k_fit, videos, partial(pair, config)), dict(optimiser=partial(optimiser, config), steps=config.steps, fit=fit)
        variables, history = train.minimise(k_fit, partial(contrast, model, config), variables, drawn, **how)
        found = study.over_steps(study.thinned(history, CONTRAST))
    encoder = {kind: tree["modules_0"] for kind, tree in variables.items()}
    return evaluate(config, jax.random.fold_in(k_init, 1), fit, model.modules[0], encoder, asked) | found


CLAIMS = [
    study.Claim("one draw a clip beats one a frame", study.gain("direction", "cvrl", than="per frame"), at_least=0.12, expected=0.213),
    study.Claim("direction: together beats near clips often", study.gain("direction", "zero", than="cvrl"), expected=0.15),
    study.Claim("direction: near clips often are no worse than any alike", study.gain("direction", "cvrl", than="uniform"), expected=0.03),
    study.Claim("direction: any alike beat far clips often", study.gain("direction", "uniform", than="increasing"), expected=0.21),
    study.Claim("direction: near clips often beat far ones", study.gain("direction", "cvrl", than="increasing"), at_least=0.1, expected=0.24),
    study.Claim("hidden digit: near clips often beat together", study.gain("digit", "half, cvrl", than="half, zero")),
    study.Claim("hidden digit: any alike beat together", study.gain("digit", "half, uniform", than="half, zero")),
]

PAPER = dict(frames=16, stride=2, clips=10, clip=32, size=224, channels=(64,), hidden=2048, layers=4, features=128)
PAPER |= dict(tuned=(0.01, 0.1), tune_rate=0.05, tune_steps=10000)
FULL = Config(data="kinetics-400", summed=True, learning_rate=0.32, weight_decay=1e-6, warm_up=1787, batch=1024, steps=71488, **PAPER)


def figures(report):
    shown = list(dict.fromkeys(name for found in report["arms"].values() for name in found if not name.startswith("contrast")))
    mean = dict(zip(KINDS, (0, 1 / 3, 1 / 2, 2 / 3), strict=True))
    series = {"digit in all frames": {mean[name]: name for name in KINDS}, "digit in half of them": {mean[name]: f"half, {name}" for name in KINDS}}
    drawn = {"intervals": study.trends(report, shown, series, xlabel="mean interval, of the longest"), "arms": study.scores(report, shown)}
    curves = [f"{name} over steps" for name in CONTRAST]
    solved = [arm for arm, found in report["arms"].items() if curves[0] in found]
    return drawn | ({"training": study.curves(report, curves, solved, xlabel="tenth of training")} if solved else {})


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
