"""Reading an evidence folder: ``evidence.json`` of many runs, and their tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsfusion.runs.comparison import RunRecord, WeightComparison, groups_of, split_kinds
from hsfusion.runs.folder import JsonFile
from hsfusion.spectra import Bands, BandWeights
from hsfusion.spectra.weights import WeightSpread

if TYPE_CHECKING:
    from hsfusion.trust.stability import Stability
    from hsfusion.trust.verdict import Verdict, WavelengthWindow

NAME = "evidence.json"
_WINDOW = ("lower_nm", "upper_nm", "weight", "raised", "frequency")
_CURVES = ("accuracy", "random_mean", "random_lower", "random_upper")


def read_evidence(folder: str | Path) -> WeightComparison:
    """Reads an evidence folder; stages that are not done yet are left out.

    Raises:
        InputError: if its evidence.json is damaged: a key missing, numbers that are not finite, or lists of other
            lengths than those that they belong to.
    """
    folder = Path(folder)
    file = JsonFile(folder / NAME, fix="run the evidence again")
    try:
        return _comparison(folder, file)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise file.refusal("content", f"unfit ({type(error).__name__}: {error})", "that of an evidence run") from error


def _comparison(folder: Path, file: JsonFile) -> WeightComparison:
    bands = _bands(file)
    every, runs = (len(bands),), file.at("runs")
    groups = tuple(file.at("band_groups"))
    if len(groups) != len(bands):
        raise file.refusal("length of band_groups", len(groups), str(len(bands)))
    sources = tuple((source["name"], float(source["weight"])) for source in file.at("sources"))
    reported = BandWeights(bands, groups, file.array("ensemble", shape=every), sources)
    limits = tuple((group["name"], group["lower_nm"], group["upper_nm"]) for group in file.at("groups"))
    lower, upper, selected = (
        file.array(*keys, shape=every)
        for keys in (("quartiles", "lower"), ("quartiles", "upper"), ("selection_frequency",))
    )
    for key in ("command", "fusion"):  # for the page
        file.at(key)
    _check_curves(file)
    _check_choices(file)
    return WeightComparison(
        tuple(_run(folder, file, i) for i in range(len(runs))),
        file.array("profiles", shape=(len(runs), len(bands))),
        reported,
        WeightSpread(lower, upper, selected),
        _stability(file),
        _windows(file, "top_windows") if "top_windows" in file.content else (),
        file.array("untrained", shape=every),
        _verdict(file),
        limits or groups_of(reported),
        file.content,
    )


def _bands(file: JsonFile) -> Bands:
    nm = file.array("bands", "wavelength_nm")
    fwhm = None if file.at("bands", "fwhm_nm") is None else file.array("bands", "fwhm_nm", shape=nm.shape)
    return Bands(nm, fwhm, file.array("bands", "good", shape=nm.shape).astype(bool))


def _run(folder: Path, file: JsonFile, i: int) -> RunRecord:
    def at(key: str) -> Any:
        return file.at("runs", i, key)

    return RunRecord(
        folder / "runs" / Path(at("folder")).name,  # the folder may have been moved
        file.at("scene"),
        at("seed"),
        file.at("split", "kind"),
        file.number("split", "leakage"),
        file.number("runs", i, "overall_accuracy"),
        file.number("runs", i, "average_accuracy"),
        at("beats_chance"),
        resample=at("resample"),
    )


def _stability(file: JsonFile) -> Stability | None:
    from hsfusion.trust.stability import Stability

    if file.content.get("stability", {}).get("reported") is None:
        return None
    agreement = file.at("stability", "reported")
    index, lower, upper = (  # null where too few runs were compared
        np.nan if agreement.get(key) is None else file.number("stability", "reported", key)
        for key in ("index", "lower", "upper")
    )
    return Stability(index, lower, upper, *(file.at("stability", "reported", key) for key in ("profiles", "members")))


def _windows(file: JsonFile, *keys: str) -> tuple[WavelengthWindow, ...]:
    from hsfusion.trust.verdict import WavelengthWindow

    places = range(len(file.at(*keys)))
    return tuple(WavelengthWindow(*(file.number(*keys, i, key) for key in _WINDOW)) for i in places)


def _verdict(file: JsonFile) -> Verdict | None:
    from hsfusion.trust.verdict import Verdict

    if "verdict" not in file.content:
        return None
    word, sentences = file.at("verdict", "word"), file.at("verdict", "sentences")
    return Verdict(word, tuple(sentences), _windows(file, "verdict", "windows"))


def _check_curves(file: JsonFile) -> None:
    """Curves have a value for each number of bands."""
    if "faithfulness" not in file.content:
        return
    shape = file.array("faithfulness", "numbers").shape
    for kind in ("deletion", "insertion"):
        for fill in ("mean", "conditional"):
            for key in _CURVES:
                file.array("faithfulness", kind, fill, key, shape=shape)
            file.number("faithfulness", kind, fill, "area")


def _check_choices(file: JsonFile) -> None:
    """Classifiers on k bands have accuracies for each k."""
    for split in split_kinds(file.content):
        number = len(file.at("top_k", "numbers"))
        for classifier, rankings in file.at("top_k", split).items():
            for ranking, accuracies in rankings.items():
                if len(accuracies) != number:
                    name = f"length of top_k.{split}.{classifier}.{ranking}"
                    raise file.refusal(name, len(accuracies), str(number))
        if file.content["top_k"].get(f"random_p_{split}") is not None:
            file.array("top_k", f"random_p_{split}", shape=(number,))
