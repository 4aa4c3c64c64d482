"""What the README says is so: its code runs and prints what it says, its names and files exist."""

import os
import pathlib
import re
import subprocess
import sys

from cljax import losses

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_code_blocks_run_in_order_and_print_what_they_say(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 5
    code = "\n".join(blocks)
    (tmp_path / "readme.py").write_text(code)
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)


def test_every_loss_is_in_the_table():
    table = README.split("## Losses")[1].split("##")[0]
    assert set(re.findall(r"`(\w+)`", re.sub(r"\|[^|\n]*\|\n", "|\n", table))) == set(losses.__all__)


def test_every_experiment_is_in_the_table():
    table = README.split("## Experiments")[1].split("```")[0]
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == scripts


def test_files_and_commands_exist():
    for path in re.findall(r"\]\(([^)]+)\)|`([\w/]+\.(?:md|ipynb))`", README):
        assert (ROOT / "".join(path)).is_file(), path
    makefile = (ROOT / "Makefile").read_text()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        for target in re.findall(r"^make (\w+)", block, re.MULTILINE):
            assert f"\n{target}:" in makefile
        for script in re.findall(r"^python (\S+\.py)", block, re.MULTILINE):
            assert (ROOT / script).is_file()
