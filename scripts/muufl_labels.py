"""Makes a scene for hsfusion of the MUUFL Gulfport crop: python scripts/muufl_labels.py FILE.mat FOLDER.

Labels are the material that covers more than 0.6 of a pixel (``label``, abundances), 0 where none does. The file holds
no wavelengths: those of the 72 bands are nominal, of which the first and the last four were removed.
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
