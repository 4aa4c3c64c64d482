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
    python experiments/cvrl.py --arm cvrl --arm untrained --set tuned=0.1:1
    python experiments/cvrl.py --arm cvrl --arm zero --arm "per frame" --arm untrained --set data=films
    python experiments/cvrl.py --full --data-dir DIR --set targets=ucf101:hmdb51

`tuned` evaluates semi-supervised too: encoder and a new linear layer learn from these shares of the labels, as many of each class (0.01 and 0.1 in
full, as in the paper); "untrained" is then the same network without contrastive learning. `targets` are other sets of videos, evaluated frozen and
fine-tuned on all of their labels.

In full: Kinetics-400 or -600 (`--set data=kinetics-600`) as pictures of its frames, DIR/kinetics-400/train/abseiling/VIDEO/0001.jpg, and the same in
DIR/kinetics-400/validate, each read when it is needed. UCF101 and HMDB51, of which TFDS reads the first with TensorFlow alone, lie likewise, a split
each: DIR/ucf101/train/Archery/v_Archery_g08_c01/0001.jpg. A linear classifier (logistic regression, where the paper trains one by SGD on random
clips) sees the mean over ten clips and three crops. Steps and rate of fine-tuning are ours.
"""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import core, data, encoders, losses, metrics, samplers, study, train, views


@train.config
class Config:
    kind: str = "decreasing"  # the distribution of the interval between two clips; also "uniform", "increasing", "zero"
    power: float = 1.0  # of the first and the third
    augmentation: str = "clip"  # one draw a clip; or one a "frame", or "none"
    shown: float = 1.0  # the share of a video's frames in which the digit is drawn
    summed: bool = False  # the loss is the sum of both views', as in the released code, not their mean: twice as much against weight decay
    temperature: float = 0.1
    frames: int = 6  # of a clip
    stride: int = 1
    clips: int = 4  # of a video in evaluation
    clip: int = 6  # frames of these
    tuned: tuple[float, ...] = ()  # the shares of the labels with which the whole network is fine-tuned
    tune_rate: float = 1e-3
    tune_steps: int = 150
    targets: tuple[str, ...] = ()  # further folders of videos to evaluate on
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


def films():
    """Three films in videos of 16 frames of 32 x 32, every other one to test on; the fourth is the third, badly compressed."""
    frames, film = data.load("films")
    frames, film = np.asarray(frames).reshape(-1, 32, 2, 32, 2, 3).mean(axis=(2, 4)), np.asarray(film)
    cut = [part[samplers.window(len(part), 16)] for part in (frames[film == number] for number in (0, 1, 3))]
    return [(np.concatenate(cut)[start::2], {}) for start in (0, 1)]


def sets(config, key, name):
    """Videos to learn from and to test on, an array or what a folder lists, each with its labels by name."""
    if name == "films":
        return films()
    if name != "digits":
        return [(found, {"accuracy": found.labels}) for found in data.video_sets(data.root() / name)]
    k_glyphs, *k_moving = jax.random.split(key, 3)
    parts = data.load("digits", key=k_glyphs, split=config.videos)
    made = [data.moving_glyphs(k, glyphs, shown=config.shown) for k, (glyphs, _) in zip(k_moving, parts, strict=True)]
    return [(found.videos, {"direction": found.direction, "digit": y}) for found, (_, y) in zip(made, parts, strict=True)]


def pair(config, key, length, index):
    """The frames of the two clips of each video."""
    drawn = samplers.sample_clip_pair(key, length, config.frames, config.stride, config.kind, power=config.power, index=index)
    return drawn._asdict()


def one(config, label, key, length, index):
    """The frames of one clip of each video: the first ones for the direction, which is theirs, else at random."""
    if label == "direction":
        return {"clip": jnp.broadcast_to(config.stride * jnp.arange(config.clip), (len(index), config.clip))}
    return {"clip": samplers.sample_clip_pair(key, length, config.clip, config.stride, "zero", index=index).first}


def batches(config, key, videos, draw, **labels):
    """Of a folder clips, of an array whole videos, from which `clips_of` cuts them."""
    if isinstance(videos, data.Videos):
        return data.ClipBatches(key, videos, config.batch, draw, size=config.pixels)
    return train.draws({"videos": videos, **labels}, min(config.batch, len(videos)))


def clips_of(batch, draw, key):
    if "videos" not in batch:
        return batch
    places = draw(key, batch["videos"].shape[1], batch["index"])
    return {name: jax.vmap(partial(jnp.take, axis=0))(batch["videos"], place) for name, place in places.items()}


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


def kernels(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def optimiser(config):
    if config.warm_up is None:
        return optax.adam(config.learning_rate)
    rate = optax.warmup_cosine_decay_schedule(0.0, 1.0, config.warm_up, config.steps)
    decay = optax.add_decayed_weights(config.weight_decay, kernels)  # the gradient of half the squares
    return optax.chain(decay, optax.sgd(rate, momentum=0.9), optax.scale(config.learning_rate))


def contrast(params, model, config, averages, batch, key):
    k_pair, *k_views = jax.random.split(key, 3)
    index, clips = batch["index"], clips_of(batch, partial(pair, config), k_pair)
    clips = [seen(config, clips[name], k, index, second=name == "second") for name, k in zip(("first", "second"), k_views, strict=True)]
    z, averages = model.apply(params | averages, jnp.concatenate(clips), train=True, mutable=["batch_stats"])
    first, second = jnp.split(z, 2)
    values = losses.nt_xent(first, second, temperature=config.temperature, similarity="cosine", ids=index, axis_name="data")
    value = losses.mean(values, axis_name="data") * (2 if config.summed else 1)
    scores = core.safe_normalize(first) @ jax.lax.all_gather(core.safe_normalize(second), "data", tiled=True).T
    solved = {"contrast accuracy": metrics.contrast_accuracy(first, second, axis_name="data")}
    solved |= {"contrast entropy": metrics.softmax_entropy(scores, temperature=config.temperature)}
    return value, (averages, {"loss": value} | {name: losses.mean(values, axis_name="data") for name, values in solved.items()})


def classify(label, params, model, config, averages, batch, key):
    k_clip, k_view = jax.random.split(key)
    clips = seen(config, clips_of(batch, partial(one, config, label), k_clip)["clip"], k_view, batch["index"])
    logits, averages = model.apply(params | averages, clips, train=True, mutable=["batch_stats"])
    value = losses.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]), axis_name="data")
    return value, (averages, {"loss": value})


def step(objective, model, config, state, batch, key):
    inputs = state["params"], model, config, state["averages"], batch, key
    (_, (averages, found)), grads = jax.value_and_grad(objective, has_aux=True)(*inputs)
    params, opt = train.descend(optimiser(config), grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "averages": averages, "opt": opt}, found


def learn(fit, key, objective, model, config, variables, batches, name):
    """The variables after all steps, and the history."""
    params, averages = {"params": variables["params"]}, {"batch_stats": variables["batch_stats"]}
    state = {"params": params, "averages": averages, "opt": optimiser(config).init(params)}
    state, history = fit(key, state, partial(step, objective, model, config), batches, steps=config.steps, name=name)
    return state["params"] | state["averages"], history


@partial(jax.jit, static_argnums=(0, 1))
def represent(config, model, variables, clips):
    """What the model says of each clip of each video, `[videos, clips, ...]`."""
    z = model.apply(variables, seen(config, clips.reshape(-1, *clips.shape[2:])))
    return z.reshape(*clips.shape[:2], -1)


def of_array(config, model, variables, videos):
    """Of clips that are spread over the videos; the first begins with the first frame and the last ends with the last. 100 videos at a time."""
    places = samplers.spread_clips(videos.shape[1], config.clip, config.stride, clips=config.clips)
    parts = np.array_split(np.arange(len(videos)), -(-len(videos) // 100))
    return jnp.concatenate([represent(config, model, variables, videos[part[:, None, None], places]) for part in parts])


def of_folder(config, model, variables, videos):
    """The mean over clips, each in three crops, of unit length, `[videos, 1, ...]`."""
    height, width = config.pixels
    found = []
    for path in videos.paths:
        frames = data.frames_of(path)
        places = samplers.spread_clips(len(frames), config.clip, config.stride, clips=config.clips)
        clips = data.read_clips([frames], places[None], size=config.pixels)[0]
        crops = [clips[:, :, :, start : start + height] for start in (0, (width - height) // 2, width - height)]
        found.append(represent(config, model, variables, np.stack(crops)).mean(axis=(0, 1)))
    return core.safe_normalize(jnp.stack(found))[:, None]


def said(config, model, variables, videos):
    return (of_folder if isinstance(videos, data.Videos) else of_array)(config, model, variables, videos)


def of_label(z, label):
    """`[videos, ...]` for the direction of the first clip, for all else of all clips."""
    return z[:, 0] if label == "direction" else z.mean(axis=1)


def frozen(config, model, variables, known, test):
    z, reference = (said(config, model, variables, videos) for videos, _ in (test, known))
    if not test[1]:
        first, last = z[:, 0], z[:, -1]
        return {"found": (metrics.contrast_accuracy(first, last).mean() + metrics.contrast_accuracy(last, first).mean()) / 2}
    return {name: metrics.linear_probe(of_label(z, name), y, of_label(reference, name), known[1][name]) for name, y in test[1].items()}


def fine_tuned(config, key, fit, model, variables, known, test, label, share, name):
    """The accuracy once the encoder and a linear layer have learned from a share of the labels."""
    k_some, k_init, k_fit = jax.random.split(key, 3)
    (videos, y), (tested, wanted) = ((part, np.asarray(labels[label])) for part, labels in (known, test))
    chosen = samplers.class_shares(k_some, y, share)
    videos = data.Videos(tuple(videos.paths[i] for i in chosen), y[chosen], videos.names) if isinstance(videos, data.Videos) else videos[chosen]
    sizes = dict(batch=min(config.batch, len(chosen)), steps=config.tune_steps, warm_up=config.warm_up and 0)
    tuning = dataclasses.replace(config, learning_rate=config.tune_rate, **sizes)
    classifier = encoders.Chain([model.modules[0], encoders.ProjectionHead(1, int(y.max()) + 1, layers=1)])
    fresh = jax.jit(classifier.init)(k_init, example(config, videos))
    fresh = {kind: fresh[kind] | {"modules_0": variables[kind]["modules_0"]} for kind in ("params", "batch_stats")}
    drawn = batches(tuning, k_fit, videos, partial(one, config, label), label=y[chosen])
    fresh, _ = learn(fit, k_fit, partial(classify, label), classifier, tuning, fresh, drawn, name)
    return np.mean(np.argmax(of_label(said(config, classifier, fresh, tested), label), axis=1) == wanted)


def evaluate(config, key, fit, model, variables, known, test):
    trunk, found = encoders.Chain(model.modules[:1]), {}
    places = {"": (known, test, config.tuned)} | {f"{name} ": (*sets(config, key, name), (1.0,)) for name in config.targets}
    for place, (known, test, shares) in places.items():
        found |= {place + name: value for name, value in frozen(config, trunk, variables, known, test).items()}
        for label, share in itertools.product(known[1], shares):
            name = f"{place}{label} tuned on {share:g}"
            found[name] = fine_tuned(config, key, fit, model, variables, known, test, label, share, name)
    return found


def example(config, videos):
    return jnp.zeros((1, config.frames, config.size, config.size, 3)) if isinstance(videos, data.Videos) else videos[:1, : config.frames]


def run(config, key, fit=train.fit):
    k_data, k_init, k_fit = jax.random.split(key, 3)
    known, test = sets(config, k_data, config.data)
    model, found = network(config), {}
    variables = jax.jit(model.init)(k_init, example(config, known[0]))
    if config.steps:
        drawn = batches(config, k_fit, known[0], partial(pair, config))
        variables, history = learn(fit, k_fit, contrast, model, config, variables, drawn, "fit")
        tenth = max(1, config.steps // 10)
        for name in ("contrast accuracy", "contrast entropy"):
            curve = history[name][: 10 * tenth].reshape(-1, tenth).mean(axis=1)
            found |= {name: curve[-1], f"{name} over steps": curve}
    return evaluate(config, jax.random.fold_in(k_init, 1), fit, model, variables, known, test) | found


def constant(arm):
    """How much larger intervals gain for the label that is constant in time and hidden in half of the frames."""
    return study.gain("digit", f"half, {arm}", than="half, zero")


CLAIMS = [
    study.Claim("one draw a clip beats one a frame", study.gain("direction", "cvrl", than="per frame"), at_least=0.12, expected=0.213),
    study.Claim("direction: together beats near clips often", study.gain("direction", "zero", than="cvrl"), expected=0.15),
    study.Claim("direction: near clips often are no worse than any alike", study.gain("direction", "cvrl", than="uniform"), expected=0.03),
    study.Claim("direction: any alike beat far clips often", study.gain("direction", "uniform", than="increasing"), expected=0.21),
    study.Claim("direction: near clips often beat far ones", study.gain("direction", "cvrl", than="increasing"), at_least=0.1, expected=0.24),
    study.Claim("hidden digit: near clips often beat together", constant("cvrl")),
    study.Claim("hidden digit: any alike beat together", constant("uniform")),
]

PAPER = dict(frames=16, stride=2, clips=10, clip=32, size=224, channels=(64,), hidden=2048, layers=4, features=128)
PAPER |= dict(tuned=(0.01, 0.1), tune_rate=0.05, tune_steps=10000)
FULL = Config(data="kinetics-400", summed=True, learning_rate=0.32, weight_decay=1e-6, warm_up=1787, batch=1024, steps=71488, **PAPER)


def figures(report):
    shown = list(dict.fromkeys(name for found in report["arms"].values() for name in found if not name.startswith("contrast")))
    mean = dict(zip(KINDS, (0, 1 / 3, 1 / 2, 2 / 3), strict=True))
    series = {"digit in all frames": {mean[name]: name for name in KINDS}, "digit in half of them": {mean[name]: f"half, {name}" for name in KINDS}}
    drawn = {"intervals": study.trends(report, shown, series, xlabel="mean interval, of the longest"), "arms": study.scores(report, shown)}
    curves = [f"contrast {name} over steps" for name in ("accuracy", "entropy")]
    solved = [arm for arm, found in report["arms"].items() if curves[0] in found]
    return drawn | ({"training": study.curves(report, curves, solved, xlabel="tenth of training")} if solved else {})


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
