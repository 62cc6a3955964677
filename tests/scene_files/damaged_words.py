"""Descriptions, band tables and words of the command that are wrong, and what only training refuses."""

from collections.abc import Iterator

import numpy as np

from scene_files import arrays, envi
from scene_files.cases import Case, by, changed, holding, inspected
from scene_files.faithful import numpy_cube, tiff


def described(line):
    """A writer of a cube beside a description with one more line."""

    def write(folder):
        numpy_cube(envi.CUBE)(folder)
        np.save(folder / "gt.npy", np.arange(20).reshape(4, 5) % 3)
        (folder / "nm.csv").write_text("wavelength_nm\n410\n512\n640\n")
        (folder / "scene.yaml").write_text(f"cube: cube.npy\n{line}\n")
        return folder / "scene.yaml"

    return write


YAMLS = {
    "nothing": "",
    "a list": "- cube.npy\n",
    "a word": "cube.npy\n",
    "a number": "5\n",
    "not closed": "cube: [\n",
    "tabs": "cube:\tcube.npy\n\tlabels: gt.npy\n",
    "cube twice": "cube: cube.npy\ncube: cube.npy\n",
    "no cube": "labels: gt.npy\n",
    "cube null": "cube: null\n",
    "cube a list": "cube: [cube.npy, gt.npy]\n",
    "cube a number": "cube: 5\n",
    "cube a mapping": "cube: {path: cube.npy}\n",
    "cube to be given": "cube: ???\n",
    "cube that is missing": "cube: other.npy\n",
    "cube that is the description": "cube: scene.yaml\n",
    "another target": "cube: cube.npy\n_target_: os.system\n",
    "code as a tag": "cube: !!python/object/apply:os.system ['true']\n",
    "unknown tag": "cube: !scene cube.npy\n",
    "aliases": "cube: &c cube.npy\nlabels: *c\n",
    "a thousand million laughs": "a: &a [x, x]\n"
    + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "interpolation of itself": "cube: ${cube}\n",
    "interpolation of nothing": "cube: ${nothing}\n",
    "interpolation of a secret": "cube: ${oc.env:NO_SUCH_VARIABLE}\n",
    "resolver that is none": "cube: ${shell:true}\n",
    "interpolation not closed": "cube: ${cube\n",
    "two documents": "cube: cube.npy\n---\ncube: gt.npy\n",
    "misspelt key": "cube: cube.npy\nlables: gt.npy\n",
    "key that is a number": "cube: cube.npy\n5: gt.npy\n",
    "key that is a list": "? [a, b]\n: cube.npy\n",
    "deep lists": "cube: " + "[" * 2000 + "]" * 2000 + "\n",
    "deep lists, not closed": "cube: " + "[" * 100_000 + "\n",
    "zeros": "\0" * 100,
    "control letters": "cube: a\x07b\n",
    "merge of a word": "<<: cube.npy\n",
    "labels that are missing": "cube: cube.npy\nlabels: other.npy\n",
    "labels that are the cube": "cube: cube.npy\nlabels: cube.npy\n",
    "labels a list": "cube: cube.npy\nlabels: [gt.npy]\n",
    "labels a number": "cube: cube.npy\nlabels: 5\n",
    "unlabelled a word": "cube: cube.npy\nlabels: gt.npy\nunlabelled: none\n",
    "unlabelled null": "cube: cube.npy\nlabels: gt.npy\nunlabelled: null\n",
    "names of no class": "cube: cube.npy\nlabels: gt.npy\nclass_names: {9: corn}\n",
    "names a word": "cube: cube.npy\nlabels: gt.npy\nclass_names: corn\n",
    "names that are lists": "cube: cube.npy\nlabels: gt.npy\nclass_names: {1: [a], 2: b}\n",
    "two of one name": "cube: cube.npy\nlabels: gt.npy\nclass_names: {1: a, 2: a}\n",
    "colour that is none": "cube: cube.npy\nlabels: gt.npy\nclass_colors: {1: red}\n",
    "colours a number": "cube: cube.npy\nlabels: gt.npy\nclass_colors: 5\n",
    "class field of a raster": "cube: cube.npy\nlabels: gt.npy\nclass_field: crop\n",
    "wavelengths of 2 for 3": "cube: cube.npy\nwavelengths: [410, 512]\nwavelength_unit: nm\n",
    "wavelengths with decimal commas": "cube: cube.npy\nwavelengths: ['410,5', '51,5', '640,5']\nwavelength_unit: nm\n",
    "wavelengths a number": "cube: cube.npy\nwavelengths: 410\nwavelength_unit: nm\n",
    "wavelengths a mapping": "cube: cube.npy\nwavelengths: {1: 410, 2: 512, 3: 640}\nwavelength_unit: nm\n",
    "wavelengths NaN": "cube: cube.npy\nwavelengths: [410, .nan, 640]\nwavelength_unit: nm\n",
    "wavelengths infinite": "cube: cube.npy\nwavelengths: [410, .inf, 640]\nwavelength_unit: nm\n",
}


# key -> values that it cannot have
VALUES = {
    "scale": ("0", "-1", "nan", "inf", "abc", "[1,2]", "true", "{a:1}", "''"),
    "offset": ("nan", "inf", "abc", "[1,2]", "{a:1}"),
    "nodata": ("abc", "[1,2]", "{a:1}"),
    "bad_bands": (
        "5",
        "vapour",
        "[vapour]",
        "[[400]]",
        "[[500,400]]",
        "[[a,b]]",
        "[[nan,500]]",
        "[[1,2,3]]",
        "{a:1}",
        "true",
    ),
    "variable": ("cube", "5", "[a]", "true", "{a:1}"),
    "grid": ("map", "5", "[map]", "true"),
    "wavelengths=[410,512,640] wavelength_unit": ("furlong", "5", "[nm]", "true", "{a:1}"),
    "labels": ("none.npy", "5", "[gt.npy]", "true", "{a:1}", "''"),
    "labels=gt.npy unlabelled": ("abc", "0.5", "[a]", "true", "null", "{a:1}"),
    "labels=gt.npy class_names": ("5", "corn", "{9:corn}", "[a,b,c,d]", "{1:a,2:a}"),
    "labels=gt.npy class_colors": ("5", "red", "{1:red}", "{1:255}", "[red]"),
    "labels=gt.npy class_field": ("crop", "5", "[a]"),
    "labels=gt.npy labels_variable": ("gt", "5", "[a]"),
    "labels=gt.npy sources": ("5", "dsm.tif", "{dsm:none.tif}", "[none.tif]", "{dsm:5}", "{dsm:gt.npy,dsm2:none.npy}"),
    "wavelength": ("410",),
    "labels=gt.npy lables": ("gt.npy",),
}


def descriptions() -> Iterator[Case]:
    def case(name, content):
        def write(folder):
            described("")(folder)
            (folder / "scene.yaml").write_bytes(content)
            return folder / "scene.yaml"

        return inspected("scene descriptions", name, write, says=" ")

    for name, text in YAMLS.items():
        yield case(name, text.encode())
    yield case("Latin 1", "cube: cübe.npy\n".encode("latin-1"))
    yield case("UTF-16", "cube: cube.npy\n".encode("utf-16"))
    yield case("a cube", arrays.npy())
    yield case("2 MB", b"# " + b"x" * 2**21)
    for words, values in VALUES.items():
        *before, key = words.split()
        for value in values:
            if value == "''":
                continue
            lines = [word.replace("=", ": ") for word in before] + [f"{key}: {value.replace(':', ': ')}"]
            yield case(" ".join(lines), "\n".join(["cube: cube.npy", *lines]).encode())


def keys() -> Iterator[Case]:
    for words, values in VALUES.items():
        *before, key = words.split()
        for value in values:

            def make(folder, words=(*before, f"{key}={value}")):
                described("")(folder)
                return ["inspect", "cube.npy", "wavelengths=nm.csv", *words]

            if key != "wavelength_unit":  # which is not asked for, as the table says it
                yield Case("words of the command", f"{words}={value}", make, " ")
    for words in (
        *("nothing", "cube.npy gt.npy", "--plt cube.npy", "cube.npy foo=1", "cube.npy scale", "cube.npy ="),
        *(
            "cube.npy scale=1,2",
            "cube.npy ~scale",
            "cube.npy labels=[",
            "cube.npy scale=${x}",
            "cube.npy class_names={1:",
        ),
    ):

        def make(folder, words=words):
            described("")(folder)
            return ["inspect", *(words.split() if words != "nothing" else [])]

        yield Case("words of the command", words, make, " ")


TABLES = {
    "nothing": b"",
    "header alone": b"wavelength_nm\n",
    "no header": b"410\n512\n640\n",
    "another column": b"wavelength\n410\n512\n640\n",
    "micrometres": b"wavelength_nm\n0.410\n0.512\n0.640\n",
    "2 for 3": b"wavelength_nm\n410\n512\n",
    "4 for 3": b"wavelength_nm\n410\n512\n640\n700\n",
    "decimal commas": b"wavelength_nm\n410,5\n512,5\n640,5\n",
    "decimal commas in quotes": b'wavelength_nm\n"410,5"\n"512,5"\n"640,5"\n',
    "semicolons": b"band;wavelength_nm\n1;410\n2;512\n3;640\n",
    "semicolons and commas": b"band;wavelength_nm\n1;410,5\n2;512,5\n3;640,5\n",
    "NaN": b"wavelength_nm\n410\nnan\n640\n",
    "infinite": b"wavelength_nm\n410\ninf\n640\n",
    "too large for a number": b"wavelength_nm\n410\n1e999\n640\n",
    "zero": b"wavelength_nm\n410\n0\n640\n",
    "negative": b"wavelength_nm\n410\n-512\n640\n",
    "a word": b"wavelength_nm\n410\nred\n640\n",
    "an empty cell": b"band,wavelength_nm\n1,410\n2,\n3,640\n",
    "a short row": b"band,wavelength_nm\n1,410\n2\n3,640\n",
    "with the unit": b"wavelength_nm\n410 nm\n512 nm\n640 nm\n",
    "width 0": b"wavelength_nm,fwhm_nm\n410,0\n512,5\n640,5\n",
    "width of some": b"wavelength_nm,fwhm_nm\n410,5\n512,\n640,5\n",
    "width NaN": b"wavelength_nm,fwhm_nm\n410,nan\n512,5\n640,5\n",
    "good in words": b"wavelength_nm,good\n410,yes\n512,no\n640,yes\n",
    "zero bytes": b"wavelength_nm\n410\n\0\n640\n",
    "Latin 1": "wavelength_nm,Länge\n410,ü\n".encode("latin-1"),
    "UTF-16": "wavelength_nm\n410\n512\n640\n".encode("utf-16"),
    "a cube": arrays.npy(),
    "one cell of 200 kB": b"wavelength_nm\n410\n" + b"5" * 200_000 + b"\n640\n",
    "quotes not closed": b'wavelength_nm\n"410\n512\n640\n' + b"5\n" * 200_000,
    "10^6 rows": b"wavelength_nm\n" + b"500\n" * 10**6,
    "2 for 3, and remarks": b"# sensor\nwavelength_nm\n410\n# bad\n512\n",
    "twice the column": b"wavelength_nm,wavelength_nm\n410,nan\n512,nan\n640,nan\n",
}


def band_tables() -> Iterator[Case]:
    for name, content in TABLES.items():

        def make(folder, content=content):
            numpy_cube(envi.CUBE)(folder)
            (folder / "nm.csv").write_bytes(content)
            return ["inspect", "cube.npy", "wavelengths=nm.csv"]

        yield Case("band tables", name, make, "")


def of_training() -> Iterator[Case]:
    """Where inspect only warns, training has to refuse; it takes seconds to start, so these are few."""

    def case(name, write, *words, says):
        def make(folder):
            path = write(folder)
            np.save(folder / "gt.npy", np.arange(20).reshape(4, 5) % 3)
            return ["train", "scene=file", f"scene.cube={path.name}", "scene.labels=gt.npy", *words]

        return Case("training", name, make, says)

    yield case("no units", by(envi.write, wavelength_units=None), says="wavelength units is missing")
    yield case("unknown units", by(envi.write, wavelength_units="Unknown"), says="units is unknown")
    yield case("no wavelengths", by(envi.write, wavelength=None), says="wavelength of cube.hdr")
    yield case("npy without wavelengths", numpy_cube(envi.CUBE), says="add scene.wavelengths")
    yield case("GeoTIFF without units", tiff(cube=envi.CUBE, tags=[{"wavelength": "410"}] * 3), says="units is missing")
    yield case("truncated", changed(envi.write, lambda content: content[:60]), says="size is 60 bytes")
    yield case("VRT", holding("cube.tif", b"<VRTDataset/>"), says="content is")
    yield case("labels of another grid", by(envi.write, np.arange(75).reshape(3, 5, 5)), says="gt.npy: shape")
