"""Tables of texts: one file, rows of pairs."""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from cljax.data import copies

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_LINES = (".jsonl", ".ndjson")
_LARGEST = float(np.finfo(np.float32).max)


def pairs(path: str | os.PathLike, *, columns: Sequence[str] = ("query", "document")) -> tuple[np.ndarray, ...]:
    """Reads columns of a table, by their names: pairs of a query and its document, or as many columns as there are names.

    A CSV or TSV file has the names in its first line; every cell is a text as it is written, and one that is missing an empty text. A file of JSON
    lines has one object a line; its values are texts or numbers. The file's digest goes into the report of a study.

    Args:
      path: a file that ends in `.csv`, `.tsv`, `.jsonl` or `.ndjson`, in UTF-8.
      columns: the names of the columns to read.

    Returns:
      One numpy array `[N]` a column: texts as strings (dtype object), whole numbers as int32 where they fit, others as float32.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: no such file, another ending, no rows, a column that isn't there (the message lists those that are), a line that is no JSON object
        or lacks a column (with its number), a value that is neither text nor number, or a file that is no table or not in UTF-8.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a path, got {type(path).__name__}")
    if isinstance(columns, str) or not isinstance(columns, Sequence) or not all(isinstance(name, str) for name in columns):
        raise TypeError(f"columns must be a tuple of names, got {columns!r}")
    if not columns:
        raise ValueError("columns must name one column at least, got none")
    path = pathlib.Path(path)
    if path.suffix.lower() not in (*_SEPARATORS, *_LINES):
        raise ValueError(f"path must end in one of {', '.join((*_SEPARATORS, *_LINES))}, got {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"path must be a file, got {str(path)!r}, which is {'a folder' if path.is_dir() else 'not there'}")
    try:
        read = _json_lines if path.suffix.lower() in _LINES else _separated
        found = read(path, columns)
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not in UTF-8: {error}") from None
    if not len(found[0]):
        raise ValueError(f"path must have one row at least, got {str(path)!r} with none")
    with open(path, "rb") as file:
        copies.note(path, len(found[0]), hashlib.file_digest(file, "sha256").hexdigest())
    return found


def _separated(path, columns):
    import pandas

    try:
        # Texts stay as they are: "NA" is a word, "007" no number, and an empty cell an empty text.
        table = pandas.read_csv(path, sep=_SEPARATORS[path.suffix.lower()], dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pandas.errors.EmptyDataError:
        raise ValueError(f"path must have the names of its columns in the first line, got {str(path)!r}, which is empty") from None
    except pandas.errors.ParserError as error:
        raise ValueError(f"{str(path)!r} is no table: {str(error).strip()}") from None
    if not isinstance(table.index, pandas.RangeIndex):
        raise ValueError(f"{str(path)!r} is no table: its rows have more cells than its first line has names")
    _check_columns(repr(str(path)), columns, list(table.columns))
    return tuple(table[name].to_numpy(dtype=object) for name in columns)


def _json_lines(path, columns):
    rows = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"line {number} of {str(path)!r}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where} is not JSON: {error.msg} at character {error.pos + 1}") from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
                raise ValueError(f"{where} is not JSON that can be read: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{where} must be a JSON object, got {type(row).__name__}")
            _check_columns(where, columns, list(row))
            rows.append((where, row))
    return tuple(_column(name, [(where, row[name]) for where, row in rows]) for name in columns)


def _column(name, cells):
    kinds = str if cells and isinstance(cells[0][1], str) else (int, float)
    for where, value in cells:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"{where} must have a text or a number as {name!r}, the same kind in all lines, got {json.dumps(value)[:80]}")
        if kinds is not str and not abs(value) <= _LARGEST:
            raise ValueError(f"{where} must have a finite number that float32 can hold as {name!r}, got {json.dumps(value)[:80]}")
    values = [value for _, value in cells]
    if kinds is str:
        return np.array(values, dtype=object)
    column = np.array(values)
    if column.dtype.kind != "i":  # also whole numbers of more than 64 bits
        return np.array([float(value) for value in values]).astype(np.float32)
    return column.astype(np.int32) if np.all(np.abs(column) < 2**31) else column


def _check_columns(where, wanted, there):
    if missing := [name for name in wanted if name not in there]:
        raise ValueError(f"columns must be among those of {where}, {', '.join(map(repr, there)) or 'which has none'}; got {missing[0]!r}")
