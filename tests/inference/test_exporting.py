import hashlib
import json
import warnings

import numpy as np
import pytest
import torch

from hsfusion import __version__
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.inference import FoldedNetwork, predict_scene
from hsfusion.inference.classification import read_with_halo, tiles_of
from hsfusion.inference.folding import describe, export_onnx, export_program
from hsfusion.scenes import ArrayRaster, ArrayScene, StackedScene
from hsfusion.scenes.scene import read_all
from hsfusion.spectra import Bands, even_groups
from hsfusion.training.building import build_network
from hsfusion.training.model_file import ClassList, ModelHeader, load_model, save_model

CODES, NAMES = [3, 5, 7, 200], ["maize", "soy", "grass", "wood"]
FILE = {"name": "holes", "format": "ENVI", "scale": 1e-4, "offset": 0.0, "nodata": None, "wavelengths": None}


@pytest.fixture(scope="module")
def scene():
    made = synthetic_scene(seed=0, height=40, width=37, step_m=5.0).scene
    cube = read_all(made)
    cube[:211, 8, 9] = np.nan
    cube[211, 30, 20] = np.nan  # a height
    bands = Bands(made.bands.wavelength_nm, np.full(211, 12.5), made.bands.good)
    return StackedScene(ArrayScene(cube[:211], bands=bands, name="holes"), {"lidar": ArrayRaster(cube[211:])})


def model_file(path, scene, fusion):
    """A network that uses only some of the bands, in a file: the network, its header and the digest."""
    torch.manual_seed(0)
    architecture = {"fusion": fusion, "channels": 6, "width": 8}
    groups = even_groups(scene.bands, number=4)
    net = build_network(scene.bands, groups, num_classes=4, sources=scene.sources, **architecture)
    cube = torch.from_numpy(read_all(scene))
    flat = cube[:, ~cube.isnan().any(0)]
    net.mean.copy_(flat.mean(1))
    net.std.copy_(flat.std(1))
    with torch.no_grad():
        if net.fusion.gates is not None:
            net.fusion.gates.position[:20] = 0
        filled = torch.where(cube.isnan(), net.mean[:, None, None], cube)[None]
        for _ in range(30):  # moves the running statistics of the normalisations
            net(filled)
        net.cnn.classifier.bias -= net.eval()(filled).mean((0, 2, 3))  # no class prevails
    header = ModelHeader(
        bands=scene.bands,
        groups=tuple(groups),
        classes=ClassList(tuple(CODES), tuple(NAMES), ("#000000",) * 4),
        architecture=architecture,
        sources=tuple(scene.sources),
        training_scene={
            "name": scene.name,
            "shape": [40, 37],
            "transform": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            "crs": None,
            "values": [FILE],
        },
    )
    save_model(path, net, header=header)
    net, header = load_model(path)
    return net, header.to_dict(), hashlib.sha256(path.read_bytes()).hexdigest()


def map_by(run, text, scene):
    """The map that someone makes who has an exported file, its description and a scene, and nothing else."""
    known = json.loads(text)
    position = {nm: i for i, nm in enumerate(scene.bands.wavelength_nm.tolist())} | {"lidar": len(scene.bands)}
    layers = np.array([position[layer.get("wavelength_nm", layer.get("source"))] for layer in known["layers"]])
    radius, codes = known["receptive_field"] // 2, np.array(known["classes"]["codes"])
    found = np.full(scene.geobox.shape, -1)
    for window in tiles_of(scene.geobox.shape, edge=16):
        x = np.ascontiguousarray(read_with_halo(scene, window, radius, layers))[None]
        part = np.s_[window.row : window.row + window.height, window.col : window.col + window.width]
        missing = np.isnan(x[0, :, radius:-radius, radius:-radius]).any(0)
        found[part] = np.where(missing, -1, codes[run(x)[0].argmax(0)])
    return found


def expected_map(net, scene):
    index, _ = predict_scene(net, scene)
    assert (index == -1).sum() == 2
    assert np.bincount(index[index >= 0], minlength=4).min() > 50
    return np.where(index < 0, -1, np.array(CODES)[index])


def other_order(scene):
    """The same scene with its bands the other way round."""
    cube = read_all(scene)
    bands = Bands(scene.bands.wavelength_nm[::-1], scene.bands.fwhm_nm[::-1], scene.bands.good)
    return StackedScene(ArrayScene(cube[210::-1], bands=bands, name="turned"), {"lidar": ArrayRaster(cube[211:])})


def test_description_tells_all_that_the_graph_does_not(tmp_path, scene):
    net, header, digest = model_file(tmp_path / "model.safetensors", scene, "channel")
    network = FoldedNetwork(net)
    known = describe(network, header, model_sha256=digest)
    assert json.loads(json.dumps(known, allow_nan=False)) == known
    assert len(known["layers"]) == len(network.layers) == 192
    assert known["layers"][0] == {"wavelength_nm": 600.0, "fwhm_nm": 12.5, "training_mean": float(net.mean[20])}
    assert known["layers"][190]["wavelength_nm"] == 2500.0
    assert known["layers"][191] == {"source": "lidar", "layer": 0, "training_mean": float(net.mean[211])}
    assert known["classes"] == {"codes": CODES, "names": NAMES}
    assert known["training_scene"] == {"name": "holes", "values": [FILE]}
    assert "unit of the training scene" in known["unit"]
    assert (known["model_sha256"], known["receptive_field"], known["hsfusion_version"]) == (digest, 7, __version__)


def test_what_is_unknown_is_none_and_layers_of_a_raster_are_counted(tmp_path, scene):
    net, header, digest = model_file(tmp_path / "model.safetensors", scene, "free")
    header["bands"] = {"wavelength_nm": header["bands"]["wavelength_nm"][:210], "fwhm_nm": None}
    header["sources"] = [{"name": "radar", "layers": 2}]
    del header["training_scene"]
    known = describe(FoldedNetwork(net), header, model_sha256=digest)
    layers = known["layers"]
    assert known["training_scene"] is None
    assert {layer["fwhm_nm"] for layer in layers[:210]} == {None}
    assert [(layer["source"], layer["layer"]) for layer in layers[210:]] == [("radar", 0), ("radar", 1)]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["channel", "instance", "free"])
def test_onnxruntime_gives_the_same_map_from_the_file_alone(tmp_path, scene, fusion):
    onnxruntime = pytest.importorskip("onnxruntime")
    net, header, digest = model_file(tmp_path / "model.safetensors", scene, fusion)
    network = FoldedNetwork(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        export_onnx(network, tmp_path / "model.onnx", header=header, model_sha256=digest)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    text = session.get_modelmeta().custom_metadata_map["hsfusion"]
    assert json.loads(text) == describe(network, header, model_sha256=digest)
    expected = expected_map(net, scene)
    for each in (scene, other_order(scene)):
        assert (map_by(lambda x: session.run(None, {"pixels": x})[0], text, each) == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["channel", "instance"])
def test_exported_program_gives_the_same_map_from_the_file_alone(tmp_path, scene, fusion):
    net, header, digest = model_file(tmp_path / "model.safetensors", scene, fusion)
    network = FoldedNetwork(net)
    export_program(network, tmp_path / "model.pt2", header=header, model_sha256=digest)
    found = {"hsfusion.json": ""}
    module = torch.export.load(tmp_path / "model.pt2", extra_files=found).module()
    text = found["hsfusion.json"]
    assert json.loads(text) == describe(network, header, model_sha256=digest)
    expected = expected_map(net, scene)
    with torch.no_grad():
        for each in (scene, other_order(scene)):
            assert (map_by(lambda x: module(torch.from_numpy(x)).numpy(), text, each) == expected).all()
