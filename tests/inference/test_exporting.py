import warnings

import numpy as np
import pytest
import torch

from hsfusion.data.synthetic import synthetic_scene
from hsfusion.inference import FoldedNetwork, predict_scene
from hsfusion.inference.exporting import export_onnx, exported_program
from hsfusion.inference.tiles import cells_of, read_with_halo
from hsfusion.scenes import ArrayScene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import even_groups
from hsfusion.training.building import build_network


@pytest.fixture(scope="module")
def scene():
    made = synthetic_scene(seed=0, height=40, width=37).scene
    cube = read_all(made)
    cube[:, 8, 9] = np.nan
    return ArrayScene(cube, bands=made.bands, name="holes")


def trained(scene, fusion):
    torch.manual_seed(0)
    groups = even_groups(scene.bands, number=4)
    net = build_network(scene.bands, groups, num_classes=4, fusion=fusion, channels=6, width=8)
    net(torch.randn(8, len(scene.bands), 9, 9))
    return net.eval()


def classes_by(run, network, scene):
    """The map of another program, tile by tile."""
    radius, layers = network.receptive_field // 2, network.layers.numpy()
    found = np.full(scene.geobox.shape, -1)
    for window in cells_of(scene.geobox.shape, edge=16):
        x = np.ascontiguousarray(read_with_halo(scene, window, radius, layers))[None]
        part = np.s_[window.row : window.row + window.height, window.col : window.col + window.width]
        missing = np.isnan(x[0, :, radius:-radius, radius:-radius]).any(0)
        found[part] = np.where(missing, -1, run(x)[0].argmax(0))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["channel", "instance", "free"])
def test_onnxruntime_gives_the_same_map(tmp_path, scene, fusion):
    onnxruntime = pytest.importorskip("onnxruntime")
    net = trained(scene, fusion)
    network = FoldedNetwork(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        export_onnx(network, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    expected, _ = predict_scene(net, scene)
    assert (expected == -1).sum() == 1
    assert (classes_by(lambda x: session.run(None, {"pixels": x})[0], network, scene) == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["channel", "instance"])
def test_exported_program_gives_the_same_map(tmp_path, scene, fusion):
    net = trained(scene, fusion)
    network = FoldedNetwork(net)
    torch.export.save(exported_program(network), tmp_path / "model.pt2")
    module = torch.export.load(tmp_path / "model.pt2").module()
    expected, _ = predict_scene(net, scene)
    with torch.no_grad():
        assert (classes_by(lambda x: module(torch.from_numpy(x)).numpy(), network, scene) == expected).all()
