"""The one seam between the package and its small files: paths, writes that are whole or not at all, a folder's lock.

Everything takes a ``str`` or a path, and says in one line what is wrong with which file. A path is local
(:func:`local`), or local or ``gs://BUCKET/FOLDER`` (:func:`location`); what is done with one that may be either is done
here. Arrays in checkpoints are Orbax's and data sets are TFDS's; all other files of the package are read and written
here. Of several processes only the lead writes and locks, see ``processes``: in the others that does nothing.
"""

from geonoise_jax.files.bucket import UnavailableError
from geonoise_jax.files.lines import JsonLines
from geonoise_jax.files.locks import check_unlocked, locked, still_locked
from geonoise_jax.files.paths import (
    absolute,
    cache_folder,
    exists,
    is_folder,
    listed,
    local,
    location,
    move_folder,
    unreadable,
    usable_folder,
)
from geonoise_jax.files.reading import opened, read_arrays, read_json, read_text
from geonoise_jax.files.writing import (
    append_line,
    discard_drafts,
    remove,
    replacing,
    save_arrays,
    write_arrays,
    write_json,
    write_picture,
    write_text,
)

__all__ = [
    "JsonLines",
    "UnavailableError",
    "absolute",
    "append_line",
    "cache_folder",
    "check_unlocked",
    "discard_drafts",
    "exists",
    "is_folder",
    "listed",
    "local",
    "location",
    "locked",
    "move_folder",
    "opened",
    "read_arrays",
    "read_json",
    "read_text",
    "remove",
    "replacing",
    "save_arrays",
    "still_locked",
    "unreadable",
    "usable_folder",
    "write_arrays",
    "write_json",
    "write_picture",
    "write_text",
]
