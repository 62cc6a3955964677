"""README and documentation: links lead somewhere, and blocks of Python and shell run, or say why not.

In shell blocks, ``inspect``, ``predict`` and ``weights`` run as they stand; commands that train run up to the training,
with their scenes open and their settings made. Python runs whole, on few epochs and a small network.
"""

import importlib.util
import re
import shlex
import shutil
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from scene_files import described, vectors

import hsfusion as hs
import hsfusion.benchmarks.comparisons
import hsfusion.evidence
import hsfusion.runs.finetuning  # not while what they import is replaced: they would keep it
from hsfusion.cli.main import COMMANDS
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.nn import BACKBONES
from hsfusion.runs.settings import ModelSettings, TrainSettings

ROOT = Path(__file__).parents[2]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("docs/**/*.md")}
PAGES |= {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FIGURES = ("map", "split", "confusion", "band_weights", "group_weights", "training", "band_quality", "few_bands")
SMALL = {"threads": 1, "steps_per_epoch": 1, "baselines": (), "epochs": 1, "split": hs.blocks(block_pixels=5)}


def load_pages():
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "scripts" / "docs_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made():
    """The pages that are made when the documentation is built."""
    return {f"docs/{path}": make() for path, make in load_pages().PAGES.items()}


def blocks_of(page, *languages):
    """The blocks of a page in some languages that are to be run, and those that are not."""
    found = [(bool(mark), text) for mark, language, text in BLOCK.findall(PAGES[page]) if language in languages]
    return [text for mark, text in found if not mark], [text for mark, text in found if mark]


def pages_with(*languages):
    return [page for page in PAGES if blocks_of(page, *languages)[0]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the scenes and the run that pages speak of."""
    folder = tmp_path_factory.mktemp("place")
    for seed, name in enumerate(("field", "other", "flight", "north", "south")):
        described.write(folder, name, seed=seed, left=300_000 + 2000 * seed)
    for name, copy in {
        "field.img": "cube.img",
        "field.img.hdr": "cube.img.hdr",
        "field_labels.tif": "labels.tif",
    }.items():
        shutil.copy(folder / name, folder / copy)
    for name, copy in {"field_west.tif": "train.tif", "field_east.tif": "test.tif"}.items():
        shutil.copy(folder / name, folder / copy)
    shift = 300_000 - vectors.LEFT
    areas = [(0, 0, "corn"), (0, 20, "woods"), (20, 0, "woods"), (20, 20, "corn")]
    shapes = [vectors.shapely.affinity.translate(vectors.pixels(*at, 18, 18), shift) for *at, _ in areas]
    vectors.write(folder / "fields.gpkg", shapes, crop=[name for *_, name in areas])
    run = hs.train(folder / "field.yaml", model={"channels": 4, "width": 8, "linear": False}, **SMALL)
    run.save(folder / "runs" / "field")
    return folder


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A copy of that folder, in which the test runs."""
    folder = tmp_path / "here"
    shutil.copytree(place, folder)
    monkeypatch.chdir(folder)
    return folder


def slug(heading):
    """The anchor that a heading gets."""
    text = re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "", heading.lower())).strip()
    return re.sub(r"[-\s]+", "-", text)


def targets_of(text):
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_links_lead_to_pages_files_and_headings_that_exist(made):
    pages, wrong = PAGES | made, []
    pictures = {f"docs/{path}" for path in load_pages().thumbnails()}
    for page, text in pages.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)):
            if link.startswith("../../actions/"):  # of the host of the repository
                continue
            path, _, anchor = link.partition("#")
            at = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
            name = at.relative_to(ROOT).as_posix()
            notebook = name.startswith("docs/notebooks/") and (ROOT / name.removeprefix("docs/")).is_file()
            known = name in pages or at.exists() or notebook or name in pictures
            if (
                "://" not in link
                and "/actions/" not in link
                and (not known or (anchor and anchor not in targets_of(pages[name])))
            ):
                wrong.append(f"{page}: {link}")
    assert wrong == []


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page(made):
    def leaves(entry):
        if isinstance(entry, str):
            return [entry]
        return [leaf for part in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(part)]

    entries = {f"docs/{name}" for name in leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])}
    notebooks = {f"docs/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    written = {page for page in PAGES if page.startswith("docs/")}
    assert entries == written | notebooks | {page for page in made if page.endswith(".md")}


def test_pages_that_are_made_hold_every_command_key_and_result(made):
    commands, settings = made["docs/reference/commands.md"], made["docs/reference/settings.md"]
    assert all(f"## hsfusion {name}" in commands for name in COMMANDS)
    assert "| `band_cost` | `0.3` |" in commands and "| `model.keep_bands` | `null` |" in commands
    for kind in (TrainSettings, ModelSettings, hs.PredictSettings):
        assert all(f"| `{name}` | `{key}` |" in settings for name, key in kind.keys().items())
    assert not re.search(r":(func|class):", settings)
    results = made["docs/results/tables.md"]
    for path in (ROOT / "docs" / "results").glob("*.json"):
        assert f"## {path.stem.replace('_', ' ')}" in results
    assert "| salinas_a_10 | channel | 0.986 ± 0.012 |" in results


def test_sample_is_whole_small_and_names_no_folder():
    files = {path.name: path for path in (ROOT / "docs" / "sample").iterdir()}
    assert set(files) == {"report.html", "map.html", *(f"{stem}.svg" for stem in FIGURES)}
    assert files["report.html"].stat().st_size < 1_500_000
    assert sum(path.stat().st_size for path in files.values() if path.suffix == ".svg") < 1_500_000
    for name, path in files.items():
        text = re.sub(r"base64,[^\"]*", "", path.read_text(encoding="utf-8"))
        assert not re.search(r"/(home|tmp|work|root|Users)/", text), name
    report = files["report.html"].read_text(encoding="utf-8")
    assert "hsfusion train" in report
    assert all(f"sample/{name}" in PAGES["docs/gallery.md"] for name in files)


def test_graph_of_imports_draws_each_part_and_the_edges_that_there_are():
    pages = load_pages()
    graph, drawing = pages.import_graph(), pages.graph_svg()
    assert set(graph) == {path.stem for path in (ROOT / "hsfusion").iterdir()} - {
        "__init__",
        "__main__",
        "__pycache__",
        "py",
    }
    assert graph["nn"] == set() and graph["trust"] == {"errors", "spectra"} and "runs" in graph["evidence"]
    assert drawing.count("<rect") == len(graph) + 1


@pytest.mark.parametrize("page", pages_with("python"))
@pytest.mark.usefixtures("undrawn")
def test_python_of_a_page_runs(page, here, monkeypatch, capsys):
    from matplotlib import pyplot

    small = partial(TrainSettings, **SMALL | {"model": ModelSettings(channels=4, width=8, linear=False)})
    for module in ("settings", "training", "finetuning"):  # each has its name of it
        monkeypatch.setattr(f"hsfusion.runs.{module}.TrainSettings", small)
    monkeypatch.setattr("hsfusion.data.public.indian_pines", lambda: synthetic_scene(seed=0, height=40, width=40))
    values = {"__name__": "page"}
    with patch.dict(BACKBONES):  # a page registers one
        for text in blocks_of(page, "python")[0]:
            exec(compile(re.sub(r"\bepochs=\d{2,}", "epochs=2", text), page, "exec"), values)
    pyplot.close("all")
    if page == "README.md":
        assert {path.name for path in (here / "runs/mine").iterdir()} >= {"model.safetensors", "report.html"}
        assert (here / "map.tif").is_file()
        assert values["tuned"].training.experiment.initial.transfer is not None


class Trained(SystemExit):
    """What ends a command where its training would begin."""


@pytest.mark.parametrize("page", pages_with("bash"))
def test_commands_of_a_page_run(page, here, hsfusion, monkeypatch):
    trained = []

    def train(*scenes, **options):
        assert options.get("settings") is None or isinstance(options["settings"], TrainSettings)
        trained.append(scenes)
        raise Trained(0)

    for name in ("training.train", "training.train_jointly", "finetuning.finetune"):
        monkeypatch.setattr(f"hsfusion.runs.{name}", train)
    monkeypatch.setattr("hsfusion.benchmarks.comparisons.compare_sensors", train)
    monkeypatch.setattr("hsfusion.evidence.stages.gather_evidence", train)
    for line in "".join(blocks_of(page, "bash")[0]).splitlines():
        program, command, *words = shlex.split(line, comments=True)
        assert program == "hsfusion", f"{line}: mark blocks with other programs as not run"
        before = len(trained)
        done = hsfusion(command, *words, cwd=here)
        assert (done.returncode, done.stderr.count("error")) == (0, 0), f"{line}\n{done.stderr}"
        assert (len(trained) - before == 1) == (command in ("train", "finetune", "evidence", "benchmark")), line


def test_blocks_that_are_not_run_say_why_and_are_of_known_languages():
    for page, text in PAGES.items():
        assert {language for _, language, _ in BLOCK.findall(text)} <= {"python", "bash", "text", "yaml"}, page
        assert text.count("```") == 2 * len(BLOCK.findall(text)), page


@pytest.mark.slow
def test_documentation_is_built_without_a_warning(tmp_path):
    commands = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    commands.build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))
    text = "".join(path.read_text() for path in tmp_path.rglob("*.html"))
    assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+', text) == []
    for name, picture in load_pages().thumbnails().items():
        assert (tmp_path / name).read_bytes() == picture
        assert "data:image/png;base64," in (tmp_path / name).with_suffix(".html").read_text()
