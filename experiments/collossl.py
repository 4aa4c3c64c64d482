"""ColloSSL: Collaborative Self-Supervised Learning for Human Activity Recognition (Jain et al., IMWUT 2022; arXiv 2202.00758).

Several sensors on a body record the same movement: the window of another device at the same time is a positive, windows of other devices at other
times are negatives. Which device is near enough to be the positive, and how much each negative weighs, is said by the distance of their movements
(maximum mean discrepancy of magnitudes). The released code has the sign of the similarity turned round: the arm "sign -1".

Shown on generated movements of six activities, seen by five devices of falling use (gain, gravity, drift, noise), as no small package ships labelled
recordings of several positions; the distances of ankle, leg and trunk are measured on a real recording of one person (arm "recording"). In full it
takes recordings from a folder, `DIR/realworld_har/*.npz`, a file a person (`data.recordings`):
    signals  float32 [time, positions, 6], accelerometer x, y, z and gyroscope x, y, z of each position, at 50 Hz and aligned in time
    labels   int [time], the activity at each time: 0, 1, ...; a window of 3 s has that of its middle

    python experiments/collossl.py --workers
    python experiments/collossl.py --arm collossl --set distance=magnitude,axes --set negatives=all,positive,next --set draws=1,4
    python experiments/collossl.py --full --data-dir DIR
    python experiments/collossl.py --full --set anchor=0,1,2,3,4,5,6 --set temperature=0.05,0.1 --data-dir DIR
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from cljax import core, data, encoders, losses, metrics, samplers, study, train, views


@train.config
class Config:
    method: Literal["collossl", "simclr", "supervised", "random"] = "collossl"  # simclr on the anchor alone; random: an encoder that isn't trained
    positive: str = "closest"  # the positive device; also "farthest", "random"
    negatives: str = "all"  # the negative devices; also "positive" (that one alone), "next" (the second and the third closest)
    weighted: bool = True  # negatives by 1 / distance
    distance: str = "magnitude"  # or the mean over "axes"
    dynamic: bool = True  # distances of each batch; False: of the training set, once, and the anchor's own windows of other times are negatives too
    synchronous: bool = False  # negatives of the same time
    asynchronous: bool = False  # positives of another time
    draws: int = 1  # windows of each negative device
    sign: float = 1.0  # -1: as the released code
    temperature: float = 0.1
    data: str = "movements"  # generated ones; or "daphnet" (distances alone), or the name of a folder
    divisor: float = 1.0  # of a folder's signals
    anchor: int = 0
    windows: tuple[int, ...] = (3000, 2000, 1000)  # generated: without labels, with labels, to test on
    labels: tuple[float, ...] = (60, 200, 600, 2000)  # numbers of labels; from 1 down: shares of those that there are
    channels: tuple[int, ...] = (32, 48, 64)
    widths: tuple[int, ...] = (9, 7, 5)
    dropout: float = 0.0
    head: tuple[int, ...] = ()  # hidden layers of the classifier that is trained
    fine_tune: int | None = None  # convolutions that stay as they are while the others are trained with labels; None: logistic regression on features
    learning_rate: float = 1e-3
    decay: int | None = None  # steps of a cosine decay of the rate to 0
    batch: int = 64
    steps: int = 150
    label_batch: int = 64
    label_steps: int = 150


ARMS = {
    "collossl": Config(),
    "random encoder": Config(method="random"),
    "simclr": Config(method="simclr"),
    "supervised": Config(method="supervised"),
    "unweighted": Config(weighted=False),
    "random positive": Config(positive="random"),
    "farthest positive": Config(positive="farthest"),
    "synchronous": Config(synchronous=True),
    "sign -1": Config(sign=-1.0),
    "a priori": Config(dynamic=False),
    "longer": Config(steps=450),
    "recording": Config(data="daphnet"),
}


def split(config, key):
    """What is trained on, whose labels may be used, and what is tested on (of recordings a fifth of the people); the anchor is the first device."""
    if config.data == "movements":
        whole = data.movements(key, sum(config.windows))
        parts = np.split(np.arange(sum(config.windows)), np.cumsum(config.windows)[:-1])
    else:
        whole = data.recordings(data.root() / config.data)
        k_people, k_labels = jax.random.split(key)
        held_out = samplers.held_out_groups(k_people, whole.people, 0.2)
        known = np.flatnonzero(~held_out)
        parts = known, np.asarray(jax.random.permutation(k_labels, known)), np.flatnonzero(held_out)
    core.check.integer("anchor", config.anchor, at_least=0, at_most=whole.windows.shape[1] - 1)
    order = np.roll(np.arange(whole.windows.shape[1]), -config.anchor)
    arrays = whole._replace(windows=whole.windows[:, order] / config.divisor)._asdict()
    return [{name: jnp.asarray(array[part]) for name, array in arrays.items()} for part in parts]


def one_person(batches, size, key, arrays, t):
    """A batch from one person: `batches` of them are an epoch."""
    index = samplers.group_batches(arrays["key"], arrays["people"], size, t // batches)[0][t % batches]
    return {"windows": arrays["windows"][index], "index": index}


# What is learned.


def optimiser(config):
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.decay) if config.decay else config.learning_rate)


def embed(model, params, key, windows, index):
    """Embeddings in training, `[B, ..., E]`: what is dropped hangs on the example, not on where in the batch it stands."""
    return views.per_example(lambda k, window: model.apply(params, window, train=True, rngs={"dropout": k}), key, windows, index=index)


def collaborative(config, z, distances, key):
    """Each anchor `z[:, 0]` against the simultaneous embedding of the positive device and others of the negative ones: one value an anchor."""
    k_select, k_rows = jax.random.split(key)
    chosen = samplers.select_devices(distances, key=k_select, positive=config.positive, negatives=config.negatives, weighted=config.weighted)
    own = 0 if config.dynamic else 2 / jnp.min(distances) if config.weighted else 1  # as if it were half as far as the closest
    sources = np.repeat(np.arange(z.shape[1]), config.draws)
    rows = samplers.asynchronous(k_rows, len(z), len(sources), axis_name="data")
    everywhere = lax.all_gather(z, "data", tiled=True)
    negatives = z[:, sources] if config.synchronous else everywhere[rows.T, sources]
    other = samplers.asynchronous(jax.random.fold_in(k_rows, 1), len(z), 1, axis_name="data")[0]
    positives = everywhere[other, 1:] if config.asynchronous else z[:, 1:]
    weights = jnp.append(own, chosen.weights)[sources]
    options = dict(temperature=config.temperature, positive_weights=chosen.positive, negative_weights=weights)
    return losses.grouped_info_nce(config.sign * z[:, 0], positives, negatives, **options)


def objective(model, config, distances, params, batch, key):
    k_embed, k_loss = jax.random.split(key)
    windows, index = batch["windows"], batch["index"]
    if config.method == "simclr":
        a, b = (views.scaling(k, views.jitter(k, windows[:, 0], index=index), index=index) for k in jax.random.split(k_loss))
        z = embed(model, params, k_embed, jnp.stack([a, b], axis=1), index)
        values = losses.nt_xent(z[:, 0], z[:, 1], temperature=config.temperature, similarity="cosine", axis_name="data")
        return losses.mean(values, axis_name="data"), {}
    if config.dynamic:
        distances = samplers.device_distances(windows, 0, by=config.distance, axis_name="data")[1:]
    values = collaborative(config, embed(model, params, k_embed, windows, index), distances, k_loss)
    return losses.mean(values, axis_name="data"), {"closest": jnp.argmin(distances).astype(jnp.float32)}


# With labels.


def logits(model, held, params, windows, index, key):
    """Of windows of the anchor; the first `held` convolutions get no gradient."""
    names = [f"Conv_{i}" for i in range(held)]
    trunk = {name: lax.stop_gradient(leaf) if name in names else leaf for name, leaf in params["params"]["modules_0"].items()}
    params = {"params": params["params"] | {"modules_0": trunk}}
    return model.apply(params, windows) if key is None else embed(model, params, key, windows[:, None], index)[:, 0]


def trained_classifier(config, key, model, params, known, fit, name):
    """The encoder and a classifier, trained with labels; fine-tuned with a fifth of them held out for choosing the epoch."""
    k_init, k_fit = jax.random.split(key)
    whole, first = encoders.with_head(k_init, model, params, encoders.MLP(config.head, known["classes"]))
    held = 0 if config.method == "supervised" else config.fine_tune
    how = dict(steps=config.label_steps, batch=config.label_batch, learning_rate=config.learning_rate, fit=fit, name=name)
    how["held_out"] = 0.0 if config.fine_tune is None else 0.2
    return whole, train.classifier(k_fit, partial(logits, whole, held), first, known["windows"], known["labels"], **how)[0]


@partial(jax.jit, static_argnums=0)
def outputs(model, params, windows):
    return encoders.in_parts(partial(model.apply, params), windows)


def macro_f1(config, key, model, params, known, test, fit, name):
    if config.method == "supervised" or config.fine_tune is not None:
        from sklearn.metrics import f1_score

        predicted = jnp.argmax(outputs(*trained_classifier(config, key, model, params, known, fit, name), test["windows"]), axis=1)
        return f1_score(np.asarray(test["labels"]), np.asarray(predicted), average="macro")
    features, others = (outputs(model, params, part["windows"]) for part in (known, test))
    return metrics.linear_probe(others, test["labels"], features, known["labels"], standardise=True, measure="macro_f1")


distance_matrix = jax.jit(samplers.device_distances, static_argnames="by")


def recording(config, key):
    """Distances of the three positions of a real recording, from 128 of its windows of 3 s."""
    signal, _ = data.load(config.data)
    windows = jnp.moveaxis(signal[samplers.window(len(signal), 192, stride=32)], 1, 2)
    matrix = distance_matrix(jax.random.choice(key, windows, (128,), replace=False), by=config.distance)
    names = ("ankle and leg", "ankle and trunk", "leg and trunk")
    return {f"distance of {name}": matrix[pair] for name, pair in zip(names, ((0, 1), (0, 2), (1, 2)), strict=True)} | {"matrix": matrix.ravel()}


def run(config, key, fit=train.fit):
    k_data, k_init, k_fit, k_labels = jax.random.split(key, 4)
    if config.data == "daphnet":
        return recording(config, k_data)
    unlabelled, labelled, test = split(config, k_data)
    model = encoders.ConvNet1D(config.channels, config.widths, dropout=config.dropout)
    params = model.init(k_init, unlabelled["windows"][:1, 0])
    matrix = distance_matrix(unlabelled["windows"][:: max(1, len(unlabelled["windows"]) // 256)][:256], by=config.distance)
    results = {"matrix": matrix.ravel()} | {f"distance {i}": matrix[0, i] for i in range(1, len(matrix))}
    if config.method in ("collossl", "simclr"):
        batches = int(np.sum(np.unique(unlabelled["people"], return_counts=True)[1] // config.batch))
        if batches == 0:
            raise ValueError(f"batch must be at most the windows of the person with most of them, got {config.batch}")
        draw = train.draws(unlabelled | {"key": k_data}, partial(one_person, batches, config.batch))
        how = dict(optimiser=partial(optimiser, config), steps=config.steps, fit=fit)
        params, history = train.minimise(k_fit, partial(objective, model, config, matrix[0, 1:]), params, draw, **how)
        if "closest" in history:
            results["batches with that positive"] = np.mean(history["closest"] == np.argmin(matrix[0, 1:]))
    scores, anchor = [], {name: part["windows"][:, 0] for name, part in (("known", labelled), ("test", test))}
    classes = max(int(part["labels"].max()) for part in (labelled, test)) + 1
    for number in config.labels:
        count = int(number) if number > 1 else round(number * len(labelled["labels"]))
        known = {"windows": anchor["known"][:count], "labels": labelled["labels"][:count], "classes": classes}
        tested = {"windows": anchor["test"], "labels": test["labels"]}
        scores.append(macro_f1(config, k_labels, model, params, known, tested, fit, f"labels {number}"))
    return results | {f"f1 {number:g}": score for number, score in zip(config.labels, scores, strict=True)} | {"f1 over labels": np.array(scores)}


def ordered(results):
    """The least step from a device's distance to that of the next, which is of less use."""
    return np.diff([results["collossl"][f"distance {i}"] for i in (1, 2, 3, 4)]).min()


CLAIMS = [
    study.Claim("60 labels: ColloSSL beats the random encoder", study.gain("f1 60", "collossl", than="random encoder"), at_least=0.08),
    study.Claim("2000 labels: ColloSSL beats the random encoder", study.gain("f1 2000", "collossl", than="random encoder"), at_least=0.08),
    study.Claim("60 labels: the released sign is like the random encoder", study.gain("f1 60", "sign -1", than="random encoder"), -0.05, 0.05),
    study.Claim("2000 labels: the released sign is like the random encoder", study.gain("f1 2000", "sign -1", than="random encoder"), -0.05, 0.05),
    study.Claim("distances have the order of the devices' use", ordered),
    study.Claim("60 labels: ColloSSL trained longer reaches the supervised model", study.gain("f1 60", "longer", than="supervised")),
    study.Claim("2000 labels: synchronous negatives are worse", study.gain("f1 2000", "collossl", than="synchronous")),
    study.Claim("2000 labels: the farthest device as positive is worse", study.gain("f1 2000", "collossl", than="farthest positive")),
    study.Claim("2000 labels: devices teach more than views of one", study.gain("f1 2000", "collossl", than="simclr")),
]

PAPER = dict(data="realworld_har", divisor=30.0, temperature=0.05, labels=(0.1, 0.25, 0.5, 1.0), batch=512, steps=1000)  # then the rate is 0
PAPER |= dict(channels=(32, 64, 96), widths=(24, 16, 8), dropout=0.1, learning_rate=1e-4, decay=1000)
FULL = Config(head=(1024,), fine_tune=2, label_batch=32, label_steps=10000, **PAPER)


def figures(report):
    labels = study.curves(report, ["f1 over labels"], x=Config().labels, xlabel="labels", size=(8, 5))
    labels.axes[0].set_xscale("log")
    shown = {"generated, device 0 is the anchor": "collossl", "recorded": "recording"}
    shown = {title: arm for title, arm in shown.items() if arm in report["arms"]}
    return {"labels": labels, "distances": study.matrices(report, "matrix", shown, names={"recorded": ("ankle", "leg", "trunk")})}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
