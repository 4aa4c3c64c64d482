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
    python experiments/cvrl.py --arm cvrl --arm zero --arm "per frame" --arm untrained --set data=films
    python experiments/cvrl.py --full --data-dir DIR

In full: Kinetics-400 or -600 (`--set data=kinetics-600`) as pictures of its frames, DIR/kinetics-400/train/abseiling/VIDEO/0001.jpg, and the same in
DIR/kinetics-400/validate, each read when it is needed. A linear classifier (logistic regression, where the paper trains one by SGD on random clips)
sees the mean over ten clips and three crops.
"""

import hashlib
import os
import pathlib
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
LENGTH, SIDE, SPEED, TURNS = 24, 16, 1.5, (8, 16)  # frames of a video, pixels, pixels a frame, where the direction changes


@partial(jax.jit, static_argnames="shown")
def moving(key, glyphs, *, shown):
    """A video of each glyph, and the direction of its first frames, one of eight."""
    count = len(glyphs)
    k_start, k_first, k_second, k_turn, k_shown = jax.random.split(key, 5)
    start = jax.random.uniform(k_start, (count, 1, 2), maxval=SIDE)
    first = jax.random.randint(k_first, (count,), 0, 8)
    second = (first + jax.random.randint(k_second, (count,), 1, 8)) % 8
    turn = jax.random.randint(k_turn, (count, 1), *TURNS)
    angle = 2 * np.pi / 8 * jnp.where(jnp.arange(LENGTH - 1) < turn, first[:, None], second[:, None])
    moves = SPEED * jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    place = jnp.round(jnp.concatenate([start, start + jnp.cumsum(moves, axis=1)], axis=1)).astype(int)
    rows, columns = ((jnp.arange(SIDE) - place[..., i, None]) % SIDE for i in (0, 1))
    canvas = jnp.pad(glyphs, ((0, 0), (0, SIDE - glyphs.shape[1]), (0, SIDE - glyphs.shape[2])))
    videos = canvas[jnp.arange(count)[:, None, None, None], rows[..., :, None], columns[..., None, :]]
    rank = jnp.argsort(jax.random.uniform(k_shown, (count, LENGTH)), axis=1)  # a random order of the frames
    return {"videos": videos * (rank < shown * LENGTH)[..., None, None], "direction": first}


def films():
    """Three films in videos of 16 frames of 32 x 32, every other one to test on; the fourth is the third, badly compressed."""
    frames, film = data.load("films")
    frames, film = np.asarray(frames).reshape(-1, 32, 2, 32, 2, 3).mean(axis=(2, 4)), np.asarray(film)
    cut = [part[samplers.window(len(part), 16)] for part in (frames[film == number] for number in (0, 1, 3))]
    videos = np.concatenate(cut)
    return {"videos": videos[::2]}, {"videos": videos[1::2]}


def sets(config, key):
    """Videos to learn from and to test on: dicts of arrays, or of a folder what it lists."""
    if config.data == "digits":
        k_glyphs, *k_moving = jax.random.split(key, 3)
        parts = data.load("digits", key=k_glyphs, split=config.videos)
        return [moving(k, jnp.asarray(x), shown=config.shown) | {"digit": y} for k, (x, y) in zip(k_moving, parts, strict=True)]
    if config.data == "films":
        return films()
    root = pathlib.Path(os.environ.get("CLJAX_DATA", ".")) / config.data
    found = [data.videos(root / part) for part in ("train", "validate")]
    if found[0].names != found[1].names:
        raise ValueError(f"{str(root)!r} must have the same classes in train and validate, got {found[0].names} and {found[1].names}")
    listed = [path.relative_to(root).as_posix() for part in found for path in part.paths]  # stand for files too many to hash
    digest = f"sha256:{hashlib.sha256(str(listed).encode()).hexdigest()}"
    core.provenance.record(config.data, rows=len(listed), digest=digest, package="folder")
    return found


class Pairs:
    """Batches of two clips of each video of a folder, for ever, this process's share of them; it can be resumed."""

    def __init__(self, config, key, videos):
        self.config, self.key, self.videos, self.step = config, key, videos, 0

    def get_state(self):
        return {"step": self.step}

    def set_state(self, state):
        self.step = state["step"]

    def __iter__(self):
        return self

    def __next__(self):
        config = self.config
        index = np.asarray(core.shuffled(self.key, len(self.videos.paths), config.batch, self.step))[jax.process_index() :: jax.process_count()]
        frames = [data.frames_of(self.videos.paths[i]) for i in index]
        places = pair_of(config, jax.random.fold_in(self.key, self.step), np.array([len(video) for video in frames]), index)
        first, second = (data.read_clips(frames, part, size=config.pixels) for part in places)
        self.step += 1
        return {"first": first, "second": second, "index": index}


def pair_of(config, key, length, index):
    return samplers.sample_clip_pair(key, length, config.frames, config.stride, config.kind, power=config.power, index=index)


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
    clips = clips / jnp.float32(255) if clips.dtype == jnp.uint8 else clips
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


def objective(params, model, config, averages, batch, key):
    k_pair, *k_views = jax.random.split(key, 3)
    index = batch["index"]
    if "videos" in batch:
        pair = pair_of(config, k_pair, batch["videos"].shape[1], index)
        clips = [jax.vmap(partial(jnp.take, axis=0))(batch["videos"], places) for places in pair]
    else:
        clips = batch["first"], batch["second"]
    clips = [seen(config, part, k, index, second=bool(i)) for i, (k, part) in enumerate(zip(k_views, clips, strict=True))]
    z, averages = model.apply(params | averages, jnp.concatenate(clips), train=True, mutable=["batch_stats"])
    first, second = jnp.split(z, 2)
    values = losses.nt_xent(first, second, temperature=config.temperature, similarity="cosine", ids=index, axis_name="data")
    value = losses.mean(values, axis_name="data") * (2 if config.summed else 1)
    scores = core.safe_normalize(first) @ jax.lax.all_gather(core.safe_normalize(second), "data", tiled=True).T
    solved = {"contrast accuracy": metrics.contrast_accuracy(first, second, axis_name="data")}
    solved |= {"contrast entropy": metrics.softmax_entropy(scores, temperature=config.temperature)}
    return value, (averages, {"loss": value} | {name: losses.mean(values, axis_name="data") for name, values in solved.items()})


def step(model, config, state, batch, key):
    inputs = state["params"], model, config, state["averages"], batch, key
    (_, (averages, found)), grads = jax.value_and_grad(objective, has_aux=True)(*inputs)
    params, opt = train.descend(optimiser(config), grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "averages": averages, "opt": opt}, found


@partial(jax.jit, static_argnums=(0, 1))
def represent(config, model, variables, clips):
    """What the encoder says of each clip of each video, `[videos, clips, ...]`."""
    z = model.apply(variables, seen(config, clips.reshape(-1, *clips.shape[2:])), stop=1)
    return z.reshape(*clips.shape[:2], -1)


def of_arrays(config, model, variables, videos):
    """Of clips that are spread over the videos; the first begins with the first frame and the last ends with the last. 100 videos at a time."""
    places = samplers.spread_clips(videos.shape[1], config.clip, config.stride, clips=config.clips)
    parts = np.array_split(np.arange(len(videos)), -(-len(videos) // 100))
    return jnp.concatenate([represent(config, model, variables, videos[part[:, None, None], places]) for part in parts])


def of_folder(config, model, variables, videos):
    """The mean over clips, each in three crops, of the videos of a folder, of unit length."""
    height, width = config.pixels
    found = []
    for path in videos.paths:
        frames = data.frames_of(path)
        places = samplers.spread_clips(len(frames), config.clip, config.stride, clips=config.clips)
        clips = data.read_clips([frames], places[None], size=config.pixels)[0]
        crops = [clips[:, :, :, start : start + height] for start in (0, (width - height) // 2, width - height)]
        found.append(represent(config, model, variables, np.stack(crops)).mean(axis=(0, 1)))
    return core.safe_normalize(jnp.stack(found))


def score(config, model, variables, known, test):
    if isinstance(known, data.Videos):
        reference, z = (of_folder(config, model, variables, part) for part in (known, test))
        return {"accuracy": metrics.linear_probe(z, test.labels, reference, known.labels)}
    z = of_arrays(config, model, variables, test["videos"])
    if config.data == "films":
        first, last = z[:, 0], z[:, -1]
        return {"found": (metrics.contrast_accuracy(first, last).mean() + metrics.contrast_accuracy(last, first).mean()) / 2}
    reference = of_arrays(config, model, variables, known["videos"])
    seen_as = {"direction": (z[:, 0], reference[:, 0]), "digit": (z.mean(axis=1), reference.mean(axis=1))}
    return {label: metrics.linear_probe(tested, test[label], fitted, known[label]) for label, (tested, fitted) in seen_as.items()}


def run(config, key, fit=train.fit):
    k_data, k_init, k_fit = jax.random.split(key, 3)
    known, test = sets(config, k_data)
    model, found = network(config), {}
    if isinstance(known, data.Videos):
        example, batches = jnp.zeros((1, config.frames, config.size, config.size, 3)), Pairs(config, k_fit, known)
    else:
        example = known["videos"][:1, : config.frames]
        batches = train.draws({"videos": known["videos"]}, min(config.batch, len(known["videos"])))
    averages = jax.jit(model.init)(k_init, example)
    params = {"params": averages.pop("params")}
    if config.steps:
        state = {"params": params, "averages": averages, "opt": optimiser(config).init(params)}
        state, history = fit(k_fit, state, partial(step, model, config), batches, steps=config.steps)
        params, averages, tenth = state["params"], state["averages"], max(1, config.steps // 10)
        for name in ("contrast accuracy", "contrast entropy"):
            curve = history[name][: 10 * tenth].reshape(-1, tenth).mean(axis=1)
            found |= {name: curve[-1], f"{name} over steps": curve}
    return score(config, model, params | averages, known, test) | found


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
FULL = Config(data="kinetics-400", summed=True, learning_rate=0.32, weight_decay=1e-6, warm_up=1787, batch=1024, steps=71488, **PAPER)


def figures(report):
    shown = [name for name in ("direction", "digit", "found", "accuracy") if any(name in found for found in report["arms"].values())]
    mean = dict(zip(KINDS, (0, 1 / 3, 1 / 2, 2 / 3), strict=True))
    series = {"digit in all frames": {mean[name]: name for name in KINDS}, "digit in half of them": {mean[name]: f"half, {name}" for name in KINDS}}
    drawn = {"intervals": study.trends(report, shown, series, xlabel="mean interval, of the longest"), "arms": study.scores(report, shown)}
    curves = [f"contrast {name} over steps" for name in ("accuracy", "entropy")]
    solved = [arm for arm, found in report["arms"].items() if curves[0] in found]
    return drawn | ({"training": study.curves(report, curves, solved, xlabel="tenth of training")} if solved else {})


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
