"""The HTML report: self-contained, escaped, accessible."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsfusion.plots import (
    PageFigure,
    WeightProfile,
    band_weights_figure,
    confusion_figure,
    evidence_html,
    report_html,
    save_figure,
    with_evidence,
)

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


@pytest.fixture
def figure_path(tmp_path: Path) -> Path:
    save_figure(confusion_figure(np.eye(2, dtype=int), names=["a", "b"], title=""), tmp_path / "confusion")
    return tmp_path / "confusion.svg"


def profile(**changes: Any) -> WeightProfile:
    arguments: dict[str, Any] = {
        "wavelength_nm": np.array([400.0, 410.0, 420.0, 1000.0]),
        "weight": np.array([0.1, 0.2, 0.3, 0.4]),
        "fwhm_nm": np.array([9.0, 9.5, 10.0, 12.25]),
        "band_groups": ("blue", "blue", "blue", ""),
        "groups": [("blue", 400.0, 500.0)],
    }
    return WeightProfile(**arguments | changes)


def curve_path(folder: Path, of: WeightProfile) -> Path:
    figure = band_weights_figure(
        of.wavelength_nm, of.weight, groups=of.groups, spectra=None, colors=None, title="Weights"
    )
    save_figure(figure, folder / "band_weights")
    return folder / "band_weights.svg"


def report(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "title": "Run",
        "summary": {"overall accuracy": "79.7 %"},
        "caveats": ["Band weights of one run."],
        "verdict": ("one run only", ["Another seed may weight other bands."]),
        "weights": profile(),
        "curve": None,
        "figures": {},
        "per_class": [("Corn", 0.914, 1428), ("Oats", None, 0)],
        "top_windows": [{"lower_nm": 690.4, "upper_nm": 735.0, "weight": 0.213, "raised": 2.4}],
        "configuration": "seed: 0",
        "versions": {"torch": "2.13.0"},
        "reproduce": "hsfusion train seed=0",
    }
    return report_html(**arguments | changes)


def test_everything_given_is_escaped(figure_path: Path) -> None:
    html = report(
        title=EVIL,
        summary={EVIL: EVIL},
        caveats=[EVIL],
        verdict=(EVIL, [EVIL]),
        weights=profile(band_groups=(EVIL,) * 4, groups=[(EVIL, 400.0, 900.0)], sources=[(EVIL, 0.0)]),
        top_windows=[],
        figures={"composition": [PageFigure(figure_path, EVIL, f'"{EVIL}', EVIL)]},
        transfer=[EVIL],
        scratch={EVIL: (EVIL, EVIL)},
        per_class=[(EVIL, 0.5, 1)],
        configuration=EVIL,
        versions={EVIL: EVIL},
        reproduce=EVIL,
    )
    page = Page(html)
    assert not page.all("script")
    assert page.words.count(EVIL) >= 16
    assert f'"{EVIL}' in [image["alt"] for image in page.all("img")]


def test_page_loads_nothing_and_runs_nothing(figure_path: Path) -> None:
    svg, png = figure_path, figure_path.with_suffix(".png")
    html = report(figures={"accuracy": [PageFigure(svg, "A", "a", "a"), PageFigure(png, "B", "b", "b")]})
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


def values_of(html: str) -> list[str]:
    return [str(attrs["data-values"]) for attrs in Page(html).all("i") if "data-values" in attrs]


def test_every_band_says_its_values_in_order_of_wavelength(tmp_path: Path) -> None:
    shuffled = profile(
        wavelength_nm=np.array([410.0, 400.0, 420.0, 1000.0]),
        quartiles=tuple(np.array([[0.05, 0.1, 0.2, 0.3], [0.15, 0.3, 0.4, 0.5]])),
        frequency=np.array([0.0, 0.2, 0.4, 1.0]),
        good=np.array([True, True, True, False]),
        profiles=np.full((5, 4), 0.25),
    )
    html = report(weights=shuffled, curve=curve_path(tmp_path, shuffled))
    tips = values_of(html)
    assert tips[0] == (
        "band 2: 400.0 nm, FWHM 9.5 nm, group blue, weight 20.00 %, quartiles 10.00 and 30.00 %, "
        "selected in 20 % of runs"
    )
    assert tips[1].startswith("band 1: 410.0 nm")
    assert tips[3].endswith("selected in 100 % of runs, not used")
    assert "median over 5 trainings" in html


def test_strips_of_the_bands_lie_around_their_markers(tmp_path: Path) -> None:
    path = curve_path(tmp_path, profile())
    strips = Page(report(curve=path)).all("i")
    edges = np.cumsum([float(str(attrs["style"]).removeprefix("width: ").removesuffix("%")) for attrs in strips])
    svg = path.read_text()
    group = svg[svg.index('<g id="band-weights">') :]
    markers = [float(x) for x in re.findall(r'<use [^>]*\bx="([\d.]+)"', group)[:4]]
    page_width = float(re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0])
    left, right = edges[:-1], edges[1:]
    assert all(lower < 100 * x / page_width < upper for lower, x, upper in zip(left, markers, right, strict=True))
    assert edges[1] == pytest.approx(100 * (markers[0] + markers[1]) / 2 / page_width, abs=0.001)
    # a marker stands where its wavelength does
    steps = np.diff(markers)
    assert steps / steps[0] == pytest.approx([1, 1, 58], rel=1e-4)


def test_curve_that_gave_way_to_its_png_has_no_strips(tmp_path: Path) -> None:
    path = curve_path(tmp_path, profile())
    path.write_bytes(path.read_bytes() + b"<!--" + b" " * 500_000 + b"-->")
    html = report(curve=path)
    assert not values_of(html)
    assert "All 4 bands as a table" in html


def test_curve_is_described_in_words(tmp_path: Path) -> None:
    known = profile(untrained=np.full(4, 0.25))
    (image,) = Page(report(weights=known, curve=curve_path(tmp_path, known))).all("img")
    assert "The largest is 40.0 % at 1000 nm, untrained networks give that band 25.0 %." in str(image["alt"])
    (image,) = Page(report(curve=curve_path(tmp_path, profile()))).all("img")
    assert "a uniform weight were 25.0 %" in str(image["alt"])


@pytest.mark.parametrize("word", ["no evidence", "supported"])
def test_verdict_is_named_and_only_a_supported_one_is_green(word: str) -> None:
    page = Page(report(verdict=(word, ["Why."])))
    assert {f"Verdict: {word}.", "Why."} <= set(page.words)
    (box,) = [attrs for attrs in page.all("div") if str(attrs.get("class")).startswith("verdict")]
    assert (box["class"] == "verdict supported") == (word == "supported")


def test_evidence_takes_the_places_of_what_one_run_says(tmp_path: Path) -> None:
    evidence = {
        "scene": "planted",
        "split": {"kind": "blocks", "leakage": 0.0},
        "bands": {"wavelength_nm": [400.0, 410.0, 420.0, 1000.0], "fwhm_nm": None, "good": [True] * 4},
        "band_groups": ["blue"] * 3 + [""],
        "groups": [{"name": "blue", "lower_nm": 400.0, "upper_nm": 500.0}],
        "runs": [{"seed": 0, "resample": 0, "overall_accuracy": 0.8, "average_accuracy": 0.7, "beats_chance": True}],
        "ensemble": [0.25] * 4,
        "profiles": [[0.25] * 4],
        "verdict": {"word": "unstable", "sentences": [EVIL]},
    }
    path = curve_path(tmp_path, profile())
    once = with_evidence(report(curve=path), evidence, name=EVIL, curve=path)
    page = Page(once)
    assert {"Verdict: unstable.", EVIL, "Every training", "Configuration"} <= set(page.words)
    assert "Verdict: one run only." not in page.words
    assert not page.all("script")
    assert values_of(once)[0].startswith("band 1: 400.0 nm, group blue, weight 25.00 %")
    assert with_evidence(once, evidence, name=EVIL, curve=path) == once
    with pytest.raises(ValueError, match="no place for the verdict"):
        with_evidence("none", evidence, name="n")
    alone = evidence_html(evidence, title="E", configuration="a: 1", versions={}, reproduce="again")
    assert "Stability" not in alone and "Every training" in alone


def test_comparison_with_scratch_stands_beside_what_was_taken_over() -> None:
    words = Page(report(transfer=["copied  cnn"], scratch={"kappa": ("0.91", "0.85")})).words
    assert {"Taken over", "copied  cnn", "from scratch", "0.91", "0.85"} <= set(words)
    assert "Taken over" not in Page(report()).words


def test_figures_are_embedded_byte_for_byte_with_alt_text_and_caption(figure_path: Path) -> None:
    png = figure_path.with_suffix(".png")
    page = Page(
        report(
            figures={
                "accuracy": [
                    PageFigure(figure_path, "A", "alt of A", "words on A"),
                    PageFigure(png, "B", "alt of B", "words on B"),
                ]
            }
        )
    )
    images = page.all("img")
    assert [image["alt"] for image in images] == ["alt of A", "alt of B"]
    for image, path, kind in zip(images, (figure_path, png), ("svg+xml", "png"), strict=True):
        head, content = str(image["src"]).split(",")
        assert head == f"data:image/{kind};base64"
        assert base64.b64decode(content) == path.read_bytes()
    assert {"words on A", "words on B"} <= set(page.words)
    assert all("figure" in parents for tag, _, parents in page.elements if tag in {"img", "figcaption"})


def test_svg_and_png_of_one_figure_are_drawn_at_one_scale(figure_path: Path) -> None:
    paths = (figure_path, figure_path.with_suffix(".png"))
    page = Page(report(figures={"accuracy": [PageFigure(path, "A", "a", "") for path in paths]}))
    styles = [str(attrs["style"]) for attrs in page.all("div") if attrs.get("class") == "drawing"]
    first, second = (int(style.removeprefix("width: ").removesuffix("px")) for style in styles)
    assert first == pytest.approx(second, abs=1)
    assert first > 100


def test_svg_with_very_much_in_it_gives_way_to_its_png(figure_path: Path) -> None:
    figure_path.write_bytes(figure_path.read_bytes() + b"<!--" + b" " * 500_000 + b"-->")
    image = Page(report(figures={"accuracy": [PageFigure(figure_path, "A", "a", "")]})).all("img")[0]
    assert str(image["src"]).startswith("data:image/png")
    figure_path.with_suffix(".png").unlink()
    image = Page(report(figures={"accuracy": [PageFigure(figure_path, "A", "a", "")]})).all("img")[0]
    assert str(image["src"]).startswith("data:image/svg+xml")


def test_figure_the_page_has_no_room_for_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        path.write_bytes(b"\x89PNG" + bytes(600_000))
    html = report(figures={"accuracy": [PageFigure(path, path.stem, "a", "") for path in paths]})
    assert len(html.encode()) < 2_000_000
    page = Page(html)
    assert len(page.all("img")) == 2
    assert [word for word in page.words if "Too large" in word and "2.png" in word]


def test_other_kinds_of_figure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \.svg or \.png"):
        report(figures={"map": [PageFigure(tmp_path / "map.tif", "A", "a", "")]})
    with pytest.raises(FileNotFoundError):
        report(figures={"map": [PageFigure(tmp_path / "map.png", "A", "a", "")]})


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
    for expected in ("690–735", "window (nm)", "21.3 %", "91.4 %", "1,428", "none", "79.7 %", "2.13.0"):
        assert expected in words


def test_headings_descend_by_one_level_from_a_single_first() -> None:
    levels = [int(tag[1]) for tag, _, _ in Page(report()).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert levels[1:] == [2] * 8
    ids = [attrs["id"] for attrs in Page(report()).all("section")]
    assert len(set(ids)) == 8


def test_caveats_come_before_the_numbers_and_no_caveats_give_no_box() -> None:
    words = Page(report()).words
    assert words.index("Band weights of one run.") < words.index("79.7 %")
    assert "Before you use these numbers" not in Page(report(caveats=[])).words


def test_page_serves_phone_and_print() -> None:
    html = report()
    assert '<meta name="viewport" content="width=device-width' in html
    assert "@media print" in html
    assert Page(html).all("html")[0]["lang"] == "en"
