"""Data sets by name: small real ones out of pinned packages, full-size ones through TensorFlow Datasets, all without TensorFlow; and a user's own."""

from cljax.data.catalogue import DATASETS
from cljax.data.chunks import Chunks
from cljax.data.code import Docstrings, DocumentedCode, docstrings, documented_code
from cljax.data.code_search import (
    CodeSearch,
    TypedTokens,
    code_search_net,
    described_functions,
    piece_tokenizer,
    tokenise_code_search,
    tokenise_pieces,
    typed_pieces,
)
from cljax.data.comparisons import Comparisons, comparisons
from cljax.data.copies import root
from cljax.data.dataset import Dataset
from cljax.data.few_shot import CIFAR_FS, FC100, cifar_fs, fc100
from cljax.data.films import film_videos
from cljax.data.folders import Pictures, image_sets, images
from cljax.data.graphs import Graph, graph, package_graph
from cljax.data.lexemes import LEXICAL_TYPES, lexical_type, python_tokens
from cljax.data.loading import builder, load
from cljax.data.models import MODELS, pretrained
from cljax.data.moving_glyphs import MovingGlyphs, moving_glyphs
from cljax.data.questions import SUM_TOKENS, Questions, read_questions, worked_sums
from cljax.data.search import SearchTask, documented_search, paired_search, read_search, tokenise_search
from cljax.data.sensors import Movements, movements, recordings
from cljax.data.sentences import sample_sentences, scored_pairs, sentence_pairs
from cljax.data.sources import DebianSource, Source
from cljax.data.streams import token_streams
from cljax.data.tables import pairs
from cljax.data.text import Tokens, token_stream, tokenise, train_tokenizer, words
from cljax.data.videos import ClipBatches, Videos, evaluation_clips, frames_of, read_clips, video_sets, videos
from cljax.data.word_vectors import ppmi_vectors

__all__ = [
    "CIFAR_FS",
    "Chunks",
    "ClipBatches",
    "CodeSearch",
    "Comparisons",
    "DATASETS",
    "Dataset",
    "DebianSource",
    "Docstrings",
    "DocumentedCode",
    "FC100",
    "Graph",
    "LEXICAL_TYPES",
    "MODELS",
    "Movements",
    "MovingGlyphs",
    "Pictures",
    "Questions",
    "SUM_TOKENS",
    "SearchTask",
    "Source",
    "Tokens",
    "TypedTokens",
    "Videos",
    "builder",
    "cifar_fs",
    "code_search_net",
    "comparisons",
    "described_functions",
    "docstrings",
    "documented_code",
    "documented_search",
    "evaluation_clips",
    "fc100",
    "film_videos",
    "frames_of",
    "graph",
    "image_sets",
    "images",
    "lexical_type",
    "load",
    "movements",
    "moving_glyphs",
    "package_graph",
    "paired_search",
    "pairs",
    "piece_tokenizer",
    "ppmi_vectors",
    "pretrained",
    "python_tokens",
    "read_clips",
    "read_questions",
    "read_search",
    "recordings",
    "root",
    "sample_sentences",
    "scored_pairs",
    "sentence_pairs",
    "token_stream",
    "token_streams",
    "tokenise",
    "tokenise_code_search",
    "tokenise_pieces",
    "tokenise_search",
    "train_tokenizer",
    "typed_pieces",
    "video_sets",
    "videos",
    "words",
    "worked_sums",
]
