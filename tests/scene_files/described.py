"""A small scene with labels and its description."""

from hsfusion.data.synthetic import synthetic_scene
from hsfusion.scenes import open_scene, write_class_map
from scene_files import envi


def write(folder, name, *, seed, left):
    """Writes NAME.img, NAME_labels.tif and NAME.yaml: every tenth band of a synthetic scene, in UTM from ``left`` m on.

    NAME_west.tif and NAME_east.tif hold the labels of one half each.
    """
    labelled = synthetic_scene(seed=seed, height=40, width=40)
    cube, nm = labelled.scene.read()[::10], labelled.scene.bands.wavelength_nm[::10]
    wavelengths = "{" + ", ".join(f"{centre:g}" for centre in nm) + "}"
    place = f"{{UTM, 1, 1, {left}, 4500000, 30, 30, 33, North, WGS-84}}"
    envi.write(folder, cube, dtype="f4", name=f"{name}.img", wavelength=wavelengths, map_info=place)
    geobox = open_scene(folder / f"{name}.img").geobox
    parts = {"labels": labelled.labels, "west": labelled.labels.copy(), "east": labelled.labels.copy()}
    parts["west"][:, 20:], parts["east"][:, :20] = 0, 0
    for part, labels in parts.items():
        write_class_map(folder / f"{name}_{part}.tif", labels, legend=labelled.legend, geobox=geobox, tags={})
    (folder / f"{name}.yaml").write_text(f"cube: {name}.img\nlabels: {name}_labels.tif\n")
