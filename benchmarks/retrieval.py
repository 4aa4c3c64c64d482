"""A sentence encoder used for retrieval, against the libraries that are usually taken for it; and the gradient cache used for real.

    python benchmarks/retrieval.py [--texts 512] [--batch 32] [--rounds 3] [--pairs 2048] [--keys 262144]

(a) Texts a second of all-MiniLM-L6-v2, from strings to embeddings and from tokens to embeddings, and (b) a contrastive step of it (forward and
backward pass, AdamW), against sentence-transformers and plain transformers on PyTorch: the same weights, texts, batches and threads. (c) Exact search
of its embeddings' width against faiss flat. What is not installed is named. (d) One contrastive gradient of 2048 pairs and a transformer of two
layers in the memory of one chunk: what the process really takes, beside what the compiled program of the plain gradient would take.

The least of several rounds in turns, in one process. Other work on the same machine changes the ratios: they are indicative there.
"""

import argparse
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax

from cljax import data, encoders, losses, retrieval, train

MODEL, LENGTH = "all-minilm-l6-v2", 64
PEERS = ("torch", "transformers", "sentence_transformers")


def missing(*names):
    return [name.replace("_", "-") for name in names if not importlib.util.find_spec(name)]


def texts_of(count):
    """Queries and codes of about equal length, as they come."""
    found = data.documented_code()
    count = min(count, len(found.docstring))
    return [found.docstring[place] for place in range(count)], [found.code[place] for place in range(count)]


@partial(jax.jit, static_argnums=0)
def embed(module, params, ids, mask):
    return module.apply(params, ids, mask)


def encode(module, params, tokenizer, texts, batch):
    """From strings to embeddings, the texts in order of their length, each batch of the smallest of a few widths that holds it."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    parts = []
    for start in range(0, len(order), batch):
        chosen = [texts[place] for place in order[start : start + batch]]
        ids, mask = data.tokenise(tokenizer, chosen, length=(16, 32, 48, LENGTH))
        parts.append(embed(module, params, ids, mask))
    return np.concatenate(parts)[np.argsort(order)]


def plain_model(folder):
    """The same model in transformers: its mean of the last states, scaled to unit length."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True).float()

    def embed(ids, mask):
        mask = mask.long()
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return torch.nn.functional.normalize((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1)

    return model, embed


def encoding(folder, texts, batch, rounds):
    module, params, tokenizer = encoders.load_pretrained(folder, dropout=0.0)
    ids, mask = data.tokenise(tokenizer, texts, length=LENGTH)
    chunks = [slice(start, start + batch) for start in range(0, len(texts), batch)]
    runs = {
        "strings": partial(encode, module, params, tokenizer, texts, batch),
        "tokens": lambda: [embed(module, params, ids[chunk], mask[chunk]) for chunk in chunks],
    }
    if not missing("torch", "transformers"):
        import torch

        model, embed_there = plain_model(folder)
        model.eval()
        there = torch.tensor(ids).long(), torch.tensor(mask)

        @torch.inference_mode()
        def forward():
            return [embed_there(there[0][chunk], there[1][chunk]) for chunk in chunks]

        runs["tokens, transformers"] = forward
    if not missing(*PEERS):
        from sentence_transformers import SentenceTransformer

        peer = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        peer.max_seq_length = LENGTH
        runs["strings, sentence-transformers"] = partial(peer.encode, texts, batch_size=batch, show_progress_bar=False)
    times = measure.seconds(runs, rounds)
    for kind, title, other in (("strings", "strings", "sentence-transformers"), ("tokens", f"{LENGTH} tokens each", "transformers")):
        what = f"{MODEL}, {title}, batch {batch}: texts a second"
        rate = len(texts) / times[kind]
        if f"{kind}, {other}" not in times:
            measure.row(f"{what}", f"{rate:.0f}; nothing to compare with: {', '.join(missing(*PEERS))} not installed")
            continue
        ratio = times[f"{kind}, {other}"] / times[kind]
        measure.row(f"{what} / {other}'s", f"{ratio:.2f} ({rate:.0f})")
    if "strings, sentence-transformers" in runs:
        ours, theirs = runs["strings"](), runs["strings, sentence-transformers"]()
        measure.row(
            "largest difference of an embedding's entry", f"{np.abs(ours - theirs).max():.1e}", "<= 1e-5", np.abs(ours - theirs).max() <= 1e-5
        )


def contrast(module, params, queries, documents):
    a, b = (module.apply(params, *side) for side in (queries, documents))
    return losses.mean(losses.info_nce(a, b, temperature=0.05))


def stepping(folder, queries, documents, batch, rounds):
    module, params, tokenizer = encoders.load_pretrained(folder, dropout=0.0)
    sides = [data.tokenise(tokenizer, texts[:batch], length=LENGTH) for texts in (queries, documents)]
    optimiser = optax.adamw(2e-5)

    @jax.jit
    def step(params, opt, sides):
        value, grads = jax.value_and_grad(partial(contrast, module))(params, *sides)
        updates, opt = optimiser.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt, value

    opt = optimiser.init(params)
    runs = {"ours": lambda: step(params, opt, sides)}
    if not missing("torch", "transformers"):
        import torch

        model, embed_there = plain_model(folder)
        model.eval()  # no dropout, as above
        adam = torch.optim.AdamW(model.parameters(), lr=2e-5)
        there = [(torch.tensor(ids).long(), torch.tensor(mask)) for ids, mask in sides]

        def step_there():
            adam.zero_grad()
            a, b = (embed_there(*side) for side in there)
            value = torch.nn.functional.cross_entropy(a @ b.T / 0.05, torch.arange(len(a)))
            value.backward()
            adam.step()
            return value.item()

        first = float(step(params, opt, sides)[2]), step_there()
        measure.row("first loss of both", f"{first[0]:.6f} and {first[1]:.6f}", "equal to 1e-4", abs(first[0] - first[1]) < 1e-4)
        runs["theirs"] = step_there
    times = measure.seconds(runs, rounds)
    what = f"{MODEL}: a contrastive step of {batch} pairs of {LENGTH} tokens"
    if "theirs" not in times:
        measure.row(what, f"{times['ours']:.2f} s; nothing to compare with: {', '.join(missing('torch', 'transformers'))} not installed")
        return
    measure.row(f"{what}: time / that in transformers on PyTorch", f"{times['ours'] / times['theirs']:.2f} ({times['ours']:.2f} s)")


def searching(count, rounds, queries=256, width=384, k=10):
    draw = np.random.default_rng(0)
    keys, queries = draw.standard_normal((count, width), np.float32), draw.standard_normal((queries, width), np.float32)
    runs = {"ours": lambda: retrieval.search(queries, keys, k, progress=False)}
    what = f"search of {len(queries)} x {count} x {width}, k = {k}"
    if not missing("faiss"):
        import faiss

        faiss.omp_set_num_threads(os.cpu_count())
        index = faiss.IndexFlatIP(width)
        index.add(keys)
        runs["theirs"] = partial(index.search, queries, k)
    times = measure.seconds(runs, rounds)
    if "theirs" not in times:
        measure.row(what, f"{times['ours']:.2f} s; nothing to compare with: faiss not installed")
        return
    ratio = times["ours"] / times["theirs"]
    same = np.mean(runs["ours"]()[1] == runs["theirs"]()[1])
    measure.row(f"{what}: time / faiss flat's", f"{ratio:.2f} ({times['ours']:.2f} s; {100 * same:.2f} % the same)", "<= 1.2", ratio <= 1.2)


def cached_program(pairs, chunk):
    """The gradient of a contrastive loss of so many pairs: by the cache, in chunks, or plain without a chunk; and its inputs."""
    module = encoders.TextTransformer(8000, 256, layers=2, heads=4, max_length=LENGTH)
    draw = np.random.default_rng(0)
    batch = {side: jnp.asarray(draw.integers(0, 8000, (pairs, LENGTH)), jnp.int32) for side in ("query", "document")}
    params = jax.jit(module.init)(jax.random.key(0), batch["query"][:1])

    def encode(params, batch, key):
        return {side: module.apply(params, ids) for side, ids in batch.items()}

    def loss(params, z):
        return losses.mean(losses.info_nce(z["query"], z["document"], temperature=0.05))

    def plain(params, batch):
        return jax.value_and_grad(lambda params: loss(params, encode(params, batch, None)))(params)

    def cached(params, batch):
        return train.cached_value_and_grad(encode, loss, chunk)(params, batch, None)

    return measure.compiled(cached if chunk else plain, params, batch), (params, batch)


def own_process(pairs, chunk):
    """The largest memory of a fresh process that computes the cached gradient once, in MB, before and after that, and the seconds that it took."""
    call = [sys.executable, __file__, "--cache-alone", str(pairs), str(chunk)]
    return map(float, subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-3:])


def cache_alone(pairs, chunk):
    def peak():  # `getrusage` would begin with what the process that started this one had
        return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1e3

    program, inputs = cached_program(pairs, chunk)
    before, start = peak(), time.perf_counter()
    jax.block_until_ready(program(*inputs))
    print(before, peak(), time.perf_counter() - start)


def caching(pairs, chunk=32):
    plain, _ = cached_program(pairs, None)
    cached, _ = cached_program(pairs, chunk)
    would, takes = (program.memory_analysis().temp_size_in_bytes / 1e6 for program in (plain, cached))
    before, after, taken = own_process(pairs, chunk)
    what = f"a contrastive gradient of {pairs} pairs of {LENGTH} tokens, 2 layers of width 256, {chunk} pairs at a time"
    measure.row(f"{what}: temporaries / the plain gradient's", f"{takes / would:.3f} ({takes:.0f} of {would:.0f} MB)", "<= 0.1", takes <= 0.1 * would)
    measure.row(f"{what}: largest memory of its process", f"{after:.0f} MB ({before:.0f} before it ran), {taken:.0f} s", "< 1500 MB", after < 1500)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("texts", 512), ("batch", 32), ("rounds", 3), ("pairs", 2048), ("keys", 2**18)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cache-alone", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cache_alone:
        cache_alone(*options.cache_alone)
        return
    measure.begin()
    folder, (queries, documents) = data.pretrained(MODEL), texts_of(options.texts)
    encoding(folder, queries, options.batch, options.rounds)
    stepping(folder, queries, documents, options.batch, options.rounds)
    searching(options.keys, options.rounds)
    caching(options.pairs)


if __name__ == "__main__":
    main()
