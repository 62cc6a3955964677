import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_files.hostile_models import ARCHITECTURE, BANDS, Parts, put, sound_model
from model_files.hostile_models import _with_header as with_header

from hsfusion.errors import InputError
from hsfusion.spectra import BandGroup, Bands, even_groups
from hsfusion.training.building import build_network
from hsfusion.training.model_file import ClassList, ModelHeader, load_model, read_header, save_model

SEEN = {"ground": "0" * 64, "pixels": "eJw="}


@pytest.fixture
def sound(tmp_path):
    return sound_model(tmp_path / "model.safetensors")


def load(path, data):
    path.write_bytes(data)
    return load_model(path)


def test_header_and_network_come_back_from_the_file(tmp_path, sound):
    network, header = load_model(tmp_path / "model.safetensors")
    torch.manual_seed(0)
    built = build_network(BANDS, even_groups(BANDS, number=3), num_classes=3, **ARCHITECTURE)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in built.state_dict().items())
    np.testing.assert_array_equal(header.bands.wavelength_nm, BANDS.wavelength_nm)
    assert header.groups == tuple(even_groups(BANDS, number=3))
    assert header.classes == ClassList((1, 2, 7), ("corn", "woods", "water"), ("#ff0000",) * 3)
    assert (header.scene_name, header.fusion, header.seed) == ("field", "channel", 0)
    assert (header.test, header.seen, header.seen_before, header.sources) == (None, None, (), ())


def test_header_alone_is_that_of_the_whole_file(tmp_path, sound):
    alone, whole = read_header(tmp_path / "model.safetensors"), load_model(tmp_path / "model.safetensors")[1]
    assert alone.to_dict() == whole.to_dict()
    assert ModelHeader.from_dict(whole.to_dict()).to_dict() == whole.to_dict()


def test_header_is_read_without_torch(tmp_path, sound):
    code = "import sys; from pathlib import Path; from hsfusion.training.model_file import read_header; "
    code += "print(read_header(Path(sys.argv[1])).scene_name, 'torch' in sys.modules)"
    words = [sys.executable, "-c", code, str(tmp_path / "model.safetensors")]
    assert subprocess.check_output(words, text=True).split() == ["field", "False"]


def test_file_written_again_from_what_was_read_has_the_same_bytes(tmp_path, sound):
    network, header = load_model(tmp_path / "model.safetensors")
    save_model(tmp_path / "again.safetensors", network, header=header)
    assert (tmp_path / "again.safetensors").read_bytes() == sound


def test_checksum_sees_every_byte_of_the_tensors(tmp_path, sound):
    start = len(sound) - 200
    for at in range(start, len(sound), 40):
        changed = bytearray(sound)
        changed[at] ^= 1
        with pytest.raises(InputError, match="checksum"):
            load(tmp_path / "changed.safetensors", bytes(changed))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "${oc.env:HOME}", "[red]moor[/red]", "Çayır & 草地", "a\u00a0b"]
)
def test_names_that_only_a_careless_reader_would_interpret_are_names(tmp_path, sound, name):
    _, header = load(tmp_path / "named.safetensors", with_header(sound, put("classes.names.0", name)))
    assert header.classes.names[0] == name


@pytest.mark.parametrize(
    ("version", "advice"), [(1, "older: train again"), (3, "older: train again"), (5, "newer: update hsfusion")]
)
def test_file_of_another_version_says_which_and_what_to_do(tmp_path, sound, version, advice):
    data = with_header(sound, put("format_version", version))
    for read in (load_model, read_header):
        (tmp_path / "other.safetensors").write_bytes(data)
        with pytest.raises(InputError, match=f"format_version is {version}, expected 4.*{advice}"):
            read(tmp_path / "other.safetensors")


def test_checkpoint_is_refused_with_the_reason(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"can execute code.*give the run folder"):
        load_model(tmp_path / "last.ckpt")


def test_parts_of_a_model_put_together_again_are_the_same_model(tmp_path, sound):
    again = load(tmp_path / "again.safetensors", Parts(sound).packed())[1]
    assert again.to_dict() == load_model(tmp_path / "model.safetensors")[1].to_dict()


def test_places_of_what_was_seen_are_read_back(tmp_path, sound):
    network, header = load_model(tmp_path / "model.safetensors")
    place = {"transform": [30.0, 0.0, 5e5, 0.0, -30.0, 5e6], "epsg": None}
    seen = {"seen": {**SEEN, "place": place}, "seen_before": (SEEN, {**SEEN, "place": None})}
    save_model(tmp_path / "again.safetensors", network, header=replace(header, **seen))
    again = load_model(tmp_path / "again.safetensors")[1]
    assert {key: getattr(again, key) for key in seen} == seen


def test_json_in_the_file_names_every_part_as_before(tmp_path, sound):
    length = int.from_bytes(sound[:8], "little")
    header = json.loads(json.loads(sound[8 : 8 + length])["__metadata__"]["hsfusion"])
    assert list(header) == [
        *("architecture", "bands", "checksum", "classes", "format_version", "groups", "hsfusion_version"),
        *("seed", "sources", "split", "training_scene"),
    ]
    assert header["bands"] == {**BANDS.to_dict(), "fwhm_nm": [10.0] * 40}
    assert header["groups"][0] == {"name": "450-1075 nm", "lower_nm": 450.0, "upper_nm": 1075.0}
    assert header["classes"] == {"codes": [1, 2, 7], "names": ["corn", "woods", "water"], "colors": ["#ff0000"] * 3}


def test_other_bands_of_the_same_number_are_refused(tmp_path, sound):
    shifted = Bands.from_wavelengths(BANDS.wavelength_nm[::-1]).wavelength_nm.tolist()
    with pytest.raises(InputError, match="tensor fusion"):
        load(tmp_path / "turned.safetensors", with_header(sound, put("bands.wavelength_nm", shifted)))


def test_numbers_of_numpy_are_numbers(tmp_path, sound):
    network, header = load_model(tmp_path / "model.safetensors")
    groups = tuple(BandGroup(g.name, np.float64(g.lower_nm), np.float64(g.upper_nm)) for g in header.groups)
    save_model(tmp_path / "again.safetensors", network, header=replace(header, groups=groups))
    assert (tmp_path / "again.safetensors").read_bytes() == sound
