"""Converts the MUUFL Gulfport crop to a scene for hsfusion: python scripts/muufl_labels.py FILE.mat FOLDER.

The label of a pixel is the material that covers more than 0.6 of it (``label``, abundances), or 0. The file has no
wavelengths; they are nominal, for 72 bands without the first four and the last four.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.io import loadmat


def main(source: Path, folder: Path) -> None:
    """Writes scene.yaml, labels.npy and wavelengths.csv, with the cube as cube.npy."""
    content = loadmat(source)
    share = content["label"]  # (H, W, K)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "cube.npy", np.ascontiguousarray(content["Y"], np.float32))
    np.save(folder / "labels.npy", np.where(share.max(-1) > 0.6, share.argmax(-1) + 1, 0).astype(np.uint8))
    centres = np.linspace(367.7, 1043.4, 72)[4:-4]
    (folder / "wavelengths.csv").write_text("wavelength_nm\n" + "".join(f"{nm:.1f}\n" for nm in centres))
    (folder / "scene.yaml").write_text(
        "cube: cube.npy\nlabels: labels.npy\nwavelengths: wavelengths.csv\nname: MUUFL\n"
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
