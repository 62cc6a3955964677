"""What errors say can be printed, whatever names are in it."""

import json
import pickle

import pytest

from hsfusion.errors import InputError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Wälder 水田 😀 §a§", "Wälder 水田 😀 §a§"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x07\x7f\x9b31m", r"\x07\u007f\u009b31m"),
        ("corn\u202emfa", r"corn\u202emfa"),
        ("\udc80", r"\udc80"),
        ("\U000e0041", r"\udb40\udc41"),
        (r"\x1b", r"\x1b"),
        (None, "None"),
    ],
)
def test_what_steers_a_terminal_is_escaped_and_letters_stay(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_long_text_is_cut_before_it_is_escaped():
    assert printable("\x1b" * 300, longest=2) == r"\x1b\x1b..."
    assert printable("a" * 300, longest=None) == "a" * 300


def test_json_stays_the_same_json():
    text = json.dumps({"name": "é\x1b\x7f\x9b\u202e\U000e0041\n"}, ensure_ascii=False)
    assert json.loads(printable(text)) == json.loads(text)


def test_error_is_one_line_whatever_file_it_is_about():
    error = InputError("a\x1b]0;b\x07.hdr", "c\nd", "\u202e", "e", "f")
    assert str(error) == r"a\x1b]0;b\x07.hdr: c\nd is \u202e, expected e. Fix: f."
    assert error.value == "\u202e"


def test_input_error_travels_to_other_processes_as_it_is():
    error = InputError("a.mat", "size", 3, "4", "copy it")
    sent = pickle.loads(pickle.dumps(error))
    assert (str(sent), sent.field, sent.value) == (str(error), "size", 3)
