"""The header of a model file: which keys there are, and what each may hold."""

from __future__ import annotations

import re
from typing import Any

from hsfusion.nn.backbones import BACKBONE_NAME
from hsfusion.training.checked_values import (
    Rule,
    Unfit,
    each,
    either,
    fields,
    flag,
    matching,
    maybe,
    number,
    plain,
    repeated,
    shown,
    table,
    text,
    whole,
)

FORMAT_VERSION = 3

MOST_HEADER_BYTES = 2**24
MOST_SEEN = 16  # grounds of earlier trainings
_MOST_BANDS, _MOST_GROUPS, _MOST_CLASSES, _MOST_SOURCES = 10_000, 1_000, 65_535, 1_000

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")

_WORD_RULE = matching(_WORD, "a word of small letters")
_COUNT = whole(0, 10**15)
_NM = number(-1e9, 1e9)
_SCALES = either(number(-1e300, 1e300), each(number(-1e300, 1e300), 1, _MOST_BANDS))

#: arguments of build_network; a word is checked there against those that are known
ARCHITECTURE: dict[str, Rule] = {
    "fusion": _WORD_RULE,
    "constraint": _WORD_RULE,
    "response": _WORD_RULE,
    "channels": whole(1, 4096),
    "width": whole(1, 4096),
    "receptive_field": whole(1, 255),
    "knot_spacing_nm": maybe(number(0.01, 1e6)),
    "keep_bands": maybe(whole(1, _MOST_BANDS)),
    "neighbourhood": whole(1, 255),
    "dropout": number(0, 1),
    "backbone": matching(BACKBONE_NAME, "a word or a dotted path"),
    "backbone_options": table(either(plain, each(plain, 0, 1_000)), 100),
}

_TRAINING_SCENE = fields(
    {
        "name": text(),
        "shape": each(whole(1, 10**9), 2, 2),
        "transform": each(number(-1e300, 1e300), 6, 6),
        "crs": maybe(text(100_000)),
        "values": each(
            fields(
                {
                    "name": text(),
                    "format": text(),
                    "scale": _SCALES,
                    "offset": _SCALES,
                    "nodata": maybe(text()),
                    "wavelengths": maybe(text()),
                }
            ),
            0,
            _MOST_SOURCES,
        ),
    },
    {"files": each(fields({"name": text(), "bytes": _COUNT}), 0, _MOST_SOURCES)},
)

_PLACE = fields({"transform": each(number(-1e300, 1e300), 6, 6), "epsg": maybe(whole(0, 10**9))})
_SEEN = fields(
    {"ground": matching(_DIGEST, "64 digits of a SHA-256"), "pixels": text(2**21)},
    {"place": maybe(_PLACE)},  # missing in files of before, whose digest says which pixels are labelled
)
_HEADER = fields(
    {
        "format_version": whole(FORMAT_VERSION, FORMAT_VERSION),
        "checksum": matching(_DIGEST, "64 digits of a SHA-256"),
        "bands": fields(
            {
                "wavelength_nm": each(number(1, 1e6), 1, _MOST_BANDS),
                "fwhm_nm": maybe(each(number(0, 1e6), 1, _MOST_BANDS)),
                "good": each(flag, 1, _MOST_BANDS),
            }
        ),
        "groups": each(fields({"name": text(), "lower_nm": _NM, "upper_nm": _NM}), 1, _MOST_GROUPS),
        "sources": each(fields({"name": text(), "layers": whole(1, _MOST_BANDS)}), 0, _MOST_SOURCES),
        "classes": fields(
            {
                "codes": each(whole(1, 65_535), 1, _MOST_CLASSES),
                "names": each(text(), 1, _MOST_CLASSES),
                "colors": each(matching(_COLOR, "#rrggbb"), 1, _MOST_CLASSES),
            }
        ),
        "architecture": fields({}, ARCHITECTURE),
    },
    {
        "hsfusion_version": text(100),
        "versions": table(text(100), 100),
        "training_scene": _TRAINING_SCENE,
        "split": fields(
            {
                "kind": text(100),
                "train_pixels": _COUNT,
                "val_pixels": _COUNT,
                "test_pixels": _COUNT,
                "leakage": number(0, 1),
            }
        ),
        "test": fields(
            {
                "overall_accuracy": number(0, 1),
                "average_accuracy": number(0, 1),
                "kappa": number(-1, 1),
                "mean_iou": number(0, 1),
                "per_class": table(fields({"accuracy": maybe(number(0, 1)), "support": _COUNT}), _MOST_CLASSES),
            }
        ),
        "seed": whole(-(2**63), 2**64),
        "seen": _SEEN,
        "seen_before": each(_SEEN, 1, MOST_SEEN),
    },
)


def check_header(header: Any) -> None:
    """Checks every key and value, and that they fit together.

    Raises:
        Unfit: at the first that is not what it has to be.
    """
    version = header.get("format_version") if isinstance(header, dict) else None
    if type(version) is int and version != FORMAT_VERSION:
        older = version < FORMAT_VERSION
        told = "older: train again, or use the hsfusion that wrote it" if older else "newer: update hsfusion"
        raise Unfit("format_version", shown(version), f"{FORMAT_VERSION}, for this file is {told}")
    _HEADER(header, "header")
    bands, classes = header["bands"], header["classes"]
    for part, names in ((bands, ("wavelength_nm", "fwhm_nm", "good")), (classes, ("codes", "names", "colors"))):
        lengths = [len(part[name]) for name in names if part[name] is not None]
        if len(set(lengths)) > 1:
            raise Unfit(f"lengths of {', '.join(names)}", lengths, "one and the same")
    if classes["codes"] != sorted(set(classes["codes"])):
        raise Unfit("header.classes.codes", shown(classes["codes"]), "ascending numbers")
    named = [group["name"] for group in header["groups"]] + [source["name"] for source in header["sources"]]
    for field, names in (("header.classes.names", classes["names"]), ("names of groups and sources", named)):
        if len(set(names)) < len(names):
            raise Unfit(field, f"{shown(repeated(names))} twice", "each name once")
    if unknown := header.get("test", {"per_class": {}})["per_class"].keys() - set(classes["names"]):
        raise Unfit("header.test.per_class", shown(min(unknown)), "names of the classes")
