"""Files that pose as cubes, and inputs that lead into the network."""

from collections.abc import Iterator

from scene_files import envi, vectors
from scene_files.cases import Case, holding, inspected
from scene_files.damaged_words import described
from scene_files.faithful import numpy_cube, placed_cube


def posing() -> Iterator[Case]:
    vrt = '<VRTDataset rasterXSize="50" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    vrt += "<SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    contents = {
        "VRT": vrt.encode(),
        "VRT of the network": vrt.replace("/etc/passwd", "/vsicurl/http://127.0.0.1:9/x").encode(),
        "VRT with a declaration": b"<?xml version='1.0'?>" + vrt.encode(),
        "WMS": b"<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>",
        "HTML": b"<!DOCTYPE html><html>404</html>",
        "JPEG": b"\xff\xd8\xff\xe0" + bytes(50),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50),
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(50),
        "HDF4": b"\x0e\x03\x13\x01" + bytes(50),
        "netCDF-3": b"CDF\x01" + bytes(50),
        "gzip": b"\x1f\x8b\x08" + bytes(50),
        "pickle": b"\x80\x04\x95" + bytes(50),
        "PDF": b"%PDF-1.5" + bytes(50),
        "text": b"418.24 423.87 429.52\n",
    }
    names = ("cube.tif", "cube.he5", "cube.mat", "cube.npy", "cube.bsq")
    for i, (what, content) in enumerate(contents.items()):
        for name in (names[i % 5], names[(i + 2) % 5]):
            yield inspected("posing as a cube", f"{what} as {name}", holding(name, content), says=name)
    for place in (
        *("http://127.0.0.1:9/cube.tif", "https://127.0.0.1:9/cube.tif", "ftp://127.0.0.1:9/cube.tif"),
        *(
            "/vsicurl/http://127.0.0.1:9/cube.tif",
            "s3://bucket/cube.tif",
            "/vsis3/bucket/cube.tif",
            "file:///etc/passwd",
        ),
        *("/vsizip/cube.zip/cube.tif", "NETCDF:cube.nc:reflectance", "GTIFF_DIR:1:cube.tif", "/vsistdin/", "-"),
    ):
        words = ["inspect", *(["--"] if place == "-" else []), place]
        says = place.strip("/").rpartition("/")[2]
        yield Case("network", f"cube {place}", lambda folder, words=words: words, says)
        yield inspected(
            "network", f"labels {place}", placed_cube, f"labels={place}", "class_field=code", says="file is missing"
        )
    there = "http://127.0.0.1:9/x"
    for name, write, *words in (
        ("wavelengths", numpy_cube(envi.CUBE), f"wavelengths={there}"),
        ("description", holding("scene.yaml", f"cube: {there}\n".encode())),
        ("labels of a description", described(f"labels: {there}")),
        ("table of a description", described(f"wavelengths: {there}")),
    ):
        yield inspected("network", f"{name} in the network", write, *words, says="127.0.0.1")
    for name, text in {**vectors.LINKED, **vectors.ADDRESSED}.items():
        yield _json_labels(f"GeoJSON, {name}", text)


def _json_labels(name, text):
    def make(folder):
        placed_cube(folder)
        (folder / "gt.json").write_text(text)
        return ["inspect", "cube.tif", "labels=gt.json", "class_field=code"]

    return Case("network", name, make, "gt.json")
