"""``hsfusion predict``: a trained model and a scene to a map."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from hsfusion import __version__
from hsfusion.cli.hydra_app import run_app
from hsfusion.errors import EnvironmentFailure, InputError


def predict(cfg: DictConfig) -> None:
    """Classifies one scene into files."""
    import torch

    from hsfusion.cli.predict_input import open_scene_for
    from hsfusion.cli.predict_outputs import TABLE, files_beside, progress_bar
    from hsfusion.inference import FoldedNetwork, map_scene
    from hsfusion.inference.classification import with_precision
    from hsfusion.training.model_file import load_model

    start = time.perf_counter()
    _check(cfg)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    if int(os.environ.get("RANK", "0")) > 0:
        logging.getLogger("hsfusion").setLevel(logging.ERROR)  # the first process shows the warnings
    model = _model_path(cfg.run)
    network, header = load_model(model)
    scene, network, tags = open_scene_for(cfg, network, header)
    folded = FoldedNetwork(network).to(_device(cfg.device))
    folded, precision = with_precision(folded, scene, cfg.precision)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    order = _order(cfg, header, {"hsfusion_model_sha256": digest, **tags, "scene": scene.name}, folded)
    _check_out(cfg, order, scene)
    if cfg.compile:
        folded.convolutions.compile()
    plan = _plan(digest, [cfg.bands, precision, cfg.compile, folded.fill.device.type], scene)
    with _share() as share:
        shown = {"progress": progress_bar} if cfg.progress and share.rank == 0 else {}
        areas = map_scene(folded, scene, order, plan=plan, share=share, beside=files_beside(order, scene.name), **shown)
    if areas is None:
        return
    seconds = time.perf_counter() - start
    pixels = scene.geobox.shape[0] * scene.geobox.shape[1]
    print(
        f"map        {order.out}\nquick look {order.out.with_suffix('.png')}\nareas      {order.beside(TABLE)}\n"
        f"{pixels:,} pixels in {seconds:.1f} s ({pixels / seconds:,.0f} pixels/s, {precision})"
    )


def command() -> None:
    """Entry point of the command."""
    run_app(predict, "predict")


def _check(cfg: DictConfig) -> None:
    for key, choices in (
        ("bands", ("match", "resample")),
        ("border", ("reflect", "valid")),
        ("format", ("geotiff", "cog")),
        ("precision", ("auto", "float32", "bf16")),
        ("device", ("auto", "cpu", "cuda")),
    ):
        if cfg[key] not in choices:
            raise InputError("command line", field=key, value=cfg[key], expected=" | ".join(choices), fix="correct it")
    if cfg.scene is None:
        raise InputError("command line", field="scene", value="missing", expected="a file", fix="add scene=PATH")
    out = Path(cfg.out or "map.tif")
    if out.suffix.lower() not in {".tif", ".tiff"}:
        raise InputError("command line", field="out", value=out, expected="a name that ends in .tif", fix="add .tif")
    if not out.parent.is_dir():
        raise InputError("command line", field="folder of out", value=out.parent, expected="a folder", fix="make it")
    if HydraConfig.get().mode == RunMode.MULTIRUN and "WORLD_SIZE" in os.environ:
        raise InputError(
            "command line", field="--multirun", value="under torchrun", expected="one map", fix="drop one of the two"
        )


def _model_path(run: str) -> Path:
    path = Path(run)
    return path / "model.safetensors" if path.is_dir() else path


def _plan(digest: str, computed: list[Any], scene: Any) -> dict[str, Any]:
    """All that decides on the numbers: a journal of something else is not gone on from."""
    import torch

    from hsfusion.scenes.recorded import fingerprint

    versions = [__version__, torch.__version__]
    return {"versions": versions, "model": digest, "computed": computed, "scene": fingerprint(scene)}


def _order(cfg: DictConfig, header: dict[str, Any], tags: dict[str, str], network: Any) -> Any:
    from hsfusion.inference import Order
    from hsfusion.inference.classification import batch_for
    from hsfusion.scenes import Legend

    classes = header["classes"]
    return Order(
        out=Path(cfg.out or f"{tags['scene']}_map.tif"),
        legend=Legend(tuple(classes["codes"]), tuple(classes["names"]), tuple(classes["colors"])),
        tags={"hsfusion_version": __version__, **tags},
        confidence=cfg.confidence,
        probabilities=cfg.probabilities,
        border=cfg.border,
        format=cfg.format,
        batch=cfg.batch or batch_for(network),
    )


def _device(name: str) -> str:
    """Where to compute: of several GPUs the one of this process's number, which torchrun sets."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFailure("device is cuda, expected what this machine has. Fix: use device=cpu.")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


_written: set[Path] = set()  # by this process, in a multirun


def _check_out(cfg: DictConfig, order: Any, scene: Any) -> None:
    """Refuses to write over what is read, a folder, or the map of another scene of the same multirun."""
    from hsfusion.scenes.recorded import input_files

    endings = ("confidence.tif", "probabilities.tif", "areas.csv")
    outs = [order.out, order.out.with_suffix(".png"), *(order.beside(ending) for ending in endings)]
    inputs = [*input_files(scene), _model_path(cfg.run)]
    for out in outs:
        if out.is_dir() or any(out.exists() and path.exists() and out.samefile(path) for path in inputs):
            raise InputError(out, field="file", value="an input, or a folder", expected="a new file", fix="choose out=")
    if order.out.resolve() in _written:
        raise InputError(
            order.out, field="out", value="that of another scene", expected="one each", fix="give scenes other names"
        )
    _written.add(order.out.resolve())


@contextmanager
def _share() -> Iterator[Any]:
    """Which cells are this process's: torchrun sets RANK and WORLD_SIZE. Leaves the group of processes at the end."""
    from hsfusion.inference.mapping import Share

    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Share()
        return
    import torch.distributed as distributed

    def wait() -> None:
        try:
            distributed.barrier()
        except RuntimeError as error:  # the others are gone
            raise EnvironmentFailure("another process of this map failed. Fix: see its message.") from error

    distributed.init_process_group("gloo", timeout=timedelta(days=7))  # one may have much more to do
    try:
        yield Share(int(os.environ["RANK"]), world, wait)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":  # torchrun -m hsfusion.cli.predict
    from hsfusion.cli.main import run_command

    raise SystemExit(run_command("predict"))
