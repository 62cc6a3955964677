"""The HTML report: self-contained, escaped, accessible."""

from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsfusion.plots import band_weights_figure, confusion_figure, report_html, save_figure, totals_by_group
from hsfusion.spectra import Bands, BandWeights
from hsfusion.spectra.weights import WeightSpread, ranked_bands

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Records the elements of a page and checks that they nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.words: list[str] = []
        self.stack: list[str] = []
        self.feed(html)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.stack)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.stack)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"style", "script"} & set(self.stack):
            self.words.append(data.strip())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs, _ in self.elements if tag == name]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A folder with the figures of a confusion matrix and of band weights."""
    folder = tmp_path_factory.mktemp("figures")
    save_figure(confusion_figure(np.eye(2, dtype=int), names=["a", "b"], title=""), folder / "confusion")
    curve = band_weights_figure(WAVELENGTHS, WEIGHTS, groups=GROUPS, title="Weights")
    save_figure(curve, folder / "band_weights")
    return folder


@pytest.fixture
def figures(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "figures"))


WAVELENGTHS, WEIGHTS = np.array([400.0, 410.0, 420.0, 1000.0]), np.array([0.1, 0.2, 0.3, 0.4])
GROUPS = [("blue", 400.0, 500.0)]


def weights(nm: Any = WAVELENGTHS, *, group: str = "blue", spread: WeightSpread | None = None, **more: Any) -> dict:
    """What a page is given of weights."""
    bands = Bands(nm, np.array([9.0, 9.5, 10.0, 12.25]), np.ones(4, bool))
    table = BandWeights(bands, (group, group, group, ""), WEIGHTS)
    window = {"lower_nm": 690.4, "upper_nm": 735.0, "group": "", "weight": 0.213, "times_untrained": 2.4}
    return {
        "bands": sorted(ranked_bands(table, spread, untrained=np.full(4, 0.25)), key=lambda row: row["band"]),
        "windows": [window],
        "groups": GROUPS,
        "totals": totals_by_group(nm, WEIGHTS, more.get("groups", GROUPS)),
        "sources": (),
        "runs": 1,
        "importance": None,
        **more,
    }


METRICS: dict[str, Any] = {
    "test": {
        "overall_accuracy": 0.797,
        "average_accuracy": 0.7,
        "kappa": 0.75,
        "mean_iou": 0.6,
        "per_class": {"Corn": {"accuracy": 0.914, "support": 1428}, "Oats": {"accuracy": None, "support": 0}},
    },
    "split": {"kind": "blocks", "train_pixels": 9, "val_pixels": 4, "test_pixels": 1428, "leakage": 0.0},
    "timing": {"train_seconds": 3.2},
}
NOWHERE = Path("no figures")


def report(figures: Path = NOWHERE, **changes: Any) -> str:
    content: dict[str, Any] = {
        "title": "Run",
        "scene": "planted",
        "weights": weights(),
        "metrics": METRICS,
        "independence": "30.0 % of the labelled pixels for training",
        "beats_chance": True,
        "unreadable": None,
        "verdict": ("not tested", ["Another seed may weight other bands."]),
        "bands_in_use": "4 of 4",
        "best_step": 5,
        "shape": (20, 30),
        "classes": 2,
        "labelled_pixels": 1441,
        "roles": {"unused": 0, "training": 9},
        "transfer": (),
        "configuration": "seed: 0",
        "versions": {"torch": "2.13.0"},
        "reproduce": "hsfusion train seed=0",
    }
    return report_html("run", content | changes, figures=figures)


def test_everything_given_is_escaped(drawn: Path) -> None:
    per_class = {EVIL: {"accuracy": 0.5, "support": 1}}
    html = report(
        drawn,
        title=EVIL,
        scene=EVIL,
        metrics={**METRICS, "test": {**METRICS["test"], "per_class": per_class}},
        unreadable=EVIL,
        verdict=(EVIL, [EVIL]),
        bands_in_use=EVIL,
        weights=weights(group=EVIL, groups=[(EVIL, 400.0, 900.0)], sources=[(EVIL, 0.0)]),
        transfer=[EVIL],
        configuration=EVIL,
        versions={EVIL: EVIL},
        reproduce=EVIL,
    )
    page = Page(html)
    assert not page.all("script")
    assert page.words.count(EVIL) >= 17


def test_page_loads_nothing_and_runs_nothing(drawn: Path) -> None:
    html = report(drawn)
    assert "http://" not in html
    assert "https://" not in html
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "svg"} & {tag for tag, _, _ in page.elements}
    sources = [attrs.get("src") or attrs.get("href") for _, attrs, _ in page.elements if {"src", "href"} & set(attrs)]
    assert len(sources) == 2
    assert all(str(source).startswith("data:image/") for source in sources)
    assert not re.findall(r"url\(|@import", html)
    assert not [name for _, attrs, _ in page.elements for name in attrs if name.startswith("on")]
    (policy,) = [str(attrs["content"]) for attrs in page.all("meta") if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "script-src" not in policy


def test_every_band_says_its_values_in_the_order_of_the_file(drawn: Path) -> None:
    frequency = np.array([0.0, 0.2, 0.4, 1.0])
    spread = WeightSpread(np.array([0.05, 0.1, 0.2, 0.3]), np.array([0.15, 0.3, 0.4, 0.5]), frequency)
    shuffled = weights(np.array([410.0, 400.0, 420.0, 1000.0]), spread=spread, windows=[], runs=5)
    html = report(drawn, weights=shuffled)
    words = Page(html).words
    first = words.index("1", words.index("Every band, in the order of the file"))
    assert words[first : first + 9] == ["1", "410.0", "9.0", "10.000", "5.000", "15.000", "25.000", "0", "blue"]
    assert "median over 5 trainings" in html


def test_curve_is_described_in_words(drawn: Path) -> None:
    image, _ = Page(report(drawn, weights=weights())).all("img")
    assert "The largest is 40.0 % at 1000 nm; untrained networks give that band 25.0 %." in str(image["alt"])


@pytest.mark.parametrize("word", ["no evidence", "supported"])
def test_verdict_is_named_and_only_a_supported_one_is_green(word: str) -> None:
    page = Page(report(verdict=(word, ["Why."])))
    assert {f"Verdict: {word}.", "Why."} <= set(page.words)
    (box,) = [attrs for attrs in page.all("div") if str(attrs.get("class")).startswith("verdict")]
    assert (box["class"] == "verdict supported") == (word == "supported")


def test_page_of_evidence_is_escaped_and_leaves_out_what_is_not_measured(drawn: Path) -> None:
    evidence = {
        "scene": "planted",
        "split": {"kind": "blocks", "leakage": 0.0},
        "runs": [{"seed": 0, "resample": 0, "overall_accuracy": 0.8, "average_accuracy": 0.7, "beats_chance": True}],
        "verdict": {"word": "not supported", "sentences": [EVIL]},
    }
    content = {"title": EVIL, "configuration": "a: 1", "versions": {}, "reproduce": "again", "weights": weights()}
    page = Page(report_html("evidence", {**content, "evidence": evidence}, figures=drawn))
    assert {"Verdict: not supported.", EVIL, "Every training", "Configuration"} <= set(page.words)
    assert not page.all("script")
    assert "Stability" not in " ".join(page.words)


def test_comparison_with_untouched_and_scratch_stands_beside_what_was_taken_over() -> None:
    tuned, scratch = (
        {"test": {**METRICS["test"], "kappa": k}, "val_overall_accuracy": k, "val_log_likelihood": -k}
        for k in (0.75, 0.85)
    )
    three = {"kept": "scratch", "finetuned": tuned, "scratch": scratch}
    words = Page(report(transfer=["copied  cnn"], metrics={**METRICS, **three})).words
    assert {"Transfer", "copied  cnn", "fine-tuned", "from scratch (kept)", "0.7500", "0.8500"} <= set(words)
    assert "untouched" not in words  # it does not know the classes
    assert "Transfer" not in Page(report()).words


def test_figures_are_embedded_byte_for_byte_with_alt_text_and_caption(drawn: Path) -> None:
    page = Page(report(drawn))
    images = page.all("img")
    for image, stem in zip(images, ("band_weights", "confusion"), strict=True):
        head, content = str(image["src"]).split(",")
        assert head == "data:image/svg+xml;base64"
        assert base64.b64decode(content) == (drawn / f"{stem}.svg").read_bytes()
    assert "overall accuracy 0.7970." in str(images[1]["alt"])
    assert "Rows are the truth." in page.words
    assert all("figure" in parents for tag, _, parents in page.elements if tag in {"img", "figcaption"})


def test_large_svg_gives_way_to_its_png_of_the_same_scale(figures: Path) -> None:
    def shown() -> tuple[str, int]:
        page = Page(report(figures))
        width = [str(attrs["style"]) for attrs in page.all("div") if attrs.get("class") == "drawing"][1]
        return str(page.all("img")[1]["src"]).partition(";")[0], int(re.sub(r"\D", "", width))

    kind, width = shown()
    assert (kind, width > 100) == ("data:image/svg+xml", True)
    svg = figures / "confusion.svg"
    svg.write_bytes(svg.read_bytes() + b"<!--" + b" " * 500_000 + b"-->")
    kind, of_png = shown()
    assert kind == "data:image/png"
    assert of_png == pytest.approx(width, abs=1)
    svg.with_suffix(".png").unlink()
    assert shown() == ("data:image/svg+xml", width)


def test_largest_figure_gives_way_where_the_page_has_no_room(tmp_path: Path) -> None:
    for stem, size in (("confusion", 300_000), ("training", 700_000), ("map", 500_000), ("split", 400_000)):
        (tmp_path / f"{stem}.svg").write_bytes(b"<svg" + b" " * size)
    html = report(tmp_path)
    assert len(html.encode()) < 2_000_000
    page = Page(html)
    assert len(page.all("img")) == 3
    assert [word for word in page.words if "Too large" in word] == [
        "Too large for this page: see the file training.svg."
    ]


def test_tables_have_captions_scoped_headers_and_a_container_that_scrolls() -> None:
    page = Page(report())
    assert len(page.all("table")) == len(page.all("caption")) == 6
    assert {attrs.get("scope") for attrs in page.all("th")} == {"col", "row"}
    parents = [stack[-1] for tag, _, stack in page.elements if tag == "table"]
    assert parents == ["div"] * 6
    containers = [attrs for attrs in page.all("div") if attrs.get("class") == "scroll"]
    assert len(containers) == 6
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in containers)
    assert re.search(r"\.scroll \{ overflow-x: auto", report())


def test_numbers_are_written_with_their_units() -> None:
    words = Page(report()).words
    for expected in ("690–735", "window (nm)", "21.3 %", "91.4 %", "1,428", "none", "0.7970", "2.13.0"):
        assert expected in words


def test_headings_descend_by_one_level_from_a_single_first() -> None:
    levels = [int(tag[1]) for tag, _, _ in Page(report()).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert levels[1:] == [2] * 7
    ids = [attrs["id"] for attrs in Page(report()).all("section")]
    assert len(set(ids)) == len(ids) == 7


def test_caveats_come_before_the_numbers_and_no_caveats_give_no_box() -> None:
    split = {**METRICS["split"], "leakage": 0.5, "val_pixels": 0}
    words = Page(report(beats_chance=False, metrics={**METRICS, "split": split})).words
    first = words.index("Before you use these numbers")
    assert words[first + 1].startswith("No evidence: on unseen pixels")
    assert words[first + 2].startswith("The split leaks: 50.0% of the test pixels")
    assert words[first + 3].startswith("There were no validation pixels")
    assert first < words.index("0.7970")
    assert "Before you use these numbers" not in Page(report()).words


def test_page_serves_phone_and_print() -> None:
    html = report()
    assert '<meta name="viewport" content="width=device-width' in html
    assert "@media print" in html
    assert Page(html).all("html")[0]["lang"] == "en"
