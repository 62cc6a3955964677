"""The error contract: one line on stderr, the exit code, nothing lost."""

import io
import logging
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsfusion.cli.app import check, explain
from hsfusion.cli.commands import check_finetune_words, run_folder, settings_of, show_warnings
from hsfusion.cli.main import guarded, main, shown
from hsfusion.cli.words import CONF, hydra_words
from hsfusion.errors import HsFusionError, InputError
from hsfusion.runs import folder
from hsfusion.runs.folder import start_folder, training_log
from hsfusion.runs.prediction import PredictSettings
from hsfusion.scenes import open_scene
from hsfusion.scenes.description import commented_keys

FILE = ("scene=file", "scene.cube=a", "scene.labels=b")
CASES = [
    ("train", ["scene=indian_pine"], "scene is indian_pine, expected|did you mean scene=indian_pines?"),
    ("train", ["trainer.max_epoch=3"], "trainer.max_epoch|did you mean trainer.max_epochs?"),
    ("train", ["ckpt_path=r"], "key is ckpt_path, expected a key of the configuration|did you mean resume?"),
    ("train", ["lr=0.1"], "did you mean optimizer.lr?"),
    ("train", ["batch_size=8"], "did you mean data.batch_size?"),
    ("train", ["epochs=8"], "did you mean trainer.max_epochs?"),
    ("train", ["max_epochs=8"], "did you mean trainer.max_epochs?"),
    ("train", ["trainer.limit_train_batch=8"], "did you mean trainer.limit_train_batches?"),
    ("train", ["modl.fusion=scalar"], "modl.fusion|did you mean model.fusion?"),
    ("train", ["split=fixed", "split.fraction=0.1"], "it belongs to another command, or another choice"),
    ("train", ["pretrained=r"], "pretrained|it belongs to another command"),
    ("train", ["+foo=1"], "key is foo"),
    ("train", ["+model.foo=1"], "name is model.foo, expected a setting"),
    ("train", ["fast"], "argument is fast, expected key=value"),
    ("train", ["scene=file"], "scene.cube is missing, expected a file"),
    ("train", ["scene=simulated"], "scene.sensor is missing, expected the name of a sensor"),
    ("train", ["scene=described"], "scene.files is missing, expected a list of files"),
    ("train", ["split=fixed"], "split.test is missing, expected a file"),
    ("predict", [], "run is missing, expected a run folder, or a model.safetensors"),
    ("finetune", [], "pretrained is missing, expected a run folder, or a model.safetensors"),
    ("evidence", [], "folder is missing, expected a folder"),
    ("train", [*FILE, "scene.scale=x"], "scene.scale is x, expected a number"),
    ("train", [*FILE, "scene.unlabelled=null"], "scene.unlabelled is null, expected a code, or a list of codes"),
    ("train", ["model.fusion=chanel"], "model.fusion is chanel, expected scalar , channel"),
    ("train", ["model.width=broad"], "model.width is broad, expected a whole number"),
    ("train", ["data.batch_size=0"], "data.batch_size is 0, expected at least 2"),
    ("train", ["trainer.max_epochs=1.5"], "trainer.max_epochs is 1.5, expected a whole number"),
    ("train", ["threads=0"], "threads is 0, expected at least 1"),
    ("train", ["seed=abc"], "seed is abc, expected a whole number"),
    ("train", ["seed=null"], "seed is null, expected a whole number"),
    ("train", ["progress=null"], "progress is null, expected true or false"),
    ("train", ["name=null"], "name is empty, expected a name"),
    ("train", ["trainer=null"], "trainer is null, expected auto , cpu , ddp , gpu"),
    ("train", ["optimizer.lr=null"], "optimizer.lr is null, expected a number"),
    ("train", ["split.fraction=half"], "split.fraction is half, expected a number"),
    ("train", ["split.seed=-1"], "split.seed is -1, expected at least 0"),
    ("predict", ["run=r", "smooth=median"], "smooth is median, expected none , bilateral"),
    ("train", ["split.block_pixels=0"], "split.block_pixels is 0, expected at least 1"),
    ("train", ["groups.number=null"], "groups.number is null, expected a whole number"),
    ("finetune", ["pretrained=r", "freeze=null"], "freeze is null, expected a list of response"),
    ("finetune", ["pretrained=r", "freeze=cnn"], "freeze is cnn, expected a list of response"),
    ("finetune", ["pretrained=r", "thaw_at=null"], "thaw_at is null, expected keys and values"),
    ("finetune", ["pretrained=r", "thaw_at.cnn=2"], "thaw_at.cnn is 2, expected between 0 and 1"),
    ("predict", ["run=r", "threads=0"], "threads is 0, expected at least 1"),
    ("predict", ["run=r", "outt=a.tif"], "did you mean out?"),
]


@pytest.fixture(scope="module")
def refusal():
    """Says why words are refused; None where they are not."""

    def checked(config_name, *words):
        try:
            words = hydra_words(words, config_name)
            with initialize_config_dir(str(CONF), version_base="1.3"):
                cfg = compose(config_name, overrides=words, return_hydra_config=True)
                HydraConfig.instance().set_config(cfg)
                OmegaConf.set_struct(cfg, False)
                del cfg["hydra"]
                check(cfg, config_name)
                if config_name == "predict":
                    PredictSettings(**{name: cfg[name] for name in PredictSettings.__dataclass_fields__})
                else:
                    settings_of(cfg)
                    run_folder(cfg)
                    check_finetune_words(cfg) if config_name == "finetune" else None
        except HsFusionError as error:
            return str(error)
        except (HydraException, OmegaConfBaseException) as error:
            return explain(error)
        return None

    before = HydraConfig.instance().cfg
    yield checked
    HydraConfig.instance().cfg = before


@pytest.mark.parametrize(("command", "words", "parts"), CASES)
def test_what_cannot_be_used_is_named_with_what_the_key_wants(refusal, command, words, parts):
    line = refusal(command, *words)
    assert "\n" not in line and "Fix: " in line
    assert [part for part in parts.split("|") if part.replace(",", "|") not in line.replace(",", "|")] == []


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["model.channels=8"], "model and groups is model.channels=8, expected nothing"),
        (["groups=classic", "scratch_epochs=null"], "model and groups is groups=classic, expected nothing"),
        (["groups=classic", "scratch_epochs=2"], None),
        (["scratch_epochs=2", "trainer.devices=2"], "trainer.devices is 2, expected 1 with scratch_epochs"),
    ],
)
def test_words_without_effect_on_a_pretrained_network_are_refused(refusal, words, part):
    line = refusal("finetune", "pretrained=r", *words)
    assert line is None if part is None else part in line


NULLS = [
    (path.stem, key)
    for path in (CONF / "train.yaml", CONF / "finetune.yaml", CONF / "predict.yaml")
    for key, value in OmegaConf.to_container(OmegaConf.load(path), resolve=False).items()
    if value is not None
    and key not in ("defaults", "hydra", "name", "run", "pretrained", "backbones", "scratch_epochs")
]


@pytest.mark.parametrize(("command", "key"), NULLS)
def test_null_is_refused_where_a_key_has_another_default(refusal, command, key):
    given = {"predict": ["run=r"], "finetune": ["pretrained=r"], "train": []}[command]
    assert f"{key} is null, expected " in refusal(command, *given, f"{key}=null")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["scene=indian_pine"], ["scene is indian_pine", "did you mean scene=indian_pines?"]),
        (["data.batch_size=0"], ["data.batch_size is 0, expected at least 2"]),
        (["groups=classic", "groups.nm.red=5"], ["band group red: interval is 5"]),
        (
            ["groups=classic", "+groups.nm.thermal=[8000,12000]"],
            ["thermal [8000, 12000) nm is 0", "expected at least 1"],
        ),
        (
            ["scene=synthetic", "scene.height=12", "scene.width=12", "model.receptive_field=13"],
            ["receptive_field (patch) is 13 pixels", "12 rows x 12 columns"],
        ),
        (["split=random", "split.per_class=25"], ["class Oats (9) is 20, expected at least 27"]),
        (["resume=nowhere"], ["nowhere", "checkpoints/last.ckpt is missing"]),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_2(hsfusion, tmp_path, words, parts):
    done = hsfusion("train", *words, "progress=false", "trainer=cpu", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("hsfusion: error: ")
    assert "Fix: " in last
    assert [part for part in parts if part not in last] == []
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("**/train.log")) == []  # a refused run leaves no folder behind


def test_benchmark_of_no_seeds_is_refused(hsfusion, tmp_path):
    done = hsfusion("benchmark", "accuracy", "scene=synthetic", "seeds=0", cwd=tmp_path)
    assert done.returncode == 2
    assert "seeds is 0, expected at least 1" in done.stderr


def test_file_that_would_be_passed_over_is_refused(hsfusion, tmp_path):
    (tmp_path / "mine" / "groups").mkdir(parents=True)
    (tmp_path / "mine" / "groups" / "even.yaml").write_text("number: 3\n")
    done = hsfusion("train", "--config-dir", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "even.yaml: name is even.yaml, expected a name that hsfusion does not use" in done.stderr


@pytest.mark.parametrize(("cube", "what"), [("none.tif", "missing"), (".", "a folder")])
def test_cube_that_is_not_there_is_one_line(hsfusion, tmp_path, cube, what):
    done = hsfusion("train", "scene=file", f"scene.cube={cube}", "scene.labels=none.tif", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("hsfusion: error: ") and done.stderr.count("\n") == 1, done.stderr
    assert f"file is {what}, expected a readable raster" in done.stderr


def test_prediction_without_a_scene_says_so(hsfusion, tmp_path):
    done = hsfusion("predict", "run=r1", cwd=tmp_path)
    assert done.returncode == 2
    assert "scene is missing, expected a file. Fix: add scene=PATH" in done.stderr


def test_run_folder_in_use_is_left_alone(hsfusion, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "map.tif").write_text("mine")
    done = hsfusion("train", "run_dir=run", cwd=tmp_path, small=True)
    assert done.returncode == 2
    assert "run_dir is not empty" in done.stderr
    assert (tmp_path / "run" / "map.tif").read_text() == "mine"


def test_gpu_that_is_not_there_is_exit_3(hsfusion, tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = hsfusion("train", "trainer=gpu", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "Fix: use trainer=cpu" in done.stderr.splitlines()[-1]


def test_diverged_run_is_exit_4(hsfusion, tmp_path):
    done = hsfusion("train", "optimizer=sgd", "optimizer.lr=1e30", cwd=tmp_path, small=True)
    assert done.returncode == 4, done.stderr
    assert "training: " in done.stderr.splitlines()[-1]
    (log,) = tmp_path.glob("**/train.log")
    assert "DivergedError: training: " in log.read_text()
    assert "DivergedError" not in done.stderr


def test_run_that_diverges_in_its_last_step_is_exit_4(hsfusion, tmp_path):
    words = ["optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=1", "data.steps_per_epoch=1"]
    done = hsfusion("train", *words, cwd=tmp_path, small=True)
    assert done.returncode == 4, done.stderr


def test_traceback_comes_on_request_only(hsfusion, tmp_path):
    done = hsfusion("train", "scene=nothing", cwd=tmp_path, env={"HSFUSION_DEBUG": "1"})
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_unknown_command_names_the_closest(hsfusion_process, tmp_path):
    done = hsfusion_process("trian", cwd=tmp_path)
    assert done.returncode == 2
    assert "Fix: did you mean train?" in done.stderr


def test_help_lists_the_commands_and_imports_no_large_library(hsfusion_process, tmp_path):
    done = hsfusion_process("--help", cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "hsfusion" in imported
    assert not imported & {"torch", "lightning", "hydra", "matplotlib", "rasterio", "numpy"}
    assert done.returncode == 0
    assert "train" in done.stdout
    assert "benchmark" in done.stdout


def test_every_file_in_conf_gives_keys():
    keys = set(commented_keys(CONF))
    assert {"trainer.max_epochs", "model.fusion", "split.train", "scene.cube", "seed", "groups.nm"} <= keys
    assert not any(key.startswith("hydra") or "_target_" in key for key in keys)


def test_every_key_in_conf_is_explained():
    comments = commented_keys(CONF)
    keys = {key for key in comments if not key.startswith(("experiment", "words")) and not (CONF / key).is_dir()}
    keys -= {"model.backbone"}
    assert not {key for key in keys if not comments[key] and not comments.get(key.rpartition(".")[0])}


def test_names_of_files_do_not_steer_the_terminal(tmp_path, monkeypatch, capsys):
    name = "a\x1b[2J\nb"
    np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).random((9, 9, 3)))
    monkeypatch.chdir(tmp_path)
    for words in (["inspect", f"{name}.npy"], ["weights", name], [name]):
        monkeypatch.setattr(sys, "argv", ["hsfusion", *words])
        assert main() == (0 if words[0] == "inspect" else 2)
        output = "".join(capsys.readouterr())
        assert all(line.isprintable() for line in output.splitlines())
        assert r"[2J\nb" in output
    scene = open_scene(f"{name}.npy", wavelengths=[500, 600, 700], wavelength_unit="nm")
    assert scene.name == r"a\x1b[2J\nb"  # else no model file that names it could be read again


def test_log_has_a_line_for_each_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(folder, "inputs_of", lambda splits: {})
    monkeypatch.setattr(folder, "check_space", lambda path, experiments: None)
    experiment = SimpleNamespace(initial=SimpleNamespace(architecture={}), split=None)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        show_warnings()
        with training_log() as memory:
            logging.getLogger("hsfusion").warning("%s: class %s", "a\nhsfusion: error: b", "\x1b[2J")
            start_folder(tmp_path / "run", "", memory, experiments=[experiment], resume=None)
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
    line = r"a\nhsfusion: error: b: class \x1b[2J"
    assert capsys.readouterr().err == f"hsfusion: {line}\n"
    assert (tmp_path / "run" / "train.log").read_text().endswith(f"WARNING hsfusion: {line}\n")


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "a\\b", "..", ".", "", " ", "a\x1b", "a:b", "a\n", "NUL", "con.a.b", "a.", "a "]
)
def test_name_of_a_run_is_that_of_one_folder(name):
    cfg = OmegaConf.create({"name": name, "run_dir": None})
    with pytest.raises(InputError, match=r"command line: name is .*, expected a name valid for a folder"):
        run_folder(cfg)
    for name in ("it's a=b.ü 水田", ".console", 5):
        assert run_folder(OmegaConf.create({"name": name, "run_dir": None})).parent.name == str(name)


@pytest.mark.parametrize("command", ["train", "finetune", "predict", "evidence", "benchmark fusion"])
def test_help_shows_each_key_of_a_command_with_its_comment_and_no_other(hsfusion, tmp_path, command):
    done = hsfusion(*command.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config_name = command.replace(" ", "_")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(config_name)
    for key in cfg:
        shown = f"\n  {key}=" in done.stdout or f"\n  {key}." in done.stdout
        of_runs = ("seed", "run_dir", "sweep_dir", "resume", "optimized_metric")
        hidden = config_name.startswith("benchmark") and key in of_runs
        assert shown != hidden, key
    assert "hydra" not in done.stdout.replace("${hydra:", "")
    assert ("\n  model.width=" in done.stdout) == (command in ("train", "evidence"))


def test_help_shows_the_keys_of_the_choices_on_the_command_line(hsfusion, tmp_path):
    done = hsfusion("train", "split=fields", "scene=simulated", "scene.of=ksc", "--help", cwd=tmp_path)
    assert "\n  split.ids=null\n      a raster of field ids" in done.stdout
    assert "\n  split=fields  one of: blocks, fields, fixed, random\n" in done.stdout
    assert "\n  scene.of.nodata=null\n      stored value that means no data" in done.stdout
    assert "block_pixels" not in done.stdout
    missing = [key for key in ("model.fusion", "split.fraction", "band_cost") if f"  {key}=" not in done.stdout]
    assert missing == []


def test_letters_that_a_pipe_does_not_have_are_escaped(monkeypatch):
    pipe = io.TextIOWrapper(io.BytesIO(), "cp1252", newline="\r\n")  # of Windows
    monkeypatch.setattr(sys, "stdout", pipe)
    assert guarded(lambda: print("Łąka", flush=True)) == 0
    assert pipe.buffer.getvalue() == rb"\u0141\u0105ka" + b"\n"


@pytest.mark.parametrize(
    ("system", "line"),
    [("nt", r'hsfusion weights D:\runs "my runs"'), ("posix", r"hsfusion weights 'D:\runs' 'my runs'")],
)
def test_command_is_shown_as_the_shell_of_the_system_reads_it(monkeypatch, system, line):
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", system)
        written = shown("hsfusion", "weights", r"D:\runs", "my runs")
    assert written == line


def test_flag_at_the_end_takes_no_word_for_its_value(hsfusion, tmp_path):
    done = hsfusion("train", "scene=synthetic", "--info", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "scene: synthetic" in done.stdout
