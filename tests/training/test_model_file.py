import json
import time

import pytest
import torch
from model_files.hostile_models import ARCHITECTURE, BANDS, Parts, put, sound_model
from model_files.hostile_models import _with_header as with_header

from hsfusion.errors import InputError
from hsfusion.spectra import even_groups
from hsfusion.training.building import build_network
from hsfusion.training.checked_values import Unfit, parse_json, shown
from hsfusion.training.model_file import load_model, save_model


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
    assert header["classes"]["codes"] == [1, 2, 7]
    assert header["format_version"] == 3


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
    assert header["classes"]["names"][0] == name


@pytest.mark.parametrize(
    ("version", "told"), [(1, "older: train again"), (2, "older: train again"), (4, "newer: update hsfusion")]
)
def test_file_of_another_version_says_which_and_what_to_do(tmp_path, sound, version, told):
    with pytest.raises(InputError, match=f"format_version is {version}, expected 3.*{told}"):
        load(tmp_path / "other.safetensors", with_header(sound, put("format_version", version)))


def test_checkpoint_is_refused_with_the_reason(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"can execute code.*give the run folder"):
        load_model(tmp_path / "last.ckpt")


def test_network_larger_than_its_file_is_refused_before_it_is_built(tmp_path, sound, monkeypatch):
    monkeypatch.setattr("hsfusion.training.model_file._network", lambda header: pytest.fail("built"))
    for architecture in ({"channels": 4096, "fusion": "channel_instance"}, {"width": 4096}, {"knot_spacing_nm": 0.01}):
        data = with_header(
            sound,
            lambda header, a=architecture: (
                header["architecture"].update(a),
                header["groups"][-1].update(upper_nm=1e6),
            ),
        )
        with pytest.raises(InputError, match=r"weights of the architecture|memory that the network needs"):
            load(tmp_path / "large.safetensors", data)


def test_header_that_no_reader_would_take_is_not_written(tmp_path, sound):
    network, header = load_model(tmp_path / "model.safetensors")
    header["classes"]["names"][0] = "corn\nwoods"
    with pytest.raises(InputError, match=r"names\[0\] is 'corn\\nwoods'"):
        save_model(tmp_path / "bad.safetensors", network, header=header)
    assert not (tmp_path / "bad.safetensors").exists()


def test_parts_of_a_model_put_together_again_are_the_same_model(tmp_path, sound):
    assert (
        load(tmp_path / "again.safetensors", Parts(sound).packed())[1] == load_model(tmp_path / "model.safetensors")[1]
    )


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "[NaN]", "[-Infinity]", "[" * 9 + "]" * 9, "[" * 10**6, "{", "", "[,]"]
)
def test_json_that_is_hostile_is_refused(text):
    with pytest.raises(Unfit):
        parse_json(text, "header")


def test_json_that_is_not_hostile_is_read():
    assert parse_json('{"a": ["[[[[[[[[[[", "\\"[["]}', "header") == {"a": ["[[[[[[[[[[", '"[[']}
    assert parse_json(json.dumps({"é": 1.5}), "header") == {"é": 1.5}


def test_values_are_shown_short_and_without_control_characters():
    assert len(shown("x" * 10_000)) < 100
    assert shown("a\x1b[2J\n").isprintable()
    assert len(shown(list(range(10**5)))) < 100


def test_strings_that_never_end_are_looked_at_once():
    start = time.process_time()
    with pytest.raises(Unfit):
        parse_json('{"' + '\\"' * 500_000, "header")
    assert time.process_time() - start < 2  # quadratic, it would be hours
