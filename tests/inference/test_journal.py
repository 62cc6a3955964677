from contextlib import closing

import numpy as np
import pytest

from hsfusion.errors import EnvironmentFailure
from hsfusion.inference.mapping import Journal

PLAN = {"model": "a"}


def filled(path):
    with closing(Journal(path, PLAN)) as journal:
        for tile in (3, 1):
            journal.append(tile, np.full(10, tile, np.uint8))
    return path


def test_tiles_are_there_when_it_is_opened_again(tmp_path):
    with closing(Journal(filled(tmp_path / "j"), PLAN)) as journal:
        assert journal.tiles == {1, 3}
        assert journal.read(3) == bytes([3] * 10)
        journal.append(7, np.arange(4, dtype="<u2"))
    with closing(Journal(tmp_path / "j", PLAN)) as journal:
        assert journal.read(7) == np.arange(4, dtype="<u2").tobytes()


def test_damaged_journal_is_an_error_that_says_what_to_do(tmp_path):
    filled(tmp_path / "j").write_bytes(b"something else" * 100)
    with pytest.raises(EnvironmentFailure, match="delete the file"):
        Journal(tmp_path / "j", PLAN)


def test_journal_of_another_plan_is_not_gone_on_from(tmp_path, caplog):
    with closing(Journal(filled(tmp_path / "j"), {"model": "b"})) as journal:
        assert journal.tiles == set()
    assert "computed anew" in caplog.text


def test_two_processes_do_not_write_one_journal(tmp_path):
    with closing(Journal(tmp_path / "j", PLAN)), pytest.raises(EnvironmentFailure, match="written by another process"):
        Journal(tmp_path / "j", PLAN)
    Journal(tmp_path / "j", PLAN).close()
