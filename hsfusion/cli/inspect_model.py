"""``hsfusion inspect`` of a model file, or of the folder of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import InputError
from hsfusion.training.model_file import FORMAT_VERSION, ModelHeader

_ENDINGS = {".safetensors", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"}  # the others are refused with the reason
_WIDTH, _LEFT = 100, 18
_FIGURES = {"band_weights.png", "band_weights.svg"}


def is_model(path: Path) -> bool:
    """Whether a word of the command line names a model, or the folder of a run, rather than a cube."""
    return path.suffix.lower() in _ENDINGS or any(
        (path / name).exists() for name in ("model.safetensors", "checkpoints")
    )


def inspect_model(path: Path, *, folder: Path | None, as_json: bool) -> None:
    """Prints what a model file holds, and draws its band weights into a folder.

    Raises:
        InputError: if the file is damaged, or there is nothing to draw.
    """
    from hsfusion.training.model_file import load_model  # imports torch

    file = path / "model.safetensors" if path.is_dir() else path
    network, header = load_model(file)
    weights = _weights(file, network)
    inside = network.fusion.membership.numpy()
    if folder is not None:
        _check_folder(file, folder, weights)
    if as_json:
        content = {"file": str(file), "checksum": "matches", **header.to_dict()}
        content["band_weights"] = None if weights is None else weights.tolist()
        print(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False))
    else:
        print(_page(file, header, network.used_bands.numpy(), weights, inside))
    if folder is not None:
        assert weights is not None, "the folder was checked"
        _draw(folder, file, header, weights)
        if not as_json:
            print(f"\nFigures: {folder / 'band_weights.png'}")


def _weights(file: Path, network: Any) -> NDArray[np.float64] | None:
    """(C + E,) weights of bands and further layers; None where every pixel has its own.

    Raises:
        InputError: if the numbers of the file, each of them finite, make none.
    """
    from hsfusion.training.building import LearnedWeights

    if network.fusion.kind.endswith("instance"):
        return None
    weights = LearnedWeights(network).weight
    if not np.isfinite(weights).all():
        raise InputError(file, "band weights", "not finite", "numbers", "train again")
    return weights


def _page(
    file: Path, header: ModelHeader, used: NDArray[np.bool_], weights: NDArray[np.float64] | None, inside: NDArray
) -> str:
    sections = {
        "Model": _model(header),
        "Bands": _bands(header, used),
        "Groups": _groups(header, weights, inside),
        "Classes": _classes(header),
        "Training scene": _scene(header),
        "Accuracies": _accuracies(header),
    }
    lines = [file.name, str(file.absolute().parent)]
    for title, rows in sections.items():
        lines += ["", title]
        for name, words in rows:
            text = wrap(words, _WIDTH - _LEFT - 2) or [""]
            lines += [f"  {name if i == 0 else '':<{_LEFT - 2}}  {line}" for i, line in enumerate(text)]
    return "\n".join(line.rstrip() for line in lines)


def _model(header: ModelHeader) -> Iterator[tuple[str, str]]:
    yield "format", f"model.safetensors of hsfusion, format {FORMAT_VERSION}"
    yield "checksum", f"matches header and tensors ({str(header.checksum)[:12]}…)"
    settings = {"fusion": header.fusion, **header.architecture}
    yield "architecture", ", ".join(f"{key} {'none' if value is None else value}" for key, value in settings.items())
    if header.seed is not None:
        yield "seed", str(header.seed)
    written = {} if header.hsfusion_version is None else {"hsfusion": header.hsfusion_version}
    written |= header.versions
    yield "versions", ", ".join(f"{name} {version}" for name, version in written.items()) or "not named"


def _bands(header: ModelHeader, used: NDArray[np.bool_]) -> Iterator[tuple[str, str]]:
    bands = header.bands
    nm, of_bands = bands.wavelength_nm, used[: len(bands)]
    yield "number", f"{len(bands)}: {of_bands.sum()} used, {(~bands.good).sum()} marked bad"
    yield "wavelengths", f"{nm.min():.1f} to {nm.max():.1f} nm"
    if of_bands.any():
        yield "used", f"{nm[of_bands].min():.1f} to {nm[of_bands].max():.1f} nm"
    fwhm = bands.fwhm_nm
    yield "FWHM", "not named" if fwhm is None else f"{fwhm.min():.1f} to {fwhm.max():.1f} nm"
    for name, layers in header.sources:
        yield "also", f"{name}: {layers} {'layer' if layers == 1 else 'layers'}"


def _groups(
    header: ModelHeader, weights: NDArray[np.float64] | None, inside: NDArray[np.bool_]
) -> Iterator[tuple[str, str]]:
    groups, sources = header.groups, header.sources
    if weights is None:
        yield "weights", "depend on the pixel: band_weights.csv of the run has their mean over training pixels"
    elif len(inside) == 1 < len(groups) + len(sources):
        yield "weights", "a free convolution: the groups play no part in it"
        weights = None
    rows = [f"{group.lower_nm:.1f} to {group.upper_nm:.1f} nm" for group in groups]
    rows += [f"{layers} further layers" for _, layers in sources]
    names = [*(group.name for group in groups), *(name for name, _ in sources)]
    for g, (name, row) in enumerate(zip(names, rows, strict=True)):
        count = "" if weights is None else f", {inside[g].sum()} bands, weight {100 * weights[inside[g]].sum():.1f} %"
        yield name, row + count


def _classes(header: ModelHeader) -> Iterator[tuple[str, str]]:
    classes, per_class = header.classes, (header.test or {}).get("per_class", {})
    for code, name, color in zip(classes.codes, classes.names, classes.colors, strict=True):
        accuracy = per_class.get(name, {}).get("accuracy")
        yield str(code), f"{name} ({color})" + ("" if accuracy is None else f", accuracy {accuracy:.4f}")


def _scene(header: ModelHeader) -> Iterator[tuple[str, str]]:
    scene, split = header.training_scene, header.split
    if scene is None:
        yield "name", "not named"
    else:
        rows, columns = scene["shape"]
        yield "name", scene["name"]
        yield "size", f"{rows:,} rows x {columns:,} columns"
        yield "coordinates", scene["crs"] or "none"
        for entry in scene.get("files", []):
            yield "file", f"{entry['name']}, {entry['bytes']:,} bytes"
        for entry in scene["values"]:
            scale, offset = (
                value if isinstance(value, int | float) else "of each band"
                for value in (entry["scale"], entry["offset"])
            )
            yield "values", f"{entry['name']}: {entry['format']}, scale {scale}, offset {offset}"
    if split is not None:
        pixels = ", ".join(
            f"{split[f'{role}_pixels']:,} {word}"
            for role, word in (("train", "training"), ("val", "validation"), ("test", "test"))
        )
        yield "split", f"{split['kind']}: {pixels} pixels"
        yield "leakage", f"{split['leakage']:.4f} of the test pixels have a training pixel in their patch"


def _accuracies(header: ModelHeader) -> Iterator[tuple[str, str]]:
    test = header.test
    if test is None:
        yield "test", "not named"
        return
    for name in ("overall_accuracy", "average_accuracy", "kappa", "mean_iou"):
        yield name.replace("_", " "), f"{test[name]:.4f}"


def _check_folder(file: Path, folder: Path, weights: NDArray[np.float64] | None) -> None:
    if weights is None:
        raise InputError(file, "--plot", "given", "weights that do not depend on the pixel", "drop --plot")
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= _FIGURES):
        raise InputError(folder, "--plot", "in use", "a new folder", "name another: --plot FOLDER")


def _draw(folder: Path, file: Path, header: ModelHeader, weights: NDArray[np.float64]) -> None:
    from hsfusion import plots

    nm = header.bands.wavelength_nm
    sources, at = {}, len(nm)
    for name, layers in header.sources:
        sources[name] = float(weights[at : at + layers].sum())
        at += layers
    groups = [] if header.fusion == "free" else [(g.name, g.lower_nm, g.upper_nm) for g in header.groups]
    figure = plots.band_weights_figure(
        nm,
        weights[: len(nm)],
        groups=groups,
        spectra=None,
        colors=None,
        title=f"Band weights: {header.scene_name or file.stem}",
        sources=sources,
    )
    plots.save_figure(figure, folder / "band_weights")
