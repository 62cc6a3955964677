"""NEON products: faithful ones, and such as lie."""

import h5py
import numpy as np

NM = [383.5, 900.0, 1340.0, 1400.0, 1445.0, 1446.0, 1900.0]
CUBE = (np.arange(3 * 4 * 7).reshape(3, 4, 7) * 331 % 10_000).astype("i2")  # rows, columns, bands
CUBE[1, 2] = -9999
MAP_INFO = (
    "UTM,  1.000,  1.000,   368000.000,   4307000.0,   1.0000000,   1.0000000,  18,  North,  WGS-84,  units=Meters, 0"
)


def write(folder, *, cube=CUBE, site="SERC", on_cube=None, on_group=None, wavelength_units="nanometers", **metadata):
    """Writes a product; what is given as None is left out. Returns its path."""
    texts = h5py.string_dtype()
    fields = {
        "Spectral_Data/Wavelength": np.array(NM),
        "Spectral_Data/FWHM": np.full(7, 5.75),
        "Coordinate_System/Map_Info": np.array(MAP_INFO, texts),
        "Coordinate_System/EPSG Code": np.array("32618", texts),
    } | {key.replace("__", "/").replace("EPSG_Code", "EPSG Code"): value for key, value in metadata.items()}
    path = folder / "NEON.h5"
    with h5py.File(path, "a") as file:
        group = file.create_group(f"{site}/Reflectance")
        group.attrs["Band_Window_1_Nanometers"] = np.array([1340, 1445])
        group.attrs["Band_Window_2_Nanometers"] = np.array([1790, 1955])
        data = group.create_dataset("Reflectance_Data", data=cube)
        data.attrs.update({"Scale_Factor": 10_000.0, "Data_Ignore_Value": -9999.0})
        for holder, changes in ((data, on_cube or {}), (group, on_group or {})):
            for name, value in changes.items():
                holder.attrs.pop(name)
                if value is not None:
                    holder.attrs[name] = value
        for name, value in fields.items():
            if value is not None:
                made = group.create_dataset(f"Metadata/{name}", data=value)
                if name.endswith("Wavelength") and wavelength_units is not None:
                    made.attrs["Units"] = wavelength_units
    return path


def text(words):
    return np.array(words, h5py.string_dtype())


LIES = [{"on_cube": {"Scale_Factor": value}} for value in (None, "10000", [1.0, 2.0])]
LIES += [{"on_cube": {"Data_Ignore_Value": value}} for value in (None, np.nan)]
LIES += [{"on_group": {"Band_Window_1_Nanometers": value}} for value in ([1340], "1340-1445")]
LIES += [{"cube": value} for value in (CUBE[0], CUBE.astype("c8"), CUBE[:, :, :5])]
LIES += [{"Spectral_Data__FWHM": value} for value in ([5.0], np.zeros((7, 7)))]
LIES += [
    {"Coordinate_System__Map_Info": text(words)}
    for words in ("UTM", "UTM, 1, 1, x, 2, 1, 1", "UTM, 1, 1, 368000, 4307000, 0, 1")
]
LIES += [{"Coordinate_System__EPSG_Code": value} for value in (text("UTM"), text("999999"))]
