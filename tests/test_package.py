import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheel_holds_configuration_and_band_table(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("hsfusion-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    source = {f"hsfusion/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert source <= set(names)
    others = ("data/indian_pines_bands.csv", "plots/templates/report.css", "py.typed", "__main__.py")
    assert {f"hsfusion/{name}" for name in others} <= set(names)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import sys; from hsfusion.cli.words import CONF; print(CONF)"
    where = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path / "site", text=True)
    assert Path(where.strip()) == tmp_path / "site" / "hsfusion" / "conf"


def test_default_configuration_takes_the_defaults_of_the_code():
    """A value that stands in two places has to be the same in both."""
    import inspect

    from omegaconf import OmegaConf

    from hsfusion.data import splits, synthetic
    from hsfusion.data.patches import PatchDataModule
    from hsfusion.nn import DEFAULT_BACKBONE
    from hsfusion.training.building import build_network

    pairs = {
        "model/default": build_network,
        "data/patches": PatchDataModule,
        "split/blocks": splits.blocks,
        "split/fields": splits.fields,
        "split/random": splits.random,
        "split/fixed": splits.fixed,
        "scene/synthetic": synthetic.synthetic_scene,
    }
    assert {"backbone": DEFAULT_BACKBONE} in OmegaConf.load(ROOT / "conf/model/default.yaml").defaults
    for name, target in pairs.items():
        config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / f"{name}.yaml"))
        defaults = {k: p.default for k, p in inspect.signature(target).parameters.items() if p.default is not p.empty}
        for given_by_the_code in (
            "valid",
            "sources",
            "response",
            "backbone",
            "backbone_options",
            "whitening",
            "linear",
        ):
            defaults.pop(given_by_the_code, None)
        for key, value in defaults.items():
            same = [list(v) for v in value] if key in ("windows_nm", "proxies") else value
            assert config[key] == same, f"{name}: {key}"


def test_version_is_the_same_wherever_it_stands():
    from hsfusion import __version__

    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == __version__
