"""What several rooms need of texts."""

import pathlib


def read_tokenizer(path):
    """Reads a `tokenizer.json` from the disk.

    Args:
      path: of the file.

    Returns:
      A `tokenizers.Tokenizer`.

    Raises:
      ValueError: there is no such file, or it is no tokenizer.
    """
    import tokenizers

    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"a tokenizer is a file tokenizer.json, got {str(path)!r}, which is {'a folder' if path.is_dir() else 'not there'}")
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no narrower kind
        raise ValueError(f"{str(path)!r} is no tokenizer: {str(error)[:200]}") from None
