"""The HTML report: self-contained, escaped, accessible."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsfusion.plots import confusion_figure, report_html, save_figure

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "img", "link", "br", "hr"}


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

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.stack:
            self.words.append(data.strip())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs, _ in self.elements if tag == name]


@pytest.fixture
def figure_path(tmp_path: Path) -> Path:
    save_figure(confusion_figure(np.eye(2, dtype=int), names=["a", "b"], title=""), tmp_path / "confusion")
    return tmp_path / "confusion.svg"


def report(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "title": "Run",
        "summary": {"overall accuracy": "79.7 %"},
        "caveats": ["Band weights of one run."],
        "figures": {},
        "per_class": [("Corn", 0.914, 1428), ("Oats", None, 0)],
        "top_windows": [(690.4, 735.0, 0.213)],
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
        figures={EVIL: (figure_path, f'"{EVIL}', EVIL)},
        per_class=[(EVIL, 0.5, 1)],
        configuration=EVIL,
        versions={EVIL: EVIL},
        reproduce=EVIL,
    )
    page = Page(html)
    assert not page.all("script")
    assert page.words.count(EVIL) >= 10
    assert page.all("img")[0]["alt"] == f'"{EVIL}'


def test_page_loads_nothing_and_runs_nothing(figure_path: Path) -> None:
    html = report(figures={"A": (figure_path, "a", "a"), "B": (figure_path.with_suffix(".png"), "b", "b")})
    assert "http://" not in html
    assert "https://" not in html
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "svg"} & {tag for tag, _, _ in page.elements}
    sources = [attrs.get("src") or attrs.get("href") for _, attrs, _ in page.elements if {"src", "href"} & set(attrs)]
    assert len(sources) == 2
    assert all(str(source).startswith("data:image/") for source in sources)
    assert not re.search(r"url\(|@import", html)
    assert not [name for _, attrs, _ in page.elements for name in attrs if name.startswith("on")]


def test_figures_are_embedded_byte_for_byte_with_alt_text_and_caption(figure_path: Path) -> None:
    png = figure_path.with_suffix(".png")
    page = Page(report(figures={"A": (figure_path, "alt of A", "words on A"), "B": (png, "alt of B", "words on B")}))
    images = page.all("img")
    assert [image["alt"] for image in images] == ["alt of A", "alt of B"]
    for image, path, kind in zip(images, (figure_path, png), ("svg+xml", "png"), strict=True):
        head, content = str(image["src"]).split(",")
        assert head == f"data:image/{kind};base64"
        assert base64.b64decode(content) == path.read_bytes()
    assert {"words on A", "words on B"} <= set(page.words)
    assert all("figure" in parents for tag, _, parents in page.elements if tag in {"img", "figcaption"})


def test_svg_and_png_of_one_figure_are_drawn_at_one_scale(figure_path: Path) -> None:
    page = Page(report(figures={"A": (figure_path, "a", ""), "B": (figure_path.with_suffix(".png"), "b", "")}))
    first, second = (int(str(image["width"])) for image in page.all("img"))
    assert first == pytest.approx(second, abs=1)
    assert first > 100


def test_svg_with_very_much_in_it_gives_way_to_its_png(figure_path: Path) -> None:
    figure_path.write_bytes(figure_path.read_bytes() + b"<!--" + b" " * 500_000 + b"-->")
    (image,) = Page(report(figures={"A": (figure_path, "a", "")})).all("img")
    assert str(image["src"]).startswith("data:image/png")
    figure_path.with_suffix(".png").unlink()
    (image,) = Page(report(figures={"A": (figure_path, "a", "")})).all("img")
    assert str(image["src"]).startswith("data:image/svg+xml")


def test_figure_the_page_has_no_room_for_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        path.write_bytes(b"\x89PNG" + bytes(600_000))
    html = report(figures={path.stem: (path, "a", "") for path in paths})
    assert len(html.encode()) < 2_000_000
    page = Page(html)
    assert len(page.all("img")) == 2
    assert [word for word in page.words if "Too large" in word and "2.png" in word]


def test_other_kinds_of_figure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \.svg or \.png"):
        report(figures={"A": (tmp_path / "map.tif", "a", "")})
    with pytest.raises(FileNotFoundError):
        report(figures={"A": (tmp_path / "map.png", "a", "")})


def test_tables_have_captions_scoped_headers_and_a_container_that_scrolls() -> None:
    page = Page(report())
    assert len(page.all("table")) == len(page.all("caption")) == 4
    assert {attrs.get("scope") for attrs in page.all("th")} == {"col", "row"}
    parents = [stack[-1] for tag, _, stack in page.elements if tag == "table"]
    assert parents == ["div"] * 4
    containers = [attrs for attrs in page.all("div") if attrs.get("class") == "scroll"]
    assert len(containers) == 4
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
    assert levels[1:] == [2] * 7


def test_caveats_come_before_the_numbers_and_no_caveats_give_no_box() -> None:
    words = Page(report()).words
    assert words.index("Band weights of one run.") < words.index("79.7 %")
    assert "Before you use these numbers" not in Page(report(caveats=[])).words


def test_page_serves_phone_dark_mode_and_print() -> None:
    html = report()
    assert '<meta name="viewport" content="width=device-width' in html
    assert "@media (prefers-color-scheme: dark)" in html
    assert "@media print" in html
    assert re.search(r"figure img \{[^}]*background: #ffffff", html)
    assert Page(html).all("html")[0]["lang"] == "en"
