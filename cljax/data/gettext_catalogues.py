"""GNU gettext's catalogues of messages, `.mo` files. (The standard library's `gettext` looks messages up; what there are it doesn't say.)"""

import struct


def read(content):
    """Reads a catalogue.

    A file begins with its mark, whose order of bytes is that of all numbers, its version, the number of messages, and where two tables of as many
    pairs (length, place) lie: those of the messages, and those of their translations in the same order.

    Args:
      content: its bytes.

    Returns:
      `{message: translation}`, strings, without what is not translated and messages with several numbers ("%d file", "%d files"). Before a message
      that has a context stands that and the character 4.

    Raises:
      ValueError: it is no such file.
    """
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(content[:4])
    if order is None:
        raise ValueError("a catalogue of messages must begin as one of GNU gettext does")
    count, *tables = struct.unpack_from(f"{order}3I", content, 8)
    found = {}
    for row in range(count):
        message, translation = (_text(content, order, table + 8 * row) for table in tables)
        if message and translation and "\0" not in message:
            found[message] = translation
    return found


def _text(content, order, entry):
    length, place = struct.unpack_from(f"{order}2I", content, entry)
    return content[place : place + length].decode()
