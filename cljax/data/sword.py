"""The zText format of the SWORD project: a text by chapter and verse, in compressed blocks."""

import html
import re
import struct
import zlib

_CHAPTER = re.compile(r'<chapter\b[^>]*\bosisID="(\w+)\.(\d+)"')
_BOOK_ENDS = re.compile(r'<div\b[^>]*\beID="[^>]*\btype="book"')
_BOOK = re.compile(r'<div\b[^>]*\bsID="[^>]*\btype="book"')
_ASIDE = re.compile(r"<(note|title)\b[^>]*(?<!/)>.*?</\1>", re.DOTALL)
_WITHIN_WORDS = re.compile(r"</?(?:w|transChange|divineName|seg|q|name|foreign)\b[^>]*>")


def verses(files, module, testament):
    """Reads one testament of a module.

    A module has three files a testament: `bzz`, the blocks, each compressed by zlib; `bzs`, for each block its place (offset, size, size unpacked,
    4 bytes each); and `bzv`, for each entry (headings and verses in the order of the canon) its block, offset in it and size (4, 4 and 2 bytes).
    Where a chapter begins stands in its heading, in OSIS markup; the entries after it are its verses 1, 2, ...

    Args:
      files: `{path: bytes}`.
      module: the module's folder, `"engKJV2006eb"`.
      testament: `"ot"` or `"nt"`.

    Returns:
      `{(book, chapter, verse): text}`, in their order, as in `("Gen", 1, 1)`; without markup, notes, titles and what stands before or after a book.
    """
    places, entries, packed = (next(files[path] for path in files if path.endswith(f"{module}/{testament}.{end}")) for end in ("bzs", "bzv", "bzz"))
    blocks = [zlib.decompress(packed[start : start + size]) if size else b"" for start, size, _ in struct.iter_unpack("<III", places)]
    found, chapter = {}, None
    for number, (block, start, size) in enumerate(struct.iter_unpack("<IIH", entries)):
        markup = blocks[block][start : start + size].decode(errors="replace") if size and block < len(blocks) else ""
        if headings := _CHAPTER.findall(markup):
            chapter = (headings[-1][0], int(headings[-1][1]), number)
        elif _BOOK.search(markup):
            chapter = None  # what follows belongs to no chapter until the next heading
        elif chapter and (text := _plain(markup)):
            found[(*chapter[:2], number - chapter[2])] = text
    return found


def _plain(markup):
    text = _ASIDE.sub(" ", _BOOK_ENDS.split(markup)[0])
    text = html.unescape(re.sub(r"<[^>]*>", " ", _WITHIN_WORDS.sub("", text)))
    return re.sub(r"\s+([,.;:?!’”)])", r"\1", " ".join(text.split()))
