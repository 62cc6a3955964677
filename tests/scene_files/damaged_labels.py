"""Labels of every wrong kind beside a faithful cube."""

import json
from collections.abc import Iterator
from contextlib import closing
from sqlite3 import connect

import numpy as np

from scene_files import geotiff, labels, vectors
from scene_files.cases import Case, changed, holding
from scene_files.faithful import placed_cube


def label_rasters() -> Iterator[Case]:
    def cube(folder):
        values = np.arange(6, dtype="i2").reshape(2, 1, 3)
        geotiff.write(folder / "cube.tif", values, tags=geotiff.TAGS, transform=labels.TRANSFORM)

    for name, array in labels.ARRAYS.items():

        def make(folder, array=array):
            cube(folder)
            np.save(folder / "gt.npy", array, allow_pickle=True)
            return ["inspect", "cube.tif", "labels=gt.npy"]

        yield Case("label rasters", name, make, "gt.npy: ")
    for name, write in labels.FILES.items():

        def make(folder, write=write):
            path = write(folder)
            cube(folder)
            return ["inspect", "cube.tif", f"labels={path.name if path != folder else '.'}"]

        yield Case("label rasters", f"{name} as labels", make, "file is" if name in ("no file", "folder") else "")


def label_vectors() -> Iterator[Case]:
    def case(name, write, *keys, says="gt."):
        def make(folder):
            placed_cube(folder)
            return ["inspect", "cube.tif", f"labels={write(folder).name}", *(keys or ["class_field=code"])]

        return Case("label vectors", name, make, says)

    def polygons(folder, driver="GPKG"):
        path = folder / f"gt.{vectors.DRIVERS[driver]}"
        return vectors.write(path, vectors.TWO, driver=driver, kind="Polygon", code=[1, 2])

    for name, value in vectors.JSON.items():
        yield case(f"GeoJSON, {name}", holding("gt.json", json.dumps(value).encode()))
    for name, text in vectors.TEXTS.items():
        yield case(f"GeoJSON, {name}", holding("gt.json", text))
    for name, statement in vectors.SQL.items():

        def change(folder, statement=statement):
            path = polygons(folder)
            with closing(connect(path)) as database:
                vectors.drop_triggers(database)
                database.executescript(statement)
                database.commit()
            return path

        yield case(f"GeoPackage, {name}", change)
    for size in (16, 50, 99, 100, 4096, 40_000):
        yield case(f"GeoPackage of {size} bytes", changed(polygons, lambda content, size=size: content[:size]))
    for name, damage in vectors.SHAPEFILES.items():

        def spoil(folder, damage=damage):
            path = polygons(folder, "ESRI Shapefile")
            damage(folder)
            return path

        yield case(f"Shapefile, {name}", spoil)
    yield case("no field named", polygons, "unlabelled=0")
    yield case("field not there", polygons, "class_field=crop")
    yield case("layer not there", polygons, "class_field=code", "labels_variable=wods")
