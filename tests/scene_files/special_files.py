"""Links, pipes, devices and folders where files have to be."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from scene_files import envi, products, vectors
from scene_files.cases import Case, by
from scene_files.faithful import enmap, placed_cube

SPECIAL = {
    "missing": lambda path: None,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a folder": lambda path: path.symlink_to("."),
    "link to zeros without end": lambda path: path.symlink_to("/dev/zero"),
    "link to random numbers without end": lambda path: path.symlink_to("/dev/urandom"),
    "link to a pipe": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "socket": lambda path: _socket(path),
    "empty": lambda path: path.touch(),
}


def _socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # its name may have 107 letters
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def special_files() -> Iterator[Case]:
    kind = "links and special files"

    def case(name, words, faithful, file):
        def make(folder, put):
            faithful(folder)
            (folder / file).unlink(missing_ok=True)
            put(folder / file)
            return words

        for what, put in SPECIAL.items():
            yield Case(kind, f"{name}: {what}", by(make, put), file.partition(".")[0])

    def nothing(folder):
        (folder / "other").touch()

    yield from case("cube.tif", ["inspect", "cube.tif"], nothing, "cube.tif")
    yield from case("cube", ["inspect", "cube"], envi.write, "cube")
    yield from case("ENVI header", ["inspect", "cube"], envi.write, "cube.hdr")
    yield from case("labels", ["inspect", "cube.tif", "labels=gt.tif"], placed_cube, "gt.tif")
    yield from case("description", ["inspect", "scene.yaml"], nothing, "scene.yaml")
    image = f"{products.L2A}SPECTRAL_IMAGE.TIF"
    yield from case("EnMAP image", ["inspect", f"{products.L2A}METADATA.XML"], enmap, image)
    for ending in (".dbf", ".shx"):
        for what in ("pipe", "folder", "link to zeros without end"):

            def make(folder, ending=ending, what=what):
                placed_cube(folder)
                vectors.write(folder / "gt.shp", vectors.TWO, driver="ESRI Shapefile", kind="Polygon", code=[1, 2])
                (folder / f"gt{ending}").unlink(missing_ok=True)
                SPECIAL[what](folder / f"gt{ending}")
                return ["inspect", "cube.tif", "labels=gt.shp", "class_field=code"]

            yield Case("files beside", f"Shapefile, {ending}: {what}", make, "gt.")
