"""All benchmarks as one Markdown table, with the machine.

    python benchmarks

Each is a script of its own, `python benchmarks/NAME.py`, with its own options, and runs in a process of its own, one after the other.
"""

import os
import pathlib
import subprocess
import sys

import measure

SCRIPTS = ("pairwise", "growth", "devices", "top_k", "train_step", "retrieval", "generation", "sweeps")


def main():
    print(f"{measure.machine()}\n\n{measure.HEADER}", flush=True)
    folder, failed = pathlib.Path(__file__).parent, []
    for name in SCRIPTS:
        done = subprocess.run([sys.executable, folder / f"{name}.py"], env=os.environ | {"BENCHMARKS": "1"})
        if done.returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
