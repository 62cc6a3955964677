"""The Python API: what a script or a notebook sees of it."""

import ast
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scene_files import described

import hsfusion as hs
from hsfusion.data.patches import PatchDataModule, prepare, valid_pixels
from hsfusion.data.splits import blocks
from hsfusion.errors import InputError
from hsfusion.inference import predict_scene
from hsfusion.runs.prediction import predict_array
from hsfusion.runs.report import write_figures
from hsfusion.scenes import ArrayRaster, StackedScene, read_class_map
from hsfusion.spectra import even_groups
from hsfusion.training.building import build_network
from hsfusion.training.classifier import FusionClassifier

from .conftest import TINY

ROOT = Path(__file__).parents[2]
_SCENE = ("synthetic_scene(seed=0", "synthetic_scene(seed=0, height=40, width=40")
SHORT = {  # notebook -> what stands in its cells, and what a short run has in its place
    "01_weighted_combination": [("steps=400", "steps=20"), ("steps=600", "steps=20"), ("range(400)", "range(20)")],
    "02_band_weights": [
        _SCENE,
        ("channels=8, width=16,", "channels=4, width=8,"),
        ("epochs=12", "epochs=1, steps_per_epoch=5, baselines=(), groups=hs.even_groups(4)"),
        ("resamples=2", "resamples=1"),
        ("faithfulness_pixels=50", "faithfulness_pixels=20"),
    ],
    "03_new_scene": [
        _SCENE,
        ("epochs=10,", "epochs=1, steps_per_epoch=5, baselines=(), model=dict(channels=8, width=8),"),
        ("epochs=5, scratch_epochs=5", "epochs=1, steps_per_epoch=5, baselines=(), scratch_epochs=1"),
        ('("enmap", "prisma", "desis", "sentinel2")', '("enmap", "prisma", "desis")'),
    ],
}


class _Unasserted(ast.NodeTransformer):
    """Evaluates what is asserted, and goes on."""

    def visit_Assert(self, node):
        return ast.copy_location(ast.Expr(node.test), node)


@pytest.mark.parametrize("name", SHORT)
def test_cells_of_a_notebook_run_on_small_settings(name, tmp_path, monkeypatch):
    """Whether what they assert is true after so little training is left to tests/test_notebooks.py."""
    from matplotlib import pyplot

    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for long, short in SHORT[name]:
        assert any(long in cell for cell in cells), long
        cells = [cell.replace(long, short) for cell in cells]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyplot, "show", pyplot.close)
    monkeypatch.setattr("hsfusion.evidence.jobs.ORDERS", 19)
    values = {}
    for cell in cells:
        exec(compile(_Unasserted().visit(ast.parse(cell)), name, "exec"), values)
    pyplot.close("all")


def test_every_notebook_has_small_settings():
    assert list(SHORT) == [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def test_import_loads_neither_torch_nor_numpy_nor_matplotlib():
    code = (
        "import sys, hsfusion; dir(hsfusion); print({'torch', 'numpy', 'matplotlib', 'lightning'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_every_name_of_the_front_door_is_listed_and_can_be_imported():
    assert set(hs.__all__) <= set(dir(hs))
    for name in hs.__all__:
        assert getattr(hs, name).__doc__, name
    with pytest.raises(AttributeError, match="'hsfusion' has no attribute 'trian'"):
        hs.trian  # noqa: B018


def test_every_name_of_the_front_door_is_in_the_reference():
    page = (Path(__file__).parents[2] / "docs/reference/api.md").read_text()
    shown = set(re.findall(r"heading: hs\.(\w+)|::: hsfusion\.[\w.]*\b(\w+)$(?!\n    options: .heading)", page, re.M))
    settings = {name for name in hs.__all__ if name.endswith("Settings")}  # which have a page of their own
    assert set(hs.__all__) - settings <= {name for names in shown for name in names}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epoch": 3}, ["settings", "epoch", "did you mean epochs?"]),
        ({"model": {"chanels": 3}}, ["model.chanels", "did you mean model.channels?"]),
        ({"label_smoothing": 2}, ["label_smoothing is 2", "between 0 and 0.99"]),
        ({"model": {"channels": 0}}, ["model.channels is 0", "at least 1"]),
        ({"model": {"neighbourhood": 2}}, ["model.neighbourhood is 2", "an odd number of pixels"]),
    ],
)
def test_unknown_setting_or_value_out_of_range_is_one_line_that_names_it(scene, fields, words):
    with pytest.raises(InputError) as error:
        hs.train(scene, **fields)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_unknown_setting_of_evidence_is_one_line_that_names_it(scene, tmp_path):
    with pytest.raises(InputError, match=r"did you mean resamples\?"):
        hs.gather_evidence(scene, tmp_path / "evidence", resample=3)
    assert not (tmp_path / "evidence").exists()


def test_options_beside_a_description_are_refused_and_not_ignored(tmp_path):
    described.write(tmp_path, "field", seed=0, left=300_000)
    with pytest.raises(InputError, match="options is labels, nodata"):
        hs.open_scene(tmp_path / "field.yaml", labels=tmp_path / "field_labels.tif", nodata=0)


def test_summary_names_only_files_that_were_written(run, saved):
    assert [path for path in ("map.tif", "report.html", "band_weights.png") if path in run.summary()] == ["map.tif"]


def test_run_is_not_saved_into_a_folder_that_is_not_empty(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError) as error:
        run.save(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_loaded_run_equals_the_saved_one(run, saved, scene):
    loaded = hs.load_run(saved)
    np.testing.assert_allclose(loaded.weights.weight, run.weights.weight, rtol=1e-8)
    assert loaded.weights.group == run.weights.group
    assert loaded.metrics == run.metrics
    assert (loaded.class_map == run.class_map).all()
    assert vars(replace(loaded.header, bands=run.header.bands, checksum=None)) == vars(run.header)
    np.testing.assert_array_equal(loaded.header.bands.wavelength_nm, run.header.bands.wavelength_nm)
    cube = torch.from_numpy(scene.scene.read((0, 0, 40, 40)))[None]
    with torch.no_grad():
        assert torch.equal(loaded.network.eval()(cube), run.network.eval()(cube))


def test_loaded_run_is_not_saved_again(saved, tmp_path):
    with pytest.raises(InputError, match="run is loaded, expected one trained in this process"):
        hs.load_run(saved).save(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_array_of_the_training_scene_gives_its_class_map(run, scene):
    codes = run.predict(scene.scene.read((0, 0, 40, 40)))
    assert (codes == run.class_map).all()
    assert set(np.unique(codes)) <= set(run.legend.codes)


def test_array_is_smoothed_as_a_map_is_and_knows_its_value_for_no_data(run, scene, tmp_path):
    cube = scene.scene.read((0, 0, 40, 40))
    cube[:, 5, 7] = -9999
    codes = run.predict(cube, smooth="bilateral", nodata=-9999)
    assert np.argwhere(codes == 0).tolist() == [[5, 7]]
    assert (codes != run.predict(cube, nodata=-9999)).any()
    run.predict(cube, tmp_path / "map.tif", smooth="bilateral", nodata=-9999)
    assert (read_class_map(tmp_path / "map.tif") == codes).all()
    with pytest.raises(InputError, match="nodata is -9999, expected none for a scene"):
        run.predict(scene, nodata=-9999)
    with pytest.raises(InputError, match="smooth is yes"):
        run.predict(cube, smooth="yes")


def test_masked_pixels_of_an_array_have_no_class(run, scene):
    cube = np.ma.masked_array(scene.scene.read((0, 0, 40, 40)), mask=False)
    cube[:, 5, 7] = np.ma.masked
    cube[:, 9, 9] = -9999
    assert np.argwhere(run.predict(cube, nodata=-9999) == 0).tolist() == [[5, 7], [9, 9]]


def test_map_of_an_array_is_gone_on_with_only_where_the_array_holds_the_same_values(run, scene, tmp_path, monkeypatch):
    cube, plans = scene.scene.read((0, 0, 40, 40)), []
    monkeypatch.setattr("hsfusion.runs.prediction.map_scene", lambda *of, plan, **more: plans.append(plan))
    for values in (cube, cube.copy(), cube[:, ::-1]):
        run.predict(values, tmp_path / "map.tif")
    first, same, other = plans
    assert first == same != other


@pytest.mark.parametrize("bands", ["match", "resample"])
def test_further_rasters_in_another_order_give_the_same_map(scene, bands):
    rng, shape = np.random.default_rng(0), scene.labels.shape
    lidar = ArrayRaster((200 + 5 * scene.labels + rng.normal(size=shape))[None].astype(np.float32))
    radar = ArrayRaster((-9 + rng.normal(size=(2, *shape))).astype(np.float32))
    stacked = StackedScene(scene.scene, {"lidar": lidar, "radar": radar})
    turned = StackedScene(scene.scene, {"radar": radar, "lidar": lidar})
    run = hs.train(replace(scene, scene=stacked), **TINY)
    expected, given = (predict_array(run, one, bands=bands) for one in (stacked, turned))
    np.testing.assert_array_equal(given[0], expected[0])
    np.testing.assert_array_equal(given[1], expected[1])


def test_array_with_another_number_of_bands_is_refused_in_one_line(run, scene):
    with pytest.raises(InputError, match="210") as error:
        run.predict(scene.scene.read((0, 0, 40, 40))[:-1])
    assert "\n" not in str(error.value)


def test_representations_are_one_line_and_say_what_the_object_is(run):
    assert re.fullmatch(
        r"Run\('synthetic', overall accuracy 0\.\d{4} on \d+ test pixels, blocks split, \d+ of 211 bands in use\)",
        repr(run),
    )
    assert re.fullmatch(
        r"BandWeights\(\d+ of 211 bands in use, 400-2500 nm, most in \d+-\d+ nm: \d+\.\d%\)", repr(run.weights)
    )


def test_notebooks_get_tables_in_which_names_are_text(run, scene):
    assert "overall accuracy" in run._repr_html_() and run.weights._repr_html_() in run._repr_html_()
    legend = replace(scene.legend, names=("<script>", *scene.legend.names[1:]))
    shown = replace(scene, legend=legend)._repr_html_()
    assert scene.legend.colors[0] in shown and "&lt;script&gt;" in shown and "<script" not in shown


def test_weights_are_drawn_into_axes(run):
    from matplotlib import pyplot

    assert pyplot.get_backend().lower() == "agg"
    axes = run.weights.plot()
    assert isinstance(axes, Axes)
    assert run.weights.plot(axes) is axes
    pyplot.close(axes.figure)


@pytest.mark.usefixtures("undrawn")
def test_figure_of_a_single_run_is_stamped_as_its_report_judges(run, tmp_path, monkeypatch):
    stamps = []
    monkeypatch.setattr("hsfusion.plots.band_weights_figure", lambda *_, stamp, **__: stamps.append(stamp) or Figure())
    write_figures(run, tmp_path)
    assert stamps == [hs.compare([run]).verdict.word]
    assert stamps[0] in {"not tested", "no evidence"}


def test_columns_of_the_weights_have_one_row_for_each_band(run):
    columns = run.weights.to_dict()
    assert {len(column) for column in columns.values()} == {211}
    assert sum(columns["weight"]) == pytest.approx(1)


@pytest.mark.filterwarnings("ignore")  # of Lightning, on the number of workers
def test_lightning_trainer_of_ones_own_gives_a_network_that_takes_the_values_of_the_scene(scene):
    """Mean and standard deviation are nothing to remember: without them maps are wrong, and nothing says so."""
    torch.manual_seed(0)
    bands = scene.scene.bands
    network = build_network(bands, even_groups(bands, number=4), num_classes=4, channels=4, width=8, receptive_field=5)
    used = network.used_bands.numpy()
    split = blocks(scene, radius=2, seed=0, valid=valid_pixels(scene.scene, used))
    cube = prepare(split, used)
    data = PatchDataModule(cube, split, seed=0, steps_per_epoch=60)
    module = FusionClassifier(network, optimizer=partial(torch.optim.AdamW, lr=1e-2), total_steps=60, seed=0)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=data)

    labelled = torch.from_numpy(np.flatnonzero(split.roles.ravel()))
    with torch.no_grad():
        of_patches = network.eval().classify(data.patches(labelled, step=None)).argmax(1).flatten()
    of_scene = predict_scene(network, scene.scene)[0].ravel()[labelled.numpy()]
    assert (of_scene == of_patches.numpy()).mean() > 0.999
