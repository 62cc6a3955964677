import numpy as np
import pytest

from hsfusion.errors import EnvironmentFailure
from hsfusion.inference.journal import Journal

PLAN = {"model": "a"}


def filled(path):
    with Journal(path, PLAN) as journal:
        for tile in (3, 1):
            journal.append(tile, np.full(10, tile, np.uint8))
    return path


def test_cells_are_there_when_it_is_opened_again(tmp_path):
    with Journal(filled(tmp_path / "j"), PLAN) as journal:
        assert journal.tiles == {1, 3}
        assert journal.read(3) == bytes([3] * 10)
        journal.append(7, np.arange(4, dtype="<u2"))
    with Journal(tmp_path / "j", PLAN) as journal:
        assert journal.read(7) == np.arange(4, dtype="<u2").tobytes()


@pytest.mark.parametrize("lost", range(1, 27))
def test_torn_end_is_cut_off_and_written_anew(tmp_path, lost):
    path = filled(tmp_path / "j")
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    with Journal(path, PLAN) as journal:
        assert journal.tiles == {3}
        journal.append(1, np.full(10, 1, np.uint8))
    assert path.read_bytes() == whole


def test_changed_record_does_not_count(tmp_path):
    path = filled(tmp_path / "j")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with Journal(path, PLAN) as journal:
        assert journal.tiles == {3}


def test_record_that_is_changed_later_is_an_error(tmp_path):
    path = filled(tmp_path / "j")
    with Journal(path, PLAN) as journal:
        with open(path, "r+b") as file:
            file.seek(-1, 2)
            file.write(b"\xff")
        with pytest.raises(EnvironmentFailure, match="a record was changed"):
            journal.read(1)


def test_journal_of_another_plan_is_not_gone_on_from(tmp_path, caplog):
    with Journal(filled(tmp_path / "j"), {"model": "b"}) as journal:
        assert journal.tiles == set()
    assert "computed anew" in caplog.text


def test_two_processes_do_not_write_one_journal(tmp_path):
    with Journal(tmp_path / "j", PLAN), pytest.raises(EnvironmentFailure, match="written by another process"):
        Journal(tmp_path / "j", PLAN)
    Journal(tmp_path / "j", PLAN).__exit__()
