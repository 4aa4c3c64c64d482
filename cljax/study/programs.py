"""The compiled programs that studies keep from one process to the next, in JAX's persistent cache."""

import contextlib
import os
import time
from pathlib import Path

import jax

_BYTES = 4 * 2**30  # the cache is brought down to this size,
_DAYS = 60  # and programs that were made longer ago than this are dropped:
_EVERY = 24 * 3600  # once a day at most, as looking at ten thousand files takes a tenth of a second


def cache_programs():
    """Turns on JAX's persistent compilation cache, unless the user has chosen one."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def prune_programs(size=_BYTES, days=_DAYS, every=_EVERY):
    """Drops the oldest programs of the cache that is ours, by age and size, unless that was done a short while ago; returns how many files went.

    A program that another process is about to read is compiled there again.
    """
    folder, now, dropped = _folder(), time.time(), 0
    stamp = folder / ".pruned"
    with contextlib.suppress(OSError):  # no cache yet, or one that cannot be written to
        if stamp.exists() and now - stamp.stat().st_mtime < every:
            return 0
        stamp.touch()
        with os.scandir(folder) as entries:
            programs = [entry for entry in entries if entry.name != stamp.name and entry.is_file()]
            found = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in programs)
        total = sum(length for _, length, _ in found)
        for made, length, path in found:
            if total <= size and now - made < days * 24 * 3600:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total, dropped = total - length, dropped + 1
    return dropped


def _folder():
    return Path.home() / ".cache" / "cljax" / "jax"
