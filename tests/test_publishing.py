"""Files are whole, or what they were; nothing writes a file in another way."""

import ast
import errno
import os
from pathlib import Path

import pytest

from hsfusion import publishing
from hsfusion.errors import EnvironmentFailure
from hsfusion.publishing import is_sealed, publish, seal, write_file

MODULES = sorted((Path(__file__).parents[1] / "hsfusion").rglob("*.py"))
# writers of rasters, whose callers publish what they write, and what makes the content of a file in memory
WRITERS = {"write_blocks", "copy_as_cog", "write_pam"}
IN_MEMORY = {"figure_file"}
WRITING = {"write_text", "write_bytes", "savefig", "save_file", "savez", "savez_compressed", "savetxt", "copyfile"}
PUBLISHING = {"publish", "publish_raster", "write_file"}


def names_of(calls):
    return {of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "") for of in (c.func for c in calls)}


def calls_in(node):
    return [part for part in ast.walk(node) if isinstance(part, ast.Call)]


def writes(call):
    """Whether a call writes to a path."""
    (name,) = names_of([call])
    modes = [*call.args[:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    words = {of.value for of in modes if isinstance(of, ast.Constant) and isinstance(of.value, str)}
    if name == "open":
        return any(set(word) <= set("rwxab+t") and set(word) & set("wxa") for word in words)
    if (
        name == "save"
        and isinstance(call.func, ast.Attribute)
        and getattr(call.func.value, "id", "") in ("np", "torch")
    ):
        return True
    return name in WRITING | WRITERS


def written_in_place(tree):
    """Lines of a module that write to a path in a function that does not publish it."""
    lines, scopes = [], [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]
    innermost = {id(call): scope for scope in scopes for call in calls_in(scope)}  # walked from the outside in
    for call in calls_in(tree):
        scope = innermost[id(call)]
        whole = getattr(scope, "name", "") in WRITERS | IN_MEMORY | {"_write_map"}
        if writes(call) and not whole and not names_of(calls_in(scope)) & PUBLISHING:
            lines.append(call.lineno)
    return lines


def test_every_file_is_published():
    found = {str(path): written_in_place(ast.parse(path.read_text())) for path in MODULES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        'open(path, "w")',
        'open(path, mode="wb")',
        'path.open("w")',
        "path.write_text(page)",
        "path.write_bytes(page)",
        "np.save(path, cube)",
        "torch.save(state, path)",
        "figure.savefig(path)",
        'rasterio.open(path, "w", **options)',
        "write_blocks(path, blocks)",
    ],
)
def test_rule_sees_a_file_that_is_written_in_place(line):
    assert written_in_place(ast.parse(f"def save(path):\n    {line}\n")) == [2]
    assert written_in_place(ast.parse(f"def save(path):\n    with publish(path) as path:\n        {line}\n")) == []


def test_file_gets_its_name_at_the_end_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with publish(path) as part:
        part.write_text("whole")
        assert part.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_was_there_stays_where_writing_stops(tmp_path, error):
    write_file(tmp_path / "a", "old")
    with pytest.raises(error), publish(tmp_path / "a") as part:
        part.write_text("ne")
        raise error
    assert (tmp_path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, call):
    write_file(tmp_path / "a", b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    owner, name = {"fsync": (os, call), "replace": (Path, call), "write": (Path, "write_bytes")}[call]
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(EnvironmentFailure) as failure:
        write_file(tmp_path / "a", b"new")
    fix = "Fix: free space or choose another folder."
    assert str(failure.value) == f"{tmp_path / 'a'}: cannot be written (No space left on device). {fix}"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


@pytest.mark.parametrize("refusals", [2, 20])
def test_file_that_another_program_holds_is_replaced_as_soon_as_it_may_be(tmp_path, monkeypatch, refusals):
    waits, replace = [], Path.replace

    def refused(part, path):
        if len(waits) < refusals:
            raise PermissionError(errno.EACCES, "used by another process")
        return replace(part, path)

    monkeypatch.setattr(publishing, "_TRIES", 4)
    monkeypatch.setattr(publishing.time, "sleep", waits.append)
    monkeypatch.setattr(Path, "replace", refused)
    if refusals < 4:
        write_file(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"new"
    else:
        with pytest.raises(EnvironmentFailure, match=r"Fix: close it in other programs, or choose a folder"):
            write_file(tmp_path / "a", b"new")
        assert not list(tmp_path.iterdir())
    assert len(waits) == min(refusals, 3)


def test_file_is_on_the_disk_before_it_gets_its_name_and_its_name_after(tmp_path, monkeypatch):
    order, sync, replace = [], publishing._sync, Path.replace
    monkeypatch.setattr(publishing, "_sync", lambda path, flags: (order.append(path.name), sync(path, flags)))
    monkeypatch.setattr(Path, "replace", lambda path, name: (order.append("name"), replace(path, name)))
    write_file(tmp_path / "a", "")
    assert order == [f".a.{os.getpid()}.part", "name", tmp_path.name]


def test_older_file_beside_goes_where_none_is_written(tmp_path):
    for beside in ("xml", None):
        with publish(tmp_path / "a", sidecar=".xml") as part:
            part.write_text("a")
            if beside:
                Path(f"{part}.xml").write_text(beside)
        assert (tmp_path / "a.xml").exists() == bool(beside)


def test_sealed_file_is_seen_to_change_whichever_bit_does(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"what it holds")
    assert is_sealed(path) is None
    seal(path)
    sealed = path.read_bytes()
    assert is_sealed(path)
    assert sealed.startswith(b"what it holds")
    for i in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        assert is_sealed(path) is False, i
    for cut in (0, 5, len(sealed) - 1):
        path.write_bytes(sealed[:cut])
        assert is_sealed(path) is None
