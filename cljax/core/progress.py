"""Progress bars."""

import warnings


def progress_bar(**options):
    """A bar of tqdm, of the notebook's kind in a notebook; `options` are those of `tqdm.tqdm`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets the plain bar
        from tqdm.auto import tqdm
    return tqdm(**options)
