"""BECLR: Batch Enhanced Contrastive Few-Shot Learning (Poulakakis-Daktylidis & Jamali-Rad, ICLR 2024; arXiv 2402.02444).

Two remedies for learning from few shots without labels. A memory in clusters (DyCE) finds other examples of an anchor's class, which join the batch.
At inference optimal transport (OpTA) moves the prototypes of a few shots onto the queries; it takes for granted that classes have as many queries
each, so it is shown on tasks where they have and on tasks where they haven't, always beside no transport. Digits 0 to 5 are learnt from, without
labels; tasks are made of 6 to 9, and in the arm "pixels" of all ten, from the images themselves.

"DyCE pair" is the published loss: neighbours of a prediction are paired with neighbours of its target; both are constants, and act by the other terms
of the loss alone. In "DyCE predict" each prediction also predicts the neighbours of its target, in "whole memory" so without clusters (NNCLR).

    python experiments/beclr.py
    python experiments/beclr.py --arm "DyCE predict" --set k=1,3,10
    python experiments/beclr.py --set data=mnist_5k --workers
    python experiments/beclr.py --full --data-dir DIR
    python experiments/beclr.py --full --set data=cifar-fs --set mask=False --data-dir DIR

In full: miniImageNet as DIR/mini-imagenet/train/n01532829/a.jpg, one folder for each of the 64 base classes, and DIR/mini-imagenet/test for the 20
novel ones; it lies on the device at 224 x 224 (9 GB). `--set data=...` takes other folders of that layout, and `cifar-fs`, which is parted out of
TensorFlow Datasets' CIFAR-100 (`data.cifar_fs`) and scaled up to that size, as in the released code.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import data, encoders, losses, memory, metrics, pairwise, samplers, study, train, views


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
    steps: int = 0  # set by `run`
    batch: int = 64
    weight: float = 0.1
    temperature: float = 2.0
    teacher: float = 0.99  # the momentum at first; it rises to 1
    learning_rate: float = 1e-3
    sgd: bool = False
    mask: bool = False  # blocks of the student's images
    pixels: bool = False  # nothing is trained
    data: str = "digits"
    side: int = 224  # of photographs: their height and width
    widths: tuple[int, ...] = (128,)  # of the encoder; of a residual network its first stage
    features: int = 64  # of the projection, of a perceptron too
    ways: int = 4
    episodes: int = 500


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
RAND_AUGMENT = partial(  # that of the released code
    views.rand_augment,
    operations=(*(name for name in views.RAND_AUGMENT if name != "identity"), "invert", "solarise_add"),
    magnitude=10.0,
    deviation=0.5,
    probability=0.5,
    ranges="released",
    fill=views.IMAGENET[0],
)


def examples(config):
    """Images and labels to learn from, and those of the tasks."""
    if config.data in SHIFTS:
        images, labels = data.load(config.data)
        old, new = np.flatnonzero(labels < 6), np.flatnonzero((labels >= 6) | config.pixels)
        return (images[old], labels[old]), (images[new], labels[new])
    if config.data == "cifar-fs":
        return data.cifar_fs()
    return [data.images(data.root() / config.data / part, size=config.side, dtype="uint8")[:2] for part in ("train", "test")]


def view(config, key, images, index):
    if config.data in SHIFTS:
        return views.shift_gain_noise(key, images, index=index, noise=0.1, shift=SHIFTS[config.data])
    crop, jitter = partial(views.random_resized_crop, size=config.side, scale=(0.2, 1.0)), partial(views.colour_jitter, saturation=0.2)
    changes = crop, jitter, views.greyscale, views.gaussian_blur, RAND_AUGMENT, views.flip, partial(views.flip, vertical=True)
    return views.compose(*changes)(key, images, index=index)


def networks_of(config):
    """The encoder with its projection, and the predictor."""
    norm = dict(batch_norm=True, axis_name="data")
    small = config.data in SHIFTS
    encoder = encoders.MLP(config.widths, config.features) if small else encoders.resnet18(width=config.widths[0], axis_name="data")
    projection = encoders.ProjectionHead(config.features, config.features, layers=2 if small else 3, last_batch_norm=True, **norm)
    return encoders.Chain([encoder, projection]), encoders.ProjectionHead(config.features // 4, config.features, **norm)


def optimiser(config):
    if not config.sgd:
        return optax.adam(config.learning_rate)
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(rate, momentum=0.9))


def memory_of(config):
    capacity = memory.cluster_capacity(config.clusters, 2 * config.batch, scale=config.scale)
    return memory.cluster_memory(capacity, config.features, config.clusters, momentum=config.memory_momentum)


def init(config, networks, key, images):
    k_student, k_predictor, k_memory = jax.random.split(key, 3)
    student, predictor = networks[0].init(k_student, views.to_floats(images[:1])), networks[1].init(k_predictor, jnp.zeros((1, config.features)))
    averages = {"student": {"batch_stats": student.pop("batch_stats")}, "predictor": {"batch_stats": predictor.pop("batch_stats")}}
    params = {"student": student, "predictor": predictor}
    memories = jax.vmap(memory_of(config).init)(jax.random.split(k_memory, len(SIDES))) if config.k else {}
    teacher = memory.ema(1.0).init(student)
    return {"params": params, "averages": averages, "opt": optimiser(config).init(params), "teacher": teacher, "memories": memories}


def forward(network, params, averages, inputs):
    return network.apply(params | averages, inputs, train=True, mutable=["batch_stats"])


def put_in(config, memories, z, index, key):
    """The memory of each side after both views of all examples `[sides, 2, B, D]` were put in, side by side."""
    rows, ids = jnp.swapaxes(z, 1, 2).reshape(len(z), -1, config.features), jnp.repeat(index, 2)

    def one(arguments):
        return memory_of(config).update(*arguments, ids, axis_name="data")

    return jax.lax.map(one, (memories, rows, jax.random.split(key, len(z))))


def loss_of(config, found, near):
    """The loss of the views of each side, `[2, B, D]`, and of their neighbours, `[2, B, k, D]` if there are any."""

    def joined(side, view):
        own = found[side][view]
        return own if near is None else jnp.concatenate([own, near[side][view].reshape(-1, own.shape[1])])

    if config.pair or near is None:
        apart = [losses.negative_cosine(joined("prediction", view), joined("target", 1 - view)) for view in (0, 1)]
    else:
        apart = []
        for view in (0, 1):
            targets = jnp.concatenate([found["target"][1 - view][:, None], near["target"][1 - view]], axis=1)
            apart.append(losses.negative_cosine(jnp.broadcast_to(found["prediction"][view][:, None], targets.shape), targets))
    positive = sum(losses.mean(values, axis_name="data") for values in apart) / 2
    spread = [joined({"S": "student", "T": "target"}[kind], view) for view, kind in enumerate(config.negatives)]
    pairs = jnp.tile(pairwise.index(len(spread[0]), "data"), 2)
    # exp(cosine / temperature) is the kernel of uniformity but for a factor
    even = losses.uniformity(jnp.concatenate(spread), t=1 / (2 * config.temperature), ids=pairs, axis_name="data") + 1 / config.temperature
    return positive + config.weight * even


def objective(params, config, networks, enhanced, labels, averages, teacher, memories, batch, key):
    *k_views, k_memory, k_mask = jax.random.split(key, 4)
    index = batch["index"]
    images = [view(config, k, views.to_floats(batch["images"]), index) for k in k_views]
    target, _ = forward(networks[0], teacher, averages["student"], jnp.concatenate(images))
    if config.mask:
        images = [views.block_mask(jax.random.fold_in(k_mask, n), view, index=index) for n, view in enumerate(images)]
    student, of_student = forward(networks[0], params["student"], averages["student"], jnp.concatenate(images))
    prediction, of_predictor = forward(networks[1], params["predictor"], averages["predictor"], student)
    z = jnp.stack([student, prediction, jax.lax.stop_gradient(target)]).reshape(len(SIDES), 2, -1, config.features)
    near, purity = None, {}
    if config.k:
        memories = put_in(config, memories, z, index, k_memory)
    if enhanced:
        find = partial(memory.cluster_neighbours, k=config.k, whole=config.whole)
        found = jax.lax.map(lambda pair: find(*pair), (memories, z.reshape(len(SIDES), -1, config.features)))
        near = dict(zip(SIDES, found.keys.reshape(*z.shape[:3], config.k, -1), strict=True))
        same = jnp.tile(labels[index], 2)[:, None] == labels[found.ids[-1]]  # the target's; only to measure
        purity = {"purity": losses.mean(same.astype(jnp.float32), axis_name="data")}
    averages = {"student": of_student, "predictor": of_predictor}
    return loss_of(config, dict(zip(SIDES, z, strict=True)), near), (averages, memories, purity)


def step(config, networks, enhanced, labels, state, batch, key):
    inputs = config, networks, enhanced, labels, state["averages"], state["teacher"].params, state["memories"], batch, key
    (value, (averages, memories, purity)), grads = jax.value_and_grad(objective, has_aux=True)(state["params"], *inputs)
    params, opt = train.descend(optimiser(config), grads, state["params"], state["opt"], axis_name="data")
    teacher = memory.ema(memory.rising_decay(config.teacher, config.steps)).update(state["teacher"], params["student"])
    return {"params": params, "averages": averages, "opt": opt, "teacher": teacher, "memories": memories}, {"loss": value} | purity


def regroup(key, state):
    """New clusters in each memory."""
    keys = jax.random.split(key, len(SIDES))
    return state | {"memories": jax.lax.map(lambda pair: memory.recluster(*pair), (keys, state["memories"]))}, {}


def learn(config, networks, key, images, labels, fit):
    """The encoder's variables after training: without neighbours at first, then with."""
    k_init, k_fit = jax.random.split(key)
    epoch = len(images) // config.batch
    config = dataclasses.replace(config, steps=config.epochs * epoch)
    state, history = init(config, networks, k_init, images), {}
    batches, labels = train.draws({"images": images}, config.batch), jnp.asarray(labels)
    first = min(config.memory_start, config.epochs) if config.k else 0
    for enhanced, epochs in ((False, first), (config.k > 0, config.epochs - first)):
        if epochs:
            after = ((config.recluster * epoch, regroup),) if config.k and not config.whole else ()
            take = partial(step, config, networks, enhanced, labels)
            name = "with neighbours" if enhanced else "alone"
            state, history = fit(k_fit, state, take, batches, steps=epochs * epoch, after=after, name=name)
    return state["params"]["student"] | state["averages"]["student"], history


@partial(jax.jit, static_argnums=(0, 3))
def embeddings(network, variables, images, size):
    """What the encoder says of images, scaled to a size, without the projection."""

    def embed(part):
        return network.apply(variables, jax.image.resize(views.to_floats(part), (len(part), *size, *part.shape[3:]), "linear"), stop=1)

    return encoders.in_parts(embed, images)


@partial(jax.jit, static_argnames="passes")
def few_shot(z, episodes, passes):
    classify = partial(metrics.opta_classifier, passes=passes, iterations=200)
    return jnp.mean(metrics.few_shot_accuracy(z, *episodes, classify=classify))


def score(config, key, z, labels):
    """The mean accuracy of tasks by shots, passes of the transport, and whether all classes have as many queries."""
    how, found = dict(ways=config.ways, episodes=config.episodes), {}
    for name, shots, queries, passes in (("1-shot", 1, 15, PASSES), ("5-shot", 5, 15, (0, 1)), ("unbalanced", 1, UNBALANCED[config.ways], PASSES)):
        episodes = samplers.few_shot_episodes(key, labels, shots=shots, queries=queries, **how)
        curve = [few_shot(z, episodes, passes=number) for number in passes]
        found |= {name: curve[0]} | {f"{name}, {number}x": value for number, value in zip(passes[1:], curve[1:], strict=True)}
        found[f"{name} over passes"] = jnp.stack(curve)
    return found


def run(config, key, fit=train.fit):
    k_learn, k_score = jax.random.split(key)
    (images, labels), (new_images, new_labels) = examples(config)
    if config.pixels:
        return score(config, k_score, jnp.reshape(views.to_floats(new_images), (len(new_images), -1)), new_labels)
    networks = networks_of(config)
    variables, history = learn(config, networks, k_learn, images, labels, fit)
    size = np.shape(new_images)[1:3] if config.data in SHIFTS else (config.side, config.side)
    found = score(config, k_score, embeddings(networks[0], variables, new_images, size), new_labels)
    if "purity" in history:
        last = max(1, len(history["purity"]) // 10)
        found |= {"purity": jnp.mean(history["purity"][-last:]), "purity over steps": history["purity"][:: max(1, last // 4)]}
    return found


def transported(name, passes, sign=1):
    return lambda results: sign * float(results["pixels"][f"{name}, {passes}x"] - results["pixels"][name])


def fewer_shots_gain_more(results):
    return transported("1-shot", 1)(results) - transported("5-shot", 1)(results)


def purity(arm):
    return lambda results: float(results[arm]["purity"])


CLAIMS = [
    study.Claim("transport gains with one shot, 1 pass", transported("1-shot", 1), 0.06, expected=0.089),
    study.Claim("transport gains with one shot, 5 passes", transported("1-shot", 5), 0.08, expected=0.105),
    study.Claim("transport loses where queries are not balanced, 1 pass", transported("unbalanced", 1, sign=-1), 0.04, expected=0.063),
    study.Claim("transport loses where queries are not balanced, 5 passes", transported("unbalanced", 5, sign=-1), 0.04, expected=0.132),
    study.Claim("five shots gain less than one", fewer_shots_gain_more, expected=0.07),
    *(study.Claim(f"neighbours are of the anchor's class: {arm}", purity(arm), 0.8) for arm in ("DyCE pair", "DyCE predict")),
    *(study.Claim(f"{arm} costs no accuracy", study.gain("1-shot", arm, than="no memory"), -0.01) for arm in ("DyCE pair", "DyCE predict")),
]

PAPER = dict(data="mini-imagenet", widths=(64,), features=512, epochs=400, batch=256, learning_rate=0.3, sgd=True, teacher=0.995, mask=True)
FULL = Config(k=5, clusters=200, memory_start=60, recluster=60, ways=5, episodes=2000, **PAPER)


def figures(report):
    drawn = {"transport": study.curves(report, ["1-shot over passes", "unbalanced over passes"], x=PASSES, xlabel="passes of the transport")}
    if any("purity over steps" in found for found in report["arms"].values()):
        drawn["purity"] = study.curves(report, ["purity over steps"], xlabel="training")
    return drawn | {"episodes": study.scores(report, ["1-shot", "1-shot, 5x", "5-shot", "5-shot, 1x", "unbalanced", "unbalanced, 5x"])}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
