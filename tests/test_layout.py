"""The dependency rule, the sizes, and the map in the documentation."""

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
    "publishing": {"errors"},
    "spectra": {"errors", "publishing"},
    "scenes": {"errors", "publishing", "spectra"},
    "data": {"errors", "spectra", "scenes"},
    "nn": set(),
    "training": {"errors", "publishing", "spectra", "nn"},
    "inference": {"errors", "publishing", "nn", "scenes"},
    "trust": {"errors", "spectra"},
    "plots": {"errors", "publishing", "spectra"},
    "runs": {"errors", "publishing", "spectra", "scenes", "data", "nn", "training", "inference", "trust", "plots"},
    "evidence": {
        *("errors", "publishing", "spectra", "scenes", "data", "nn", "training", "inference", "trust", "plots"),
        "runs",
    },
    "benchmarks": {
        *("errors", "publishing", "spectra", "scenes", "data", "nn", "training", "inference", "trust", "plots"),
        "runs",
    },
    "cli": {
        *("errors", "spectra", "scenes", "data", "nn", "training", "inference", "trust", "plots", "runs"),
        *("evidence", "benchmarks"),
    },
    "__main__": {"cli"},
    "__init__": {"data", "evidence", "nn", "runs", "scenes", "spectra"},
}
# edges that only a method's own import may have: BandWeights.plot draws where somebody asks for it
LAZY = {"spectra": {"plots"}}
# library -> the only parts that may import it
OWNERS = {
    "rasterio": {"scenes", "benchmarks"},
    "spectral": {"scenes", "benchmarks"},
    "h5py": {"scenes"},
    "pyogrio": {"scenes"},
    "shapely": {"scenes"},
    "affine": {"scenes"},
    "matplotlib": {"plots"},
    "yaml": {"scenes"},
    "joblib": {"evidence"},
    "jinja2": {"plots"},
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "lightning": {"data", "training", "runs"},
    "torch": {"nn", "data", "training", "inference", "runs", "evidence", "benchmarks", "cli"},
    "numpy": {
        *("spectra", "scenes", "data", "training", "inference", "trust", "plots"),
        *("runs", "evidence", "benchmarks", "cli"),
    },
    "scipy": {"scenes", "data", "trust"},
    "sklearn": {"trust", "data"},
    "tensorly": {"data"},
}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "base", "core", "misc"}


def imports_of(path: Path, *, lazy: bool) -> set[str]:
    """Names that a module imports: all, or those of its own level only."""
    found, tree = set(), ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if not lazy and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def violations(path: Path, part: str) -> list[str]:
    """Imports that the rule forbids to a module of a part."""
    found, eager = [], imports_of(path, lazy=False)
    for name in sorted(imports_of(path, lazy=True)):
        top, _, rest = name.partition(".")
        inside = rest.split(".")[0]
        allowed = ALLOWED[part] | (set() if name in eager else LAZY.get(part, set()))
        own = top == "hsfusion" and inside not in {part, "__version__"} and inside not in allowed
        foreign = top in OWNERS and part not in OWNERS[top]
        if own or foreign or (name.startswith("scipy.io") and part != "scenes"):
            found.append(name)
    return found


def test_modules_import_only_what_their_part_may():
    found = {str(path.relative_to(ROOT)): violations(path, part_of(path)) for path in MODULES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("training", "from hsfusion.data.splits import blocks"),
        ("nn", "from hsfusion.errors import InputError"),
        ("nn", "import numpy as np"),
        ("spectra", "import scipy.ndimage"),
        ("data", "import scipy.io"),
        ("plots", "import rasterio"),
        ("data", "from omegaconf import OmegaConf"),
        ("cli", "import matplotlib.pyplot as plt"),
        ("runs", "import hydra"),
        ("runs", "from hsfusion.evidence.stages import gather_evidence"),
        ("spectra", "from hsfusion.plots import plot_band_weights"),
    ],
)
def test_import_rule_sees_an_edge_that_is_not_allowed(tmp_path, part, line):
    bad = tmp_path / "bad.py"
    bad.write_text(f"import json\n{line}\n")
    assert len(violations(bad, part)) == 1


def test_modules_are_families_of_at_most_450_lines_with_functions_of_at_most_40():
    assert [str(path) for path in MODULES if path.stem in FORBIDDEN_NAMES] == []
    long_modules = [str(path) for path in MODULES if path.read_text().count("\n") > 450]
    long_functions = [
        f"{path}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and lines_without_docstring(node) > 40
    ]
    assert (long_modules, long_functions) == ([], [])


def lines_without_docstring(function: ast.FunctionDef) -> int:
    docstring = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def lone_readers(modules: list[Path], root: Path) -> dict[str, str]:
    """Small modules that one module of their part imports, and nothing else does; plug-ins for formats aside."""
    names = {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in modules}
    readers: dict[str, set[str]] = {name: set() for name in names}
    for reader, path in names.items():
        for name in imports_of(path, lazy=True):
            imported = name if name in names else name.rpartition(".")[0]
            readers.get(imported, set()).add(reader)
    return {
        name: reader
        for name, (reader, *others) in ((name, sorted(found)) for name, found in readers.items() if found)
        if not others
        and names[name].read_text().count("\n") < 120
        and "formats" not in names[name].parts
        and "__init__.py" not in (names[name].name, names[reader].name)
        and names[reader].parent == names[name].parent != root / "hsfusion"
    }


def test_no_small_module_is_imported_by_one_module_of_its_part_only():
    assert lone_readers(MODULES, ROOT) == {}


def test_layout_rule_sees_a_small_module_with_one_reader(tmp_path):
    part = tmp_path / "hsfusion" / "part"
    part.mkdir(parents=True)
    (part / "journal.py").write_text("LINES = 1\n")
    (part / "mapping.py").write_text("from hsfusion.part.journal import LINES\n")
    found = lone_readers(sorted(part.glob("*.py")), tmp_path)
    assert found == {"hsfusion.part.journal": "hsfusion.part.mapping"}
    (part / "other.py").write_text("from hsfusion.part import journal\n")
    assert lone_readers(sorted(part.glob("*.py")), tmp_path) == {}


def test_library_prints_nothing():
    printing = [
        str(path)
        for path in MODULES
        if part_of(path) != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_importing_the_package_imports_no_torch():
    code = "import sys, hsfusion, hsfusion.spectra; print('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_documentation_maps_every_part_of_the_package_and_nothing_else():
    architecture = (ROOT / "docs/development/architecture.md").read_text()
    mapped = set(re.findall(r"^\| `hsfusion/(\w+)", architecture, re.MULTILINE))
    assert mapped == {part_of(path) for path in MODULES} - {"__init__", "__main__"}


def test_readme_is_short():
    readme = (ROOT / "README.md").read_text()
    assert readme.count("\n") <= 150
    assert len(readme) <= 8000


def test_every_script_named_in_the_readme_exists():
    named = set(re.findall(r"scripts/\w+(?:\.py)?", (ROOT / "README.md").read_text()))
    assert named
    assert all((ROOT / name).is_file() for name in named)


def test_readme_points_to_files_that_exist_and_holds_no_placeholder():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)", readme)
    assert links
    local = [link for link in links if not link.startswith("../../actions")]  # of the repository's host
    assert [link for link in local if not (ROOT / link).exists()] == []
    assert re.findall(r"\b[A-Z]+_[A-Z]+\b(?!=)", readme) == []
