"""Completion in a real bash, and what zsh and fish get."""

import os
import shutil
import subprocess

import pytest

from hsfusion.cli.benchmark import KINDS
from hsfusion.cli.main import COMMANDS


@pytest.fixture(scope="module")
def script(hsfusion, tmp_path_factory):
    """A file that bash reads."""
    folder = tmp_path_factory.mktemp("completion")
    done = hsfusion("completion", "bash", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "hsfusion.bash").write_text(done.stdout)
    return folder / "hsfusion.bash"


def completed(script, line):
    """What bash offers after a line, by the function that ``complete`` names."""
    code = f'. {script}; rule=($(complete -p hsfusion)); COMP_LINE="$1"; COMP_POINT=${{#1}}; '
    code += '"${rule[${#rule[@]}-2]}"; printf "%s\\n" ${#COMPREPLY[@]} "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "--norc", "-c", code, "bash", line], capture_output=True, text=True)
    number, *words = done.stdout.split()
    assert (done.stderr, int(number)) == ("", len(words))
    return words


@pytest.mark.posix
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hsfusion ", list(COMMANDS)),
        ("hsfusion fi", ["finetune"]),
        ("hsfusion benchmark ", list(KINDS)),
        ("hsfusion completion z", ["zsh"]),
        ("hsfusion train split=", ["blocks", "fields", "fixed", "random"]),
        ("hsfusion train seed=3 model.fusion=ch", ["channel", "channel_instance"]),
        ("hsfusion train model.lin", ["model.linear=false", "model.linear=true"]),
        ("hsfusion train scene=file scene.class_f", ["scene.class_field="]),
        ("hsfusion train  scene.cube=", []),  # bash completes files
        ("hsfusion train callbacks=ea", ["early_stopping"]),
        ("hsfusion finetune pre", ["pretrained="]),
        ("hsfusion finetune model.wid", []),
        ("hsfusion predict prec", ["precision=float32", "precision=bf16"]),
        ("hsfusion evidence top_k_s", ["top_k_seeds="]),
        ("hsfusion benchmark accuracy run_d", []),
        ("hsfusion weights runs/a sel", ["select="]),
    ],
)
def test_bash_completes_commands_keys_and_choices(script, line, offered):
    assert completed(script, line) == offered


@pytest.mark.posix
def test_older_bash_adds_no_space_to_a_key(script):
    code = f"enable -n compopt; . {script}; complete -p hsfusion"  # 3.2 of macOS has none
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("complete -o default -o nospace -F _hsfusion hsfusion\n", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(hsfusion, tmp_path, shell):
    done = hsfusion("completion", shell, cwd=tmp_path)
    assert done.returncode == 0 and "split=blocks" in done.stdout
    if shutil.which(shell):
        (tmp_path / "script").write_text(done.stdout)
        env = {**os.environ, "HOME": str(tmp_path)}
        assert subprocess.run([shell, "-n", "script"], cwd=tmp_path, env=env).returncode == 0


def test_shell_that_is_not_known_is_named(hsfusion, tmp_path):
    done = hsfusion("completion", "tcsh", cwd=tmp_path)
    assert done.returncode == 2
    assert "shell is tcsh, expected bash | zsh | fish. Fix: eval" in done.stderr
