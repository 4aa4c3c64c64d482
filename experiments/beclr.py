"""BECLR: Batch Enhanced Contrastive Few-Shot Learning (Poulakakis-Daktylidis & Jamali-Rad, ICLR 2024; arXiv 2402.02444).

Two remedies for learning from few shots without labels. A memory in clusters (DyCE) finds other examples of an anchor's class, which join the batch.
At inference optimal transport (OpTA) moves the prototypes of a few shots onto the queries; it takes for granted that classes have as many queries
each, so it is also shown where they haven't. Digits 0 to 5 are learnt from, without labels; tasks are made of 6 to 9, in "pixels" of all, untrained.

"DyCE pair" is the published loss: neighbours of a prediction are paired with neighbours of its target; both are constants, and act by the other terms
of the loss alone. In "DyCE predict" each prediction also predicts the neighbours of its target, in "whole memory" so without clusters (NNCLR).

    python experiments/beclr.py
    python experiments/beclr.py --arm "DyCE predict" --set k=1,3,10
    python experiments/beclr.py --set data=mnist_5k --workers
    python experiments/beclr.py --full --data-dir DIR
    python experiments/beclr.py --full --set data=cifar_fs --set mask=False --data-dir DIR

In full: DIR/mini-imagenet/train/n01532829/a.jpg, a folder for each of the 64 base classes, and DIR/mini-imagenet/test for the 20 novel ones; on the
device they take 9 GB. `--set data=...` takes other folders of that layout, and `cifar_fs` and `fc100`, out of TensorFlow Datasets' CIFAR-100.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from cljax import core, data, encoders, losses, memory, metrics, pairwise, samplers, study, train, views


@train.config
class Config:
    k: int = 3  # neighbours that join each anchor; 0: no memory
    pair: bool = True  # as published; False: predictions predict their target's neighbours
    whole: bool = False  # nearest neighbours in the whole memory, without clusters
    negatives: str = "SS"  # what is spread out: both views from the student, one from the teacher ("ST"), both ("TT")
    clusters: int = 12
    scale: int = 40  # rows of the memory a cluster, about
    memory_momentum: float = 0.0
    memory_start: int = 10  # the first epoch with neighbours
    recluster: int = 10  # epochs between two clusterings
    epochs: int = 40
    batch: int = 64
    weight: float = 0.1
    temperature: float = 2.0
    teacher: float = 0.99  # the momentum at first; it rises to 1
    learning_rate: float = 1e-3
    sgd: bool = False  # its rate is that for 256 rows a batch
    mask: bool = False  # blocks of the student's images
    pixels: bool = False  # nothing is trained
    data: str = "digits"
    side: int = 224  # of photographs: their height and width
    depth: int = 18  # of the residual network; or 50
    widths: tuple[int, ...] = (128,)  # of the encoder; of a residual network its first stage
    features: int = 64  # of the projection, of a perceptron too
    ways: int = 4
    episodes: int = 500
    iterations: int = 200  # of the transport, at most


ARMS = {
    "pixels": Config(pixels=True, ways=5),
    "no memory": Config(k=0),
    "DyCE pair": Config(),
    "DyCE predict": Config(pair=False),
    "whole memory": Config(pair=False, whole=True),
}
UNBALANCED = {5: (2, 28, 5, 25, 15), 4: (2, 28, 5, 25)}  # queries of each way
SHIFTS = {"digits": 1, "mnist_5k": 3}  # the small sets, and by how many pixels their views are moved
SIDES, PASSES = ("student", "prediction", "target"), (0, 1, 5)
RAND_AUGMENT = partial(views.rand_augment, magnitude=10.0, **views.RAND_AUGMENT_TIMM)


def examples(config):
    """Images and labels to learn from, and those of the tasks."""
    if config.data in SHIFTS:
        images, labels = jax.device_get(data.load(config.data))
        old, new = labels < 6, (labels >= 6) | config.pixels
        return (images[old], labels[old]), (images[new], labels[new])
    if config.data in ("cifar_fs", "fc100"):
        return getattr(data, config.data)()
    return [data.images(data.root() / config.data / part, size=config.side, dtype="uint8")[:2] for part in ("train", "test")]


def view(config, key, images, index):
    if config.data in SHIFTS:
        return views.shift_gain_noise(key, images, index=index, noise=0.1, shift=SHIFTS[config.data])
    crop, jitter = partial(views.random_resized_crop, size=config.side, scale=(0.2, 1.0)), partial(views.colour_jitter, saturation=0.2)
    changes = crop, jitter, views.greyscale, views.gaussian_blur, RAND_AUGMENT, views.flip, partial(views.flip, vertical=True)
    return views.compose(*changes)(key, images, index=index)


def network_of(config):
    """The encoder, its projection and the predictor."""
    small, norm, resnet = config.data in SHIFTS, dict(batch_norm=True, axis_name="data"), getattr(encoders, f"resnet{config.depth}")
    encoder = encoders.MLP(config.widths, config.features) if small else resnet(width=config.widths[0], axis_name="data")
    projection = encoders.ProjectionHead(config.features, config.features, layers=2 if small else 3, last_batch_norm=True, **norm)
    return encoders.Chain([encoder, projection, encoders.ProjectionHead(config.features // 4, config.features, **norm)])


def optimiser(config, steps):
    if not config.sgd:
        return optax.adam(config.learning_rate)
    rate = config.learning_rate * config.batch / 256
    fall = optax.cosine_decay_schedule(rate, steps, alpha=1e-6 / rate)
    return optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(fall, momentum=0.9))


def memories_of(config):
    capacity = memory.cluster_capacity(config.clusters, 2 * config.batch, scale=config.scale)
    return memory.stacked(memory.cluster_memory(capacity, config.features, config.clusters, momentum=config.memory_momentum), len(SIDES))


def init(config, network, steps, key, images):
    k_student, k_predictor, k_memory = jax.random.split(key, 3)
    *student, predictor = network.modules
    student = encoders.Chain(student).init(k_student, views.to_floats(images[:1]))
    predictor = predictor.init(k_predictor, jnp.zeros((1, config.features)))
    variables = {kind: student[kind] | {"modules_2": predictor[kind]} for kind in student}
    state = {"variables": variables, "opt": optimiser(config, steps).init(variables["params"]), "teacher": memory.ema(1.0).init(variables["params"])}
    return state | {"memories": memories_of(config).init(k_memory) if config.k else {}}


def loss_of(config, found, near):
    """The loss of both views of each side, `[2, B, D]`, and of their neighbours, `[2, B, k, D]` if there are any."""
    joined = {side: z if near is None else jnp.concatenate([z, near[side].reshape(2, -1, z.shape[-1])], axis=1) for side, z in found.items()}
    predictions, targets = joined["prediction"], joined["target"]
    if near is not None and not config.pair:  # each prediction has its target and that target's neighbours before it
        targets = jnp.concatenate([found["target"][:, :, None], near["target"]], axis=2)
        predictions = jnp.broadcast_to(found["prediction"][:, :, None], targets.shape)
    apart = losses.negative_cosine(predictions, targets[::-1])
    positive = sum(losses.mean(values, axis_name="data") for values in apart) / 2
    core.check.choice("negatives", config.negatives, ("SS", "ST", "TT"))
    spread = [joined[{"S": "student", "T": "target"}[kind]][view] for view, kind in enumerate(config.negatives)]
    pairs = jnp.tile(pairwise.index(len(spread[0]), "data"), 2)
    # exp(cosine / temperature) is the kernel of uniformity but for a factor
    even = losses.uniformity(jnp.concatenate(spread), t=1 / (2 * config.temperature), ids=pairs, axis_name="data") + 1 / config.temperature
    return positive + config.weight * even


def objective(params, config, network, enhanced, labels, state, batch, key):
    *k_views, k_memory, k_mask = jax.random.split(key, 4)
    index, variables, memories = batch["index"], state["variables"] | {"params": params}, state["memories"]
    images = [view(config, k, views.to_floats(batch["images"]), index) for k in k_views]
    teacher = state["variables"] | {"params": state["teacher"].params}
    target, _ = encoders.apply_in_training(network, teacher, jnp.concatenate(images), stop=2)
    if config.mask:
        images = [views.block_mask(jax.random.fold_in(k_mask, n), view, index=index) for n, view in enumerate(images)]
    (student, prediction), variables = encoders.apply_in_training(network, variables, jnp.concatenate(images), stop=(2, 3))
    z = jnp.stack([student, prediction, jax.lax.stop_gradient(target)]).reshape(len(SIDES), 2, -1, config.features)
    near, purity = None, {}
    if config.k:  # both views of an example lie side by side
        rows, keys = jnp.swapaxes(z, 1, 2).reshape(len(SIDES), -1, config.features), jax.random.split(k_memory, len(SIDES))
        memories = memories_of(config).update(memories, rows, keys, ids=jnp.repeat(index, 2), axis_name="data")
    if enhanced:
        anchors = z.reshape(len(SIDES), -1, config.features)
        found = jax.lax.map(lambda pair: memory.cluster_neighbours(*pair, config.k, whole=config.whole), (memories, anchors))
        near = dict(zip(SIDES, found.keys.reshape(*z.shape[:3], config.k, -1), strict=True))
        same = jnp.tile(labels[index], 2)[:, None] == labels[found.ids[-1]]  # the target's; only to measure
        purity = {"purity": losses.mean(same.astype(jnp.float32), axis_name="data")}
    return loss_of(config, dict(zip(SIDES, z, strict=True)), near), ({"variables": variables, "memories": memories}, purity)


def step(config, network, steps, enhanced, labels, state, batch, key):
    params = state["variables"]["params"]
    (value, (new, purity)), grads = jax.value_and_grad(objective, has_aux=True)(params, config, network, enhanced, labels, state, batch, key)
    params, opt = train.descend(optimiser(config, steps), grads, params, state["opt"], axis_name="data")
    teacher = memory.ema(memory.rising_decay(config.teacher, steps)).update(state["teacher"], params)
    return new | {"variables": new["variables"] | {"params": params}, "opt": opt, "teacher": teacher}, {"loss": value} | purity


def regroup(key, state):
    """New clusters in each memory."""
    given = jax.random.split(key, len(SIDES)), state["memories"]
    return state | {"memories": jax.lax.map(lambda pair: memory.recluster(*pair), given)}, {}


def learn(config, network, key, images, labels, fit):
    """The variables after training, without neighbours at first, then with, and the history."""
    k_init, k_fit = jax.random.split(key)
    epoch = samplers.steps_per_epoch(len(images), config.batch)
    state, history = init(config, network, config.epochs * epoch, k_init, images), {}
    batches, labels = train.draws({"images": images}, config.batch), jnp.asarray(labels)
    after = ((config.recluster * epoch, regroup),) if config.k and not config.whole else ()
    alone = min(config.memory_start, config.epochs) if config.k else config.epochs
    for name, epochs in (("alone", alone), ("with neighbours", config.epochs - alone)):
        if epochs:
            take = partial(step, config, network, config.epochs * epoch, name == "with neighbours", labels)
            state, history = fit(k_fit, state, take, batches, steps=epochs * epoch, after=after, name=name)
    return state["variables"], history


@partial(jax.jit, static_argnums=(0, 3))
def embeddings(network, variables, images, side):
    """What the encoder says of images, scaled to a height and width, without the projection."""
    return encoders.in_parts(lambda part: network.apply(variables, views.resize(views.to_floats(part), side), stop=1), images)


@partial(jax.jit, static_argnames=("passes", "iterations"))
def few_shot(z, episodes, passes, iterations=200):
    return jnp.mean(metrics.few_shot_accuracy(z, *episodes, classify=partial(metrics.opta_classifier, passes=passes, iterations=iterations)))


def score(config, key, z, labels):
    """The mean accuracy of tasks by shots, passes of the transport, and whether all classes have as many queries."""
    how, found = dict(ways=config.ways, episodes=config.episodes), {}
    for name, shots, queries, passes in (("1-shot", 1, 15, PASSES), ("5-shot", 5, 15, (0, 1)), ("unbalanced", 1, UNBALANCED[config.ways], PASSES)):
        episodes = samplers.few_shot_episodes(key, labels, shots=shots, queries=queries, **how)
        curve = [few_shot(z, episodes, number, config.iterations) for number in passes]
        found |= {name: curve[0]} | {f"{name}, {number}x": value for number, value in zip(passes[1:], curve[1:], strict=True)}
        found[f"{name} over passes"] = jnp.stack(curve)
    return found


def run(config, key, fit=train.fit):
    k_learn, k_score = jax.random.split(key)
    (images, labels), (new_images, new_labels) = examples(config)
    if config.pixels:
        return score(config, k_score, jnp.reshape(views.to_floats(new_images), (len(new_images), -1)), new_labels)
    network, side = network_of(config), new_images.shape[1] if config.data in SHIFTS else config.side
    variables, history = learn(config, network, k_learn, images, labels, fit)
    found = score(config, k_score, embeddings(network, variables, new_images, side), new_labels)
    if "purity" in history:
        last = max(1, len(history["purity"]) // 10)
        found |= {"purity": jnp.mean(history["purity"][-last:]), "purity over steps": history["purity"][:: max(1, last // 4)]}
    return found


ONE, FIVE = (study.gain(f"{name}, 1x", "pixels", over=name) for name in ("1-shot", "5-shot"))
CLAIMS = [
    study.Claim("transport gains with one shot, 1 pass", ONE, 0.06, expected=0.089),
    study.Claim("transport gains with one shot, 5 passes", study.gain("1-shot, 5x", "pixels", over="1-shot"), 0.08, expected=0.105),
    study.Claim("transport loses where queries are uneven, 1 pass", study.gain("unbalanced", "pixels", over="unbalanced, 1x"), 0.04, None, 0.063),
    study.Claim("transport loses where queries are uneven, 5 passes", study.gain("unbalanced", "pixels", over="unbalanced, 5x"), 0.04, None, 0.132),
    study.Claim("five shots gain less than one", lambda arms: ONE(arms) - FIVE(arms), expected=0.07),
    *(study.Claim(f"neighbours are of the anchor's class: {arm}", study.value("purity", arm), 0.8) for arm in ("DyCE pair", "DyCE predict")),
    *(study.Claim(f"{arm} costs no accuracy", study.gain("1-shot", arm, than="no memory"), -0.01) for arm in ("DyCE pair", "DyCE predict")),
]

PAPER = dict(data="mini-imagenet", widths=(64,), features=512, epochs=400, batch=256, learning_rate=0.3, sgd=True, teacher=0.995, mask=True)
FULL = Config(k=5, clusters=200, memory_start=60, recluster=60, ways=5, episodes=2000, iterations=1000, **PAPER)


def figures(report):
    drawn = {"transport": study.curves(report, ["1-shot over passes", "unbalanced over passes"], x=PASSES, xlabel="passes of the transport")}
    if any("purity over steps" in found for found in report["arms"].values()):
        drawn["purity"] = study.curves(report, ["purity over steps"], xlabel="training")
    return drawn | {"episodes": study.scores(report, ["1-shot", "1-shot, 5x", "5-shot", "5-shot, 1x", "unbalanced", "unbalanced, 5x"])}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures, vmap=True)
