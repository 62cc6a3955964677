"""Pages of the documentation that are made from the package and from docs/results; hooks of mkdocs.yml."""

from __future__ import annotations

import ast
import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from itertools import compress
from math import inf
from pathlib import Path
from typing import Any

from hsfusion.cli.app import groups_and_keys
from hsfusion.cli.benchmark import KINDS
from hsfusion.cli.main import COMMANDS
from hsfusion.cli.pages import help_of
from hsfusion.cli.words import CONF
from hsfusion.evidence.jobs import EvidenceSettings
from hsfusion.runs.prediction import PredictSettings
from hsfusion.runs.settings import ModelSettings, Settings, TrainSettings
from hsfusion.scenes.description import commented_keys

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
_SETTINGS = (TrainSettings, ModelSettings, PredictSettings, EvidenceSettings)
_ROLE = re.compile(r":(?:func|class|meth|attr|data|mod|exc):(?:`~?([^`]+)`|<code>~?([^<]+)</code>)")
_ATTRIBUTE = re.compile(r"^        (\w+): (.*(?:\n            .*)*)", re.MULTILINE)
# part of the package -> middle of its box in the graph
_PLACES = {
    **{"cli": (320, 30), "benchmarks": (230, 110), "evidence": (410, 110), "runs": (320, 190)},
    **{"data": (70, 290), "inference": (195, 290), "training": (320, 290), "trust": (445, 290), "plots": (570, 290)},
    **{"scenes": (130, 380), "nn": (258, 380), "spectra": (380, 460), "publishing": (440, 530), "errors": (440, 610)},
}


def cell(text: object) -> str:
    """A text as a cell of a table in Markdown."""
    words = " ".join(str(text).split()).replace("|", "\\|")
    return re.sub("(`[^`]*`)|<", lambda found: found[1] or "&lt;", words)  # code is escaped by Markdown


def table(heads: Sequence[str], rows: Iterator[Sequence[object]] | Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *([cell(of) for of in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def code(text: object) -> str:
    """A text in the letters of code; empty for no text."""
    return f"`{text}`" if str(text) else ""


def commands_page() -> str:
    """Every command with its groups and keys: what ``--help`` prints."""
    rows = [(code(f"hsfusion {name}"), text) for name, text in COMMANDS.items()]
    parts = [
        "# Commands and keys",
        "Made from the files that `hsfusion COMMAND --help` reads.",
        table(["command", "what it does"], rows),
    ]
    for command in ("train", "finetune", "predict", "evidence"):
        parts += _command_part(f"hsfusion {command}", command)
    for name in ("weights", "inspect"):
        parts += [f"## hsfusion {name}", f"```text\n{help_of(name)}\n```"]
    for kind, (_, text) in KINDS.items():
        parts += [*_command_part(f"hsfusion benchmark {kind}", f"benchmark_{kind}", f"Measures {text}.")]
    parts += ["## hsfusion completion", f"Prints{COMMANDS['completion'].removeprefix('print')}."]
    return "\n\n".join(parts)


def _command_part(title: str, config_name: str, text: str = "") -> list[str]:
    groups, keys = groups_and_keys(config_name)
    if config_name.startswith(("finetune", "evidence", "benchmark")) and any(key == "select" for key, *_ in keys):
        text += " It takes the groups and keys of [hsfusion train](#hsfusion-train), too; these are its own."
        common = {key for key, *_ in groups_and_keys("train")[1]}
        groups, keys = [], [entry for entry in keys if entry[0] not in common]
    parts = [f"## {title}", text.strip()]
    if groups:
        rows = [(code(name), code(chosen), options) for name, chosen, options in groups]
        parts += ["Config groups:", table(["group", "default", "choices"], rows)]
    shown = [(code(key), code(value), comment) for key, value, comment in keys]
    return [*filter(None, parts), table(["key", "default", "what it is"], shown)]


def settings_page() -> str:
    """Every field of the settings: key of the command line, type, default, range and meaning."""
    comments = commented_keys(CONF, "train", "predict", "evidence")
    parts = ["# Settings in Python", "Frozen dataclasses, which are also the schema of the command line."]
    for settings in _SETTINGS:
        said = {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(settings.__doc__ or "")}
        rows = []
        for entry in fields(settings):
            key = settings.keys()[entry.name]
            meaning = _ROLE.sub(r"`\1`", said.get(entry.name) or comments.get(key) or "")
            rows.append((code(entry.name), code(key), _default(entry), _limits(entry), meaning))
        first = (settings.__doc__ or "").splitlines()[0]
        head = ["field", "on the command line", "default", "values", "what it is"]
        parts += [f"## {settings.__name__}", _ROLE.sub(r"`\1`", first), table(head, rows)]
    return "\n\n".join(parts)


def _default(entry: Field[Any]) -> str:
    value = entry.default if entry.default_factory is MISSING else entry.default_factory()
    if isinstance(value, Settings):
        return code(f"{type(value).__name__}()")
    value = getattr(value, "func", value)
    return code(getattr(value, "__name__", value))


def _limits(entry: Field[Any]) -> str:
    limits: Mapping[str, Any] = entry.metadata
    words = [code(str(entry.type).replace(" | ", " or "))]
    if limits.get("choices"):
        words.append("of " + ", ".join(map(code, limits["choices"])))
    elif "lower" in limits:
        lower, upper = limits["lower"], limits.get("upper", inf)
        words.append(f"from {lower}" + ("" if upper == inf else f" to {upper:,}"))
    return " ".join(words)


def results_page() -> str:
    """A table of the summary of every file in docs/results, with date, commit, machine and command."""
    first = "Made from the files in `docs/results`, the newest first. Means over splits, ± one standard deviation."
    parts = ["# Tables", first]
    paths = sorted(RESULTS.glob("*.json"), key=lambda path: ("suite" in path.stem, path.stem), reverse=True)
    for path in sorted(paths, key=lambda path: path.stem[-10:], reverse=True):
        content = json.loads(path.read_text(encoding="utf-8"))
        summary = content.get("summary", {})  # those of speed have none
        machine, rows = content["machine"], list(_measured(summary))
        facts = f"{content['date'][:10]}, commit {content['commit']}, {machine['processor']}, {machine['cores']} cores"
        depth = max((len(way) for way, _ in rows), default=0)
        used = [any(numbers[i] for _, numbers in rows) for i in range(len(_HEADS))]
        heads = [*[""] * depth, *compress(_HEADS, used)]
        lines = [[*[""] * (depth - len(way)), *way, *compress(numbers, used)] for way, numbers in rows]
        verdict = summary.get("verdict")  # of an evidence run
        shown = f"**{verdict}**: {' '.join(summary['reasons'])}" if verdict else table(heads, lines) if rows else ""
        if counted := [run for run in content.get("runs", ()) if "trials" in run]:  # of the scoreboard
            shown = table(["", "trials"], [[run["what"], f"{run['good']:,} of {run['trials']:,}"] for run in counted])
        parts += [f"## {path.stem.replace('_', ' ')}", f"{facts}. `{content['command']}`", shown]
    return "\n\n".join(parts)


_HEADS = (
    "overall accuracy",
    "average accuracy",
    "kappa",
    "lead over the best baseline, or over even spacing (95 % interval)",
)


def _measured(
    summary: Mapping[str, Any], way: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Where in a summary a mean of accuracies stands, and its numbers in words."""
    for name, of in summary.items():
        if isinstance(of, Mapping) and ("mean" in of or "overall_accuracy" in of):
            numbers = [of if "mean" in of else of["overall_accuracy"], of.get("average_accuracy"), of.get("kappa")]
            gain = of.get("ahead") or of.get("against_evenly_spaced")
            yield (*way, name), (*map(_spread, numbers), _gain(gain))
        elif isinstance(of, Mapping):
            yield from _measured(of, (*way, name))


def _spread(of: Mapping[str, float] | None) -> str:
    return "" if of is None else f"{of['mean']:.3f}\u00a0±\u00a0{of['std']:.3f}"


def _gain(of: Mapping[str, Any] | None) -> str:
    if of is None or of.get("mean") is None:
        return ""
    return f"{of['mean']:+.3f}" + ("" if of.get("low") is None else f" ({of['low']:+.3f} to {of['high']:+.3f})")


def import_graph() -> dict[str, set[str]]:
    """Part of the package -> the other parts that its modules import."""
    graph: dict[str, set[str]] = {part: set() for part in _PLACES}
    for path in (ROOT / "hsfusion").rglob("*.py"):
        part = path.relative_to(ROOT / "hsfusion").with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if part in graph and isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[part] |= {name.split(".")[1] for name in names if name.startswith("hsfusion.")} & graph.keys()
        graph.get(part, set()).discard(part)
    graph["spectra"].discard("plots")  # BandWeights.plot, where somebody asks for it
    return graph


def graph_svg() -> str:
    """The import graph as a drawing, without edges that follow from others."""
    graph = import_graph()

    def reached(part: str) -> set[str]:
        return graph[part].union(*map(reached, graph[part]))

    drawn = []
    for part, imported in graph.items():
        for other in sorted(imported - set().union(*map(reached, imported))):
            (x, y), (to_x, to_y) = _PLACES[part], _PLACES[other]
            way = f"M{x} {y + 18} C{x} {y + 45} {to_x} {to_y - 55} {to_x} {to_y - 24}"
            drawn.append(f'<path d="{way}" fill="none" stroke="#607d7d" marker-end="url(#end)"/>')
    for part, (x, y) in _PLACES.items():
        box = f'x="{x - 52}" y="{y - 18}" width="104" height="36" rx="6" fill="#e0f2f1" stroke="#00796b"'
        drawn.append(f'<rect {box}/><text x="{x}" y="{y + 5}" text-anchor="middle" fill="#123">{part}</text>')
    tip = '<marker id="end" markerWidth="7" markerHeight="7" refX="3" refY="3" orient="auto">'
    tip += '<path d="M0 0L6 3L0 6z" fill="#607d7d"/></marker>'
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 640" font-family="sans-serif" font-size="14">'
    ground = '<rect width="640" height="640" rx="8" fill="#f7fbfb"/>'
    return f"{head}<defs>{tip}</defs>{ground}{''.join(drawn)}</svg>\n"


#: path of a page that is made -> what makes it
PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/settings.md": settings_page,
    "results/tables.md": results_page,
    "development/imports.svg": graph_svg,
}


def thumbnails() -> dict[str, bytes]:
    """Path of a picture beside each notebook, and the last figure that the notebook drew."""
    pictures = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        drawn = [
            of["data"]["image/png"]
            for cell in cells
            for of in cell.get("outputs", ())
            if "image/png" in of.get("data", ())
        ]
        pictures[f"notebooks/{path.stem}.png"] = base64.b64decode(drawn[-1])
    return pictures


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made, and the notebooks, before plugins look at the files."""
    from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports]

    for path, content in ({path: make() for path, make in PAGES.items()} | thumbnails()).items():
        files.append(File.generated(config, path, content=content))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        name = f"notebooks/{path.name}"
        files.append(File(name, str(ROOT), config["site_dir"], config["use_directory_urls"]))
    return files


on_files.mkdocs_priority = 100  # pyright: ignore[reportFunctionMemberAccess]


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Takes the roles of Sphinx out of docstrings."""
    return _ROLE.sub(lambda found: f"<code>{found[1] or found[2]}</code>", html)
