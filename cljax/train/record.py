"""Plain values and numpy arrays as a text and a block of bytes: what a checkpoint holds beside the state. No pickle, which runs what it reads."""

import base64
import json

import jax.numpy as jnp
import numpy as np


def pack(value):
    """`(text, bytes)` of nested dicts, lists and tuples of numbers, texts, bytes, None and arrays.

    Raises:
      TypeError: `value` holds something else; the message is only its type's name.
    """
    blocks, offset = [], 0

    def encode(value):
        nonlocal offset
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, list):
            return [encode(entry) for entry in value]
        if isinstance(value, tuple):
            return {"tuple": [encode(entry) for entry in value]}
        if isinstance(value, dict):
            return {"dict": [[encode(key), encode(entry)] for key, entry in value.items()]}
        if isinstance(value, bytes):
            return {"bytes": base64.b64encode(value).decode()}
        if hasattr(value, "__array__") and hasattr(value, "dtype"):
            array = np.asarray(value)
            if array.dtype.kind not in "OSUMm":
                blocks.append(array.tobytes())
                place, offset = offset, offset + array.nbytes
                return {"array": [place, array.dtype.name, list(array.shape)]}
        raise TypeError(type(value).__name__)

    return json.dumps(encode(value)), b"".join(blocks)


def unpack(text, block):
    """The value that was packed; a number of numpy comes back as an array without axes."""

    def decode(value):
        if isinstance(value, list):
            return [decode(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "tuple":
            return tuple(map(decode, content))
        if kind == "dict":
            return {decode(key): decode(entry) for key, entry in content}
        if kind == "bytes":
            return base64.b64decode(content)
        offset, dtype, shape = content
        return np.frombuffer(block, jnp.dtype(dtype), int(np.prod(shape, dtype=int)), offset).reshape(shape).copy()

    return decode(json.loads(text))
