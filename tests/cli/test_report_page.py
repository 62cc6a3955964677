"""The report of a run and of an evidence folder, read as HTML and opened in a browser where there is one."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hsfusion.plots import map_html, report_html
from hsfusion.spectra import Bands, BandWeights
from hsfusion.spectra.weights import ranked_bands

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
EVIL = "<b>moor</b> & heath"
ALONE = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
)


class Elements(HTMLParser):
    """Tags with their attributes, and the text outside style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open.pop() != tag:  # void elements have no end
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.found if tag in tags]


@pytest.fixture(scope="module")
def page(run) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """Opens a page, with a script of the test's own, and returns its title afterwards and the console's lines."""
    assert CHROMIUM is not None
    profile = tmp_path_factory.mktemp("browser")

    def opened(page: str, script: str, *flags: str) -> tuple[str, list[str]]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed = page if "script-src" in page else page.replace("; base-uri", "; script-src ; base-uri", 1)
        allowed = allowed.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
        assert allowed != page
        path = profile / "page.html"
        path.write_text(allowed.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        words = [CHROMIUM, *ALONE, f"--user-data-dir={profile / 'data'}", *flags, "--dump-dom", path.as_uri()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
        assert title, done.stderr
        return title[1], [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return opened


def test_page_holds_every_part_in_order(page):
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "Summary",
        "What the weights are worth",
        "Band weights over wavelength",
        "How the weights are made up",
        "Accuracy",
        "Class map and ground truth",
        "Split",
        "How to repeat this run",
        "Configuration",
        "Software",
    ] or headings == ["Before you use these numbers", *headings[1:]]
    assert len(page.encode()) < 2_000_000


def test_one_run_is_called_one_run(page):
    words = "".join(Elements(page).words)
    assert "Verdict: not tested." in words or "Verdict: no evidence." in words
    assert "Leakage 0.0000" in words


def test_every_picture_says_what_it_shows(page):
    elements = Elements(page)
    pictures = elements.all("img")
    assert len(pictures) == 6  # weights, group weights, two on accuracy, maps, split
    assert all(len(str(attrs["alt"])) > 60 for attrs in pictures)


def test_values_of_every_band_can_be_read_without_script(page):
    words = Elements(page).words
    assert "All 211 bands as a table" in words
    assert {"1", "211", "400.0"} <= set(words[words.index("Every band, in the order of the file") :])


@needs_chromium
def test_browser_reports_no_error_and_blocks_nothing(page, look):
    title, console = look(page, "document.title = 'open';")
    assert title == "open"
    assert console == []


@needs_chromium
def test_browser_blocks_what_the_policy_does_not_name(page, look):
    _, console = look(page.replace("</main>", "</main><script>document.title = 'bad';</script>"), "0;")
    assert len(console) == 1
    assert "Content Security Policy" in console[0]


@needs_chromium
def test_page_is_no_wider_than_its_window(page, look):
    script = """
        const root = document.documentElement;
        document.title = JSON.stringify([320, 390, 700, 1280].map((width) => {
            root.style.width = width + 'px';
            return document.body.scrollWidth - width; }));
    """
    assert all(beyond <= 0 for beyond in json.loads(look(page, script, "--window-size=1300,900")[0]))


@needs_chromium
def test_text_stands_out_from_its_ground(page, look):
    script = """
        const channel = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
        const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
            return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
        const ground = (element) => { for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            if (color !== 'rgba(0, 0, 0, 0)') return color; } return 'rgb(255, 255, 255)'; };
        const ratios = Array.from(document.querySelectorAll('main :not(img)'), (element) => {
            const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
        document.title = [Math.min(...ratios), ratios.length, ground(document.body)].join(' ');
    """
    lowest, number, *ground = look(page, script)[0].split(" ", 2)
    assert float(lowest) >= 4.5
    assert int(number) > 100
    assert ground == ["rgb(255, 255, 255)"]


CODES = (2, 5, 300)  # of a map of 3 rows and 4 columns; 0 is no class
CLASSES = np.array([[2, 2, 5, 0], [5, 5, 300, 300], [2, 300, 300, 5]])
SHOW = """
    window.addEventListener("load", () => {
        const color = (row, column) => [...canvas.getContext('2d').getImageData(column, row, 1, 1).data].join(' ');
        const { left, top } = frame.getBoundingClientRect(), looks = [color(0, 1), color(0, 3)];
        const event = (name, column, row, more) => frame.dispatchEvent(new PointerEvent(name, { pointerId: 1,
            clientX: left + view.x + (column + 0.5) * view.scale, clientY: top + view.y + (row + 0.5) * view.scale }));
        const read = (column, row) => { event('pointermove', column, row); return at.textContent; };
        const texts = [read(2, 1), read(3, 0)];
        boxes[0].click();
        looks.push(color(0, 1));
        const before = { ...view };
        event('pointerdown', 1, 1); event('pointermove', 2, 1); event('pointerup', 2, 1);
        const moved = [(view.x - before.x) / before.scale, (view.y - before.y) / before.scale];
        document.querySelector('button').click();
        document.title = JSON.stringify({ rows: [...rows], looks, texts, moved, zoom: view.scale / before.scale });
    });
"""


def map_page(**place) -> str:
    legend = [("water", "#0000ff", 0.25), (EVIL, "#00ff00", 0.25), ("wood", "#ff8000", 0.5)]
    known = {"transform": (1, 0, 0, 0, 1, 0), "crs": None} | place
    return map_html(CLASSES, codes=CODES, legend=legend, title=EVIL, **known)


@needs_chromium
def test_map_in_a_browser_shows_classes_places_and_moves(look):
    title, console = look(map_page(), SHOW)
    shown = json.loads(html.unescape(title))
    assert console == []
    assert shown["rows"] == np.searchsorted([0, *CODES], CLASSES).ravel().tolist()
    assert shown["looks"] == ["0 0 255 255", "0 0 0 0", "0 0 0 0"]
    assert shown["texts"] == ["wood: column 2, row 1", "no class: column 3, row 0"]
    assert shown["moved"] == pytest.approx([1, 0])
    assert shown["zoom"] == pytest.approx(1.5)
    placed = map_page(transform=(20, 0, 500_000, 0, -20, 5_500_000), crs="UTM 33N")
    shown = json.loads(html.unescape(look(placed, SHOW)[0]))
    assert shown["texts"][0] == "wood: 500050, 5499970 (UTM 33N)"


@needs_chromium
def test_map_runs_its_script_and_no_other(look):
    injected = map_page().replace("</main>", "</main><script>document.title = 'bad';</script>")
    title, console = look(injected, "document.title = 'open';")
    assert (title, len(console)) == ("open", 1)
    assert "Content Security Policy" in console[0]


@needs_chromium
@pytest.mark.parametrize("width", [420, 1280])
def test_map_is_no_wider_than_its_window(look, width):
    frame = f'<iframe style="width: {width}px; height: 800px" srcdoc="{html.escape(map_page())}"></iframe>'
    around = f"<html><head><title></title></head><body>{frame}</body></html>"
    script = """
        window.addEventListener('load', () => {
            const root = document.querySelector('iframe').contentDocument.documentElement;
            document.title = [root.scrollWidth - root.clientWidth, root.querySelector('#frame').clientHeight]; });
    """
    title, console = look(around, script, "--window-size=1300,900")
    assert console == []
    beyond, height = map(int, title.split(","))
    assert beyond <= 0 and height > 400


def test_names_in_a_map_are_escaped():
    assert EVIL not in map_page() and map_page().count(html.escape(EVIL)) >= 2


def test_map_says_by_how_much_it_is_reduced():
    assert "1 of 3 rows and columns" in map_page(step=3) and "rows and columns" not in map_page()


def evidence(**more) -> dict:
    start = {"scene": "planted", "split": {"kind": "blocks", "leakage": 0.0}}
    return start | {"verdict": {"word": "not tested", "sentences": [], "windows": []}} | more


def evidence_page(content: dict) -> str:
    around = {"title": "Evidence", "configuration": "a: 1", "versions": {"numpy": "2"}, "reproduce": "again"}
    bands = Bands(np.array([500.0, 600.0, 700.0]), None, np.ones(3, bool))
    rows = ranked_bands(
        BandWeights(bands, ("a", "a", ""), np.array([0.2, 0.5, 0.3])), None, untrained=np.full(3, 1 / 3)
    )
    weights = {"bands": rows, "windows": [], "groups": [], "totals": {}, "sources": (), "runs": 1, "importance": None}
    return report_html("evidence", around | {"evidence": content, "weights": weights}, figures=Path("no figures"))


def test_page_of_evidence_grows_with_its_stages():
    runs = [
        {"seed": s, "resample": 0, "overall_accuracy": 0.8 + s / 10, "average_accuracy": 0.7, "beats_chance": True}
        for s in range(2)
    ]
    trained = evidence(runs=runs)
    first = evidence_page(trained)
    assert "0.8500 (mean; 0.8000 to 0.9000)" in first
    assert "Verdict: not tested." in first
    assert "Every band, in the order of the file" in first
    found = {"index": float("nan"), "lower": None, "upper": None, "profiles": 2, "members": 1}
    judged = trained | {
        "stability": {"bands": 1, "half_width": 0, "index_of_members": {}, "single": found},
        "verdict": {"word": "not supported", "sentences": ["They do not agree."], "windows": []},
        "rankings": {"SVM weights": 0.291, "MNF loading": float("nan")},
    }
    second = evidence_page(judged)
    assert "Stability over seeds" in second
    assert "undefined to undefined" in second
    assert "index on the same draws: SVM weights 0.29, MNF loading undefined." in second
    assert "Verdict: not supported." in second
    assert "Faithfulness" not in second
    # JSON round trip: what the file holds is what is shown
    assert evidence_page(json.loads(json.dumps(judged))) == second
