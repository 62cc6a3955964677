"""Hostile model files: each is a sound one with one thing wrong, its checksum made right again where that is not it."""

import copy
import gzip
import io
import json
import os
import pickle
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
    "version 1": put("format_version", 1),
    "version 2": put("format_version", 2),
    "version of the future": put("format_version", 4),
    "negative version": put("format_version", -1),
    "version as text": put("format_version", "3"),
    "version 3.0": put("format_version", 3.0),
    "version true": put("format_version", True),
    "no version": drop("format_version"),
    "no bands": drop("bands"),
    "no classes": drop("classes"),
    "unknown key": put("hook", "import os"),
    "_target_": put("_target_", "os.system"),
    "_instantiator": put("_instantiator", "os.system"),
    "fewer centres than bands": put("bands.wavelength_nm", [450.0] * 39),
    "fewer widths than bands": put("bands.fwhm_nm", [10.0] * 39),
    "no band at all": put("bands", {"wavelength_nm": [], "fwhm_nm": None, "good": []}),
    "10,001 bands": put("bands", {"wavelength_nm": [500.0] * 10_001, "fwhm_nm": None, "good": [True] * 10_001}),
    "centre as text": put("bands.wavelength_nm.3", "450"),
    "centre 0": put("bands.wavelength_nm.3", 0),
    "centres in micrometres": put("bands.wavelength_nm.3", 1.2),
    "every band bad": put("bands.good", [False] * 40),
    "bands as list": put("bands", [1, 2, 3]),
    "no group": put("groups", []),
    "1,001 groups": put("groups", [{"name": f"{i}", "lower_nm": 400, "upper_nm": 500} for i in range(1_001)]),
    "group twice": lambda header: header["groups"].append(header["groups"][0]),
    "group upside down": put("groups.0", {"name": "a", "lower_nm": 900, "upper_nm": 400}),
    "group without band": put("groups.0", {"name": "a", "lower_nm": 3000, "upper_nm": 4000}),
    "group that ends at a number of 401 digits": put("groups.1.upper_nm", 10**400),
    "centre of 401 digits": put("bands.wavelength_nm.3", 10**400),
    "group with code": put("groups.0._target_", "os.system"),
    "layers by the million": put("sources", [{"name": "lidar", "layers": 10**6}]),
    "layers that fill the memory": put("sources", [{"name": f"s{i}", "layers": 9_999} for i in range(500)]),
    "codes not ascending": put("classes.codes", [2, 1, 7]),
    "code 0": put("classes.codes.0", 0),
    "code 70,000": put("classes.codes.2", 70_000),
    "code true": put("classes.codes.0", True),
    "fewer names than codes": put("classes.names", ["a", "b"]),
    "fewer colours than codes": put("classes.colors", ["#000000"]),
    "70,000 classes": put(
        "classes", {"codes": list(range(70_000)), "names": ["a"] * 70_000, "colors": ["#000000"] * 70_000}
    ),
    "colour by name": put("classes.colors.0", "red"),
    "colour too short": put("classes.colors.0", "#12345"),
    "colour with a line break": put("classes.colors.0", "#123456\n"),
    "colour with an address": put("classes.colors.0", "url(http://127.0.0.1:9/x)"),
    "name with a line break": put("classes.names.0", "corn\nhsfusion: all is well"),
    "name that moves the cursor": put("classes.names.0", "corn\x1b[2J\x1b]0;title\x07"),
    "name with a null": put("classes.names.0", "corn\x00"),
    "name with half a letter": put("classes.names.0", "corn \ud800"),
    "empty name": put("classes.names.0", " "),
    "name twice": put("classes.names", ["a", "a", "b"]),
    "name as number": put("classes.names.0", 5),
    "channels huge": put("architecture.channels", 10**9),
    "channels negative": put("architecture.channels", -4),
    "channels 0": put("architecture.channels", 0),
    "channels as float": put("architecture.channels", 4.0),
    "channels true": put("architecture.channels", True),
    "channels as text": put("architecture.channels", "4"),
    "channels null": put("architecture.channels", None),
    "wide and deep": put("architecture", {"channels": 4096, "width": 4096, "receptive_field": 255}),
    "many predicted weights": put("architecture", {"fusion": "channel_instance", "channels": 4096}),
    "knots without end": put("architecture.knot_spacing_nm", 1e-300),
    "knots by the million": lambda header: (
        header["architecture"].update(knot_spacing_nm=0.01), header["groups"][-1].update(upper_nm=1e9)
    ),
    "even receptive field": put("architecture.receptive_field", 4),
    "more bands kept than there are": put("architecture.keep_bands", 41),
    "fusion that is code": put("architecture.fusion", "os.system"),
    "fusion that is unknown": put("architecture.fusion", "attention"),
    "fusion that is an interpolation": put("architecture.fusion", "${oc.env:HOME}"),
    "backbone that is code": put("architecture.backbone", "os.system"),
    "backbone that is no name": put("architecture.backbone", "a b; c"),
    "option of a backbone that it has not": put("architecture.backbone_options", {"depth": 10**9}),
    "architecture with code": put("architecture._target_", "os.system"),
    "another architecture": put("architecture.width", 16),
    "unknown key of the architecture": put("architecture.hook", 1),
    "argument that is no part of it": put("architecture.bands", [1]),
    "seed as list": put("seed", [0]),
    "checksum missing": drop("checksum"),
}  # fmt: skip


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


def _first_gate(tensors: dict) -> None:
    tensors["fusion.gates.gate_of"][2] = struct.pack("<q", 2**40) + tensors["fusion.gates.gate_of"][2][8:]


def _retyped(name: str, dtype: str, numpy_type: str):
    def change(tensors: dict) -> None:
        numbers = np.frombuffer(tensors[name][2], "<f4").astype(numpy_type)
        tensors[name][0], tensors[name][2] = dtype, numbers.tobytes()

    return change


TENSORS = {
    "weight not a number": _fill("cnn.classifier.weight", np.nan),
    "weight infinite": _fill("fusion.coefficients", np.inf),
    "mean minus infinite": _fill("mean", -np.inf),
    "standard deviation 0": _fill("std", 0),
    "standard deviation negative": _fill("std", -1),
    "standard deviation not a number": _fill("std", np.nan),
    "variance negative": _fill("cnn.norm.running_var", -1),
    "gate out of range": _first_gate,
    "other groups than the header": lambda tensors: tensors["fusion.membership"].__setitem__(
        2, tensors["fusion.membership"][2][::-1]
    ),
    "one missing": lambda tensors: tensors.pop("cnn.classifier.bias"),
    "one too many": lambda tensors: tensors.update(hook=["F32", [1], b"\0" * 4]),
    "one renamed": lambda tensors: tensors.update({"\x1b[2Jstd": tensors.pop("std")}),
    "one turned": lambda tensors: tensors["fusion.basis"][1].reverse(),
    "one without numbers": lambda tensors: tensors.update(std=["F32", [0], b""]),
    "whole numbers for weights": _retyped("std", "I64", "<i8"),
    "double precision": _retyped("std", "F64", "<f8"),
    "half precision": _retyped("std", "F16", "<f2"),
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

    def lie(**entry) -> bytes:
        changed = copy.deepcopy(listed)
        changed[last].update(entry)
        return pack(changed, header, content)

    begin, end = listed[last]["data_offsets"]
    wrong = {
        "tensors that overlap": lie(data_offsets=[0, end - begin]),
        "tensor beyond the end": lie(data_offsets=[begin, end + 4]),
        "tensor far beyond the end": lie(shape=[2**28], data_offsets=[begin, begin + 2**30]),
        "offsets negative": lie(data_offsets=[-8, 8]),
        "offsets as floats": lie(data_offsets=[float(begin), float(end)]),
        "offsets true": lie(data_offsets=[False, True]),
        "three offsets": lie(data_offsets=[begin, begin, end]),
        "shape negative": lie(shape=[-1, -4]),
        "shape that overflows": lie(shape=[2**40, 2**40, 2**40]),
        "shape of 1,000 axes": lie(shape=[1] * 1_000),
        "type that is none": lie(dtype="../../etc/passwd"),
        "type as list": lie(dtype=["F32"]),
        "entry that is none": pack({**listed, last: 5}, header, content),
        "gap between tensors": pack(listed, header, content + b"\0" * 8),
        "metadata of another program": raw(json.dumps({"__metadata__": {"format": "pt"}, **listed}).encode(), content),
        "metadata not text": raw(json.dumps({"__metadata__": {"hsfusion": 5}, **listed}).encode(), content),
        "no tensors": pack({}, header, b""),
        "header not JSON": pack(listed, "import os", content),
        "header a list": pack(listed, "[]", content),
        "header null": pack(listed, "null", content),
        "header 100,000 deep": pack(listed, "[" * 100_000, content),
        "header of a million lists": pack(listed, "[" + "[]," * 10**6 + "[]]", content),
        "header with a key twice": pack(listed, header[:-1] + ', "seed": 1}', content),
        "header with NaN": pack(listed, header.replace('"leakage": 0.0', '"leakage": NaN'), content),
        "header with Infinity": pack(listed, header.replace('"leakage": 0.0', '"leakage": -Infinity'), content),
        "header with 1e999": pack(listed, header.replace('"leakage": 0.0', '"leakage": 1e999'), content),
        "number of 10,000 digits": pack(listed, header.replace('"seed": 0', f'"seed": {"9" * 10_000}'), content),
    }
    twice = json.dumps({"__metadata__": {"hsfusion": header}, **listed})[:-1]
    wrong["list with metadata twice"] = raw(f'{twice}, "__metadata__": {{}}}}'.encode(), content)
    return wrong


def _bytes(sound: bytes, length: int) -> dict[str, bytes]:
    flipped = bytearray(sound)
    flipped[-5] ^= 1
    letter = bytearray(sound)
    letter[sound.index(b"corn")] ^= 2
    return {
        "tensor changed": bytes(flipped),
        "header changed": bytes(letter),
        "checksum of another": sound.replace(b'checksum\\": \\"', b'checksum\\": \\"0', 1).replace(
            b'0\\", \\"cl', b'\\", \\"cl', 1
        ),
        **{f"cut off after {at}": sound[:at] for at in (0, 1, 7, 8, 9, 100, length // 2, 8 + length, len(sound) - 1)},
        "a byte too many": sound + b"\0",
        "length of 2^63": struct.pack("<Q", 2**63) + sound[8:],
        "length beyond the end": struct.pack("<Q", len(sound)) + sound[8:],
        "length 0": struct.pack("<Q", 0) + sound[8:],
        "list not text": raw(b"{\xff\xfe" + b"\0" * 50),
        "list not JSON": raw(b"{]" * 50),
        "list 100,000 deep": raw(b'{"a":' * 100_000),
        "list of lists": raw(b"{" + b'"a":[],' * 10 + b'"b":[]}'),
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
    for protocol in (0, 2, 4, 5):
        found[f"pickle of protocol {protocol}"] = ("model.safetensors", payloads.pickled(protocol))
    for name in ("model.safetensors", "last.ckpt", "model.pt", "model.pkl"):
        found[f"checkpoint as {name}"] = (name, _saved({"state_dict": {"w": torch.zeros(2), "x": payloads.shell()}}))
    old = {"_use_new_zipfile_serialization": False}
    found["checkpoint in the old form"] = ("model.pth", _saved({"state_dict": payloads.code()}, **old))
    found["harmless checkpoint"] = ("last.ckpt", _saved({"state_dict": {"w": torch.zeros(2)}}))
    found["packed pickle"] = ("model.safetensors", gzip.compress(payloads.pickled(2)))
    found["array of objects"] = ("model.safetensors", array.getvalue())
    found["pickle of code"] = ("model.pickle", pickle.dumps(payloads.code()))
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

    def link(target: str) -> Callable[[Path], Path]:
        def write(at: Path) -> Path:
            (at / "model.safetensors").symlink_to(target)
            return at / "model.safetensors"

        return write

    def run_without_model(at: Path) -> Path:
        (at / "checkpoints").mkdir()
        (at / "checkpoints" / "last.ckpt").write_bytes(payloads.pickled(2))
        return at

    return {
        "missing": lambda at: at / "model.safetensors",
        "folder": folder,
        "pipe": pipe,
        "link to itself": link("model.safetensors"),
        "link to nothing": link("nowhere"),
        "link to zeros without end": link("/dev/zero"),
        "run folder with a checkpoint alone": run_without_model,
    }
