"""PRISMA products: faithful ones, and such as lie."""

import h5py
import numpy as np

ROWS, COLS = 4, 5
# as products have them: downward, absent bands 0; VNIR and SWIR overlap
NM = {"Vnir": [0.0, 970.5, 700.25, 406.5], "Swir": [2497.0, 943.5, 1500.0, 0.0, 990.0]}
FWHM = {"Vnir": [0.0, 13.0, 11.0, 9.0], "Swir": [8.0, 9.5, 10.5, 0.0, 12.5]}
FLAGS = {"Vnir": [0, 1, 1, 1], "Swir": [1, 1, 0, 0, 1]}  # 1500 nm is flagged as absent
SCALE = {"Vnir": (0.0, 1.25), "Swir": (-0.125, 0.875)}
# what has to come out: detector, index there
ORDER = [("Vnir", 3), ("Vnir", 2), ("Swir", 1), ("Vnir", 1), ("Swir", 4), ("Swir", 0)]


def cubes():
    """DN (rows, bands, columns) of both detectors; pixel (0, 0) is outside, as all its numbers are 0."""
    made = {
        name: (np.arange(ROWS * len(nm) * COLS) * 997 % 65535 + 1).reshape(ROWS, len(nm), COLS).astype("u2")
        for name, nm in NM.items()
    }
    for cube in made.values():
        cube[0, :, 0] = 0
        cube[1, 1, 1] = 0
    return made


def write(folder, *, level="L2D", errors=None, attributes=None, **datasets):
    """Writes a product; an attribute or dataset given as None is left out. Returns its path."""
    corners = {"UL": (600_015.0, 4_500_015.0), "LR": (600_015.0 + 30 * (COLS - 1), 4_500_015.0 - 30 * (ROWS - 1))}
    fields = {"Epsg_Code": np.int64(32633), "Product_StartTime": np.bytes_(b"2021-06-01T09:58:12.5")}
    for name, (east, north) in corners.items():
        fields |= {f"Product_{name}corner_easting": np.float32(east), f"Product_{name}corner_northing": north}
    for name in NM:
        fields[f"List_Cw_{name}"] = np.array(NM[name], "f4")
        fields[f"List_Fwhm_{name}"] = np.array(FWHM[name], "f4")
        fields[f"List_Cw_{name}_Flags"] = np.array(FLAGS[name], "i4")
        fields[f"L2Scale{name}Min"], fields[f"L2Scale{name}Max"] = map(np.float32, SCALE[name])
    arrays = {f"{name.upper()}_Cube": cube for name, cube in cubes().items()}
    arrays |= {f"{name.upper()}_PIXEL_L2_ERR_MATRIX": matrix for name, matrix in (errors or {}).items()}
    path = folder / "PRS.he5"
    with h5py.File(path, "w") as file:
        group = file.create_group(f"HDFEOS/SWATHS/PRS_{level}_HCO/Data Fields")
        for name, values in (arrays | datasets).items():
            if values is not None:
                group.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="gzip")
        file.attrs.update({name: value for name, value in (fields | (attributes or {})).items() if value is not None})
    return path


def expected():
    """Reflectance by the product's own formula, NaN outside."""
    made = cubes()
    dn = np.stack([made[name][:, index] for name, index in ORDER]).astype("f8")
    low, high = (np.array([SCALE[name][end] for name, _ in ORDER])[:, None, None] for end in (0, 1))
    values = low + dn * (high - low) / 65535
    values[:, 0, 0] = np.nan
    return values


LIES = {
    "Epsg_Code": [None, 0, "EPSG:32633", [32633, 32634]],
    "Product_ULcorner_easting": [None, np.nan, 600_000.0],
    "Product_LRcorner_northing": [None, 4_500_015.0, 4_500_015.0 + 30 * (ROWS - 1)],
    "List_Cw_Vnir": [None, NM["Vnir"][:3], [0, np.nan, 700, 406], "406 700"],
    "List_Fwhm_Vnir": [None, [9.0]],
    "List_Cw_Swir_Flags": [None, [1, 1]],
    "L2ScaleVnirMin": [None, np.nan, 2.0],
    "L2ScaleSwirMax": [None, -1.0],
}


def zeros(rows=ROWS, bands=4, cols=COLS, dtype="u2"):
    return np.zeros((rows, bands, cols), dtype)


MISFITS = [
    {"VNIR_Cube": None},
    {"SWIR_Cube": None},
    {"VNIR_Cube": zeros(rows=3)},
    {"VNIR_Cube": zeros(cols=4)},
    {"VNIR_Cube": zeros(bands=3)},
    {"VNIR_Cube": zeros().transpose(0, 2, 1)},
    {"VNIR_Cube": zeros()[:, 0]},
    {"VNIR_Cube": zeros(dtype="f4")},
    {"VNIR_Cube": zeros(dtype="i2")},
    {"SWIR_Cube": zeros(dtype="S4")},
    {"VNIR_PIXEL_L2_ERR_MATRIX": zeros(bands=3, dtype="u1")},
    {"VNIR_PIXEL_L2_ERR_MATRIX": zeros(dtype="u1")[:, :, 0]},
    {"VNIR_PIXEL_L2_ERR_MATRIX": zeros(dtype="S1")},
]
