"""Records what the logits processors of transformers give on small inputs, in `filters.npz` beside this file.

    python -m venv peers && peers/bin/pip install numpy torch transformers
    peers/bin/python tests/decoding/recorded/record_filters.py

The tests read the file alone. No two logits of a row are equal: of ties the processors keep others.
"""

import pathlib

import numpy as np

CASES = {  # name: the class and its arguments
    "temperature": ("TemperatureLogitsWarper", [dict(temperature=0.7), dict(temperature=2.5)]),
    "top_k": ("TopKLogitsWarper", [dict(top_k=1), dict(top_k=7), dict(top_k=40)]),
    "top_p": ("TopPLogitsWarper", [dict(top_p=p) for p in (0.05, 0.3, 0.9, 0.99)] + [dict(top_p=0.05, min_tokens_to_keep=3)]),
    "typical": ("TypicalLogitsWarper", [dict(mass=p) for p in (0.05, 0.2, 0.5, 0.9, 0.99)] + [dict(mass=0.05, min_tokens_to_keep=3)]),
    "plausibility": ("MinPLogitsWarper", [dict(min_p=0.02), dict(min_p=0.3)]),
}


def main():
    import torch
    from transformers.generation import logits_process

    scores = np.random.default_rng(0).normal(size=(6, 50)) * np.array([0.1, 0.5, 1, 2, 4, 8])[:, None]
    found = {"logits": scores.astype(np.float32)}
    for name, (kind, options) in CASES.items():
        for place, arguments in enumerate(options):
            found[f"{name} {place}"] = getattr(logits_process, kind)(**arguments)(None, torch.tensor(found["logits"])).numpy()
    warpers = [logits_process.TemperatureLogitsWarper(0.7), logits_process.TopKLogitsWarper(30), logits_process.TopPLogitsWarper(0.95)]
    all_of_them = torch.tensor(found["logits"])
    for warper in (*warpers, logits_process.TypicalLogitsWarper(0.9)):
        all_of_them = warper(None, all_of_them)
    found["composed"] = all_of_them.numpy()
    np.savez_compressed(pathlib.Path(__file__).with_name("filters.npz"), **found)


if __name__ == "__main__":
    main()
