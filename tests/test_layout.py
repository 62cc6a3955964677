"""The dependency rule, the sizes, and the map in the README."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hsfusion"
MODULES = sorted(PACKAGE.rglob("*.py"))

# part of the package -> the parts that it may import
ALLOWED = {
    "errors": set(),
    "spectra": {"errors"},
    "scenes": {"errors", "spectra"},
    "data": {"errors", "spectra", "scenes"},
    "nn": set(),
    "training": {"errors", "spectra", "nn"},
    "inference": {"errors", "nn", "scenes"},
    "trust": {"errors", "spectra"},
    "plots": {"errors"},
    "cli": {"errors", "spectra", "scenes", "data", "nn", "training", "inference", "trust", "plots"},
    "__init__": set(),
}
# library -> the only parts that may import it
OWNERS = {
    "rasterio": {"scenes"},
    "spectral": {"scenes"},
    "h5py": {"scenes"},
    "affine": {"scenes"},
    "matplotlib": {"plots"},
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "lightning": {"data", "training", "cli"},
    "torch": {"nn", "data", "training", "inference", "cli"},
}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "base", "core", "misc"}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_what_its_part_may(path):
    part = part_of(path)
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "hsfusion" and rest.split(".")[0] not in {part, "__version__"}:
            assert rest.split(".")[0] in ALLOWED[part], f"{path} imports {name}"
        if top in OWNERS:
            assert part in OWNERS[top], f"{path} imports {name}"
        if name.startswith("scipy.io"):
            assert part == "scenes", f"{path} imports {name}"


def test_import_rule_sees_an_edge_that_is_not_allowed(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from hsfusion.data.splits import blocks\nimport matplotlib.pyplot\n")
    assert imports_of(bad) == {"hsfusion.data.splits.blocks", "matplotlib.pyplot"}
    assert "data" not in ALLOWED["training"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_is_small_and_well_named(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    assert path.stem not in FORBIDDEN_NAMES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = (ast.get_docstring(node, clean=False) or "").count("\n") + 1 if ast.get_docstring(node) else 0
            assert (node.end_lineno or 0) - node.lineno + 1 - docstring <= 40, f"{node.name} is too long"


def test_importing_the_package_imports_no_torch():
    code = "import sys, hsfusion, hsfusion.spectra; print('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_readme_maps_every_part_of_the_package_and_nothing_else():
    readme = (ROOT / "README.md").read_text()
    mapped = set(re.findall(r"^\| `hsfusion/(\w+)", readme, re.MULTILINE))
    there = {part_of(path) for path in MODULES} - {"__init__"}
    assert mapped == there
    assert readme.count("\n") <= 200


def test_every_script_named_in_the_readme_exists():
    named = set(re.findall(r"scripts/\w+(?:\.py)?", (ROOT / "README.md").read_text()))
    assert named
    assert all((ROOT / name).is_file() for name in named)
