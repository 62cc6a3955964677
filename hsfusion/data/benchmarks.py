"""Public benchmark scenes: files that users fetch themselves or, on request only, have downloaded."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from hsfusion.errors import EnvironmentFailure, InputError
from hsfusion.scenes import LabelledScene, open_labelled_scene
from hsfusion.scenes.formats.cube_file import CubeFile
from hsfusion.scenes.formats.registry import file_format, open_cube_file

_log = logging.getLogger(__name__)
_MOST_BANDS = 10_000


def benchmark_scene(
    *,
    name: str,
    page: str,
    cube: str | Path | None = None,
    labels: str | Path | None = None,
    cube_url: str | None = None,
    labels_url: str | None = None,
    cube_sha256: str | None = None,
    labels_sha256: str | None = None,
    download: bool = False,
    cache: str | Path | None = None,
    nominal: Mapping[str, Any] | None = None,
    wavelengths: str | Path | Sequence[float] | None = None,
    wavelength_unit: str | None = None,
    **keywords: Any,
) -> LabelledScene:
    """Opens a benchmark scene with its ground truth.

    Args:
        name: what messages call the scene.
        page: public page that it comes from.
        cube: file of the cube; may be missing where it is downloaded.
        labels: file of the ground truth, likewise.
        cube_url: where the cube is downloaded from, or None where its owner wants to be asked.
        labels_url: where the ground truth is downloaded from.
        cube_sha256: checksum of the public file, or None where none is published.
        labels_sha256: likewise.
        download: True to fetch what is missing. Nothing is ever fetched without.
        cache: folder of the downloads; None for the platform's.
        nominal: see :func:`nominal_wavelengths`, for files that name no wavelengths; None for no such axis.
        wavelengths: exact centres, see :func:`hsfusion.scenes.open_scene`; they go before all others.
        wavelength_unit: of these, or of the file's own.
        **keywords: further arguments of :func:`hsfusion.scenes.open_labelled_scene`.
    """
    options = {"page": page, "download": download, "cache": cache}
    cube_file = _file(name, "cube", cube, url=cube_url, sha256=cube_sha256, **options)
    labels_file = _file(name, "labels", labels, url=labels_url, sha256=labels_sha256, **options)
    choices = {key: keywords.pop(key, None) for key in ("variable", "grid", "axes")}
    file = open_cube_file(cube_file, **choices)
    if wavelengths is None and nominal is not None and file.table.wavelength is None:
        wavelengths, wavelength_unit = _nominal_axis(file, nominal, name=name, page=page), "nm"
    keywords |= {"name": name, "wavelengths": wavelengths, "wavelength_unit": wavelength_unit}
    return open_labelled_scene(file, labels=labels_file, **keywords)


def _nominal_axis(file: CubeFile, nominal: Mapping[str, Any], *, name: str, page: str) -> list[float]:
    centres = nominal_wavelengths(nominal)
    if file.layers != centres.size:
        raise file.error(
            "number of bands", file.layers, f"{centres.size}, as in {page}", "name that file, or set scene.wavelengths"
        )
    _log.warning(
        "%s: the file names no wavelengths. These are nominal: %d bands, evenly spaced in each spectrometer,"
        " from %g to %g nm. Set scene.wavelengths for exact ones.",
        *(name, centres.size, centres.min(), centres.max()),
    )
    return centres.tolist()


def nominal_wavelengths(nominal: Mapping[str, Any]) -> NDArray[np.float64]:
    """Centres of the bands that were kept, evenly spaced within each spectrometer: near the true ones, not the same.

    Args:
        nominal: ``spectrometers``: first and last centre in nm and number of bands of each, bands being numbered
            through from 1; ``removed``: numbers of the bands that the public file lacks, ``7`` or ``"108-112"``.

    Returns:
        (C,) centres in nm, in band order.
    """
    try:
        if unknown := set(nominal) - {"spectrometers", "removed"}:
            raise ValueError(f"unknown {sorted(unknown)}")
        ranges = [(float(first), float(last), int(bands)) for first, last, bands in nominal["spectrometers"]]
        if max(bands for _, _, bands in ranges) > _MOST_BANDS:
            raise ValueError(f"more than {_MOST_BANDS} bands")
        centres = np.concatenate([np.linspace(first, last, bands) for first, last, bands in ranges])
        removed = [_numbered(item, centres.size) for item in nominal.get("removed", ())]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            "scene",
            "nominal",
            f"not as it has to be ({error})",
            "spectrometers: [[first_nm, last_nm, bands], ...], removed: [7, 108-112, ...]",
            "correct scene.nominal",
        ) from error
    return np.delete(centres, np.concatenate([*removed, np.empty(0, np.intp)]))


def _numbered(item: object, bands: int) -> NDArray[np.intp]:
    """Indices of ``7`` or ``"108-112"``, numbered from 1."""
    first, _, last = str(item).partition("-")
    start, stop = int(first), int(last or first)
    if not 1 <= start <= stop <= bands:
        raise ValueError(f"removed {item}")
    return np.arange(start - 1, stop)


def _file(
    name: str,
    key: str,
    given: str | Path | None,
    *,
    url: str | None,
    sha256: str | None,
    page: str,
    download: bool,
    cache: str | Path | None,
) -> Path:
    """The file that the user names, or else the one behind an address."""
    if given is not None:
        _compare(Path(given), sha256)
        return Path(given)
    if url is None or not download:
        raise InputError(
            "scene",
            f"scene.{key}",
            "missing",
            f"the {key} of {name}, from {page}",
            f"set scene.{key}=PATH" + (", or scene.download=true" if url else " (this page gives it on request)"),
        )
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not Path(address.path).name:
        raise InputError("scene", f"scene.{key}_url", url, "http(s)://HOST/.../FILE", "correct it")
    byhand = f"fetch the file from {page} and set scene.{key}=PATH"
    file = _cache_folder(cache) / Path(address.path).name
    if not file.exists():
        _log.info("%s: downloading %s to %s.", name, url, file)
    _retrieve(url, file, sha256, byhand=byhand)
    if sha256 is None:
        _check_content(file, url, byhand=byhand)
    return file


def _cache_folder(cache: str | Path | None) -> Path:
    try:
        import pooch  # an extra, and slow to import
    except ImportError as error:
        raise EnvironmentFailure("scene.download=true needs pooch. Fix: pip install 'hsfusion[download]'.") from error
    pooch.get_logger().setLevel(logging.ERROR)  # the log tells of downloads in our words
    return Path(cache) if cache is not None else Path(pooch.os_cache("hsfusion"))


def _retrieve(url: str, file: Path, sha256: str | None, *, byhand: str) -> None:
    """Downloads to a temporary file, which gets its name when it is whole; does nothing where the file is there."""
    import pooch
    import requests

    try:
        pooch.retrieve(url, sha256 and f"sha256:{sha256}", fname=file.name, path=file.parent)
    except requests.RequestException as error:
        reason = " ".join(str(error).split())[-200:]  # the end says why
        raise EnvironmentFailure(f"{url}: the download failed ({reason}). Fix: {byhand}.") from error
    except ValueError as error:  # of pooch, where the checksum is another
        got = re.findall(r"\b[0-9a-f]{64}\b", str(error))
        raise InputError(url, "sha256 of the download", got[-1] if got else "unknown", str(sha256), byhand) from error
    except OSError as error:
        raise EnvironmentFailure(
            f"{file.parent}: no download can be written there ({error.strerror}). Fix: set scene.cache=PATH."
        ) from error


def _check_content(file: Path, url: str, *, byhand: str) -> None:
    """Servers answer with pages of text as well; such a file must not stay in the folder of downloads."""
    _log.warning("%s: unverified, no checksum of this file is published.", file)
    try:
        file_format(file)
    except InputError as error:
        file.unlink()
        raise InputError(url, "content of the download", error.value, error.expected, byhand) from error


def _compare(file: Path, sha256: str | None) -> None:
    """Says in the log whether a file is the public one."""
    if sha256 is None:
        _log.warning("%s: unverified, no checksum of this file is published.", file)
        return
    file_format(file)  # an error in one line, where it cannot be read
    with open(file, "rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
            _log.warning("%s: unverified, its checksum is not that of the public file.", file)
