"""Learn from the Learnt: Source-Free Active Domain Adaptation by contrastive sampling and visual persistence (ECCV 2024; arXiv 2407.18899).

A classifier meets another domain when its own training data is gone. In each of a few rounds some labels are bought: of examples chosen by what the
model has learnt since the round before (contrastive active sampling, CAS). Adaptation then makes all predictions sure and even (information
maximisation, IM) and draws embeddings to those of labelled examples, which a memory keeps (visual persistence, VPA). Shown on a classifier of MNIST
that has to read scikit-learn's digits, 18 labels a round.

Not claimed, as on digits it is within the noise: that CAS beats the plain margin, and that the anchors add to information maximisation. How far these
arms are apart is reported all the same.

    python experiments/lftl.py
    python experiments/lftl.py --arm lftl --set ratio=0.005,0.02 --set contrast=0.03,0.3
    python experiments/lftl.py --full --data-dir DIR
    python experiments/lftl.py --full --set data=office-home/Art:office-home/Clipart --set ratio=0.01 --set anchor_weight=1 --data-dir DIR

In full a domain is a folder in DIR with a folder of pictures for each class, such as VisDA-2017's: DIR/visda-2017/train/aeroplane/a.png and
DIR/visda-2017/validation/aeroplane/b.png. They lie on the device at 256 x 256, 41 GB for all of VisDA. The released code begins with weights trained
on ImageNet, this with random ones. A person may stand in for the labels: `run(config, key, ask=function)`, see `look_up`.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import data, encoders, losses, memory, samplers, study, train, views


@train.config
class Config:
    random: bool = False  # choose at random instead
    contrast: float = 0.03  # without it and the next, the examples with the smallest margins are chosen
    class_weight: float = 0.1
    confident: int = 100
    space: str = "prob"  # "log": as in the paper
    information: bool = True
    information_weight: float = 0.9
    diversity: bool = True  # False: the entropy of each prediction alone, as in the paper
    anchors: bool = True
    anchor_weight: float = 1.0
    anchor_momentum: float = 0.1  # the weight of what the memory holds
    anchors_in_loop: bool = True  # False: written between epochs alone, which is what the released code comes to
    mixup: bool = False  # after each epoch as many steps on mixtures of the labelled batches that it showed
    mixup_weight: float = 1.0
    mixing: bool = False  # whether a step is one of those
    rounds: int = 5
    ratio: float = 0.01  # labels bought in a round, as a share of the pool
    epochs: int = 10  # of a round
    subset: bool = False  # the released code's fast mode: few unlabelled examples an epoch, drawn with replacement
    learning_rate: float = 0.02
    decay: float = 10.0  # of the rate over a round
    slow_trunk: bool = False  # a tenth of the rate for the residual network
    batch: int = 64
    labelled_batch: int = 32
    source_learning_rate: float = 0.05
    source_decay: float = 0.0
    source_epochs: int = 30
    source_batch: int = 64
    source_smoothing: float = 0.1
    smoothing: float = 0.0  # of labels; only the source's are
    data: tuple[str, str] = ("mnist_5k", "digits")  # the domains: source and target
    pixels: int = 256  # of photographs, height and width
    width: int = 128
    features: int = 64


CE, IM = dict(information=False, anchors=False), dict(anchors=False)
RULES = {"random": dict(random=True), "margin": dict(contrast=0.0, class_weight=0.0), "CAS": {}}
CHOICES = {f"{rule} + {name}": Config(**RULES[rule], **parts) for name, parts in (("CE", CE), ("IM", IM)) for rule in RULES}
ARMS = {"lftl": Config()} | CHOICES | {"random + IM + VPA": Config(random=True)}
ARMS |= {"lftl, logarithms": Config(space="log"), "lftl, entropy": Config(diversity=False)}
ARMS |= {"lftl, memory of the code": Config(anchors_in_loop=False), "lftl, mixup": Config(mixup=True)}


def domains(config):
    """Images and labels of both domains, and the number of classes."""
    if config.data == ("mnist_5k", "digits"):
        images, labels = data.load("mnist_5k")
        blocks = jnp.pad(images[..., 0], ((0, 0), (2, 2), (2, 2))).reshape(-1, 8, 4, 8, 4)
        return (blocks.mean(axis=(2, 4)), labels), data.load("digits"), 10
    source, target = (data.images(data.root() / name, size=config.pixels, dtype="uint8") for name in config.data)
    if source.names != target.names:
        raise ValueError(f"data must be two folders with the same classes, got {source.names} and {target.names}")
    return source[:2], target[:2], len(source.names)


def networks_of(config, classes):
    """The encoder and the classifier."""
    if config.data[1] == "digits":
        return encoders.MLP((config.width,), config.features, last_batch_norm=True, axis_name="data"), encoders.MLP((), classes)
    trunk = encoders.ResNet((3, 4, 23, 3), width=config.width, bottleneck=True, axis_name="data")  # ResNet-101
    bottleneck = encoders.MLP((), config.features, last_batch_norm=True, axis_name="data")
    return encoders.Chain([trunk, bottleneck]), encoders.WeightNormHead(classes)


def seen(images, key=None, index=None):
    """Images as the networks see them: of photographs a random part (the middle without a key), mirrored at random, normalised."""
    if images.ndim == 3:
        return images
    images, size = views.to_floats(images, *views.IMAGENET), images.shape[1] * 7 // 8
    if key is None:
        start = (images.shape[1] - size) // 2
        return images[:, start : start + size, start : start + size]
    crop = partial(views.random_resized_crop, size=size, scale=(49 / 64, 49 / 64), ratio=(1.0, 1.0))
    return views.compose(crop, views.flip)(key, images, index=index)


def forward(networks, params, averages, images):
    """Features, logits and running averages of a batch in training."""
    features, averages = networks[0].apply(params["encoder"] | averages, images, train=True, mutable=["batch_stats"])
    return features, networks[1].apply(params["head"], features), averages


@partial(jax.jit, static_argnums=0)
def predict(networks, model, images):
    """Features and probabilities of many images, by the running averages."""

    def predicted(part):
        features = networks[0].apply(model["params"]["encoder"] | model["averages"], seen(part))
        return features, jax.nn.softmax(networks[1].apply(model["params"]["head"], features))

    return encoders.in_parts(predicted, images)


def optimiser(config, rate):
    sgd = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(rate, momentum=0.9, nesterov=True))
    trunk = {"encoder": {"params": {"modules_0": True, "modules_1": False}}, "head": False}
    return optax.chain(sgd, optax.masked(optax.scale(0.1), trunk)) if config.slow_trunk else sgd


def anchors_of(config, bank):
    return memory.bank(*bank.keys.shape, config.anchor_momentum, normalise=False)


def objective(params, networks, config, bought, averages, bank, batch, key):
    known, targets, value = batch["known"], jax.nn.one_hot(batch["labels"], networks[1].features), 0.0
    images, targets = seen(known["images"], jax.random.fold_in(key, 0), known["index"]), optax.smooth_labels(targets, config.smoothing)
    if config.information or config.anchors:
        free = seen(batch["free"]["images"], jax.random.fold_in(key, 1), batch["free"]["index"])
        z, logits, averages = forward(networks, params, averages, free)
    if config.mixing:
        images, partner, share = views.mix_up(key, images, index=batch["place"], alpha=0.75, axis_name="data")
        others = jax.lax.all_gather(targets, "data", tiled=True)[partner]
        targets = config.mixup_weight * (share[:, None] * targets + (1 - share[:, None]) * others)
    features, answers, averages = forward(networks, params, averages, images)
    if config.information:
        sure = losses.info_max(logits, axis_name="data") if config.diversity else losses.mean(losses.entropy(logits), axis_name="data")
        value += config.information_weight * sure
    if config.anchors:
        if config.anchors_in_loop:
            bank = anchors_of(config, bank).update(bank, known["index"], features, axis_name="data")
        near = losses.anchor_entropy(z, bank.keys[bought], anchor_where=bought >= 0)
        value += config.anchor_weight * losses.mean(near, axis_name="data")
    return value + losses.mean(optax.softmax_cross_entropy(answers, targets), axis_name="data"), (averages, bank)


def step(networks, config, total, bought, state, batch, key):
    """Step t of `total`, over which the rate decays."""
    params, averages = state["model"]["params"], state["model"]["averages"]
    inputs = networks, config, bought, averages, state["bank"], batch, key
    (value, (averages, bank)), grads = jax.value_and_grad(objective, has_aux=True)(params, *inputs)
    rate = config.learning_rate * (1 + config.decay * (state["t"] + 1) / total) ** -0.75
    params, opt = train.descend(optimiser(config, rate), grads, params, state["opt"], axis_name="data")
    model, t = {"params": params, "averages": averages}, state["t"] + (not config.mixing)
    return state | {"model": model, "opt": opt, "bank": bank, "t": t}, {"mixup loss" if config.mixing else "loss": value}


def draw(config, key, arrays, t):
    """A batch of those with a label and, where it is used, one of those without."""
    t, count = t + arrays["first"], arrays["count"]
    place = t * config.labelled_batch + jnp.arange(config.labelled_batch)
    row = samplers.shuffled_rows(arrays["key"], count, place)
    batch = {"known": rows_of(arrays, arrays["bought"][row]), "labels": arrays["labels"][row], "place": place}
    if config.information or config.anchors:
        place, total = t * config.batch + jnp.arange(config.batch), len(arrays["order"]) - count
        row = (
            jax.random.randint(key, place.shape, 0, total)
            if config.subset
            else samplers.shuffled_rows(jax.random.fold_in(arrays["key"], 1), total, place)
        )
        batch["free"] = rows_of(arrays, arrays["order"][row])
    return batch


def rows_of(arrays, index):
    return {"images": arrays["images"][index], "index": index}


def adapt(config, networks, key, state, arrays, epoch, fit, name, after=(), **options):
    """Trains on all labels that there are so far, and on the examples without."""
    total, parts = float(config.epochs * epoch), config.epochs if config.mixup else 1
    state |= {"opt": optimiser(config, 1.0).init(state["model"]["params"]), "t": jnp.int32(0)}
    arrays, mixing = arrays | {"key": key}, dataclasses.replace(config, mixing=True, **CE)
    for part in range(parts):
        batches = arrays | {"first": jnp.int32(part * epoch)}
        options |= dict(steps=config.epochs * epoch // parts, after=after, name=f"{name} {part}" if config.mixup else name)
        take = partial(step, networks, config, total, arrays["bought"])
        state, _ = fit(key, state, take, train.draws(batches, partial(draw, config)), **options)
        if config.mixup:
            take = partial(step, networks, mixing, total, arrays["bought"])
            state, _ = fit(key, state, take, train.draws(batches, partial(draw, mixing)), steps=epoch, name=f"{name} mixup {part}")
    return state


def held_out(networks, images, labels, key, state):
    return state, {"held out": jnp.mean(jnp.argmax(predict(networks, state["model"], images)[1], axis=1) == labels)}


def source_model(config, networks, key, images, labels, fit):
    """The classifier of the source domain, of the epoch in which it did best on a tenth that is held out; the same in all arms of a seed."""
    k_order, k_encoder, k_head, k_fit = jax.random.split(key, 4)
    order, kept = jax.random.permutation(k_order, len(labels)), len(labels) - len(labels) // 10
    images, labels = jnp.asarray(images)[order], jnp.asarray(labels)[order]
    names = "learning_rate", "decay", "smoothing", "epochs"
    how = {name: getattr(config, f"source_{name}") for name in names} | dict(labelled_batch=config.source_batch, slow_trunk=config.slow_trunk)
    source = Config(**how, **CE)  # with nothing in it in which arms differ
    encoder = networks[0].init(k_encoder, seen(images[:1]))
    averages = {"batch_stats": encoder.pop("batch_stats")}
    model = {"params": {"encoder": encoder, "head": networks[1].init(k_head, jnp.zeros((1, networks[0].features)))}, "averages": averages}
    state = {"model": model, "best": train.best_slot(model), "bank": memory.bank(1, 1, 0.0).init(key)}
    arrays = {"images": images[:kept], "labels": labels[:kept], "bought": jnp.arange(kept), "count": jnp.int32(kept)}
    epoch = max(1, kept // config.source_batch)
    hook = train.keep_best(partial(held_out, networks, images[kept:], labels[kept:]), "held out", of="model")
    return adapt(source, networks, k_fit, state, arrays, epoch, fit, "source", after=((epoch, hook),), shared=True)["best"].params


@partial(jax.jit, static_argnums=0)
def refresh(networks, config, total, images, bought, key, state):
    """The features of all labelled examples, without augmentation, go into the memory; not after the last step of a round."""
    features, _ = predict(networks, state["model"], images[bought])
    bank = anchors_of(config, state["bank"]).update(state["bank"], bought, features)
    return state | {"bank": jax.tree.map(partial(jnp.where, state["t"] < total), bank, state["bank"])}, {}


@partial(jax.jit, static_argnames=("random", "count", "confident", "space"))
def choose(key, probabilities, previous, free, *, random, count, **options):
    """Which examples to have labelled."""
    scores = jax.random.uniform(key, free.shape) if random else samplers.cas_scores(probabilities, previous, where=free, **options)
    return samplers.select_smallest(scores, count, where=free)


def labelled(bought, size):
    """Which examples of the pool have a label; the places of `bought` that are still -1 fall on an entry beyond the last."""
    return jnp.zeros(size + 1, bool).at[bought].set(True)[:size]


def look_up(index, images, labels):
    """The oracle: the labels of the examples `index` of the pool. A person in its place looks at the images."""
    return labels[index]


def run(config, key, fit=train.fit, ask=look_up):
    k_source, k_bank, k_fit, k_choose = jax.random.split(key, 4)
    (images, labels), (pool, answers), classes = domains(config)
    networks, pool, answers, size = networks_of(config, classes), jnp.asarray(pool), jnp.asarray(answers), len(answers)
    model = source_model(config, networks, k_source, images, labels, fit)
    state = {"model": model, "bank": memory.bank(size, networks[0].features, 0.0, normalise=False).init(k_bank)}
    budget, each = round(size * config.ratio * config.rounds), round(size * config.ratio)
    bought, known, previous, scores, misread = jnp.full(budget, -1), jnp.zeros(budget, jnp.int32), None, [], []
    how = {name: getattr(config, name) for name in ("random", "space", "contrast", "class_weight", "confident")}
    for turn in range(config.rounds + 1):
        probabilities = predict(networks, state["model"], pool)[1]
        right = jnp.argmax(probabilities, axis=1) == answers
        scores.append(jnp.mean(right))
        if turn == config.rounds:
            break
        first, end = turn * each, budget if turn == config.rounds - 1 else (turn + 1) * each
        k_turn, free = jax.random.fold_in(k_choose, turn), ~labelled(bought, size)
        chosen = choose(k_turn, probabilities, previous, free, count=end - first, **how)
        bought, known = bought.at[first:end].set(chosen), known.at[first:end].set(ask(chosen, pool, answers))
        misread.append(1 - jnp.mean(right[chosen]))
        arrays = {"images": pool, "labels": known, "bought": bought, "count": jnp.int32(end)}
        arrays["order"] = jnp.argsort(labelled(bought, size))  # those without a label first
        shown = end * max(1, -(-2 * budget // end) - 1) if config.subset else size - end
        epoch, k_round = max(1, shown // config.batch), jax.random.fold_in(k_fit, turn)
        after = ()
        if config.anchors:
            hook = partial(refresh, networks, config, float(config.epochs * epoch), arrays["images"], bought)
            state, after = hook(k_round, state | {"t": jnp.int32(0)})[0], ((epoch, hook),)
        state = adapt(config, networks, k_round, state, arrays, epoch, fit, f"round {turn + 1}", after)
        previous = probabilities
    curve = jnp.stack(scores)
    found = {"source": curve[0], "round 1": curve[1], "accuracy": curve[-1], "mean": jnp.mean(curve[1:]), "misread": jnp.mean(jnp.stack(misread))}
    return found | {"accuracy over rounds": curve, "misread over rounds": jnp.stack(misread)}


def rises(results):
    """The least that any arm wins between two rounds."""
    return float(min(np.diff(arm["accuracy over rounds"]).min() for arm in results.values()))


def rises_in_all(results):
    return float(min(arm["accuracy"] - arm["source"] for arm in results.values()))


def gain(metric, select, at_least, expected):
    name = f"IM adds to {select} choice, {'in the end' if metric == 'accuracy' else metric}"
    return study.Claim(name, study.gain(metric, f"{select} + IM", than=f"{select} + CE"), at_least, expected=expected)


def within(name, metric, arm, than):
    return study.Claim(f"not claimed to gain: {name}, within 3 points", study.gain(metric, arm, than=than), -0.03, 0.03)


CLAIMS = [
    study.Claim("every arm rises from the source to the last round", rises_in_all, expected=0.5),
    study.Claim("every arm rises from round to round", rises),
    *(gain("round 1", select, 0.08, expected) for select, expected in (("random", 0.136), ("CAS", 0.262))),
    *(gain("accuracy", select, 0.015, expected) for select, expected in (("random", 0.036), ("CAS", 0.035))),
    study.Claim("CAS beats random choice, with IM", study.gain("accuracy", "CAS + IM", than="random + IM"), at_least=0.015, expected=0.035),
    within("CAS over the margin", "accuracy", "CAS + IM", than="margin + IM"),
    within("VPA over IM alone", "accuracy", "lftl", than="CAS + IM"),
]

VISDA = dict(data=("visda-2017/train", "visda-2017/validation"), rounds=10, ratio=0.001, confident=500, anchor_weight=10.0, mixup=True)
RESNET = dict(width=64, features=256, slow_trunk=True, labelled_batch=64, learning_rate=1e-3)
FULL = Config(source_learning_rate=1e-3, source_decay=10.0, source_epochs=10, **VISDA, **RESNET)


def figures(report):
    choices = [arm for arm in (*CHOICES, "lftl") if arm in report["arms"]] or None
    variants = [arm for arm in ARMS if "lftl" in arm and arm in report["arms"]] or None
    how = dict(xlabel="rounds of labels", size=(8, 4))
    how["x"] = range(max(len(arm["accuracy over rounds"]["mean"]) for arm in report["arms"].values()))
    budget, methods = (study.curves(report, ["accuracy over rounds"], arms, **how) for arms in (choices, variants))
    return {"budget": budget, "variants": methods, "choice": study.scores(report, ["round 1", "accuracy", "misread"])}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures, vmap=True)
