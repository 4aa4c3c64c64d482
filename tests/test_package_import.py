"""What `import cljax` brings with it, and the wheel."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
HEAVY = {
    "tensorflow",
    "tensorflow_datasets",
    "grain",
    "flax",
    "optax",
    "orbax",
    "chex",
    "matplotlib",
    "pandas",
    "sklearn",
    "tensorboardX",
    "tqdm",
    "tyro",
}


def python(code, **options):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_import_brings_nothing_that_is_not_used():
    assert python(f"import sys, cljax; print(*{HEAVY} & set(sys.modules))") == []
    code = "import sys, jax; before = set(sys.modules); import cljax; print(*(name for name in set(sys.modules) - before if name[:5] != 'cljax'))"
    assert python(code) == []


def test_rooms_of_arrays_bring_neither_flax_nor_data_nor_plots():
    rooms = "cljax.core, cljax.pairwise, cljax.losses, cljax.memory, cljax.metrics, cljax.samplers, cljax.data"
    assert python(f"import sys, cljax; {rooms}; print(*{HEAVY} & set(sys.modules))") == []


def test_a_name_that_is_not_a_room_is_an_attribute_error():
    import cljax

    assert not hasattr(cljax, "loses")
    assert {"core", "losses", "train"} <= set(dir(cljax))


def test_the_wheel_works_outside_the_checkout(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    shutil.copytree(ROOT / "cljax", source / "cljax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    uv = shutil.which("uv", path=pathlib.Path(sys.executable).parent)  # where it isn't there, pip does the same in four times the time
    build = [uv, "build", "-q", "--wheel", "--out-dir"] if uv else [*PIP, "wheel", "--no-deps", "--wheel-dir"]
    subprocess.run([*build, tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("cljax-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "cljax/py.typed" in names and any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests", "experiments", "benchmarks")) for name in names)
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert "Requires-Dist: jax>=0.7.2" in metadata and "License-Expression: Apache-2.0" in metadata
    subprocess.run([*PIP, "install", "--no-deps", "--target", target, wheel], check=True)
    code = """
import cljax, jax.numpy as jnp
print(cljax.__file__)
print(float(cljax.losses.mean(cljax.losses.info_nce(jnp.eye(3), jnp.eye(3), temperature=1.0))))
"""
    place, value = python(code, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(target)})
    assert pathlib.Path(place).is_relative_to(target)
    assert abs(float(value) - 0.5514447) < 1e-6  # log(1 + 2 / e)
