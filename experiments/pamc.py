"""Efficient block contrastive learning via parameter-free meta-node approximation (2022; arXiv 2209.14067).

Nodes of a graph are clustered by an auto-encoder whose embeddings are drawn towards their neighbours' and pushed away from all others'. All pairs
cost O(N^2); here the negatives are pairs of K "meta-nodes" instead, the sums of each cluster's embeddings: O(E + K^2). Shown on 8x8 digits, whose
nearest neighbours are the graph: what it scores beside the full loss, what a step costs, and where it fails (meta-nodes that follow a weak clustering
term). Real graphs are `connectome`, the nerve cells of a fruit fly larva, and `debian`, packages that depend on each other, where apt has its index.

In full it takes the sets that the paper shares with SDCN from a folder, `DIR/sdcn/`:
    usps.txt        a row of numbers a node: its features
    usps_label.txt  an integer a row
    usps_graph.txt  two nodes a row, 0, 1, ...; where there is no such file, the graph is that of the nearest neighbours

    python experiments/pamc.py --workers
    python experiments/pamc.py --arm pamc --arm full --set data=connectome --set data=debian --set widths=200 --set neighbours=0
    python experiments/pamc.py --full --data-dir DIR
    python experiments/pamc.py --full --set data=acm --set alpha=0.5 --set beta=0.5 --set order=1 --set temperature=2.0 --data-dir DIR
"""

import dataclasses
import time
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import core, data, encoders, losses, metrics, samplers, study, train


@train.config
class Config:
    contrast: Literal["pamc", "full", "positives", "none"] = "pamc"  # full: all pairs; positives: no negatives at all
    alpha: float = 0.5  # weight of the contrast
    beta: float = 5.0  # weight of the clusters' divergence
    temperature: float = 0.5  # the paper's tau is its inverse
    order: int = 2  # steps to the farthest neighbours
    cumulative: bool = True  # all neighbours up to them
    refresh: int | None = None  # K-means anew every so many epochs says who is in a meta-node; None: the soft clusters do
    data: str = "digits"  # or "connectome", "debian", or the name of files in the folder
    neighbours: int = 5  # of the graph of the nearest; not used where the data set has a graph
    widths: tuple[int, ...] = (128, 64)
    features: int = 10
    pretraining: int = 1200  # steps of the auto-encoder
    pretraining_rate: float = 1e-3
    batch: int = 256
    learning_rate: float = 2e-4
    epochs: int = 120  # a step each
    timed: bool = False  # only what a step costs


CHARGE = dict(alpha=1.0, beta=0.1, learning_rate=1e-3, epochs=250)  # the contrast, not the soft clusters, is in charge
ARMS = {
    "pamc": Config(),
    "full": Config(contrast="full"),
    "positives": Config(contrast="positives"),
    "clusters alone": Config(contrast="none"),
    "auto-encoder": Config(contrast="none", epochs=0),
    "pamc in charge": Config(**CHARGE),
    "full in charge": Config(contrast="full", **CHARGE),
    "refreshed in charge": Config(refresh=10, **CHARGE),
    "balanced": Config(**CHARGE | dict(alpha=0.1, beta=1.0)),
    "cost": Config(timed=True),
}


def graph(config):
    """Features, labels, and the influence of nodes on each other."""
    if config.data == "digits":
        features, labels, pairs = *data.load("digits"), None
        features = np.asarray(features).reshape(len(features), -1)
    elif config.data == "connectome":
        synapses, labels = (np.asarray(part) for part in data.load("connectome"))
        features, pairs = np.log1p(np.concatenate([synapses, synapses.T], axis=1)), np.stack(np.nonzero(synapses))
    else:
        features, labels, pairs = data.package_graph() if config.data == "debian" else data.graph(data.root() / "sdcn" / config.data)
    rows, columns = samplers.knn_graph(features, config.neighbours)[:2] if pairs is None else pairs
    edges = samplers.influence(rows, columns, len(features), config.order, cumulative=config.cumulative, multiple=jax.device_count())
    return jnp.asarray(features), np.asarray(labels), edges


# The auto-encoder.


def reconstruct(model, params, batch, key):
    _, back = model.apply(params, batch["features"], reconstruct=True)
    return losses.mean((back - batch["features"]) ** 2, axis_name="data"), {}


# Clusters.


def objective(params, encoder, config, members, batch):
    z = encoder.apply(params["encoder"], batch["features"])
    soft = losses.student_t_assign(z, params["centres"])
    target = losses.target_distribution(soft, where=batch["where"], axis_name="data")
    values = config.beta * losses.dec_kl(soft, target)
    if config.contrast != "none":
        edges = batch["rows"], batch["columns"], batch["weights"]
        how = dict(temperature=config.temperature, where=batch["where"], axis_name="data")
        labels = jnp.argmax(soft, axis=1) if config.refresh is None else members[batch["index"]]
        if config.contrast == "full":
            contrast = losses.graph_info_nce(z, *edges, **how)
        elif config.contrast == "positives":  # one meta-node repels nothing
            contrast = losses.meta_node_contrast(z, jnp.zeros_like(labels), *edges, num_clusters=1, **how)
        else:
            contrast = losses.meta_node_contrast(z, labels, *edges, num_clusters=soft.shape[1], **how)
        values += config.alpha * contrast
    return losses.mean(values, batch["where"], axis_name="data")


def step(encoder, config, state, batch, key):
    value, grads = jax.value_and_grad(objective)(state["params"], encoder, config, state["members"], batch)
    params, opt = train.descend(optax.adam(config.learning_rate), grads, state["params"], state["opt"], axis_name="data")
    return state | {"params": params, "opt": opt}, {"loss": value}


def whole(key, arrays, t):
    """The whole graph in every step."""
    return arrays


def refresh(encoder, features, key, state):
    """Meta-nodes anew, by K-means from where they were."""
    z = core.safe_normalize(encoder.apply(state["params"]["encoder"], features))
    size = jax.ops.segment_sum(z, state["members"], len(state["params"]["centres"]))
    count = jax.ops.segment_sum(jnp.ones(len(z)), state["members"], len(size))
    found = core.kmeans(key, z, len(size), centres=size / jnp.maximum(count, 1)[:, None])
    return state | {"members": found.labels}, {}


def scores(found, labels):
    """What unnamed clusters are worth: accuracy and macro F1 under the best matching with the classes, NMI, ARI."""
    from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score

    found, labels = np.asarray(found), np.asarray(labels)
    named = metrics.match_clusters(found, labels)
    return {
        "accuracy": np.mean(named == labels),
        "NMI": normalized_mutual_info_score(labels, found),
        "ARI": adjusted_rand_score(labels, found),
        "F1": f1_score(labels, named, labels=np.unique(labels), average="macro", zero_division=0),
    }


@partial(jax.jit, static_argnums=0)
def clusters(encoder, params, features, key):
    """The soft clusters' and those of K-means on the directions of the embeddings."""
    z = encoder.apply(params["encoder"], features)
    k = len(params["centres"])
    return jnp.argmax(losses.student_t_assign(z, params["centres"]), axis=1), core.kmeans(key, core.safe_normalize(z), k, restarts=5).labels


def evaluate(encoder, features, labels, key, state):
    soft, directions = clusters(encoder, state["params"], features, key)
    return state, scores(soft, labels) | {f"{name} of directions": value for name, value in scores(directions, labels).items()}


def cost(encoder, config, state, batch):
    """What a step costs with each contrast, in ms of all cores together, so that it doesn't hang on how many are free: the least of ten in turns."""
    mesh, programs, best = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)), {}, {}
    specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=(jax.P(), jax.P()), check_vma=False)
    for contrast in ("none", "pamc", "full"):
        one = partial(step, encoder, dataclasses.replace(config, contrast=contrast))
        programs[contrast], best[contrast] = jax.jit(jax.shard_map(one, mesh=mesh, **specs)), np.inf
    for turn in range(11):
        for contrast, program in programs.items():
            start = time.process_time()
            jax.block_until_ready(program(state, batch, jax.random.key(0)))
            best[contrast] = min(best[contrast], 1e3 * (time.process_time() - start)) if turn else np.inf
    return {f"ms a step, {name}": value for name, value in best.items()} | {"full / pamc": best["full"] / best["pamc"]}


def run(config, key, fit=train.fit):
    k_init, k_pretrain, k_means, k_fit = jax.random.split(key, 4)
    features, labels, edges = graph(config)
    model, encoder = encoders.Autoencoder(config.widths, config.features), encoders.MLP(config.widths, config.features)
    params = jax.jit(model.init)(k_init, features[:1])
    batches = train.draws({"features": features}, min(config.batch, len(features)))
    how = dict(optimiser=partial(optax.adam, config.pretraining_rate), steps=config.pretraining, name="auto-encoder", shared=True, fit=fit)
    params, _ = train.minimise(k_pretrain, partial(reconstruct, model), params, batches, **how)
    weights = {"params": params["params"]["encoder"]}
    found = core.kmeans(k_means, encoder.apply(weights, features), len(np.unique(labels)), restarts=20)
    params = {"encoder": weights, "centres": found.centres}
    state = {"params": params, "opt": optax.adam(config.learning_rate).init(params), "members": found.labels}
    if config.epochs == 0:
        return evaluate(encoder, features, labels, k_fit, state)[1]
    fill = -len(features) % jax.device_count()  # nodes are shared out evenly among the devices
    index = jnp.arange(len(features) + fill) % len(features)
    batch = {"features": features[index], "index": index, "where": jnp.arange(len(index)) < len(features)} | edges._asdict()
    if config.timed:
        return cost(encoder, config, state, batch)
    hooks = [(-(-config.epochs // 6), partial(evaluate, encoder, features, labels))]
    if config.refresh is not None:
        hooks.append((config.refresh, partial(refresh, encoder, features)))
    state, history = fit(k_fit, state, partial(step, encoder, config), train.draws(batch, whole), steps=config.epochs, after=tuple(hooks))
    curves = {name: curve for name, curve in history.items() if name != "loss"}
    last = {name: curve[-1] for name, curve in curves.items()}
    best = {"best accuracy, by the labels": np.max(curves["accuracy"])}  # what the official code reports
    return last | best | {f"{name} over epochs": curves[name] for name in ("accuracy", "NMI")}


PAIR, TRUTH = ("pamc", "full"), ("accuracy", "NMI")
DIRECTIONS = "accuracy of directions"
CLAIMS = [
    *(study.Claim(f"{name}: meta-nodes do as well as all pairs", study.gain(name, *PAIR), at_least=-0.03, at_most=0.03) for name in TRUTH),
    *(study.Claim(f"{name}: {arm} keeps what K-means had", study.gain(name, arm, than="auto-encoder")) for arm in PAIR for name in TRUTH),
    study.Claim("a step with all pairs takes three times as long as one with meta-nodes", lambda arms: arms["cost"]["full / pamc"], at_least=3.0),
    study.Claim("in charge, meta-nodes fall behind all pairs", study.gain("accuracy", "full in charge", than="pamc in charge")),
    study.Claim("so they do by directions", study.gain(DIRECTIONS, "full in charge", than="pamc in charge"), expected=0.3),
    study.Claim("a clustering term of ten times the weight holds them", study.gain("accuracy", "balanced", than="pamc in charge"), expected=0.3),
    study.Claim("meta-nodes that K-means refreshes do better", study.gain(DIRECTIONS, "refreshed in charge", than="pamc in charge")),
]

FULL = Config(
    alpha=2.0,
    beta=2.0,
    temperature=2.0,
    order=4,
    data="usps",
    neighbours=3,
    widths=(500, 500, 2000),
    pretraining=1800,  # 50 epochs; the official runs load published weights
    learning_rate=1e-3,
    epochs=200,
)


def figures(report):
    arms = [arm for arm in report["arms"] if arm != "cost"]
    if not arms:
        return study.default_figures(report)
    return {
        "scores": study.scores(report, ["accuracy", "NMI", "ARI", DIRECTIONS], arms),
        "epochs": study.curves(report, ["accuracy over epochs", "NMI over epochs"], xlabel="sixth of the epochs"),
    }


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
