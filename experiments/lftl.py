"""Learn from the Learnt: Source-Free Active Domain Adaptation by contrastive sampling and visual persistence (ECCV 2024; arXiv 2407.18899).

A classifier meets another domain when its own training data is gone. In each of a few rounds some labels are bought: of examples chosen by what the
model has learnt since the round before (contrastive active sampling, CAS). Adaptation then makes all predictions sure and even (information
maximisation, IM) and draws embeddings to those of labelled examples, which a memory keeps (visual persistence, VPA). Shown on a classifier of MNIST
that has to read scikit-learn's digits, 18 labels a round.

Within the noise on digits, and so reported but not claimed: that CAS beats the plain margin, and that the anchors add to information maximisation.

    python experiments/lftl.py
    python experiments/lftl.py --arm lftl --set ratio=0.005,0.02 --set contrast=0.03,0.3
    python experiments/lftl.py --full --data-dir DIR
    python experiments/lftl.py --full --set data=office-home/Art:office-home/Clipart --set ratio=0.01 --set anchor_weight=1 --data-dir DIR

In full a domain is a folder in DIR with a folder of pictures for each class, DIR/visda-2017/train/aeroplane/a.png. They lie on the device at 256 x
256 (VisDA: 41 GB). It begins with random weights, the released code with ImageNet's. `run(config, key, ask=function)` asks a person, see `look_up`.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import data, encoders, losses, memory, metrics, samplers, study, train, views


@train.config
class Config:
    random: bool = False  # choose at random instead
    contrast: float = 0.03  # without it and the next, the examples with the smallest margins are chosen
    class_weight: float = 0.1
    confident: int = 100
    space: str = "prob"  # "log": as in the paper
    information_weight: float | None = 0.9  # None: without it; so of the next and of mixtures
    diversity: bool = True  # False: the entropy of each prediction alone, as in the paper
    anchor_weight: float | None = 1.0
    anchor_momentum: float = 0.1  # the weight of what the memory holds
    anchors_in_loop: bool = True  # False: written between epochs alone, which is what the released code comes to
    mixup_weight: float | None = None  # of as many steps, after each epoch, on mixtures of the labelled batches that it showed
    rounds: int = 5
    ratio: float = 0.01  # labels bought in a round, as a share of the pool
    epochs: int = 10  # of a round
    subset: bool = False  # the released code's fast mode: few unlabelled examples an epoch, drawn with replacement
    learning_rate: float = 0.02
    decay: float = 10.0  # of the rate over a round
    batch: int = 64
    labelled_batch: int = 32
    source_learning_rate: float = 0.05
    source_decay: float = 0.0
    source_epochs: int = 30
    source_smoothing: float = 0.1
    smoothing: float = 0.0  # of labels; only the source's are
    data: tuple[str, str] = ("mnist_5k", "digits")  # the domains: source and target
    pixels: int = 256  # of photographs, height and width
    width: int = 128
    features: int = 64


CE, IM = dict(information_weight=None, anchor_weight=None), dict(anchor_weight=None)
RULES = {"random": dict(random=True), "margin": dict(contrast=0.0, class_weight=0.0), "CAS": {}}
CHOICES = {f"{rule} + {name}": Config(**RULES[rule], **parts) for name, parts in (("CE", CE), ("IM", IM)) for rule in RULES}
ARMS = {"lftl": Config()} | CHOICES | {"random + IM + VPA": Config(random=True)}
ARMS |= {"lftl, logarithms": Config(space="log"), "lftl, entropy": Config(diversity=False)}
ARMS |= {"lftl, memory of the code": Config(anchors_in_loop=False), "lftl, mixup": Config(mixup_weight=1.0)}


def domains(config):
    """Images and labels of both domains, and the number of classes."""
    if config.data == ("mnist_5k", "digits"):
        images, labels = data.load("mnist_5k")
        blocks = jnp.pad(images[..., 0], ((0, 0), (2, 2), (2, 2))).reshape(-1, 8, 4, 8, 4)
        return (blocks.mean(axis=(2, 4)), labels), data.load("digits"), 10
    source, target = data.image_sets(data.root(), config.data, size=config.pixels, dtype="uint8")
    return source[:2], target[:2], len(source.names)


def classifier_of(config, classes):
    """The encoder and the linear layer on its features."""
    how = dict(last_batch_norm=True, axis_name="data")
    if config.data[1] == "digits":
        return encoders.Chain([encoders.MLP((config.width,), config.features, **how), encoders.MLP((), classes)])
    resnet101 = encoders.ResNet((3, 4, 23, 3), width=config.width, bottleneck=True, axis_name="data")
    return encoders.Chain([encoders.Chain([resnet101, encoders.MLP((), config.features, **how)]), encoders.WeightNormHead(classes)])


def seen(images, key=None, index=None):
    """Images as the networks see them: of photographs a part, at random with a key."""
    return images if images.ndim == 3 else views.imagenet(images, images.shape[1] * 7 // 8, key=key, index=index)


@partial(jax.jit, static_argnums=0)
def predict(model, variables, images):
    """Features and probabilities of many images, by the running averages."""
    features, logits = encoders.in_parts(lambda part: model.apply(variables, seen(part), stop=(1, 2)), images)
    return features, jax.nn.softmax(logits)


def optimiser(config, rate):
    sgd = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(rate, momentum=0.9, nesterov=True))
    trunk = {"modules_0": {"modules_0": True, "modules_1": False}, "modules_1": False}
    return optax.chain(sgd, optax.masked(optax.scale(0.1), trunk)) if config.data[1] != "digits" else sgd  # of a residual network a tenth


def objective(params, model, config, mixing, state, batch, key):
    embed = partial(encoders.apply_in_training, model, stop=(1, 2))
    variables, bank, value = state["model"] | {"params": params}, state["bank"], 0.0
    images = seen(batch["known"]["pool"], jax.random.fold_in(key, 0), batch["known"]["index"])
    targets = optax.smooth_labels(jax.nn.one_hot(batch["labels"], model.features), config.smoothing)
    if "free" in batch:
        (z, logits), variables = embed(variables, seen(batch["free"]["pool"], jax.random.fold_in(key, 1), batch["free"]["index"]))
    if mixing:
        mixed = views.mix_up(key, images, index=batch["place"], alpha=0.75, axis_name="data")
        images, targets = mixed.images, config.mixup_weight * views.mixed_targets(mixed, targets, axis_name="data")
    (features, answers), variables = embed(variables, images)
    if config.information_weight is not None:
        sure = losses.info_max(logits, axis_name="data") if config.diversity else losses.mean(losses.entropy(logits), axis_name="data")
        value += config.information_weight * sure
    if config.anchor_weight is not None:
        if config.anchors_in_loop:
            anchors = memory.bank(*bank.keys.shape, config.anchor_momentum, normalise=False)
            bank = anchors.update(bank, batch["known"]["index"], features, axis_name="data")
        near = losses.anchor_entropy(z, bank.keys[state["bought"]], anchor_where=state["bought"] >= 0)
        value += config.anchor_weight * losses.mean(near, axis_name="data")
    return value + losses.mean(optax.softmax_cross_entropy(answers, targets), axis_name="data"), {"model": variables, "bank": bank}


def step(model, config, mixing, state, batch, key):
    """Step t of `total`, over which the rate decays."""
    params = state["model"]["params"]
    (value, new), grads = jax.value_and_grad(objective, has_aux=True)(params, model, config, mixing, state, batch, key)
    rate = config.learning_rate * (1 + config.decay * (state["t"] + 1) / state["total"]) ** -0.75
    params, opt = train.descend(optimiser(config, rate), grads, params, state["opt"], axis_name="data")
    new |= {"model": new["model"] | {"params": params}, "opt": opt, "t": state["t"] + (not mixing)}
    return state | new, {"mixup loss" if mixing else "loss": value}


def adapt(config, model, key, state, arrays, shown, fit, name, hook=None, **options):
    """Trains on all labels that there are so far, and on the examples without; `hook` is called after each epoch."""
    mixup, epoch = config.mixup_weight is not None, samplers.steps_per_epoch(shown, config.batch)
    state |= {"opt": optimiser(config, 1.0).init(state["model"]["params"]), "bought": arrays["known"].index}
    state |= {"t": jnp.int32(0), "total": jnp.float32(config.epochs * epoch)}
    if config.anchor_weight is not None:
        hook = partial(refresh, model, config, arrays["pool"])
        state, _ = hook(key, state)
    unlabelled = 0 if config.information_weight is None and config.anchor_weight is None else config.batch
    draw = partial(samplers.pool_batch, labelled=config.labelled_batch, unlabelled=unlabelled, replace=config.subset)
    for part in range(config.epochs if mixup else 1):
        batches, stage = arrays | {"key": key, "first": jnp.int32(part * epoch)}, f"{name} {part}" if mixup else name
        how = dict(steps=epoch if mixup else config.epochs * epoch, after=((epoch, hook),) if hook else (), name=stage)
        state, _ = fit(key, state, partial(step, model, config, False), train.draws(batches, draw), **how, **options)
        if mixup:
            take, alone = partial(step, model, dataclasses.replace(config, **CE), True), train.draws(batches, partial(draw, unlabelled=0))
            state, _ = fit(key, state, take, alone, steps=epoch, name=f"{name} mixup {part}")
    return state


def held_out(model, images, labels, key, state):
    return state, {"held out": jnp.mean(jnp.argmax(predict(model, state["model"], images)[1], axis=1) == labels)}


def source_model(config, model, key, images, labels, fit):
    """The classifier of the source domain, of the epoch in which it did best on a tenth that is held out; the same in all arms of a seed."""
    k_order, k_encoder, k_head, k_fit = jax.random.split(key, 4)
    order, kept = jax.random.permutation(k_order, len(labels)), len(labels) - len(labels) // 10
    images, labels = jnp.asarray(images)[order], jnp.asarray(labels)[order]
    how = {name: getattr(config, f"source_{name}") for name in ("learning_rate", "decay", "smoothing", "epochs")}
    source = Config(**how, **CE, batch=config.batch, labelled_batch=config.batch, data=config.data)  # with nothing in it in which arms differ
    encoder, head = model.modules
    variables = encoders.chained(encoder.init(k_encoder, seen(images[:1])), head.init(k_head, jnp.zeros((1, config.features))))
    state = {"model": variables, "best": train.best_slot(variables), "bank": memory.bank(1, 1, 0.0).init(key)}
    known = memory.labels(kept, kept)
    arrays = {"pool": images[:kept], "known": known.update(known.init(), jnp.arange(kept), labels[:kept])}
    hook = train.keep_best(partial(held_out, model, images[kept:], labels[kept:]), "held out", of="model")
    return adapt(source, model, k_fit, state, arrays, kept, fit, "source", hook, shared=True)["best"].params


@partial(jax.jit, static_argnums=0)
def refresh(model, config, images, key, state):
    """The features of all labelled examples, without augmentation, go into the memory; not after the last step of a round."""
    features, _ = predict(model, state["model"], images[state["bought"]])
    bank = memory.bank(*state["bank"].keys.shape, config.anchor_momentum, normalise=False).update(state["bank"], state["bought"], features)
    return state | {"bank": jax.tree.map(partial(jnp.where, state["t"] < state["total"]), bank, state["bank"])}, {}


@partial(jax.jit, static_argnames="count")
def choose(config, key, probabilities, previous, free, count):
    """Which examples to have labelled."""
    how = {name: getattr(config, name) for name in ("space", "contrast", "class_weight", "confident")}
    scores = jax.random.uniform(key, free.shape) if config.random else samplers.cas_scores(probabilities, previous, where=free, **how)
    return samplers.select_smallest(scores, count, where=free)


def look_up(index, images, labels):
    """The oracle: the labels of the examples `index` of the pool. A person in its place looks at the images."""
    return labels[index]


def run(config, key, fit=train.fit, ask=look_up):
    k_source, k_bank, k_fit, k_choose = jax.random.split(key, 4)
    source, (pool, answers), classes = domains(config)
    model, pool, answers, size = classifier_of(config, classes), jnp.asarray(pool), jnp.asarray(answers), len(answers)
    bank = memory.bank(size, config.features, config.anchor_momentum, normalise=False).init(k_bank)
    state = {"model": source_model(config, model, k_source, *source, fit), "bank": bank}
    budget, each = round(size * config.ratio * config.rounds), round(size * config.ratio)
    labels, previous, probabilities = memory.labels(size, budget), None, predict(model, state["model"], pool)[1]
    bought, said, misread = labels.init(), [jnp.argmax(probabilities, axis=1)], []
    for turn in range(config.rounds):
        end = budget if turn == config.rounds - 1 else (turn + 1) * each
        chosen = choose(config, jax.random.fold_in(k_choose, turn), probabilities, previous, ~bought.has, end - turn * each)
        bought = labels.update(bought, chosen, ask(chosen, pool, answers))
        misread.append(1 - jnp.mean((said[-1] == answers)[chosen]))
        shown = end * max(1, -(-2 * budget // end) - 1) if config.subset else size - end
        state = adapt(config, model, jax.random.fold_in(k_fit, turn), state, {"pool": pool, "known": bought}, shown, fit, f"round {turn + 1}")
        previous, probabilities = probabilities, predict(model, state["model"], pool)[1]
        said.append(jnp.argmax(probabilities, axis=1))
    curve, misread = jnp.mean(jnp.stack(said) == answers, axis=1), jnp.stack(misread)
    found = {"source": curve[0], "round 1": curve[1], "accuracy": curve[-1], "mean": jnp.mean(curve[1:]), "misread": jnp.mean(misread)}
    found |= {"of classes": metrics.balanced_accuracy(said[-1], answers, classes)}
    return found | {"accuracy over rounds": curve, "misread over rounds": misread}


CLAIMS = [
    study.Claim("every arm rises over all rounds", lambda arms: min(arm["accuracy"] - arm["source"] for arm in arms.values()), expected=0.5),
    study.Claim("every arm rises from round to round", lambda arms: min(np.diff(arm["accuracy over rounds"]).min() for arm in arms.values())),
    study.Claim("IM adds to random choice, round 1", study.gain("round 1", "random + IM", than="random + CE"), 0.08, expected=0.136),
    study.Claim("IM adds to CAS choice, round 1", study.gain("round 1", "CAS + IM", than="CAS + CE"), 0.08, expected=0.262),
    study.Claim("IM adds to random choice, in the end", study.gain("accuracy", "random + IM", than="random + CE"), 0.015, expected=0.036),
    study.Claim("IM adds to CAS choice, in the end", study.gain("accuracy", "CAS + IM", than="CAS + CE"), 0.015, expected=0.035),
    study.Claim("CAS beats random choice, with IM", study.gain("accuracy", "CAS + IM", than="random + IM"), 0.015, expected=0.035),
    study.Claim("not claimed to gain: CAS over the margin, within 3 points", study.gain("accuracy", "CAS + IM", than="margin + IM"), -0.03, 0.03),
    study.Claim("not claimed to gain: VPA over IM alone, within 3 points", study.gain("accuracy", "lftl", than="CAS + IM"), -0.03, 0.03),
]

VISDA = dict(data=("visda-2017/train", "visda-2017/validation"), rounds=10, ratio=0.001, confident=500, anchor_weight=10.0, mixup_weight=1.0)
RESNET = dict(width=64, features=256, labelled_batch=64, learning_rate=1e-3, source_learning_rate=1e-3, source_decay=10.0, source_epochs=10)
FULL = Config(**VISDA, **RESNET)


def figures(report):
    shown, how = {"budget": (*CHOICES, "lftl"), "variants": [arm for arm in ARMS if "lftl" in arm]}, dict(first=0, xlabel="rounds of labels")
    present = {name: [arm for arm in arms if arm in report["arms"]] or None for name, arms in shown.items()}
    drawn = {name: study.curves(report, ["accuracy over rounds"], arms, size=(8, 4), **how) for name, arms in present.items()}
    return drawn | {"choice": study.scores(report, ["round 1", "accuracy", "misread"])}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures, vmap=True)
