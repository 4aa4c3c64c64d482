"""A field that takes one of a few texts says so: a mistyped one is refused before anything runs, where another arm's numbers would stand under it."""

import pathlib

import pytest

from cljax.study import grid

SCRIPTS = sorted(path.stem for path in (pathlib.Path(__file__).parents[2] / "experiments").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_arms_keep_to_the_choices_and_a_mistyped_one_is_refused(imported, name):
    script = imported(f"experiments/{name}.py")
    for field, (kind, _) in grid.fields(script.Config()).items():
        if "Literal" in str(kind):
            with pytest.raises(ValueError, match=f"^{field} must be .*, got 'nosuch'$"):
                grid.with_field(script.Config(), field, "nosuch")
            for value in {grid.fields(arm)[field][1] for arm in (*script.ARMS.values(), script.FULL)}:
                grid.with_field(script.Config(), field, value)


def test_what_decides_between_arms_is_a_choice(imported):
    wanted = {"ar2": "loss", "cocosoda": "blocks", "collossl": "method", "contrastive_search": "decoder", "contriever": "change", "copg": "loss"}
    wanted |= {"cvrl": "augmentation", "debcse": "positives", "pamc": "contrast", "trice": "method", "typical_sampling": "method"}
    for name, field in wanted.items():
        kind, _ = grid.fields(imported(f"experiments/{name}.py").Config())[field]
        assert "Literal" in str(kind), name
