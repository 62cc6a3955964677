"""``hsfusion completion``: what bash, zsh and fish need to complete commands, their keys and choices."""

from __future__ import annotations

import sys
from pathlib import Path

from hsfusion.cli.app import groups_and_keys, schema
from hsfusion.cli.benchmark import KINDS
from hsfusion.cli.main import COMMANDS
from hsfusion.cli.words import CONF
from hsfusion.errors import InputError
from hsfusion.scenes.description import commented_keys, scene_keys

_FISH = r"""complete -c hsfusion -n "string match -qr '^hsfusion +{}' -- (commandline -cp)" -a '{}'"""


def command() -> None:
    """Entry point of the command."""
    shell = " ".join(sys.argv[1:])
    how = 'eval "$(hsfusion completion bash)", or save the output in a file that the shell reads'
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"hsfusion completion bash | zsh | fish prints a script that completes commands and keys: {how}.")
        return
    if shell not in ("bash", "zsh", "fish"):
        raise InputError("command line", "shell", shell or "missing", "bash | zsh | fish", how)
    lists = {f"benchmark {kind}": _words(f"benchmark_{kind}") for kind in KINDS}  # the longest command first
    lists |= {"benchmark": [*KINDS], "completion": ["bash", "zsh", "fish"]}
    lists |= {"inspect": [f"{key}=" for key in scene_keys()] + ["--plot"], "weights": ["select=", "width=", "out="]}
    lists |= {name: _words(name) for name in ("train", "finetune", "predict", "evidence")} | {"": [*COMMANDS]}
    if shell == "fish":
        ends = {"": r"\S*\z", "benchmark": r"benchmark +\S*\z"}  # of which the next word is one of a list
        print(*(_FISH.format(ends.get(name, f"{name} "), " ".join(lists[name])) for name in lists), sep="\n")
        return
    patterns = {name: f'" {name} "*' if name else "*" for name in lists}
    cases = "\n".join(f'    {patterns[name]}) list="{" ".join(words)}";;' for name, words in lists.items())
    script = Path(__file__).with_suffix(f".{shell}").read_text(encoding="utf-8")
    print(script.replace("CASES", cases), end="")


def _words(config_name: str) -> list[str]:
    """The words that can follow a command."""
    choices = {}
    for key, entry in schema().items():
        one = ("false", "true") if entry.type == "bool" else entry.metadata.get("choices", ())
        choices[key] = () if str(entry.type).startswith(("tuple", "Mapping")) else one
    groups, keys = groups_and_keys(config_name)
    options = {name: options.split(", ") for name, _, options in groups if "@" not in name}
    known = {key for key, *_ in keys}
    if "split" in options:  # keys of the choices that are not chosen
        known |= {key for key in commented_keys(CONF) if key.startswith(("scene.", "split.", "groups.", "optimizer."))}
    words = [f"{name}={choice}" for name in options for choice in options[name]]
    for key in sorted(known.difference(options)):
        words += [f"{key}={choice}" for choice in choices.get(key, ())] or [f"{key}="]
    return ["--help", "--multirun", *words]
