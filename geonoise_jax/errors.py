"""The error that says what to do differently, and the words that it names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message names the field, its value and what is allowed.

    The command line prints the message alone; every other exception is a fault of the program and keeps its traceback.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the tail of an error message that names the known words nearest to ``word``, or all of them."""
    known = sorted(known)
    matches = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(matches)}?" if matches else f"; must be one of {', '.join(known)}"
