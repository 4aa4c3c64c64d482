"""Generation in one compiled loop against PyTorch eager with a cache, on the same weights and threads; and filters of logits against one sort.

    python benchmarks/generation.py [--rounds 3] [--vocabulary 50257]

Tokens a second of contrastive search (k = 5, alpha = 0.6), typical sampling (0.9) and greedy decoding, at the size of the experiments' language
model and at a larger one; the time of the first call, nearly all compilation, stands apart. The peer is the same decoder written in PyTorch, with the
released codes' loops; where PyTorch is not installed, it is named. Tokens of the two may part where two candidates are equally good to rounding.
Filters run on 8 rows of logits; the sort is XLA's, and beside it PyTorch's.

"One device a core" is the same function under `jax.shard_map`, the prompts split over devices of which JAX counts one for each core of the processor
(`jax_num_cpu_devices`): a step of a small model is too short to be shared among cores in any other way.

The least of several rounds in turns, in one process. Other work on the same machine changes the ratios: they are indicative there.
"""

import argparse
import importlib.util
import os
import time
from functools import partial

import jax
import jax.numpy as jnp
import measure
import numpy as np

from cljax import decoding, encoders

K, ALPHA, MASS = 5, 0.6, 0.9
SIZES = {  # name: (V, D, layers, heads, prompts, tokens of a prompt, tokens written)
    "small (2 layers of width 64, 1000 words), 32 prompts": (1000, 64, 2, 4, 32, 24, 40),
    "larger (4 layers of width 256, 8000 words), 16 prompts": (8000, 256, 4, 8, 16, 32, 32),
}


class Peer:
    """The decoder in PyTorch, from the parameters of ours."""

    def __init__(self, params, heads):
        import torch

        self.heads = heads
        self.weights = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), params["params"])
        self.blocks = [self.weights[f"block_{i}"] for i in range(sum(name.startswith("block") for name in self.weights))]

    def __call__(self, ids, cache=None):
        """States, logits and the cache: of each block the keys and the values, `[B, H, S, d]`."""
        import torch
        from torch.nn import functional as F

        def norm(x, weights):
            return F.layer_norm(x, x.shape[-1:], weights["scale"], weights["bias"], 1e-5)

        def dense(x, weights):
            return torch.addmm(weights["bias"], x.flatten(0, -2), weights["kernel"]).view(*x.shape[:-1], -1)

        past, kept = 0 if cache is None else cache[0][0].shape[2], []
        x = self.weights["tokens"][ids] + self.weights["positions"][past : past + ids.shape[1]]
        for number, block in enumerate(self.blocks):
            parts = dense(norm(x, block["attention_norm"]), block["query_key_value"]).chunk(3, dim=-1)
            queries, keys, values = (part.view(*ids.shape, self.heads, -1).transpose(1, 2) for part in parts)
            if cache is not None:
                keys, values = (torch.cat([old, new], dim=2) for old, new in zip(cache[number], (keys, values), strict=True))
            kept.append((keys, values))
            mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=cache is None)
            x = x + dense(mixed.transpose(1, 2).flatten(2), block["attention"])
            x = x + dense(F.gelu(dense(norm(x, block["perceptron_norm"]), block["hidden"]), approximate="tanh"), block["perceptron"])
        x = norm(x, self.weights["norm"])
        return x, x @ self.weights["tokens"].T, kept

    def greedy(self, prompt, steps):
        return self.written(prompt, steps, lambda z: z.argmax(dim=-1, keepdim=True))

    def typical(self, prompt, steps):
        import torch

        return self.written(prompt, steps, lambda z: torch.multinomial(torch.softmax(typical_there(z), dim=-1), 1))

    def written(self, prompt, steps, choose):
        import torch

        _, logits, cache = self(prompt)
        found = []
        for t in range(steps):
            found.append(choose(logits[:, -1]))
            if t < steps - 1:
                _, logits, cache = self(found[-1], cache)
        return torch.cat(found, dim=1)

    def contrastive(self, prompt, steps):
        import torch

        context, logits, cache = self(prompt)
        rows, found, logits = torch.arange(len(prompt)), [], logits[:, -1]
        context = torch.nn.functional.normalize(context, dim=-1)
        for _ in range(steps):
            chances, ids = torch.softmax(logits, dim=-1).topk(K, dim=-1)
            wide = [tuple(part.repeat_interleave(K, dim=0) for part in pair) for pair in cache]
            states, logits, wide = self(ids.reshape(-1, 1), wide)
            states = torch.nn.functional.normalize(states.view(len(prompt), K, -1), dim=-1)
            penalty = (states @ context.transpose(1, 2)).amax(dim=-1)
            best = ((1 - ALPHA) * chances - ALPHA * penalty).argmax(dim=-1)
            chosen = rows * K + best
            cache, logits = [tuple(part[chosen] for part in pair) for pair in wide], logits[chosen, -1]
            context = torch.cat([context, states[rows, best][:, None]], dim=1)
            found.append(ids[rows, best])
        return torch.stack(found, dim=1)


def typical_there(logits):
    """The filter as the released code has it."""
    import torch

    logs = torch.log_softmax(logits, dim=-1)
    shares = logs.exp()
    distance = (-logs + (logs * shares).nansum(-1, keepdim=True)).abs()
    ordered, places = torch.sort(distance)
    last = ((shares.gather(-1, places).cumsum(dim=-1) < MASS).sum(dim=-1, keepdim=True)).clamp(max=logits.shape[-1] - 1)
    return logits.masked_fill(distance > ordered.gather(-1, last), float("-inf"))


def writing(name, size, rounds, torch):
    vocabulary, width, layers, heads, rows, length, steps = size
    model = encoders.Decoder(vocabulary, width, layers=layers, heads=heads, max_length=length + steps)
    prompt = np.random.default_rng(0).integers(0, vocabulary, (rows, length))
    # Wider than at first, so that some tokens are likely, as after training.
    params = jax.tree.map(lambda leaf: leaf * 2 if leaf.ndim > 1 else leaf, jax.jit(model.init)(jax.random.key(0), prompt))
    how = dict(steps=steps, head=model.head)

    def contrastive(params, prompt, index):
        return decoding.contrastive_search(model.apply, params, prompt, k=K, alpha=ALPHA, **how)

    def drawn(params, prompt, index):
        return decoding.generate(jax.random.key(1), model.apply, params, prompt, filter=decoding.typical(MASS), index=index, **how)

    def greedy(params, prompt, index):
        return decoding.generate(None, model.apply, params, prompt, greedy=True, **how)

    inputs, kinds = (params, prompt, np.arange(rows)), {"contrastive search": contrastive, "typical sampling": drawn, "greedy": greedy}
    ours = {kind: partial(jax.jit(write), *inputs) for kind, write in kinds.items()}
    if jax.device_count() > 1:
        inputs = measure.shared(params), *measure.shared(inputs[1:], ["data"])
        split = partial(jax.shard_map, mesh=measure.mesh(), in_specs=(jax.P(), jax.P("data"), jax.P("data")), out_specs=jax.P("data"))
        ours |= {f"{kind}, one device a core": partial(jax.jit(split(write)), *inputs) for kind, write in kinds.items()}
    first = {}
    for kind, run in ours.items():
        start = time.perf_counter()
        jax.block_until_ready(run())
        first[kind] = time.perf_counter() - start
    theirs = {}
    if torch:
        peer, there = Peer(params, heads), torch.tensor(prompt)
        loops = {"contrastive search": peer.contrastive, "typical sampling": peer.typical, "greedy": peer.greedy}
        theirs = {f"{kind}, there": torch.inference_mode()(partial(loop, there, steps)) for kind, loop in loops.items()}
        difference = np.abs(model.apply(params, prompt)[1] - peer(there)[1].numpy()).max()
        same = [np.mean(np.asarray(ours[kind]().tokens) == theirs[f"{kind}, there"]().numpy()) for kind in ("greedy", "contrastive search")]
        what = f"{name}: largest difference of a logit; greedy and contrastive tokens that are PyTorch's"
        measure.row(what, f"{difference:.1e}; {100 * same[0]:.1f} and {100 * same[1]:.1f} %", "<= 1e-4", difference <= 1e-4)
    times = measure.seconds(ours | theirs, rounds)
    for kind in ours:
        what = f"{name}, {kind}: tokens a second"
        rate = f"{rows * steps / times[kind]:.0f}; first call {first[kind]:.1f} s"
        if not torch:
            measure.row(what, f"{rate}; nothing to compare with: torch not installed")
            continue
        ratio = times[f"{kind.split(',')[0]}, there"] / times[kind]
        target = ">= 3" if name.startswith("small") and "greedy" not in kind else ""
        measure.row(f"{what} / PyTorch's", f"{ratio:.1f} ({rate})", target, ratio >= 3 if target else None)


def filtering(vocabulary, rounds, torch, rows=8):
    logits = jax.random.normal(jax.random.key(0), (rows, vocabulary)) * 3
    filters = {
        "top_k(40)": decoding.top_k(40),
        "top_p(0.9)": decoding.top_p(0.9),
        "typical(0.9)": decoding.typical(MASS),
        "plausibility(0.1)": decoding.plausibility(0.1),
        "temperature, top_k, top_p and typical": decoding.compose(
            decoding.temperature(0.7), decoding.top_k(1000), decoding.top_p(0.95), decoding.typical(MASS)
        ),
    }
    call = jax.jit(lambda filter, logits: filter(logits))
    runs = {name: partial(call, filter, logits) for name, filter in filters.items()} | {"sort": partial(jax.jit(jnp.sort), logits)}
    if torch:
        there = torch.tensor(np.asarray(logits))
        runs |= {"sort, there": partial(torch.sort, there), "typical, there": partial(typical_there, there)}
    times = measure.seconds(runs, rounds)
    for name in filters:
        ratio = times[name] / times["sort"]
        beside = f"; {times[name] / times['sort, there']:.2f} of PyTorch's sort" if torch else ""
        measure.row(
            f"{name} of {rows} x {vocabulary}: time / one sort's", f"{ratio:.2f} ({1e3 * times[name]:.1f} ms{beside})", "<= 1.5", ratio <= 1.5
        )
    if torch:
        measure.row("typical: time / that of the released code in PyTorch", f"{times['typical(0.9)'] / times['typical, there']:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 3), ("vocabulary", 50_257)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch = None
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(os.cpu_count())
    measure.begin(one_a_core=True)
    for name, size in SIZES.items():
        writing(name, size, options.rounds, torch)
    filtering(options.vocabulary, options.rounds, torch)


if __name__ == "__main__":
    main()
