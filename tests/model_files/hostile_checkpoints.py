"""Hostile run folders for ``hsfusion train resume=``: a sound one, one thing of its two files being wrong."""

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from model_files import payloads
from model_files.hostile_models import HostileFile


def cases(run: Path) -> list[HostileFile]:
    """All of them, from a run folder that holds config.yaml and checkpoints/last.ckpt."""
    data = (run / "checkpoints" / "last.ckpt").read_bytes()
    found = [HostileFile(f"checkpoint: {name}", _folder(run, _saved(data, change))) for name, change in CONTENT.items()]
    found += [HostileFile(f"checkpoint: {name}", _folder(run, content)) for name, content in _bytes(data).items()]
    found += [HostileFile(f"configuration: {name}", _folder(run, data, edit)) for name, edit in CONFIGURATIONS.items()]
    return found + [HostileFile(f"checkpoint: {name}", _special(run, make)) for name, make in SPECIAL.items()]


def _folder(run: Path, checkpoint: bytes, edit: Callable[[str], str | bytes] | None = None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").write_bytes(checkpoint)
        text = (run / "config.yaml").read_text()
        edited = text if edit is None else edit(text)
        (folder / "config.yaml").write_bytes(edited if isinstance(edited, bytes) else edited.encode())
        return folder

    return write


def _special(run: Path, make: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        shutil.copytree(run, folder, dirs_exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").unlink()
        make(folder / "checkpoints" / "last.ckpt")
        return folder

    return write


def _saved(data: bytes, change: Callable[[dict], object]) -> bytes:
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


def _bomb() -> list:
    """Ten lists of ten times the next one, down to one word: 10^30 words."""
    bomb: list = ["word"]
    for _ in range(30):
        bomb = [bomb] * 10
    return bomb


def _deep() -> list:
    deep: list = []
    for _ in range(300):
        deep = [deep]
    return deep


WEIGHT = "network.cnn.classifier.bias"
SAVED = "ModelCheckpoint"
CONTENT = {
    "code in the weights": put("state_dict", WEIGHT, value=payloads.shell),
    "code beside the weights": put("state_dict", "hook", value=payloads.code),
    "code in the callbacks": put("callbacks", "KeepBest", "weights", value=payloads.shell),
    "code as a callback": put("callbacks", "Hook", value=payloads.code),
    "code in the hyper-parameters": put("hyper_parameters", "seed", value=payloads.shell),
    "code in the loops": put("loops", "fit_loop", "state_dict", value=payloads.shell),
    "code in the optimizer": put("optimizer_states", 0, "state", value=payloads.code),
    "code in the schedule": put("lr_schedulers", 0, "lr_lambdas", value=payloads.shell),
    "code at the top": put("hook", value=payloads.shell),
    "code for the version": put("pytorch-lightning_version", value=payloads.shell),
    "a connection": put("callbacks", "History", "curves", value=payloads.resolver),
    "_target_ in the hyper-parameters": put("hyper_parameters", "_target_", value="os.system"),
    "_instantiator in the hyper-parameters": put("hyper_parameters", "_instantiator", value="os.system"),
    "_class_path in the hyper-parameters": put("hyper_parameters", "_class_path", value="os.system"),
    "interpolation in the hyper-parameters": put("hyper_parameters", "seed", value="${oc.env:HOME}"),
    "hyper-parameters' type": put("hparams_type", value="os.system"),
    "a whole module": put("state_dict", WEIGHT, value=lambda: torch.nn.Linear(1, 1)),
    "a number of 401 digits": put("lr_schedulers", 0, "last_epoch", value=lambda: 10**400),
    "a number of 5001 digits": put("lr_schedulers", 0, "last_epoch", value=lambda: 10**5000),
    "a best accuracy of 401 digits": put("callbacks", "KeepBest", "best", value=lambda: 10**400),
    "curves of unequal lengths": put("callbacks", "History", "curves", value=lambda: {"val/loss": [[1, 2], [0.5]]}),
    "weights of unequal lengths": put("callbacks", "WeightHistory", "weights", value=lambda: [[1.0], [0.5, 0.5]]),
    "more weights than steps": put("callbacks", "WeightHistory", "steps", value=list),
    "a set": put("callbacks", "History", "curves", value=lambda: {1, 2}),
    "a bomb of lists": put("callbacks", "WeightHistory", "weights", value=_bomb),
    "a bomb of curves": put("callbacks", "History", "curves", value=lambda: {str(i): _bomb() for i in range(5)}),
    "lists 300 deep": put("loops", "fit_loop", value=_deep),
    "a weight not a number": put("state_dict", WEIGHT, value=lambda: torch.full((4,), torch.nan)),
    "a kept weight infinite": put("callbacks", "KeepBest", "weights", WEIGHT, value=lambda: torch.ones(4) / 0),
    "a moment not a number": put("optimizer_states", 0, "state", 0, "exp_avg", value=lambda: torch.zeros(4, 4) / 0),
    "a weight of another shape": put("state_dict", WEIGHT, value=lambda: torch.zeros(5)),
    "a weight without numbers": put("state_dict", WEIGHT, value=lambda: torch.zeros(0)),
    "a weight of another type": put("state_dict", WEIGHT, value=lambda: torch.zeros(4, dtype=torch.float64)),
    "a weight of 4 TB in 4 bytes": put("state_dict", WEIGHT, value=lambda: torch.zeros(1).expand(10**12)),
    "a sparse weight": put("state_dict", WEIGHT, value=lambda: torch.zeros(4).to_sparse()),
    "a weight on no device": put("state_dict", WEIGHT, value=lambda: torch.zeros(4, device="meta")),
    "a moment of another shape": put("optimizer_states", 0, "state", 0, "exp_avg", value=lambda: torch.zeros(3)),
    "moments of no parameter": put("optimizer_states", 0, "state", 999, value={}),
    "a weight missing": drop("state_dict", WEIGHT),
    "a weight too many": put("state_dict", "network.hook", value=lambda: torch.zeros(1)),
    "kept weights of another network": put("callbacks", "KeepBest", "weights", value=lambda: {"a": torch.zeros(1)}),
    "no weights": drop("state_dict"),
    "no loops": drop("loops"),
    "loops of another kind": put("loops", "fit_loop", value=[1, 2]),
    "a counter as text": put("loops", "fit_loop", "epoch_progress", "current", "ready", value="2"),
    "a counter missing": drop("loops", "fit_loop", "epoch_progress", "current"),
    "an epoch below 0": put("epoch", value=-1),
    "a step that is true": put("global_step", value=True),
    "a version that is none": put("pytorch-lightning_version", value="../../x"),
    "a version of the past": put("pytorch-lightning_version", value="0.8.1"),
    "no version": drop("pytorch-lightning_version"),
    "a file to delete": put("callbacks", SAVED, "best_model_path", value="new/checkpoints/../../precious"),
    "a folder to delete": put("callbacks", SAVED, "best_model_path", value="/tmp"),
    "an address to delete": put("callbacks", SAVED, "best_model_path", value="s3://bucket/checkpoints/last.ckpt"),
    "a last file to delete": put("callbacks", SAVED, "last_model_path", value="/etc/passwd"),
    "best files to delete": put("callbacks", SAVED, "best_k_models", value={"/etc/passwd": 1.0}),
    "an attribute of the schedule": put("lr_schedulers", 0, "step", value=None),
    "a switch of the optimizer": put("optimizer_states", 0, "param_groups", 0, "capturable", value=True),
    "a learning rate that is infinite": put("optimizer_states", 0, "param_groups", 0, "lr", value=float("inf")),
    "two optimizers": lambda content: content["optimizer_states"].append(content["optimizer_states"][0]),
    "a list": lambda content: [content],
    "a tensor alone": lambda content: torch.zeros(3),
    "code alone": lambda content: payloads.shell(),
}  # fmt: skip


def _bytes(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    script = {name.replace("data.pkl", "constants.pkl"): content for name, content in members.items()}
    program = {**members, "archive/code/__torch__.py": b"import os"}
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(payloads.pickled(2))
            archive.addfile(info, io.BytesIO(payloads.pickled(2)))
    numbers = {**members, "archive/data/0": b"\0"}
    flipped = bytearray(data)
    flipped[data.index(b"archive/data.pkl") + 200] ^= 0xFF
    return {
        "empty": b"",
        **{f"cut off after {at}": data[:at] for at in (1, 100, len(data) // 2, len(data) - 1)},
        "a bit turned": bytes(flipped),
        "a pickle": payloads.pickled(2),
        "a pickle of protocol 5": payloads.pickled(5),
        "a tar archive": tar.getvalue(),
        "a program of TorchScript": _zip({**script, **program}),
        "packed": _zip(members, zipfile.ZIP_DEFLATED),
        "a bomb of zeros": _zip({**members, "archive/data/0": bytes(300_000_000)}, zipfile.ZIP_DEFLATED),
        "a pickle of 70 MB": _zip({**members, "archive/data.pkl": b"\x80\x02" + b"N0" * 35_000_000 + b"N."}),
        "fewer numbers than it says": _zip(numbers),
        "a file out of the folder": _zip({**members, "../../x": b"1"}),
        "numbers missing": _zip({name: content for name, content in members.items() if not name.endswith("data/0")}),
        "a safetensors file": b"\x10\0\0\0\0\0\0\0" + b"{}" + b" " * 14,
    }


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _lines(*lines: str) -> Callable[[str], str]:
    return lambda text: text + "\n".join(lines) + "\n"


BOMB = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
BOMB += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
CONFIGURATIONS = {
    "another seed": lambda text: text.replace("seed: 0", "seed: 1", 1),
    "code for a logger": _lines("callback:", "  _target_: os.system", "  command: touch marker"),
    "code where all is free": lambda text: text.replace("logger:", "logger:\n  hook:\n    _target_: os.system", 1),
    "code for the model": lambda text: text.replace("hsfusion.training.building.build_network", "os.system"),
    "code by _instantiator": _lines("_instantiator: os.system"),
    "code by a tag": _lines("hook: !!python/object/apply:os.system [touch marker]"),
    "code by a tag of a path": _lines("hook: !!python/object/apply:pathlib.PosixPath [/etc]"),
    "an interpolation": lambda text: text.replace("seed: 0", "seed: ${oc.env:HOME}", 1),
    "an interpolation of an interpolation": _lines("hook: ${oc.create:${oc.env:HOME}}"),
    "an interpolation that calls itself": _lines("hook: ${hook}"),
    "a bomb of aliases": _lines(*BOMB),
    "an alias": _lines("a: &a 1", "b: *a"),
    "lists 1,000 deep": _lines("a: " + "[" * 1_000 + "]" * 1_000),
    "brackets that are not closed": _lines("a: " + "[" * 100_000),
    "a key twice": _lines("seed: 0"),
    "control characters": lambda text: text.replace("seed: 0", 'seed: "\\e[2J\\n"', 1),
    "a key with control characters": _lines('"\\e[2J": 1'),
    "a list": lambda text: "- 1\n- 2\n",
    "a word": lambda text: "word\n",
    "nothing": lambda text: "",
    "no text": lambda text: b"\xff\xfe\x00\x01" * 50,
    "20 MB": lambda text: text + "#" * 20_000_000,
}  # fmt: skip

SPECIAL = {
    "missing": lambda path: None,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to zeros without end": lambda path: path.symlink_to("/dev/zero"),
}
