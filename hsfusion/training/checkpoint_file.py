"""Checkpoints of an interrupted run, opened without executing anything and checked before Lightning takes them.

Lightning restores whatever stands in a checkpoint: attributes of a scheduler, and paths of files that it deletes later.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from hsfusion.training.checked_values import Unfit, each, fields, maybe, number, shown, table, text, whole
from hsfusion.training.classifier import FusionClassifier

_MOST_BYTES = 2**33
_MOST_PICKLE_BYTES = 2**26
_MOST_NODES = 10**6  # lists, mappings and what is in them ...
_MOST_NUMBERS = 2 * 10**7  # ... but for lists of nothing but numbers
_DEEPEST = 12
_VERSION = re.compile(r"2\.\d{1,4}(\.\d{1,4})?((rc|\.post|\.dev)\d{1,4})?")
# what torch.save writes beside the numbers
_MEMBER = re.compile(r"[^/]+/(data\.pkl|byteorder|version|\.format_version|\.storage_alignment|data/\d+|\.data/.+)")

_LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
_COUNT = whole(0, 10**12)


def _real(value: Any, field: str) -> None:
    if type(value) not in (int, float):
        raise Unfit(field, shown(value), "a number")


def _no_word(value: Any, field: str) -> None:
    """Numbers, and lists and mappings of them: no name of anything that could be called."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _no_word(item, field)
    elif not (value is None or type(value) in (bool, int, float)):
        raise Unfit(field, shown(value), "numbers")


def _numbers(value: Any, field: str) -> None:
    if not isinstance(value, list) or not _all_numbers(value):
        raise Unfit(field, shown(value), "a list of numbers")


def _anything(value: Any, field: str) -> None:
    """Looked at elsewhere."""


def _last_checkpoint(value: Any, field: str) -> None:
    """A path that Lightning deletes once it has written a newer one: nothing but the file that it wrote there."""
    parts = PurePath(value).parts if isinstance(value, str) else ()
    if value == "":
        return
    if parts[-2:] != ("checkpoints", "last.ckpt") or ".." in parts or "://" in value or "::" in value:
        raise Unfit(field, shown(value), "the path of checkpoints/last.ckpt")


def _empty(value: Any, field: str) -> None:
    if value:
        raise Unfit(field, shown(value), "nothing")


def _curve(value: Any, field: str) -> None:
    each(_numbers, 2, 2)(value, field)
    if len(value[0]) != len(value[1]):
        raise Unfit(field, f"{len(value[0])} steps and {len(value[1])} values", "as many")


def _history(value: Any, field: str) -> None:
    fields({"steps": _numbers, "weights": each(_numbers, 0, 10**6)})(value, field)
    if len({len(row) for row in value["weights"]}) > 1 or len(value["steps"]) != len(value["weights"]):
        raise Unfit(field, "of unequal lengths", "a row of as many weights for each step")


_LARGEST = 1e300  # of a number: none is as large that training wrote
_CALLBACKS = {
    "History": fields({"curves": table(_curve, 100)}),
    "WeightHistory": _history,
    "KeepBest": fields({"step": maybe(_COUNT), "best": number(0, 1), "weights": _anything}),
    "ModelCheckpoint": fields(
        {
            "monitor": _empty,
            "best_model_score": _empty,
            "best_model_path": _last_checkpoint,
            "current_score": _empty,
            "dirpath": text(10_000),
            "best_k_models": _empty,
            "kth_best_model_path": _empty,
            "kth_value": _anything,
            "last_model_path": _empty,
        }
    ),
}
# only of runs with a patience
_STOPPING = fields(
    dict.fromkeys(("wait_count", "stopped_epoch", "patience", "stopping_reason"), _COUNT)
    | {"best_score": _anything, "stopping_reason_message": maybe(text(1000))}
)
_CHECKPOINT = fields(
    {
        "epoch": _COUNT,
        "global_step": _COUNT,
        "pytorch-lightning_version": _anything,
        "state_dict": _anything,
        "loops": _anything,
        "callbacks": fields(_CALLBACKS, {"EarlyStopping": _STOPPING}),
        "optimizer_states": each(fields({"state": _anything, "param_groups": _anything}), 1, 1),
        "lr_schedulers": each(_anything, 1, 1),
        "hparams_name": text(100),
        "hyper_parameters": table(_no_word, 100),
    },
    {"MixedPrecision": table(_real, 10)},
)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Opens a checkpoint of this program.

    Returns:
        its content: plain values and tensors, every sequence a list and every mapping a dict.

    Raises:
        Unfit: if it is none, is damaged, or holds anything that is neither a plain value nor a tensor.
        OSError: if it cannot be read.
    """
    size = _check_archive(path)
    try:
        # the explicit True wins over TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise Unfit("content", "unreadable, or more than numbers and words", "a whole checkpoint of a run") from error
    content = _plain(loaded, size)
    # the monitor and so on are part of its name
    callbacks = content.get("callbacks") if isinstance(content, dict) else None
    if isinstance(callbacks, dict):
        content["callbacks"] = {key.partition("{")[0]: value for key, value in callbacks.items()}
    _CHECKPOINT(content, "checkpoint")
    version = content["pytorch-lightning_version"]
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise Unfit("checkpoint.pytorch-lightning_version", shown(version), "a version 2 of Lightning")
    return content


def check_fits(checkpoint: Mapping[str, Any], module: FusionClassifier) -> None:
    """Checks that a checkpoint has the form of what is to be trained.

    Args:
        checkpoint: from :func:`read_checkpoint`.
        module: as built anew.

    Raises:
        Unfit: if a part is missing, too many, or has another shape or type.
    """
    hyper_parameters = checkpoint["hyper_parameters"]
    if unknown := hyper_parameters.keys() ^ module.hparams.keys():
        raise Unfit("keys of hyper_parameters", f"others ({shown(min(unknown))})", ", ".join(sorted(module.hparams)))
    state = dict(module.state_dict())
    _alike(state, checkpoint["state_dict"], "state_dict")
    if kept := checkpoint["callbacks"]["KeepBest"]["weights"]:
        _alike(state, kept, "callbacks.KeepBest.weights")
    configured: Any = module.configure_optimizers()
    built = configured["optimizer"].state_dict()
    found = checkpoint["optimizer_states"][0]["param_groups"]
    _alike(_listed(built["param_groups"]), found, "param_groups")
    for i, group in enumerate(built["param_groups"]):
        for key, value in group.items():
            if isinstance(value, bool) and found[i][key] != value:  # ways to compute that this machine may not know
                raise Unfit(f"param_groups[{i}].{key}", found[i][key], str(value))
    _check_moments(
        checkpoint["optimizer_states"][0]["state"],
        [p for g in configured["optimizer"].param_groups for p in g["params"]],
    )
    scheduler = configured["lr_scheduler"]["scheduler"].state_dict()
    _alike(_listed(scheduler), checkpoint["lr_schedulers"][0], "lr_schedulers")
    _alike(_loops(), checkpoint["loops"], "loops")


def _check_archive(path: Path) -> int:
    """Looks at the list of a zip archive; returns its size in bytes, more than which nothing in it can hold."""
    size = path.stat().st_size
    if not path.is_file() or not 0 < size <= _MOST_BYTES:
        raise Unfit("size", f"{size} bytes", f"a plain file of 1 to {_MOST_BYTES} bytes")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, UnicodeDecodeError) as error:
        raise Unfit("content", "unreadable: no zip archive, or cut off", "a whole checkpoint of a run") from error
    names = [member.filename for member in members]
    if len(set(names)) < len(names) or not all(map(_MEMBER.fullmatch, names)):
        raise Unfit("content", "other files than those of a checkpoint", "a checkpoint of a run")
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > size:
        raise Unfit("content", "packed", "a checkpoint as it was written, which is not")
    largest = max((member.file_size for member in members if member.filename.endswith("/data.pkl")), default=0)
    if not 0 < largest <= _MOST_PICKLE_BYTES:
        raise Unfit("size of data.pkl", largest, f"1 to {_MOST_PICKLE_BYTES} bytes")
    return size


def _plain(value: Any, size: int) -> Any:
    """The same with every sequence a list and every mapping a dict; counts what a part that occurs often comes to."""
    nodes = numbers = 0

    def walk(value: Any, depth: int) -> Any:
        nonlocal nodes, numbers
        if isinstance(value, list) and _all_numbers(value):
            numbers += len(value)
        nodes += 1
        if nodes > _MOST_NODES or numbers > _MOST_NUMBERS or depth > _DEEPEST:
            raise Unfit("content", "too large, or too deep", f"at most {_MOST_NODES} parts, {_DEEPEST} in one another")
        if isinstance(value, Mapping):
            return {_key(key): walk(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return list(value) if _all_numbers(value) else [walk(item, depth + 1) for item in value]
        if isinstance(value, Tensor):
            _check_tensor(value, size)
        elif not (value is None or type(value) in (bool, int, float, str)):
            raise Unfit("content", f"a {type(value).__name__}", "plain values and tensors")
        return value

    return walk(value, 0)


def _all_numbers(values: Sequence[Any]) -> bool:
    return set(map(type, values)) <= {int, float}


def _key(key: Any) -> str | int:
    if type(key) not in (str, int):
        raise Unfit("key", shown(key), "a word or a number")
    return key


def _check_tensor(tensor: Tensor, size: int) -> None:
    dense = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not dense or tensor.numel() * tensor.element_size() > size:
        raise Unfit("tensor", f"{tensor.layout} {tuple(tensor.shape)}", "as many numbers as the file holds")
    # the one number that is not finite is the threshold of ModelCheckpoint
    if tensor.dim() > 0 and not bool(tensor.isfinite().all()):
        raise Unfit("tensor", "not finite", "finite numbers")


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _alike(built: Any, found: Any, field: str) -> None:
    """Raises Unfit unless both have the same keys, lengths, types and shapes."""
    if isinstance(built, Tensor):
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (built.shape, built.dtype):
            what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else shown(found)
            raise Unfit(field, what, f"{built.dtype} {tuple(built.shape)}")
    elif isinstance(built, dict):
        if not isinstance(found, dict) or found.keys() != built.keys():
            other = shown(min(map(str, found.keys() ^ built.keys()))) if isinstance(found, dict) else shown(found)
            raise Unfit(f"keys of {field}", f"others ({other})", "those of the configuration")
        for key, item in built.items():
            _alike(item, found[key], f"{field}.{key}")
    elif isinstance(built, list):
        if not isinstance(found, list) or len(found) != len(built):
            raise Unfit(field, shown(found), f"a list of {len(built)}")
        for i, item in enumerate(built):
            _alike(item, found[i], f"{field}[{i}]")
    elif type(built) in (int, float):
        if type(found) not in (int, float) or not abs(found) < _LARGEST:
            raise Unfit(field, shown(found), f"a number below {_LARGEST:g}")
    elif type(found) is not type(built) or (not isinstance(built, bool) and found != built):
        raise Unfit(field, shown(found), shown(built))


def _check_moments(state: Any, parameters: list[Tensor]) -> None:
    """What an optimizer remembers of each parameter has its shape, or is one number."""
    if not isinstance(state, dict) or not all(type(i) is int and 0 <= i < len(parameters) for i in state):
        raise Unfit("optimizer_states.state", shown(state), f"numbers of {len(parameters)} parameters")
    for i, moments in state.items():
        fitting = isinstance(moments, dict) and all(
            value is None or (isinstance(value, Tensor) and value.shape in (parameters[i].shape, torch.Size()))
            for value in moments.values()
        )
        if not fitting:
            raise Unfit(f"optimizer_states.state.{i}", "of another shape", str(tuple(parameters[i].shape)))


def _loops() -> dict[str, Any]:
    """Lightning's counters, as they stand before a training."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(accelerator="cpu", **off)
    return {name: getattr(trainer, name).state_dict() for name in _LOOPS}
