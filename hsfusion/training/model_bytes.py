"""The bytes of a model file: a regular file of bounded size, in the layout of safetensors, with a checksum.

The layout: 8 bytes with the length of a JSON text, little-endian; the text; the numbers of all tensors without a gap.
Source: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsfusion.training.checked_values import Unfit, each, fields, parse_json, whole
from hsfusion.training.model_header import MOST_HEADER_BYTES, check_header

_MOST_BYTES = 2**30
_MOST_TENSORS = 10_000
_KEY = "hsfusion"  # of the metadata: one only, for safetensors keeps several in no fixed order
ITEM_BYTES = {"F32": 4, "I64": 8, "BOOL": 1}
_CHECKPOINT = "a model.safetensors: checkpoints and pickles can execute code when they are opened"
# first bytes, and what such a file is
_OTHERS = (
    (b"PK", "a zip archive, as checkpoints are"),
    (b"\x80", "a pickle"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"II*\x00", "a TIFF"),
)


@dataclass(frozen=True)
class StoredModel:
    """A model file whose header, layout and checksum are right; the numbers are not looked at yet.

    Attributes:
        header: the header, plain values.
        shapes: name of each tensor to its type, of :data:`ITEM_BYTES`, and shape.
        data: the whole file.
    """

    header: dict[str, Any]
    shapes: dict[str, tuple[str, tuple[int, ...]]]
    data: bytes


def read_stored(path: Path) -> StoredModel:
    """Reads a file that may be a stranger's.

    Raises:
        Unfit: if it is no model file, is too large, or anything of it is not what it has to be.
        OSError: if it cannot be read.
    """
    data = _read(path)
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or not 2 <= length <= len(data) - 8 or data[8:9] != b"{":
        for start, what in _OTHERS:
            if data.startswith(start):
                raise Unfit("content", what, _CHECKPOINT)
        if path.suffix.lower() in {".ckpt", ".pt", ".pth", ".pkl", ".pickle"}:
            raise Unfit("content", "not safetensors", _CHECKPOINT)
        raise Unfit("content", "damaged, or not safetensors", "a whole model.safetensors of hsfusion")
    if length > 2 * MOST_HEADER_BYTES:
        raise Unfit("length of the header", length, f"at most {2 * MOST_HEADER_BYTES} bytes")
    listed = _json(data[8 : 8 + length], "list of tensors")
    header = _own_header(listed)
    check_header(header)
    spans = _spans(listed, len(data) - 8 - length)
    start, view = 8 + length, memoryview(data)
    parts = ((name, dtype, shape, view[start + a : start + b]) for name, (dtype, shape, a, b) in spans.items())
    checksum = digest(header, parts)
    if checksum != header["checksum"]:
        raise Unfit("checksum", header["checksum"][:12] + "…", f"{checksum[:12]}… of what the file holds")
    return StoredModel(header, {name: (dtype, shape) for name, (dtype, shape, _, _) in spans.items()}, data)


def digest(header: dict[str, Any], tensors: Iterable[tuple[str, str, tuple[int, ...], Any]]) -> str:
    """SHA-256 of header, but for the checksum, and tensors.

    Args:
        header: plain values.
        tensors: name, type, shape and bytes (little-endian, row after row) of each, in any order.
    """
    plain = {key: value for key, value in header.items() if key != "checksum"}
    hashed = hashlib.sha256(json.dumps(plain, sort_keys=True, allow_nan=False).encode())
    for name, dtype, shape, content in sorted(tensors, key=lambda tensor: tensor[0]):
        hashed.update(json.dumps([name, dtype, list(shape)]).encode())
        hashed.update(content)
    return hashed.hexdigest()


def metadata(header: dict[str, Any]) -> dict[str, str]:
    """What safetensors is to store beside the tensors."""
    return {_KEY: json.dumps(header, sort_keys=True, allow_nan=False)}


def _read(path: Path) -> bytes:
    """All bytes of a regular file; a pipe would wait for ever, and a device would never end."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Unfit("file", "a folder, pipe or device", "a plain file, or the folder of a run")
        if not 0 < status.st_size <= _MOST_BYTES:
            raise Unfit("size", f"{status.st_size} bytes", f"1 to {_MOST_BYTES} bytes")
        return file.read(_MOST_BYTES + 1)


def _json(data: bytes, field: str) -> Any:
    try:
        return parse_json(data.decode("utf-8"), field)
    except UnicodeDecodeError as error:
        raise Unfit(field, "no text", "UTF-8") from error


def _own_header(listed: Any) -> Any:
    found = listed.get("__metadata__") if isinstance(listed, dict) else None
    if not isinstance(found, dict) or set(found) != {_KEY} or not isinstance(found[_KEY], str):
        raise Unfit("metadata", "of another program, or missing", "a header of hsfusion")
    if len(found[_KEY]) > MOST_HEADER_BYTES:
        raise Unfit("length of the header", len(found[_KEY]), f"at most {MOST_HEADER_BYTES} letters")
    return parse_json(found[_KEY], "header")


def _spans(listed: dict[str, Any], size: int) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Type, shape, and first and last byte of each tensor; they fill the rest of the file, each its own part."""
    tensors = {name: entry for name, entry in listed.items() if name != "__metadata__"}
    if not 1 <= len(tensors) <= _MOST_TENSORS:
        raise Unfit("number of tensors", len(tensors), f"1 to {_MOST_TENSORS}")
    most = whole(0, _MOST_BYTES)
    entry_rule = fields({"dtype": _known_type, "shape": each(most, 0, 8), "data_offsets": each(most, 2, 2)})
    spans = {}
    for i, (name, entry) in enumerate(tensors.items(), start=1):
        entry_rule(entry, f"tensor {i}")
        first, last = entry["data_offsets"]
        if last - first != math.prod(entry["shape"]) * ITEM_BYTES[entry["dtype"]]:
            raise Unfit(f"bytes of tensor {i}", last - first, f"as many as its shape {entry['shape']} needs")
        spans[name] = (entry["dtype"], tuple(entry["shape"]), first, last)
    end = 0
    for _, _, first, last in sorted(spans.values(), key=lambda span: span[2:]):
        if first != end:
            raise Unfit("place of the tensors", "with gaps or overlaps", "one tensor after the other")
        end = last
    if end != size:
        raise Unfit("bytes of the tensors", size, f"{end}, which is what the list of tensors says")
    return spans


def _known_type(value: Any, field: str) -> None:
    if not isinstance(value, str) or value not in ITEM_BYTES:
        raise Unfit(field, repr(value)[:20], f"of {', '.join(ITEM_BYTES)}")
