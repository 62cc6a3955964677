"""Reading evidence.json back."""

import json

import numpy as np
import pytest

from hsfusion.errors import InputError
from hsfusion.runs.comparison import read_evidence

NM = np.arange(400.0, 800, 20)
CURVE = {
    **{key: [0.9, 0.5, 0.1] for key in ("accuracy", "random_mean", "random_lower", "random_upper")},
    "area": 0.1,
    "lower": 0.0,
    "upper": 0.2,
    "p": 0.5,
}
WINDOW = {"lower_nm": 500, "upper_nm": 540.0, "weight": 0.3, "raised": 2.5, "frequency": 1.0, "group": "VIS"}


def content():
    """An evidence.json of two runs as its contract says."""
    profile = np.full(NM.size, 1 / NM.size).tolist()
    run = {"resample": 0, "overall_accuracy": 0.8, "average_accuracy": 0.7, "beats_chance": True}
    return {
        "scene": "made up",
        "fusion": "channel",
        "command": "hsfusion evidence",
        "sources": [],
        "split": {"kind": "blocks", "leakage": 0.0},
        "bands": {"wavelength_nm": NM.tolist(), "fwhm_nm": None, "good": [True] * (NM.size - 1) + [False]},
        "band_groups": ["VIS"] * (NM.size - 1) + [""],
        "groups": [{"name": "VIS", "lower_nm": 400, "upper_nm": 800}],
        "runs": [{**run, "seed": seed, "folder": f"elsewhere/runs/seed-{seed}"} for seed in (0, 1)],
        "profiles": [profile, profile],
        "untrained": profile,
        "stability": {
            "bands": 5,
            "half_width": 1,
            "index_of_members": {},
            "reported": {"index": None, "lower": None, "upper": None, "profiles": 2, "members": 1},
        },
        "moved": {},
        "faithfulness": {
            "numbers": [0, 5, 20],
            "deletion": {"mean": CURVE, "conditional": CURVE},
            "insertion": {"mean": CURVE, "conditional": CURVE},
            "groups": [{"name": "VIS", "importance": 0.3, "p": 0.1}],
        },
        "top_k": {
            "numbers": [5, 10],
            "blocks": {"svm": {"weights": [[0.6], [0.7]], "random": [[0.5], [0.6]]}},
            "random_p_blocks": [0.1, 0.2],
        },
        "verdict": {"word": "supported", "sentences": ["Trainings agree."], "windows": [WINDOW]},
    }


def test_evidence_is_read(tmp_path):
    (tmp_path / "evidence.json").write_text(json.dumps(content()))
    evidence = read_evidence(tmp_path)
    assert evidence.profiles.weight.shape == (2, 1, NM.size)
    assert [run.folder for run in evidence.runs] == [tmp_path / "runs" / f"seed-{seed}" for seed in (0, 1)]
    assert (evidence.runs[0].split, evidence.runs[0].overall_accuracy, evidence.runs[0].resample) == ("blocks", 0.8, 0)
    assert not evidence.reported.bands.good[-1] and evidence.reported.bands.good[0]
    assert np.isnan([evidence.stability.index, evidence.stability.lower]).all()  # undefined for these runs
    assert evidence.verdict.word == "supported"
    assert evidence.groups == (("VIS", 400, 800),)


def test_stages_that_are_not_done_yet_are_left_out(tmp_path):
    without = ("faithfulness", "top_k")
    known = {key: value for key, value in content().items() if key not in without}
    (tmp_path / "evidence.json").write_text(json.dumps(known))
    assert read_evidence(tmp_path).verdict.sentences == ("Trainings agree.",)


def edit(*path, value):
    def change(known):
        *parents, last = path
        for key in parents:
            known = known[key]
        if value is ...:
            del known[last]
        else:
            known[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        edit("profiles", value=...),
        edit("profiles", 0, value=[0.5, 0.5]),
        edit("profiles", 0, 0, value="much"),
        edit("untrained", value=[0.1]),
        edit("runs", value=[]),
        edit("verdict", value=[1]),
    ],
)
def test_damaged_evidence_names_the_file(tmp_path, change):
    known = json.loads(json.dumps(content()))  # no window or curve is in two places
    change(known)
    (tmp_path / "evidence.json").write_text(json.dumps(known))
    with pytest.raises(InputError, match=r"evidence\.json: content is unreadable") as error:
        read_evidence(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[1, 2", "[]", '{"scene": NaN}', "\x00", "[" * 100_000])
def test_evidence_that_is_no_json_of_keys_is_refused(tmp_path, text):
    (tmp_path / "evidence.json").write_text(text)
    with pytest.raises(InputError, match=r"evidence\.json: .* Fix: run the evidence again"):
        read_evidence(tmp_path)
