"""What the child process of :mod:`hsfusion.scenes.readers.hdf5_file` runs; it imports nothing of this package.

Called with the argument FILE, inside limits. It touches all that a reader would touch when it opens the file, and ends
well if the library survives that: damaged files can crash it, keep it busy for ever, or make it take gigabytes. What
the library calls an error is none here; the parent meets it again and words it.
"""

from __future__ import annotations

import sys
from typing import Any

import h5py
import numpy as np

TOO_LARGE = 3  # exit code
MOST_OBJECTS, MOST_DEPTH = 5_000, 12
MOST_SMALL_BYTES = 2**20  # of an attribute or a table of bands
MOST_PACKED_BYTES = 2**18  # the same as stored; DEFLATE unpacks at most 1032-fold
PACKING = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF}
FILTERS = PACKING | {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


def main(path: str) -> None:
    """Opens a file and touches its objects, their attributes and small datasets, along hard links."""
    with h5py.File(path, "r") as file:
        waiting: list[tuple[Any, int]] = [(file, 0)]
        for _ in range(MOST_OBJECTS):
            if not waiting:
                return
            stored, depth = waiting.pop(0)
            for touch in (_touch_attributes, _touch_dataset if isinstance(stored, h5py.Dataset) else _touch_nothing):
                _survive(touch, stored)
            if isinstance(stored, h5py.Group) and depth < MOST_DEPTH and len(stored) <= MOST_OBJECTS:
                waiting += [(member, depth + 1) for member in _members(stored)]


def _members(group: Any) -> list[Any]:
    found = []
    for name in group:
        key = name.encode("utf-8", "surrogateescape")
        if name != "#refs#" and group.id.links.get_info(key).type == 0:  # a hard link
            _survive(lambda key: found.append(group[key]), key)
    return found


def _touch_attributes(stored: Any) -> None:
    def touch(i: int) -> None:
        attribute = h5py.h5a.open(stored.id, index=i)
        if attribute.get_storage_size() <= MOST_SMALL_BYTES:
            stored.attrs[attribute.name]

    for i in range(h5py.h5a.get_num_attrs(stored.id)):
        _survive(touch, i)


def _touch_dataset(dataset: Any) -> None:
    _ = dataset.shape, dataset.dtype, dataset.is_virtual, dataset.external, dataset.fillvalue
    _ = dataset.id.get_space_status(), dataset.id.get_storage_size()
    settings = dataset.id.get_create_plist()
    filters = {settings.get_filter(i)[0] for i in range(settings.get_nfilters())}
    sizes = []
    if dataset.chunks:
        dataset.id.chunk_iter(lambda chunk: sizes.append(chunk.size))
    sound = filters <= FILTERS and min(sizes, default=1) > 0 and sum(sizes) <= MOST_PACKED_BYTES
    if sound and not dataset.is_virtual and not dataset.external and dataset.nbytes <= MOST_SMALL_BYTES:
        np.asarray(dataset[()])


def _touch_nothing(stored: Any) -> None:
    pass


def _survive(touch: Any, what: Any) -> None:
    try:
        touch(what)
    except MemoryError:
        sys.exit(TOO_LARGE)
    except Exception as error:  # whatever h5py raises: the parent words what it meets
        if "alloc" in str(error):
            sys.exit(TOO_LARGE)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:  # as above
        sys.exit(TOO_LARGE if isinstance(error, MemoryError) or "alloc" in str(error) else 0)
