"""The standard library of the running Python, as a source of documented code."""

import ast
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import platform
import re
import sysconfig
import tokenize

_LEFT_OUT = re.compile(r"tests?|idlelib|lib2to3|site-packages|dist-packages|__pycache__|config-.*")
_KINDS = {ast.Module: "module", ast.ClassDef: "class", ast.FunctionDef: "function", ast.AsyncFunctionDef: "function"}


@dataclasses.dataclass(frozen=True)
class StandardLibrary:
    """The modules of the running Python's standard library, without its tests: nothing is downloaded, and another Python has other files."""

    @property
    def requirement(self):
        return f"Python=={platform.python_version()}"

    @property
    def sha256(self):
        return _digest()

    def fetch(self, folder):
        """Returns the files, `{path: bytes}`.

        Raises:
          ValueError: this Python came without its sources.
        """
        if not (files := _files()):
            raise ValueError(f"the standard library of {self.requirement} is not here as .py files: run a Python that has them")
        return files


def definitions(files):
    """Reads the modules, classes and functions (nested ones and methods too) out of Python files, `{path: bytes}`.

    Returns:
      `{feature: list}`, one entry a definition, by file and in the order of the code: `kind` ("module", "class", "function"), `module`
      ("json.decoder"), `name` ("JSONDecoder.decode"; of a module, its own), `docstring` ("" where there is none; without indentation), `code` (as it
      is written, with decorators but without docstring and indentation). A file that is no code of this Python is passed over.
    """
    rows = []
    for path in sorted(files):
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(files[path]).readline)
            text = io.TextIOWrapper(io.BytesIO(files[path]), encoding).read()
            tree = ast.parse(text)
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        lines = text.encode().split(b"\n")
        rows += [(_KINDS[type(node)], module, name, ast.get_docstring(node) or "", _code(node, lines)) for name, node in _walk(tree, module)]
    return {name: list(column) for name, column in zip(("kind", "module", "name", "docstring", "code"), zip(*rows, strict=True), strict=True)}


def _walk(tree, module):
    """Pairs of a name and a node, in the order of the code."""
    yield module, tree
    waiting = [("", child) for child in reversed(list(ast.iter_child_nodes(tree)))]
    while waiting:
        prefix, node = waiting.pop()
        if type(node) in _KINDS:
            yield prefix + node.name, node
            prefix += node.name + "."
        waiting += [(prefix, child) for child in reversed(list(ast.iter_child_nodes(node)))]


def _code(node, lines):
    """The text of a definition, from lines of bytes, as offsets in the tree count them."""
    first, last, indent = 1, len(lines), b""
    if not isinstance(node, ast.Module):
        first, last = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]), node.end_lineno
        indent = lines[node.lineno - 1][: node.col_offset]
    if ast.get_docstring(node, clean=False) is None:
        kept = lines[first - 1 : last]
    else:
        text, alone = node.body[0], len(node.body) == 1 and not isinstance(node, ast.Module)
        before, after = lines[text.lineno - 1][: text.col_offset], lines[text.end_lineno - 1][text.end_col_offset :].lstrip(b" ;")
        rest = before + (b"pass  " if alone and after else b"pass" if alone else b"") + after
        kept = [*lines[first - 1 : text.lineno - 1], *([rest] if rest.strip() else []), *lines[text.end_lineno : last]]
    return b"\n".join(line.removeprefix(indent) for line in kept).decode().strip("\n")


def _files():
    root, found = pathlib.Path(sysconfig.get_paths()["stdlib"]), {}
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if not _LEFT_OUT.fullmatch(name)]
        paths = (pathlib.Path(folder, name) for name in names if name.endswith(".py"))
        found |= {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    return found


@functools.cache
def _digest():
    return hashlib.sha256(b"".join(content for _, content in sorted(_files().items()))).hexdigest()
