"""Words that are not used in names, messages, help and documentation, with what is written for them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "docs/**/*.md", "conf/**/*.yaml", "hsfusion/**/*.py", "hsfusion/**/*.j2", "scripts/*", "*.cff")
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in PATTERNS
    for path in ROOT.glob(pattern)
    if path.is_file()
}
PHRASES = {
    "strangers?": "untrusted",
    "the same bytes": "byte-identical",
    "(told|detected) by (its )?content": "detected from content",
    "price of (the )?open bands": "sparsity penalty",
    "cannot be told": "do not differ, cannot be distinguished",
    r"tells? (what|whether|that) ": "show, report",
    "whoever": "who, what",
    "take home": "get",
    "anew": "again, from scratch",
    r"for (it|they) (is|are|has|have|may|can|holds?)\b": "because",
    "such as have": "those with",
    r"(at most )?so many \w+ of each": "most, at most",
    r"(knows?|knowing) (its|their) (own|place|CRS)": "has, is georeferenced",
    r"[\u00ab\u00bb\u2018\u2019\u201c\u201d]": "straight quotes",
}
# of variables, arguments and functions: what a thing is, not what happened to it
NAMES = {"found", "there", "own", "said", "told"}
MODULES = {"told", "recorded", "seen", "said", "found", "utils", "common", "helpers", "misc"}


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrase_is_not_used(phrase):
    used = [
        f"{name}:{number}: {line.strip()}"
        for name, text in TEXTS.items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(rf"(?<!\w){phrase}", line, re.IGNORECASE)
    ]
    assert used == [], f"write: {PHRASES[phrase]}"


def test_names_are_nouns_and_verbs():
    used = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path in sorted((ROOT / "hsfusion").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (name := name_of(node)) in NAMES
    ]
    assert used == []
    assert MODULES & {path.stem for path in (ROOT / "hsfusion").rglob("*.py")} == set()


def name_of(node):
    """The name that a node gives to something; None where it gives none."""
    if isinstance(node, ast.Name):
        return node.id if isinstance(node.ctx, ast.Store) else None
    if isinstance(node, ast.arg):
        return node.arg
    return node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else None


def test_rule_sees_a_name_that_is_not_used():
    tree = ast.parse("def told(there):\n    found = there\n")
    assert {name_of(node) for node in ast.walk(tree)} & NAMES == {"told", "there", "found"}
