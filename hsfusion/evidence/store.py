"""Reading an evidence folder: ``evidence.json`` of many runs, and their tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsfusion.errors import InputError
from hsfusion.runs.comparison import RunRecord, WeightComparison, groups_of, split_kinds
from hsfusion.runs.folder import plain_bytes
from hsfusion.spectra import Bands, BandWeights
from hsfusion.spectra.weights import WeightSpread
from hsfusion.training.checked_values import (
    Rule,
    Unfit,
    each,
    flag,
    maybe,
    number,
    parse_json,
    shown,
    table,
    text,
    whole,
)

if TYPE_CHECKING:
    from hsfusion.trust.verdict import Verdict, WavelengthWindow

NAME = "evidence.json"
_MOST_BYTES = 2**26
_MOST_BANDS, _MOST_RUNS, _MOST_POINTS = 10_000, 1_000, 1_000

_FRACTION = number(0, 1)
_NM = number(0, 1e6)
_WEIGHTS = each(number(0, 1e6), 1, _MOST_BANDS)
_POINTS = each(_FRACTION, 1, _MOST_POINTS)


def holding(needed: dict[str, Rule], optional: dict[str, Rule] | None = None) -> Rule:
    """A mapping with these keys at least; what else it holds is passed over."""

    def rule(value: Any, field: str) -> None:
        if not isinstance(value, dict):
            raise Unfit(field, shown(value), "a mapping")
        for key, of_key in {**needed, **(optional or {})}.items():
            if key in value:
                of_key(value[key], f"{field}.{key}")
            elif key in needed:
                raise Unfit(f"{field}.{key}", "missing", f"a {field} with {', '.join(needed)}")

    return rule


_QUARTILES = ("lower", "upper")
_STABILITY_KEYS = ("index", "lower", "upper", "profiles", "members")
_STABILITY = holding(
    {
        "index": maybe(number(-1e6, 1)),
        "lower": maybe(number(-1e6, 1e6)),
        "upper": maybe(number(-1e6, 1e6)),
        "profiles": whole(2, _MOST_RUNS),
        "members": whole(1, _MOST_RUNS),
    }
)
_SHARE = number(0, 1.0001)  # a sum of weights, with its rounding
_WINDOW_KEYS = ("lower_nm", "upper_nm", "weight", "raised", "frequency")
_WINDOW = holding(dict(zip(_WINDOW_KEYS, (_NM, _NM, _SHARE, number(0, 1e300), _FRACTION), strict=True)))
_CURVE = holding(
    {
        **dict.fromkeys(("accuracy", "random_mean", "random_lower", "random_upper"), _POINTS),
        "area": _SHARE,
        "random_areas": each(_SHARE, 1, _MOST_POINTS),
        "p": _FRACTION,
    }
)
_CURVES = holding({"mean": _CURVE, "conditional": _CURVE})
_FAITHFULNESS = holding(
    {"numbers": each(whole(0, _MOST_BANDS), 1, _MOST_POINTS), "deletion": _CURVES, "insertion": _CURVES},
    {"groups": each(holding({"name": text(), "importance": number(-1, 1), "p": _FRACTION}), 0, 1_000)},
)
_OF_SPLIT = holding(
    {}, dict.fromkeys(("network", "svm"), table(each(each(_FRACTION, 1, _MOST_RUNS), 1, _MOST_POINTS), 30))
)
_TOP_K = holding(
    {"numbers": each(whole(1, _MOST_BANDS), 1, _MOST_POINTS)},
    {
        "full": holding({}, dict.fromkeys(("network", "svm"), _FRACTION)),
        "cheapest": holding({}, dict.fromkeys(("network", "svm"), maybe(whole(1, _MOST_BANDS)))),
    },
)


def _name(value: Any, field: str) -> None:
    """A group's name, or an empty text."""
    if value != "":
        text()(value, field)


_RUN = holding(
    {
        "seed": whole(0, 2**32),
        "resample": whole(0, 10**6),
        "folder": text(),
        "overall_accuracy": _FRACTION,
        "average_accuracy": _FRACTION,
        "beats_chance": flag,
    }
)
_BANDS = holding(
    {
        "wavelength_nm": each(number(100, 100_000), 1, _MOST_BANDS),
        "fwhm_nm": maybe(each(number(1e-6, 1e5), 1, _MOST_BANDS)),
        "good": each(flag, 1, _MOST_BANDS),
    }
)
_EVIDENCE = holding(
    {
        "scene": text(),
        "fusion": text(60),
        "command": text(100_000),
        "split": holding({"kind": text(), "leakage": _FRACTION}),
        "bands": _BANDS,
        "band_groups": each(_name, 1, _MOST_BANDS),
        "runs": each(_RUN, 1, _MOST_RUNS),
        "profiles": each(_WEIGHTS, 1, _MOST_RUNS),
        "ensemble": _WEIGHTS,
        "untrained": _WEIGHTS,
        "quartiles": holding(dict.fromkeys(_QUARTILES, _WEIGHTS)),
        "selection_frequency": each(_FRACTION, 1, _MOST_BANDS),
        "groups": each(holding({"name": text(), "lower_nm": _NM, "upper_nm": _NM}), 0, 1_000),
        "sources": each(holding({"name": text(), "weight": _SHARE}), 0, 1_000),
    },
    {
        "stability": holding(
            {"bands": whole(1, _MOST_BANDS), "half_width": whole(0, _MOST_BANDS)},
            dict.fromkeys(("single", "reported", "untrained"), maybe(_STABILITY)),
        ),
        "top_windows": each(_WINDOW, 0, 100),
        "faithfulness": _FAITHFULNESS,
        "top_k": _TOP_K,
        "verdict": holding(
            {"word": text(60), "sentences": each(text(100_000), 0, 10_000), "windows": each(_WINDOW, 0, 100)}
        ),
    },
)


def read_evidence(folder: Path) -> WeightComparison:
    """Reads an evidence folder; stages that are not done yet are left out.

    Raises:
        InputError: if its evidence.json is damaged: a key missing, or a value of another type, size or length.
    """
    file = folder / NAME
    try:
        content = parse_json(plain_bytes(file, _MOST_BYTES).decode(), "evidence")
        _EVIDENCE(content, "evidence")
        for kind in split_kinds(content):
            _OF_SPLIT(content["top_k"][kind], f"evidence.top_k.{kind}")
            for key, rule in (("random_p", _POINTS), ("members", each(whole(1, _MOST_RUNS), 1, _MOST_RUNS))):
                maybe(rule)(content["top_k"].get(f"{key}_{kind}"), f"evidence.top_k.{key}_{kind}")
        _check_lengths(content)
        return _weights(folder, content)
    except Unfit as error:
        raise InputError(
            file, field=error.field, value=error.value, expected=error.expected, fix="run the evidence again"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            file, field="content", value=f"unreadable ({error})", expected="JSON", fix="run the evidence again"
        ) from error


def _check_lengths(content: dict[str, Any]) -> None:
    """Raises Unfit where lists that belong together differ in length."""
    bands = content["bands"]
    number, runs = len(bands["wavelength_nm"]), len(content["runs"])
    lengths = {
        "bands.good": (bands["good"], number),
        "bands.fwhm_nm": (bands["fwhm_nm"] or bands["good"], number),
        "profiles": (content["profiles"], runs),
        **{f"profiles[{i}]": (profile, number) for i, profile in enumerate(content["profiles"])},
        **{f"quartiles.{key}": (content["quartiles"][key], number) for key in _QUARTILES},
        **{key: (content[key], number) for key in ("band_groups", "ensemble", "untrained", "selection_frequency")},
    }
    if "faithfulness" in content:
        steps = len(content["faithfulness"]["numbers"])
        for kind in ("deletion", "insertion"):
            for fill, curve in content["faithfulness"][kind].items():
                for key in ("accuracy", "random_mean", "random_lower", "random_upper"):
                    lengths[f"faithfulness.{kind}.{fill}.{key}"] = (curve[key], steps)
    for split in split_kinds(content):
        for classifier, rankings in content["top_k"][split].items():
            for ranking, values in rankings.items():
                lengths[f"top_k.{split}.{classifier}.{ranking}"] = (values, len(content["top_k"]["numbers"]))
        of_random = content["top_k"].get(f"random_p_{split}")
        if of_random is not None:
            lengths[f"top_k.random_p_{split}"] = (of_random, len(content["top_k"]["numbers"]))
    for field, (values, expected) in lengths.items():
        if len(values) != expected:
            raise Unfit(f"length of {field}", len(values), str(expected))


def _weights(folder: Path, content: dict[str, Any]) -> WeightComparison:
    """The checked content as weights."""
    from hsfusion.trust.stability import Stability

    of = content["bands"]
    fwhm = None if of["fwhm_nm"] is None else np.array(of["fwhm_nm"], np.float64)
    bands = Bands(np.array(of["wavelength_nm"], np.float64), fwhm, np.array(of["good"], bool))
    profiles = np.array(content["profiles"], np.float64)
    sources = tuple((source["name"], float(source["weight"])) for source in content["sources"])
    reported = BandWeights(bands, tuple(content["band_groups"]), np.array(content["ensemble"], np.float64), sources)
    lower, upper = (np.array(content["quartiles"][key], np.float64) for key in _QUARTILES)
    found = content.get("stability", {}).get("reported")
    stability = None if found is None else Stability(*(_or_nan(found[key]) for key in _STABILITY_KEYS))
    groups = tuple((group["name"], group["lower_nm"], group["upper_nm"]) for group in content["groups"])
    return WeightComparison(
        tuple(_run(folder, run, content) for run in content["runs"]),
        profiles,
        reported,
        WeightSpread(lower, upper, np.array(content["selection_frequency"], np.float64)),
        stability,
        _windows(content.get("top_windows", [])),
        np.array(content["untrained"], np.float64),
        _verdict(content.get("verdict")),
        groups or groups_of(reported),
        content,
    )


def _run(folder: Path, run: dict[str, Any], content: dict[str, Any]) -> RunRecord:
    own = folder / "runs" / Path(run["folder"]).name  # the folder may have been moved, and nothing outside is read
    split, accuracies = content["split"], (run["overall_accuracy"], run["average_accuracy"])
    of_split = (split["kind"], split["leakage"])
    return RunRecord(
        own, content["scene"], run["seed"], *of_split, *accuracies, run["beats_chance"], resample=run["resample"]
    )


def _windows(found: list[dict[str, Any]]) -> tuple[WavelengthWindow, ...]:
    from hsfusion.trust.verdict import WavelengthWindow

    return tuple(WavelengthWindow(*(window[key] for key in _WINDOW_KEYS)) for window in found)


def _verdict(found: dict[str, Any] | None) -> Verdict | None:
    from hsfusion.trust.verdict import Verdict

    return None if found is None else Verdict(found["word"], tuple(found["sentences"]), _windows(found["windows"]))


def _or_nan(value: float | None) -> Any:
    return np.nan if value is None else value
