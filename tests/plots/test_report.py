"""The HTML report: self-contained, escaped, accessible."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from hsfusion.plots import Maps, WeightProfile, confusion_figure, report_html, save_figure

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


def maps(**changes: Any) -> Maps:
    truth = np.array([[0, 2, 2], [5, 5, 5]])
    arguments: dict[str, Any] = {
        "rgb": np.full((2, 3, 3), 0.5),
        "truth": truth,
        "prediction": np.full((2, 3), 5),
        "roles": np.array([[0, 1, 2], [3, 3, 4]]),
        "codes": (2, 5),
        "names": ("Corn", "Oats"),
        "colors": ("#ff0000", "#00ff00"),
        "leakage": 0.125,
    }
    return Maps(**arguments | changes)


def report(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "title": "Run",
        "summary": {"overall accuracy": "79.7 %"},
        "caveats": ["Band weights of one run."],
        "verdict": ("one run only", ["Another seed may weight other bands."]),
        "weights": profile(),
        "weight_figures": {},
        "accuracy_figures": {},
        "maps": maps(),
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
        maps=maps(names=(EVIL, f"{EVIL} 2")),
        weight_figures={EVIL: (figure_path, f'"{EVIL}', EVIL)},
        transfer=[EVIL],
        scratch={EVIL: (EVIL, EVIL)},
        per_class=[(EVIL, 0.5, 1)],
        configuration=EVIL,
        versions={EVIL: EVIL},
        reproduce=EVIL,
    )
    page = Page(html)
    assert len(page.all("script")) == 1  # the page's own
    assert page.words.count(EVIL) >= 16
    assert f'"{EVIL}' in [image["alt"] for image in page.all("img")]


def test_page_loads_nothing_and_runs_only_its_own_script(figure_path: Path) -> None:
    figures = {"A": (figure_path, "a", "a"), "B": (figure_path.with_suffix(".png"), "b", "b")}
    html = report(accuracy_figures=figures)
    assert "http://" not in html
    assert "https://" not in html
    page = Page(html)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _, _ in page.elements}
    sources = [attrs.get("src") or attrs.get("href") for _, attrs, _ in page.elements if {"src", "href"} & set(attrs)]
    assert len(sources) == 6  # two figures, four maps
    assert all(str(source).startswith("data:image/") for source in sources)
    assert set(re.findall(r"url\(([^)]*)\)|@import", html)) <= {"#vapour"}
    assert not [name for _, attrs, _ in page.elements for name in attrs if name.startswith("on")]
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [str(attrs["content"]) for attrs in page.all("meta") if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy


def colors_of(source: str) -> np.ndarray:
    """(H, W, 3) of an embedded PNG, in 0..255."""
    return np.round(255 * imread(io.BytesIO(base64.b64decode(source.split(",")[1])))[..., :3])


def test_maps_have_the_pixels_of_the_scene_and_the_colours_of_the_legend() -> None:
    page = Page(report())
    truth, prediction, rgb, roles = (colors_of(str(image["src"])) for image in page.all("img"))
    assert truth[0].tolist() == [[240, 240, 240], [255, 0, 0], [255, 0, 0]]
    assert (prediction == [0, 255, 0]).all()
    assert rgb.shape == roles.shape == (2, 3, 3)
    assert len(np.unique(roles.reshape(-1, 3), axis=0)) == 5
    assert {"unlabelled", "Corn", "Oats", "test: 2 pixels", "buffer: 1 pixels"} <= set(page.words)
    assert [word for word in page.words if "Leakage 0.1250" in word]


def test_map_with_a_code_that_has_no_colour_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds the codes \[3\]"):
        report(maps=maps(prediction=np.full((2, 3), 3)))


def test_large_maps_keep_the_page_small() -> None:
    rng = np.random.default_rng(0)
    codes = rng.choice([2, 5], size=(1500, 1700))
    noise = maps(rgb=rng.random((1500, 1700, 3)), truth=codes, prediction=codes, roles=rng.integers(0, 5, codes.shape))
    html = report(maps=noise)
    assert len(html.encode()) < 2_000_000
    assert re.search(r"drawn: one of \d pixels each way", html)
    assert str(Page(html).all("img")[0]["height"]) == "1500"


def test_untrained_networks_are_drawn_as_a_curve_like_the_weights_or_a_line_where_they_are_unknown() -> None:
    known, unknown = report(weights=profile(untrained=np.full(4, 0.25))), report()
    stretched = re.compile(r'<svg viewBox[^>]* preserveAspectRatio="none".*?</svg>', re.DOTALL)
    inside = ["".join(stretched.findall(html)) for html in (known, unknown)]
    assert [html.count('<path class="curve"') for html in inside] == [1, 1]
    assert [html.count('<path class="uniform"') for html in inside] == [1, 0]
    assert [html.count('<line class="uniform"') for html in (known, unknown)] == [0, 1]
    assert "untrained networks" in known and "uniform weight" not in re.sub("a uniform weight were", "", known)


def test_every_band_says_its_values_in_order_of_wavelength() -> None:
    shuffled = profile(
        wavelength_nm=np.array([410.0, 400.0, 420.0, 1000.0]),
        quartiles=tuple(np.array([[0.05, 0.1, 0.2, 0.3], [0.15, 0.3, 0.4, 0.5]])),
        frequency=np.array([0.0, 0.2, 0.4, 1.0]),
        good=np.array([True, True, True, False]),
        profiles=np.full((5, 4), 0.25),
    )
    html = report(weights=shuffled)
    tips = re.findall(r"<title>(band .*?)</title>", html)
    assert tips[0] == (
        "band 2: 400.0 nm, FWHM 9.5 nm, group blue, weight 20.00 %, quartiles 10.00 and 30.00 %, "
        "selected in 20 % of runs"
    )
    assert tips[1].startswith("band 1: 410.0 nm")
    assert tips[3].endswith("selected in 100 % of runs, not used")
    places = [float(attrs["data-at"] or "nan") for attrs in Page(html).all("rect") if "data-at" in attrs]
    assert places == sorted(places)
    assert "median over 5 trainings" in html


def test_strips_of_the_bands_cover_the_curve_without_gap() -> None:
    strips = [attrs for attrs in Page(report()).all("rect") if "data-at" in attrs]
    left = [float(str(attrs["x"])[:-1]) for attrs in strips]
    right = [x + float(str(attrs["width"])[:-1]) for x, attrs in zip(left, strips, strict=True)]
    assert left[0] == 0
    assert right[-1] == pytest.approx(100)
    assert right[:-1] == pytest.approx(left[1:], abs=0.011)


def test_curve_breaks_where_bands_are_missing_and_stands_at_its_values() -> None:
    (path,) = [str(attrs["d"]) for attrs in Page(report()).all("path") if attrs.get("class") == "curve"]
    assert path.count("M") == 2
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]
    # the axis ends a quarter above the largest weight, 0.4
    assert heights == pytest.approx([1000 * (1 - weight / 0.5) for weight in (0.1, 0.2, 0.3, 0.4)])


@pytest.mark.parametrize(
    ("word", "stamped"), [("no evidence", 1), ("unstable", 1), ("one run only", 0), ("supported", 0)]
)
def test_curve_is_stamped_where_its_weights_are_no_evidence(word: str, stamped: int) -> None:
    page = Page(report(verdict=(word, ["Why."])))
    assert len([1 for attrs in page.all("text") if attrs.get("class") == "stamp"]) == stamped
    assert f"Verdict: {word}." in page.words


def test_comparison_with_scratch_stands_beside_what_was_taken_over() -> None:
    words = Page(report(transfer=["copied  cnn"], scratch={"kappa": ("0.91", "0.85")})).words
    assert {"Taken over", "copied  cnn", "from scratch", "0.91", "0.85"} <= set(words)
    assert "Taken over" not in Page(report()).words


def test_figures_are_embedded_byte_for_byte_with_alt_text_and_caption(figure_path: Path) -> None:
    png = figure_path.with_suffix(".png")
    page = Page(
        report(accuracy_figures={"A": (figure_path, "alt of A", "words on A"), "B": (png, "alt of B", "words on B")})
    )
    images = [image for image in page.all("img") if "map of" not in str(image["alt"])]
    assert [image["alt"] for image in images] == ["alt of A", "alt of B"]
    for image, path, kind in zip(images, (figure_path, png), ("svg+xml", "png"), strict=True):
        head, content = str(image["src"]).split(",")
        assert head == f"data:image/{kind};base64"
        assert base64.b64decode(content) == path.read_bytes()
    assert {"words on A", "words on B"} <= set(page.words)
    assert all("figure" in parents for tag, _, parents in page.elements if tag in {"img", "figcaption"})


def test_svg_and_png_of_one_figure_are_drawn_at_one_scale(figure_path: Path) -> None:
    page = Page(report(accuracy_figures={"A": (figure_path, "a", ""), "B": (figure_path.with_suffix(".png"), "b", "")}))
    first, second = (int(str(image["width"])) for image in page.all("img")[:2])
    assert first == pytest.approx(second, abs=1)
    assert first > 100


def test_svg_with_very_much_in_it_gives_way_to_its_png(figure_path: Path) -> None:
    figure_path.write_bytes(figure_path.read_bytes() + b"<!--" + b" " * 500_000 + b"-->")
    image = Page(report(accuracy_figures={"A": (figure_path, "a", "")})).all("img")[0]
    assert str(image["src"]).startswith("data:image/png")
    figure_path.with_suffix(".png").unlink()
    image = Page(report(accuracy_figures={"A": (figure_path, "a", "")})).all("img")[0]
    assert str(image["src"]).startswith("data:image/svg+xml")


def test_figure_the_page_has_no_room_for_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        path.write_bytes(b"\x89PNG" + bytes(600_000))
    html = report(accuracy_figures={path.stem: (path, "a", "") for path in paths})
    assert len(html.encode()) < 2_000_000
    page = Page(html)
    assert len(page.all("img")) == 2 + 4
    assert [word for word in page.words if "Too large" in word and "2.png" in word]


def test_other_kinds_of_figure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \.svg or \.png"):
        report(accuracy_figures={"A": (tmp_path / "map.tif", "a", "")})
    with pytest.raises(FileNotFoundError):
        report(accuracy_figures={"A": (tmp_path / "map.png", "a", "")})


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
    assert levels[1:] == [2] * 10


def test_caveats_come_before_the_numbers_and_no_caveats_give_no_box() -> None:
    words = Page(report()).words
    assert words.index("Band weights of one run.") < words.index("79.7 %")
    assert "Before you use these numbers" not in Page(report(caveats=[])).words


def test_page_serves_phone_dark_mode_and_print() -> None:
    html = report()
    assert '<meta name="viewport" content="width=device-width' in html
    assert "@media (prefers-color-scheme: dark)" in html
    assert "@media print" in html
    assert re.search(r"figure .scroll img \{[^}]*background: #ffffff", html)
    assert Page(html).all("html")[0]["lang"] == "en"
