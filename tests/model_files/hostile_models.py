"""Hostile model files: each is a sound one with one thing wrong, its checksum made right again where that is not it."""

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hsfusion.spectra import Bands, even_groups
from hsfusion.training.building import build_network
from hsfusion.training.model_file import ClassList, ModelHeader, digest, save_model
from model_files import payloads

BANDS = Bands.from_wavelengths(np.linspace(450, 2400, 40))
ARCHITECTURE = {"channels": 4, "width": 8, "receptive_field": 5}


@dataclass(frozen=True)
class HostileFile:
    """A case: a name, and what writes it into an empty folder and says where it is."""

    name: str
    write: Callable[[Path], Path]


class Parts:
    """A model file in parts that can be changed one by one."""

    def __init__(self, data: bytes):
        length = int.from_bytes(data[:8], "little")
        listed = json.loads(data[8 : 8 + length])
        self.header = json.loads(listed.pop("__metadata__")["hsfusion"])
        body = data[8 + length :]
        self.tensors = {
            name: [entry["dtype"], entry["shape"], body[slice(*entry["data_offsets"])]]
            for name, entry in listed.items()
        }

    def body(self) -> tuple[dict, bytes]:
        listed, content = {}, b""
        for name, (dtype, shape, data) in self.tensors.items():
            listed[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(content), len(content) + len(data)]}
            content += data
        return listed, content

    def sign(self) -> None:
        parts = [(name, dtype, tuple(shape), data) for name, (dtype, shape, data) in self.tensors.items()]
        try:
            self.header["checksum"] = digest(self.header, parts)
        except (ValueError, TypeError, AttributeError):
            self.header = self.header  # nothing to sign: no numbers, or no mapping

    def packed(self) -> bytes:
        listed, content = self.body()
        return pack(listed, json.dumps(self.header), content)


def pack(listed: dict, header: str, content: bytes) -> bytes:
    text = json.dumps({"__metadata__": {"hsfusion": header}, **listed}).encode()
    return raw(text, content)


def raw(text: bytes, content: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + content


def sound_model(path: Path, **architecture) -> bytes:
    """Writes a whole, untrained model and returns its bytes."""
    torch.manual_seed(0)
    groups = even_groups(BANDS, number=3)
    built = {**ARCHITECTURE, **architecture}
    network = build_network(BANDS, groups, num_classes=3, **built)
    header = ModelHeader(
        bands=Bands(BANDS.wavelength_nm, np.full(40, 10.0), np.ones(40, bool)),
        groups=tuple(groups),
        classes=ClassList((1, 2, 7), ("corn", "woods", "water"), ("#ff0000",) * 3),
        architecture=built,
        split={"kind": "blocks", "train_pixels": 9, "val_pixels": 3, "test_pixels": 5, "leakage": 0.0},
        training_scene={
            "name": "field", "shape": [40, 30], "transform": [1.0, 0.0, 0.0, 0.0, -1.0, 0.0], "crs": None, "values": []
        },
        seed=0,
        hsfusion_version="0.1.0",
    )  # fmt: skip
    save_model(path, network, header=header)
    return path.read_bytes()


def cases(sound: bytes) -> list[HostileFile]:
    """All of them."""
    length = int.from_bytes(sound[:8], "little")
    found = [HostileFile(f"header: {name}", _file(_with_header(sound, change))) for name, change in HEADERS.items()]
    found += [HostileFile(f"tensors: {name}", _file(_with_tensors(sound, change))) for name, change in TENSORS.items()]
    for name, data in {**_listed(sound), **_bytes(sound, length)}.items():
        found.append(HostileFile(f"bytes: {name}", _file(data)))
    for name, (file, data) in _executable().items():
        found.append(HostileFile(f"code: {name}", _file(data, file)))
    return found + [HostileFile(f"file: {name}", write) for name, write in _special(sound).items()]


def _file(data: bytes, name: str = "model.safetensors") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


def put(keys: str, value):
    """Sets a value of the header; the keys are joined by dots, numbers are places in lists."""

    def change(header: dict) -> None:
        *path, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
        for key in path:
            header = header[key]
        header[last] = value

    return change


def drop(key: str):
    return lambda header: header.pop(key)


HEADERS = {
    "older version": put("format_version", 1),
    "version of the future": put("format_version", 5),
    "no bands": drop("bands"),
    "no classes": drop("classes"),
    "fewer centres than bands": put("bands.wavelength_nm", [450.0] * 39),
    "centre as text": put("bands.wavelength_nm.3", "450"),
    "centres in micrometres": put("bands.wavelength_nm.3", 1.2),
    "no group": put("groups", []),
    "group without band": put("groups.0", {"name": "a", "lower_nm": 3000, "upper_nm": 4000}),
    "group with code": put("groups.0._target_", "os.system"),
    "channels as text": put("architecture.channels", "4"),
    "even receptive field": put("architecture.receptive_field", 4),
    "more bands kept than there are": put("architecture.keep_bands", 41),
    "fusion that is code": put("architecture.fusion", "os.system"),
    "fusion that is an interpolation": put("architecture.fusion", "${oc.env:HOME}"),
    "backbone that is code": put("architecture.backbone", "os.system"),
    "option of a backbone that it has not": put("architecture.backbone_options", {"depth": 9}),
    "architecture with code": put("architecture._target_", "os.system"),
    "another architecture": put("architecture.width", 16),
    "checksum missing": drop("checksum"),
}


def _with_header(sound: bytes, change) -> bytes:
    parts = Parts(sound)
    change(parts.header)
    if "checksum" in parts.header:
        parts.sign()
    return parts.packed()


def _fill(name: str, value: float):
    def change(tensors: dict) -> None:
        numbers = np.frombuffer(tensors[name][2], "<f4").copy()
        numbers[len(numbers) // 2] = value
        tensors[name][2] = numbers.tobytes()

    return change


TENSORS = {
    "weight not a number": _fill("cnn.classifier.weight", np.nan),
    "weight infinite": _fill("fusion.coefficients", np.inf),
    "other groups than the header": lambda tensors: tensors["fusion.membership"].__setitem__(
        2, tensors["fusion.membership"][2][1:] + tensors["fusion.membership"][2][:1]
    ),
    "one missing": lambda tensors: tensors.pop("cnn.classifier.bias"),
    "one too many": lambda tensors: tensors.update(hook=["F32", [1], b"\0" * 4]),
    "one turned": lambda tensors: tensors["fusion.basis"][1].reverse(),
    "one without numbers": lambda tensors: tensors.update(std=["F32", [0], b""]),
}


def _with_tensors(sound: bytes, change) -> bytes:
    parts = Parts(sound)
    change(parts.tensors)
    parts.sign()
    return parts.packed()


def _listed(sound: bytes) -> dict[str, bytes]:
    """Lies of the list of tensors."""
    parts = Parts(sound)
    listed, content = parts.body()
    header, last = json.dumps(parts.header), list(listed)[-1]
    begin, end = listed[last]["data_offsets"]

    def lie(**entry) -> bytes:
        return pack({**listed, last: {**listed[last], **entry}}, header, content)

    return {
        "tensors that overlap": lie(data_offsets=[0, end - begin]),
        "tensor beyond the end": lie(data_offsets=[begin, end + 4]),
        "shape that overflows": lie(shape=[2**40, 2**40, 2**40]),
        "type that is none": lie(dtype="../../etc/passwd"),
        "gap between tensors": pack(listed, header, content + b"\0" * 8),
        "metadata of another program": raw(json.dumps({"__metadata__": {"format": "pt"}, **listed}).encode(), content),
        "no tensors": pack({}, header, b""),
        "header not JSON": pack(listed, "import os", content),
        "header a list": pack(listed, "[]", content),
        "header 100,000 deep": pack(listed, "[" * 100_000, content),
        "header with NaN": pack(listed, header.replace('"leakage": 0.0', '"leakage": NaN'), content),
    }


def _bytes(sound: bytes, length: int) -> dict[str, bytes]:
    flipped = bytearray(sound)
    flipped[-5] ^= 1
    letter = bytearray(sound)
    letter[sound.index(b"corn")] ^= 2
    return {
        "tensor changed": bytes(flipped),
        "header changed": bytes(letter),
        **{f"cut off after {at}": sound[:at] for at in (0, 1, 7, 8, 9, 100, length // 2, 8 + length, len(sound) - 1)},
        "a byte too many": sound + b"\0",
        "length of 2^63": struct.pack("<Q", 2**63) + sound[8:],
        "list not JSON": raw(b"{]" * 50),
        "zeros": bytes(10_000),
        "text": b"import os; os.system('touch marker')\n" * 20,
        "a zip archive behind a model": sound + _zip({"archive/data.pkl": payloads.pickled(2)}),
    }


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _saved(content, **how) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def _executable() -> dict[str, tuple[str, bytes]]:
    """Files that run code when the wrong reader opens them: name of the file and content."""
    array = io.BytesIO()
    np.save(array, np.array([payloads.shell()], dtype=object), allow_pickle=True)
    found = {}
    for protocol in (0, 5):
        found[f"pickle of protocol {protocol}"] = ("model.safetensors", payloads.pickled(protocol))
    for name in ("model.safetensors", "last.ckpt"):
        found[f"checkpoint as {name}"] = (name, _saved({"state_dict": {"w": torch.zeros(2), "x": payloads.shell()}}))
    old = {"_use_new_zipfile_serialization": False}
    found["checkpoint in the old form"] = ("model.pth", _saved({"state_dict": payloads.code()}, **old))
    found["harmless checkpoint"] = ("last.ckpt", _saved({"state_dict": {"w": torch.zeros(2)}}))
    found["array of objects"] = ("model.safetensors", array.getvalue())
    found["zip archive with code"] = ("model.safetensors", _zip({"__main__.py": b"import os"}))
    return found


def _special(sound: bytes) -> dict[str, Callable[[Path], Path]]:
    """Paths that are no plain files."""

    def folder(at: Path) -> Path:
        (at / "model.safetensors").mkdir()
        return at / "model.safetensors"

    def pipe(at: Path) -> Path:
        os.mkfifo(at / "model.safetensors")
        return at / "model.safetensors"

    def run_without_model(at: Path) -> Path:
        (at / "checkpoints").mkdir()
        (at / "checkpoints" / "last.ckpt").write_bytes(payloads.pickled(2))
        return at

    return {
        "missing": lambda at: at / "model.safetensors",
        "folder": folder,
        **({"pipe": pipe} if hasattr(os, "mkfifo") else {}),
        "run folder with a checkpoint alone": run_without_model,
    }
