"""All benchmarks as one Markdown table, with the machine: those of the processor, or that of the GPU or TPU where there is one.

    python benchmarks

Each is a script of its own, `python benchmarks/NAME.py`, with its own options, and runs in a process of its own, one after the other.
"""

import os
import pathlib
import subprocess
import sys

SCRIPTS = ("pairwise", "growth", "devices", "top_k", "train_step", "retrieval", "generation", "pamc_scaling", "sweeps")


def main():
    backend = subprocess.run([sys.executable, "-c", "import jax; print(jax.default_backend())"], stdout=subprocess.PIPE, text=True, check=True)
    names = SCRIPTS if backend.stdout.strip() == "cpu" else ("accelerator",)  # asked in another process, as this one would keep the device
    folder, failed = pathlib.Path(__file__).parent, []
    for place, name in enumerate(names):
        headless = {"BENCHMARKS": "1"} if place else {}  # the first one prints the machine and the head of the table
        if subprocess.run([sys.executable, folder / f"{name}.py"], env=os.environ | headless).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
