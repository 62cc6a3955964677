"""Hostile run folders to go on with: a sound one, one thing of its checkpoint being wrong."""

import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from hsfusion.publishing import SEAL_BYTES, seal
from model_files import payloads
from model_files.hostile_models import HostileFile


def cases(run: Path) -> list[HostileFile]:
    """All of them, from a run folder that holds config.yaml, inputs.json and checkpoints/last.ckpt."""
    data = (run / "checkpoints" / "last.ckpt").read_bytes()[:-SEAL_BYTES]
    found = [HostileFile(f"checkpoint: {name}", _folder(run, saved(data, change))) for name, change in CONTENT.items()]
    found += [HostileFile(f"checkpoint: {name}", _folder(run, content)) for name, content in _bytes(data).items()]
    return found + [HostileFile(f"checkpoint: {name}", _special(run, make)) for name, make in SPECIAL.items()]


def write_sealed(path: Path, checkpoint: bytes) -> None:
    """Writes a checkpoint with a digest that fits, which whoever is hostile can compute."""
    path.write_bytes(checkpoint)
    if zipfile.is_zipfile(path):
        seal(path)


def _folder(run: Path, checkpoint: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "checkpoints").mkdir()
        write_sealed(folder / "checkpoints" / "last.ckpt", checkpoint)
        for name in ("config.yaml", "inputs.json"):
            shutil.copy(run / name, folder)
        return folder

    return write


def _special(run: Path, make: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        shutil.copytree(run, folder, dirs_exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").unlink()
        make(folder / "checkpoints" / "last.ckpt")
        return folder

    return write


def saved(data: bytes, change: Callable[[dict], object]) -> bytes:
    """The bytes of a checkpoint in which one thing is changed."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    changed = change(content)
    file = io.BytesIO()
    torch.save(content if changed is None else changed, file)
    return file.getvalue()


def put(*keys, value):
    """Sets a value; the last callback that begins with a word stands for its key."""

    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[_found(content, key)]
        content[_found(content, keys[-1])] = value() if callable(value) else value

    return change


def drop(*keys):
    """Takes a value away."""

    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def _found(content, key):
    if isinstance(content, dict) and isinstance(key, str) and key not in content:
        return next((known for known in content if str(known).startswith(f"{key}{{")), key)
    return key


WEIGHT = "network.cnn.classifier.bias"
CONTENT = {
    "code in the weights": put("state_dict", WEIGHT, value=payloads.shell),
    "code beside the weights": put("state_dict", "hook", value=payloads.code),
    "code in the callbacks": put("callbacks", "KeepBest", "weights", value=payloads.shell),
    "code in the hyper-parameters": put("hyper_parameters", "seed", value=payloads.shell),
    "code in the optimizer": put("optimizer_states", 0, "state", value=payloads.code),
    "code at the top": put("hook", value=payloads.shell),
    "a connection": put("callbacks", "History", "curves", value=payloads.resolver),
}  # fmt: skip


def _bytes(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    script = {name.replace("data.pkl", "constants.pkl"): content for name, content in members.items()}
    program = {**members, "archive/code/__torch__.py": b"import os"}
    flipped = bytearray(data)
    flipped[data.index(b"archive/data.pkl") + 200] ^= 0xFF
    return {
        "empty": b"",
        **{f"cut off after {at}": data[:at] for at in (1, 100, len(data) // 2, len(data) - 1)},
        "a bit turned": bytes(flipped),
        "a pickle": payloads.pickled(2),
        "a program of TorchScript": _zip({**script, **program}),
        "numbers missing": _zip({name: content for name, content in members.items() if not name.endswith("data/0")}),
    }


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


SPECIAL = {"missing": lambda path: None, "a folder": Path.mkdir}
SPECIAL |= {"a pipe": os.mkfifo} if hasattr(os, "mkfifo") else {}
