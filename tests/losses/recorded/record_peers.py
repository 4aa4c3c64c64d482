"""Records what pytorch-metric-learning and lightly compute on small inputs, with its gradients, in `peers.npz` beside this file.

    python -m venv peers && peers/bin/pip install numpy scipy scikit-learn tqdm torch
    peers/bin/pip install --no-deps pytorch-metric-learning lightly
    peers/bin/python tests/losses/recorded/record_peers.py

The tests read the file alone. All is float64.
"""

import pathlib
import sys
from unittest import mock

import numpy as np

TEMPERATURE, MARGIN = 0.2, 0.3


def inputs():
    rng = np.random.default_rng(0)
    a, b, queue, past = (rng.normal(size=(n, 5)) for n in (6, 6, 8, 7))
    return dict(a=a, b=b, queue=queue, past=past, labels=np.array([0, 1, 0, 2, 1, 0, 0, 2, 3, 1, 2, 0]), past_labels=np.array([0, 3, 1, 4, 2, 0, 1]))


def main():
    import torch

    for name in ("torchvision", "torchvision.ops", "torchvision.transforms", "pytorch_lightning"):  # what lightly imports and its losses don't use
        sys.modules.setdefault(name, mock.MagicMock())
    from lightly import loss as lightly
    from pytorch_metric_learning import losses, miners, reducers

    x = {name: torch.tensor(value) for name, value in inputs().items()}
    labels, found = x["labels"], {name: value.numpy() for name, value in x.items()}

    def record(name, loss, *leaves):
        """The loss and its gradient in each of the leaves, which it is given."""
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        value = loss(*leaves)
        value.sum().backward()
        found[name] = value.detach().numpy()
        for place, leaf in zip("ab", leaves, strict=False):
            found[f"{name}, d{place}"] = leaf.grad.numpy()

    a, b, z = x["a"], x["b"], torch.cat([x["a"], x["b"]])
    both = torch.arange(6).repeat(2)

    # Losses of labels.
    ntxent, supcon = losses.NTXentLoss(TEMPERATURE), losses.SupConLoss(TEMPERATURE)
    record("pml ntxent of views", lambda z: ntxent(z, both), z)
    record("pml ntxent", lambda z: ntxent(z, labels), z)
    record("pml supcon", lambda z: supcon(z, labels), z)

    triplet = losses.TripletMarginLoss(MARGIN)
    for name, miner in (
        ("all", miners.TripletMarginMiner(MARGIN, "all")),
        ("semihard", miners.TripletMarginMiner(MARGIN, "semihard")),
        ("hard", miners.BatchHardMiner()),
    ):
        anchor, positive, negative = miner(z, labels)
        if name == "semihard":  # of each pair the nearest of the negatives that the miner keeps
            distance = triplet.distance(z)
            order = torch.argsort(distance[anchor, negative], stable=True)
            first = {(int(anchor[n]), int(positive[n])): int(n) for n in reversed(order.tolist())}
            anchor, positive, negative = (side[list(first.values())] for side in (anchor, positive, negative))
        record(f"pml triplet {name}", lambda z, mined=(anchor, positive, negative): triplet(z, labels, mined), z)
        each = losses.TripletMarginLoss(MARGIN, reducer=reducers.DoNothingReducer())(z, labels, (anchor, positive, negative))["loss"]["losses"]
        found[f"pml triplet {name}, count"] = torch.bincount(anchor[each > 0], minlength=len(z)).numpy()

    contrastive = losses.ContrastiveLoss(pos_margin=0.1, neg_margin=1.2, reducer=reducers.DoNothingReducer())

    def halves_of_squares(z):
        total = 0
        for part in contrastive(z, labels).values():
            each, anchors = part["losses"], part["indices"][0]
            count = torch.bincount(anchors, minlength=len(z)).clamp(min=1)
            total = total + torch.zeros(len(z), dtype=z.dtype).index_add(0, anchors, each**2 / 2) / count
        return total

    record("pml contrastive", halves_of_squares, z)

    # A memory of a past batch: a loss of the second of two batches, after both were put in.
    def second(loss):
        memory = losses.CrossBatchMemory(loss, embedding_size=5, memory_size=len(x["past"]) + len(z))
        memory(x["past"], x["past_labels"])
        return memory(z, labels)

    found["pml memory supcon"] = second(supcon).numpy()
    part = second(losses.TripletMarginLoss(MARGIN, reducer=reducers.DoNothingReducer()))["loss"]
    anchor, each = part["indices"][0], part["losses"]
    total = torch.zeros(len(z), dtype=z.dtype).index_add(0, anchor, each)
    found["pml memory triplet"] = (total / torch.bincount(anchor[each > 0], minlength=len(z)).clamp(min=1)).numpy()

    # Losses of two views.
    for name, loss in (
        ("ntxent", lightly.NTXentLoss(TEMPERATURE)),
        ("dcl", lightly.DCLLoss(TEMPERATURE)),
        ("dclw", lightly.DCLWLoss(TEMPERATURE, sigma=0.5)),
        ("barlow", lightly.BarlowTwinsLoss(0.01)),
        ("vicreg", lightly.VICRegLoss()),
        ("cosine", lightly.NegativeCosineSimilarity()),
    ):
        record(f"lightly {name}", loss, a, b)
    queue = lightly.NTXentLoss(TEMPERATURE, memory_bank_size=(8, 5))
    queue.memory_bank.bank = torch.nn.functional.normalize(x["queue"])
    queue.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    record("lightly queue", queue, a, b)
    np.savez(pathlib.Path(__file__).with_name("peers.npz"), **found)


if __name__ == "__main__":
    main()
