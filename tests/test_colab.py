"""Every notebook runs as it is, but for its install cell, and one that has a cell of parameters with those given here: small, without network."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
PARAMETERS = {  # what a notebook is run with, and files that it finds
    "retriever": (
        'PAIRS, MODEL, TEST, BATCH, CHUNK, STEPS, DOCUMENT_LENGTH, QUERY_LENGTH = "pairs.csv", "small", 12, 8, 4, 2, 12, 8',
        {
            "pairs.csv": "query,document\n"
            + "".join(f"where is {a} {b},the {b} of {a} is here\n" for a in "abcdefgh" for b in ("cat", "dog", "hat", "map"))
        },
    ),
    "sampling": (
        'TEXT, WORDS, WIDTH, LAYERS, STEPS, LENGTH, PROMPTS, GIVEN, NEW = "texts.txt", 150, 8, 1, 3, 6, 3, 4, 6',
        {"texts.txt": "".join(f"the {a}{b} of {b}{c} is {c}{a}{a} here\n" for a in "abcdef" for b in "mnopq" for c in "stuvwx")},
    ),
    "video_and_few_shot": (
        f'SCRIPTS, FILMS, ARMS, SEEDS, TASKS = {str(ROOT / "experiments")!r}, False, ["zero"], 1, 3; '
        "SIZE = dict(steps=1, videos=(12, 8), channels=(2, 3), hidden=4, features=3, batch=4, clips=1)",
        {},
    ),
}
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", [])]
places = [place for place, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
assert len(places) == bool(sys.argv[2])
for place in places:
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(sys.argv[2]))
nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
kinds = [kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
print(kinds.count("image/png"), kinds.count("text/html"))
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | {"JAX_PLATFORMS": "cpu"}
    parameters, files = PARAMETERS.get(notebook.stem, ("", {}))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    result = subprocess.run([sys.executable, "-c", RUN, notebook, parameters], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    pictures, tables = map(int, result.stdout.split())
    assert pictures >= 1 and tables >= 1


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_holds_no_outputs_and_installs_in_one_marked_cell(notebook):
    import nbformat

    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert ["install" in cell.metadata.get("tags", []) for cell in cells] == ["pip install" in cell.source for cell in cells]
    assert all("==" not in line and "-U" not in line.split() for cell in cells for line in cell.source.splitlines() if "pip install" in line)
