import sqlite3
from contextlib import closing
from pathlib import Path

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


@pytest.mark.parametrize("content", [bytes(14), b"", None, "text"])
def test_tile_that_was_changed_does_not_count(tmp_path, content):
    path = filled(tmp_path / "j")
    with closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE tiles SET content = ? WHERE number = 3", (content,))
        file.commit()
    with closing(Journal(path, PLAN)) as journal:
        assert journal.tiles == {1}
        with pytest.raises(EnvironmentFailure, match="tile 3 was changed"):
            journal.read(3)
        journal.append(3, np.full(10, 3, np.uint8))
        assert journal.tiles == {1, 3}


def test_damaged_journal_is_an_error_that_says_what_to_do(tmp_path):
    filled(tmp_path / "j").write_bytes(b"something else" * 100)
    with pytest.raises(EnvironmentFailure, match="delete the file"):
        Journal(tmp_path / "j", PLAN)


def test_journal_of_another_plan_is_not_gone_on_from(tmp_path, caplog):
    with closing(Journal(filled(tmp_path / "j"), {"model": "b"})) as journal:
        assert journal.tiles == set()
    assert "computed again" in caplog.text


def test_two_processes_do_not_write_one_journal(tmp_path):
    with closing(Journal(tmp_path / "j", PLAN)), pytest.raises(EnvironmentFailure, match="written by another process"):
        Journal(tmp_path / "j", PLAN)
    Journal(tmp_path / "j", PLAN).close()


def test_journal_that_another_process_took_over_stays(tmp_path, monkeypatch):
    journal = Journal(filled(tmp_path / "j"), PLAN)

    def refused(path, **options):
        raise PermissionError("used by another process")

    monkeypatch.setattr(Path, "unlink", refused)
    journal.delete()
    with closing(Journal(tmp_path / "j", PLAN)) as journal:
        assert journal.tiles
