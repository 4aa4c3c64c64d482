"""Losses on `cljax.pairwise`, value and gradient with temperature: time, memory and exactness against named alternatives.

    python benchmarks/pairwise.py [--rounds 5] [--small]

Times are the least of several rounds in turns in one process; a share is that of the time which 8 B^2 D operations (the scores made once forward and
once backward, two products for the gradients) would take at the rate of products measured in the same run. "One device a core" is the same loss under
`jax.shard_map` with `collective="ring"`, where JAX counts every core of the processor as a device (`jax_num_cpu_devices`), so that none waits for the
others after every operation. Memory is the compiled program's own figure for temporaries. PyTorch is a peer where it is installed.
"""

import argparse
import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax
from jax import lax

from cljax import losses
from cljax.pairwise import engine

TEMPERATURE = 0.07
PLACES = {"ours": "", "split": ", one device a core"}


def plain(a, b, temperature):
    """Plain XLA: one matrix of scores for both directions, differentiated by JAX."""
    a, b = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    scores = a @ b.T / temperature
    return jnp.mean(jax.nn.logsumexp(scores, 1) + jax.nn.logsumexp(scores, 0) - 2 * jnp.diagonal(scores)) / 2


def mean_of(loss, a, b, temperature, **options):
    found = loss(a, b, temperature=temperature, **options)
    return found if jnp.ndim(found) == 0 else losses.mean(found)


two_way = partial(mean_of, losses.symmetric_info_nce)


def labels(batch):
    return jnp.arange(batch) % (batch // 4)


def sup_con(a, b, temperature, **options):
    both = jnp.concatenate([a, b])
    return losses.mean(losses.sup_con(both, jnp.tile(labels(len(a)), 2), temperature=temperature, **options))


def uniformity(a, b, temperature, **options):
    return losses.uniformity(jnp.concatenate([a, b]), t=1 / temperature, **options)


def sigmoid(a, b, temperature, **options):
    return losses.mean(losses.sigmoid_contrastive(a, b, temperature=temperature, bias=-10.0, **options))


def labelled(combine, a, b, temperature, **options):
    return losses.mean(losses.multi_positive_info_nce(a, b, labels(len(a)), temperature=temperature, combine=combine, **options))


# Of B queries and B keys: as many pairs as two-way InfoNCE.
ONE_PASS = {
    "info_nce": partial(mean_of, losses.info_nce),
    "multi_positive_info_nce": partial(labelled, "outside"),
}
TWO_PASSES = {"multi_positive_info_nce, apart": partial(labelled, "apart")}
# Of one set of 2B: four times the pairs, half of which are the other half's mirror image.
ONE_SET = {
    "nt_xent": partial(mean_of, losses.nt_xent),
    "decoupled_info_nce": partial(mean_of, losses.decoupled_info_nce),
    "sup_con": sup_con,
    "uniformity": uniformity,
}


def inputs(batch, width):
    return *jax.random.normal(jax.random.key(0), (2, batch, width)), jnp.float32(TEMPERATURE)


def program(function, shape, **options):
    return measure.compiled(jax.value_and_grad(partial(function, **options), (0, 1, 2)), *inputs(*shape))


def split(mesh, collective, **options):
    """Two-way InfoNCE over all devices of the mesh."""

    def mean(a, b, temperature):
        how = dict(temperature=temperature, axis_name="data", collective=collective, **options)
        return losses.mean(losses.symmetric_info_nce(a, b, **how), axis_name="data")

    return jax.shard_map(mean, mesh=mesh, in_specs=(jax.P("data"), jax.P("data"), jax.P()), out_specs=jax.P())


def one_a_core(shape):
    """Two-way InfoNCE split over all devices, as `times` takes others; nothing where there is but one device."""
    if jax.device_count() == 1:
        return {}
    a, b, temperature = inputs(*shape)
    found = *measure.shared((a, b), ["data"]), measure.shared(temperature)
    return {"split": partial(measure.compiled(jax.value_and_grad(split(measure.mesh(), "ring"), (0, 1, 2)), *found), *found)}


def times(programs, shape, rounds, others=()):
    found = inputs(*shape)
    return measure.seconds({name: partial(run, *found) for name, run in programs.items()} | dict(others), rounds)


def megabytes(run):
    return run.memory_analysis().temp_size_in_bytes / 1e6


def rate(width, rounds):
    """Operations a second of products of 1024 rows and columns in a compiled loop."""
    size, repeats = 1024, 16
    a, b = jax.random.normal(jax.random.key(1), (2, size, width))

    def loop(a, b):
        return lax.fori_loop(0, repeats, lambda i, total: total + (a + i.astype(a.dtype)) @ b.T, jnp.zeros((size, size)))

    run = measure.compiled(loop, a, b)
    return repeats * 2 * size**2 * width / measure.seconds({"products": partial(run, a, b)}, rounds)["products"]


def torch_two_way(shape):
    import torch

    a, b, temperature = (torch.tensor(np.asarray(x), requires_grad=True) for x in inputs(*shape))

    def run():
        scores = torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T / temperature
        own = torch.arange(len(a))
        loss = (torch.nn.functional.cross_entropy(scores, own) + torch.nn.functional.cross_entropy(scores.T, own)) / 2
        return [np.asarray(gradient) for gradient in torch.autograd.grad(loss, (a, b, temperature))]

    return run


def large(shape, rounds):
    """Two-way InfoNCE where the scores are worth not holding."""
    batch, width = shape
    programs = {"plain": program(plain, shape), "ours": program(two_way, shape)}
    peers = {"torch": torch_two_way(shape)} if importlib.util.find_spec("torch") else {}
    found = times(programs, shape, rounds, peers | one_a_core(shape))
    limit, what = 8 * batch**2 * width / rate(width, rounds), f"two-way InfoNCE {shape}"
    for name in [name for name in PLACES if name in found]:
        share = limit / found[name]
        measure.row(f"{what}{PLACES[name]}: share of 8 B²D", f"{share:.2f} ({1e3 * found[name]:.0f} ms)", ">= 0.85", share >= 0.85)
        ratio = found[name] / found["plain"]
        measure.row(f"{what}{PLACES[name]}: time / plain XLA's", f"{ratio:.2f}", "<= 0.88", ratio <= 0.88)
    if peers:
        ratio = found["ours"] / found["torch"]
        measure.row(f"{what}: time / PyTorch's two cross-entropies", f"{ratio:.2f}", "<= 0.3", ratio <= 0.3)
    else:
        measure.row(f"{what}: time / PyTorch's two cross-entropies", "PyTorch is not installed", "<= 0.3")
    ratio = megabytes(programs["ours"]) / megabytes(programs["plain"])
    measure.row(f"{what}: memory / plain XLA's", f"1/{1 / ratio:.0f} ({megabytes(programs['ours']):.0f} MB)", "<= 1/20", ratio <= 1 / 20)


def small(shape, rounds):
    found = times({"plain": program(plain, shape), "ours": program(two_way, shape)}, shape, rounds, one_a_core(shape))
    for name in [name for name in PLACES if name in found]:
        ratio = found[name] / found["plain"]
        what = f"two-way InfoNCE {shape}{PLACES[name]}: time / plain XLA's"
        measure.row(what, f"{ratio:.2f} ({1e3 * found[name]:.1f} ms)", "<= 0.9", ratio <= 0.9)


def family(shape, rounds):
    """The other losses against two-way InfoNCE of the same number of pairs, all block by block."""
    how = dict(implementation="blockwise")
    group = ONE_PASS | TWO_PASSES | {"sigmoid_contrastive": sigmoid}
    programs = {"two-way": program(two_way, shape, **how)} | {name: program(loss, shape, **how) for name, loss in group.items()}
    found = times(programs, shape, rounds)
    for name in group:
        limit = 2.2 if name in TWO_PASSES else 1.25 if name == "sigmoid_contrastive" else 1.15
        ratio, memory = found[name] / found["two-way"], megabytes(programs[name])
        measure.row(f"{name} {shape}: time / two-way InfoNCE's", f"{ratio:.2f} ({memory:.0f} MB)", f"<= {limit}", ratio <= limit)


def one_set(shape, rounds):
    """Losses whose queries are their own keys, against the same with all blocks made: half of the blocks do."""
    mirrored = {name: program(loss, shape, implementation="blockwise") for name, loss in ONE_SET.items()}
    reduce = engine.blockwise.reduce

    def every_block(queries, keys, terms, rows, columns, *rest, **options):
        return reduce(queries, queries if keys is None else keys, terms, rows, rows if keys is None else columns, *rest, **options)

    engine.blockwise.reduce = every_block
    whole = {f"{name}, all blocks": program(loss, shape, implementation="blockwise") for name, loss in ONE_SET.items()}
    engine.blockwise.reduce = reduce
    found = times(mirrored | whole, shape, rounds)
    for name in ONE_SET:
        ratio = found[name] / found[f"{name}, all blocks"]
        measure.row(f"{name} of 2 x {shape}: time / that of all blocks", f"{ratio:.2f} ({1e3 * found[name]:.0f} ms)", "<= 0.7", ratio <= 0.7)


def against_optax(shape, rounds):
    def ntxent(a, b, temperature):
        return optax.losses.ntxent(jnp.concatenate([a, b]), jnp.tile(jnp.arange(len(a)), 2), temperature=temperature)

    programs = {"optax": program(ntxent, shape), "ours": program(ONE_SET["nt_xent"], shape)}
    found = times(programs, shape, rounds)
    memory = " and ".join(f"{megabytes(run):.0f} MB" for run in programs.values())
    measure.row(f"nt_xent {shape}: time / optax.losses.ntxent's", f"{found['ours'] / found['optax']:.3f} ({memory} there and here)")


def exactness(shape):
    """The worst error of a gradient, relative to its largest entry, against the same loss of float64 inputs with the scores held."""
    group = {"symmetric_info_nce": two_way, "sigmoid_contrastive": sigmoid} | ONE_PASS | TWO_PASSES | ONE_SET
    double = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    for name, loss in group.items():
        errors, ours = [], program(loss, shape, implementation="blockwise", block_size=128)
        with double(True):
            wide = jax.jit(jax.grad(partial(loss, implementation="dense"), (0, 1, 2)))
        for temperature in (1.0, 0.07, 0.01):
            a, b, _ = inputs(*shape)
            found = ours(a, b, jnp.float32(temperature))[1]
            with double(True):
                exact = [np.asarray(gradient) for gradient in wide(*(np.asarray(x, np.float64) for x in (a, b, np.float32(temperature))))]
                assert exact[0].dtype == np.float64
            errors.append(max(map(measure.error, found, exact)))
        result = ", ".join(f"{error:.0e}" for error in errors)
        measure.row(f"{name}: error of its gradients at temperature 1, 0.07, 0.01", result, "<= 1e-3", max(errors) <= 1e-3)


def shares(shape, rounds):
    """Where the time of two-way InfoNCE goes: products and exponentials at the rates of a loop that does nothing else."""
    batch, width = shape
    block = jax.random.normal(jax.random.key(2), (1024, 1024))

    def exponentials(block):
        return lax.fori_loop(0, 16, lambda i, total: total + jnp.sum(jnp.exp(block - i.astype(block.dtype)), axis=1), jnp.zeros(1024))

    alone = measure.seconds({"exp": partial(measure.compiled(exponentials, block), block)}, rounds)["exp"] / 16 / block.size
    whole = times({"whole": program(two_way, shape, implementation="blockwise")}, shape, rounds)["whole"]
    products, exponentials = 8 * batch**2 * width / rate(width, rounds) / whole, 2 * batch**2 * alone / whole  # one a pair in either pass
    rest = 1 - products - exponentials
    measure.row(f"two-way InfoNCE {shape}: shares of the time", f"products {products:.2f}, exponentials {exponentials:.2f}, the rest {rest:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="an eighth of each batch: whether all runs")
    options = parser.parse_args()
    shrink, rounds = 8 if options.small else 1, options.rounds
    measure.begin(one_a_core=True)
    large((8192 // shrink, 256), rounds)
    small((4096 // shrink, 256), 2 * rounds)
    small((1024 // shrink, 128), 10 * rounds)
    memory = megabytes(program(two_way, (65536 // shrink, 128)))
    measure.row(f"two-way InfoNCE {(65536 // shrink, 128)}: memory", f"{memory:.0f} MB", "< 64 MB", memory < 64)
    shares((8192 // shrink, 256), rounds)
    family((8192 // shrink, 256), rounds)
    one_set((4096 // shrink, 256), rounds)
    against_optax((512 // shrink, 64), max(1, rounds // 2))
    exactness((256, 32))


if __name__ == "__main__":
    main()
