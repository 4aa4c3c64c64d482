"""Understanding the Behaviour of Contrastive Loss (Wang & Liu, CVPR 2021; arXiv 2012.09740).

The temperature of a contrastive loss trades uniformity (embeddings spread over the sphere) against tolerance (examples of a class stay together): it
sets how sharply the loss picks on hard negatives. That picking is what works, not the softmax: the simple loss without one fails, and the same loss
on the hardest negatives alone is repaired. Shown on 8x8 digits, with negatives from the batch and from a memory bank of all examples; on 28x28 ones
with a convolutional net; and, in full, on photographs with the paper's ResNet-18, views, bank and optimiser.

    python experiments/contrastive_behaviour.py
    python experiments/contrastive_behaviour.py --arm "contrastive 0.3" --set temperature=0.07,0.2,0.5 --seeds 3
    python experiments/contrastive_behaviour.py --set data=mnist_5k --seeds 3 --workers
    python experiments/contrastive_behaviour.py --full --data-dir DIR
    python experiments/contrastive_behaviour.py --full --set data=tfds:cifar100,tfds:svhn_cropped --set temperature=0.07,0.3,1.0 --data-dir DIR
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import optax

from cljax import core, data, encoders, losses, memory, metrics, samplers, study, train, views


@train.config
class Config:
    temperature: float = 0.3
    softmax: bool = True  # False: the simple loss (equation 3)
    hardest: int | None = None  # keep only the k hardest negatives (equations 8, 9)
    bank: bool = False  # compare with a memory of all examples instead of the batch
    bank_momentum: float = 0.5
    data: str = "digits"  # also decides on the encoder and on the views
    split: tuple[int, ...] | None = None  # rows to train on and to test on; None: as in SPLITS
    widths: tuple[int, ...] | None = None  # of the encoder's layers; None: as in `encoder`
    features: int = 32
    learning_rate: float = 2e-3
    sgd: bool = False  # with momentum, weight decay and two drops of the rate, instead of Adam
    warm_up: int = 0  # first steps with all negatives: few hard ones collapse an untrained encoder to a point
    batch: int = 128
    steps: int | None = None  # None: as in STEPS
    epochs: int | None = None  # instead of steps


HARD = dict(hardest=32, learning_rate=1e-3, warm_up=100)
HARD_BANK = dict(bank=True) | HARD | dict(hardest=98)  # the fraction 0.0819 of the paper
ARMS = {f"contrastive {t}": Config(temperature=t) for t in (0.1, 0.3, 1.0, 5.0)}
ARMS |= {f"hard {t}": Config(temperature=t, **HARD) for t in (0.1, 0.3, 1.0)}
ARMS |= {"simple": Config(softmax=False), "hard simple": Config(softmax=False, **HARD)}
ARMS |= {f"bank {t}": Config(bank=True, temperature=t) for t in (0.1, 0.3, 1.0)}
ARMS |= {"bank simple": Config(bank=True, softmax=False), "bank hard simple": Config(softmax=False, **HARD_BANK)}


SPLITS = {"digits": (1200, 597), "mnist_5k": (4000, 1000)}  # of any other set: train and test
STEPS = {"digits": 800, "mnist_5k": 200}  # a step with convolutions is slow on a CPU
VIEWS = {"digits": views.shift_gain_noise, "mnist_5k": partial(views.shift_gain_noise, shift=3)}
PHOTOGRAPHS = views.compose(  # the paper names these four; their strengths are those of its predecessor, instance discrimination
    partial(views.random_resized_crop, scale=(0.2, 1.0)),
    views.flip,
    partial(views.colour_jitter, hue=0.4, probability=1.0),
    views.greyscale,
)


def encoder(config):
    if config.data == "digits":
        return encoders.MLP(config.widths or (128, 64), config.features, normalise=True)
    if config.data == "mnist_5k":  # deep enough for the last places to see the whole digit
        trunk = encoders.ConvNet(config.widths or (8, 16, 32, 64, 64), 2 * config.features)
    else:
        trunk = encoders.resnet18(small_stem=True, axis_name="data", width=(config.widths or (64,))[0])
    return encoders.Chain([trunk, encoders.MLP((), config.features, normalise=True)])


def optimiser(config):
    if not config.sgd:
        return optax.adam(config.learning_rate)
    drops = {config.steps * 160 // 200: 0.1, config.steps * 190 // 200: 0.1}
    return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(optax.piecewise_constant_schedule(config.learning_rate, drops), momentum=0.9))


def init(config, model, key, images):
    k_model, k_bank = jax.random.split(key)
    averages = model.init(k_model, images[:1])
    params = {"params": averages.pop("params")}  # what is left are batch normalisation's running averages, where there are any
    bank = memory.bank(len(images) if config.bank else 1, model.features, config.bank_momentum).init(k_bank)
    return {"params": params, "averages": averages, "opt": optimiser(config).init(params), "bank": bank}


def compare(config, queries, keys, **who):
    """The loss of the arm: one value an anchor."""
    who |= dict(axis_name="data", similarity="cosine")
    if not config.softmax:
        return losses.simple_contrastive(queries, keys, k=config.hardest, **who)
    if config.hardest:
        return losses.hard_contrastive(queries, keys, k=config.hardest, temperature=config.temperature, **who)
    return losses.info_nce(queries, keys, temperature=config.temperature, **who)


def objective(params, model, config, averages, bank, batch, key):
    queries, keys = (VIEWS.get(config.data, PHOTOGRAPHS)(k, batch["images"], index=batch["index"]) for k in jax.random.split(key))
    embed = partial(model.apply, train=True, mutable=["batch_stats"])
    queries, averages = embed(params | averages, queries)
    if config.bank:  # the own slot is the positive; its id keeps it from being a negative too
        slots = jnp.arange(len(bank.keys))
        who = dict(negatives=bank.keys, in_batch=False, ids=batch["index"], negative_ids=slots)
        value = compare(config, queries, bank.keys[batch["index"]], **who)
    else:
        keys, averages = embed(params | averages, keys)
        value = compare(config, queries, keys)
    return losses.mean(value, axis_name="data"), (queries, averages)


def step(model, config, state, batch, key):
    inputs = model, config, state["averages"], state["bank"], batch, key
    (value, (queries, averages)), grads = jax.value_and_grad(objective, has_aux=True)(state["params"], *inputs)
    params, opt = train.descend(optimiser(config), grads, state["params"], state["opt"], axis_name="data")
    bank = state["bank"]
    if config.bank:
        bank = memory.bank(*bank.keys.shape, config.bank_momentum).update(bank, batch["index"], queries, axis_name="data")
    return {"params": params, "averages": averages, "opt": opt, "bank": bank}, {"loss": value}


def embeddings(model, variables, images, **options):
    """A part of the rows at a time: on an accelerator the activations of all photographs find no room."""
    return encoders.in_parts(partial(model.apply, variables, **options), images, size=1000)


@partial(jax.jit, static_argnums=(0, 1))
def scores(model, view, variables, known, test, key):
    (x, y), (test_x, test_y) = known, test
    embed = partial(embeddings, model, variables)
    z, reference = embed(test_x), embed(x)
    a, b = (embed(view(k, test_x)) for k in jax.random.split(key))
    before_head = dict(stop=1) if isinstance(model, encoders.Chain) else {}
    positive, hardest = 1 - metrics.alignment(a, b) / 2, jnp.mean(metrics.topk_similarity_profile(z, k=10))
    return {
        "uniformity": -metrics.uniformity(z),
        "tolerance": metrics.tolerance(z, test_y),
        "knn": metrics.knn_accuracy(z, test_y, reference, y, k=5),
        "linear": metrics.ridge_probe(embed(test_x, **before_head), test_y, embed(x, **before_head), y),
        "positive": positive,  # mean cosine of two views of an example
        "gap": positive - hardest,  # to the ten most similar other examples
    }


def evaluate(model, view, known, test, key, state):
    return state, scores(model, view, state["params"] | state["averages"], known, test, key)


def run(config, key, fit=train.fit):
    k_split, k_init, k_fit = jax.random.split(key, 3)
    known, test = data.load(config.data, key=k_split, split=config.split or SPLITS.get(config.data, ("train", "test")))
    steps = STEPS.get(config.data, 800) if config.steps is None else config.steps
    steps = config.epochs * samplers.steps_per_epoch(len(known[0]), config.batch) if config.epochs else steps
    core.check.integer("steps", steps, at_least=1)  # what is measured is measured in training
    config = dataclasses.replace(config, steps=steps)
    model = encoder(config)
    batches = train.draws({"images": known[0]}, config.batch)
    state = init(config, model, k_init, known[0])
    if config.warm_up:
        all_negatives = partial(step, model, dataclasses.replace(config, hardest=None, warm_up=0))
        state, _ = fit(k_fit, state, all_negatives, batches, steps=config.warm_up, name="warm-up")
    after = ((max(1, steps // 4), partial(evaluate, model, VIEWS.get(config.data, PHOTOGRAPHS), known, test)),)
    _, history = fit(k_fit, state, partial(step, model, config), batches, steps=steps, after=after)
    curves = {name: history[name] for name in ("uniformity", "tolerance", "knn", "linear", "positive", "gap")}
    return {name: curve[-1] for name, curve in curves.items()} | {f"{name} over steps": curve for name, curve in curves.items()}


def falls(metric, *arms):
    """The smallest of the steps by which a metric falls from arm to arm."""
    return lambda results: min(results[a][metric] - results[b][metric] for a, b in zip(arms, arms[1:], strict=False))


def spread(results, kind):
    return abs(results[f"{kind} 0.1"]["uniformity"] - results[f"{kind} 1.0"]["uniformity"])


def difference_in_spread(results):
    return spread(results, "contrastive") - spread(results, "hard")


CONTRASTIVE = [f"contrastive {t}" for t in (0.1, 0.3, 1.0, 5.0)]
CLAIMS = [
    study.Claim("uniformity falls with every step in temperature", falls("uniformity", *CONTRASTIVE)),
    study.Claim("uniformity falls from temperature 0.1 to 5", study.gain("uniformity", "contrastive 0.1", than="contrastive 5.0"), expected=0.8),
    study.Claim("accuracy falls from temperature 0.1 to 5", study.gain("knn", "contrastive 0.1", than="contrastive 5.0"), expected=0.15),
    study.Claim("tolerance rises from temperature 0.1 to 1", study.gain("tolerance", "contrastive 1.0", than="contrastive 0.1"), expected=0.1),
    study.Claim("the softmax beats the simple loss", study.gain("knn", "contrastive 0.3", than="simple"), expected=0.15),
    study.Claim("hard negatives repair the simple loss", study.gain("knn", "hard simple", than="simple"), expected=0.1),
    study.Claim("hard negatives make temperature matter less", difference_in_spread, expected=0.5),
    study.Claim("a low temperature widens the gap to the hardest negatives", study.gain("gap", "contrastive 0.1", than="contrastive 1.0")),
    study.Claim("a high temperature draws positives together", study.gain("positive", "contrastive 1.0", than="contrastive 0.1")),
    study.Claim("with a bank uniformity falls with every step in temperature", falls("uniformity", "bank 0.1", "bank 0.3", "bank 1.0")),
    study.Claim("with a bank the softmax beats the simple loss", study.gain("knn", "bank 0.3", than="bank simple")),
    study.Claim("with a bank hard negatives repair the simple loss", study.gain("knn", "bank hard simple", than="bank simple")),
]

FULL = Config(data="tfds:cifar10", bank=True, hardest=4095, features=128, sgd=True, learning_rate=0.03, epochs=200)


def figures(report):
    by_temperature = {kind: {t: f"{kind} {t}" for t in (0.1, 0.3, 1.0, 5.0)} for kind in ("contrastive", "hard", "bank")}
    names = ["uniformity", "tolerance", "knn", "gap"]
    arms = [arm for arm in (*CONTRASTIVE, "simple", "hard simple") if arm in report["arms"]]
    if not arms:  # of a sweep
        return study.default_figures(report)
    return {
        "temperature": study.trends(report, names, by_temperature, xlabel="temperature", log=True),
        "training": study.curves(report, [f"{name} over steps" for name in names], arms, xlabel="quarter of training"),
    }


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures, vmap=True)
