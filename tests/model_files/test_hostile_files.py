"""Model files, checkpoints and configurations from elsewhere: nothing in them executes, and each is refused."""

import pickle
import shutil
import sys

import pytest
import yaml

from hsfusion import ModelSettings, TrainSettings, blocks, even_groups
from hsfusion.data.synthetic import synthetic_scene
from hsfusion.errors import InputError
from hsfusion.runs.folder import interrupted_checkpoint
from hsfusion.runs.training import train
from hsfusion.training.callbacks import History
from hsfusion.training.model_file import load_model, read_header
from model_files import hostile_checkpoints, hostile_models, payloads
from model_files.hostile_models import sound_model

FORCE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
EVENTS = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "os.remove"}
EVENTS |= {"pickle.find_class"}
SCENE = synthetic_scene(seed=0, height=40, width=40)
SETTINGS = TrainSettings(
    groups=even_groups(4),
    split=blocks(block_pixels=8),
    model=ModelSettings(channels=4, width=8, receptive_field=5),
    epochs=2,
    steps_per_epoch=3,
    threads=1,
    figures=False,
)
_watched: list[list[str]] = []


def _watch(event, arguments):
    if _watched and event in EVENTS:
        _watched[-1].append(f"{event} {arguments!r}")


sys.addaudithook(_watch)


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """What a test does to the machine: programs, connections, unpickled names, deleted files."""
    monkeypatch.setenv(payloads.MARKER, str(tmp_path / "marker"))
    monkeypatch.chdir(tmp_path)
    _watched.append([])
    yield _watched[-1]
    _watched.pop()
    assert not (tmp_path / "marker").exists()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return sound_model(tmp_path_factory.mktemp("sound") / "model.safetensors")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run that was interrupted after its first epoch."""
    folder, before = tmp_path_factory.mktemp("run") / "run", History.on_train_epoch_end

    def stop(self, trainer, module):
        before(self, trainer, module)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr(History, "on_train_epoch_end", stop)
        train(SCENE, settings=SETTINGS, folder=folder)
    return folder


def test_code_that_runs_is_seen(tmp_path, seen):
    pickle.loads(payloads.pickled(2))
    assert any(event.startswith("os.system") for event in seen)
    assert any(event.startswith("pickle.find_class") for event in seen)
    (tmp_path / "marker").unlink()


def test_no_hostile_model_is_executed_and_each_is_refused(tmp_path, sound, seen):
    cases = hostile_models.cases(sound)
    assert len(cases) > 60
    accepted = []
    for i, case in enumerate(cases):
        (tmp_path / str(i)).mkdir()
        path = case.write(tmp_path / str(i))
        seen.clear()
        try:
            read_header(path)
        except InputError as error:
            assert str(error).isprintable() and str(path) in str(error), case.name
        try:
            load_model(path)
        except InputError as error:
            assert str(error).isprintable() and str(path) in str(error), case.name
        else:
            accepted.append(case.name)
        assert not seen, case.name
    assert accepted == []


@pytest.mark.parametrize("forced", [False, True])
def test_no_hostile_checkpoint_is_executed_and_each_is_refused(tmp_path, interrupted, seen, forced, monkeypatch):
    if forced:
        monkeypatch.setenv(FORCE, "1")
    configuration = (interrupted / "config.yaml").read_text()
    assert interrupted_checkpoint(interrupted, configuration).is_file()
    accepted = []
    for i, case in enumerate(hostile_checkpoints.cases(interrupted)):
        (tmp_path / str(i)).mkdir()
        run = case.write(tmp_path / str(i))
        seen.clear()
        try:
            interrupted_checkpoint(run, configuration)
        except InputError as error:
            assert str(error).isprintable(), case.name
        else:
            accepted.append(case.name)
        assert not seen, case.name
    assert accepted == []


@pytest.mark.parametrize("tag", ["object/apply:os.system", "object/apply:pathlib.PosixPath", "name:os.system"])
def test_configuration_with_code_is_not_executed(tmp_path, interrupted, seen, tag):
    shutil.copytree(interrupted, tmp_path / "run")
    configuration = f"hook: !!python/{tag} ['touch \"$HSFUSION_MARKER\"']\n"
    (tmp_path / "run" / "config.yaml").write_text(configuration)
    with pytest.raises((InputError, yaml.YAMLError)):
        interrupted_checkpoint(tmp_path / "run", configuration)
    assert not seen


def test_copy_of_a_run_folder_goes_on_and_no_file_that_its_checkpoint_names_is_deleted(tmp_path, interrupted):
    moved, precious = shutil.copytree(interrupted, tmp_path / "moved"), tmp_path / "precious"
    precious.write_text("mine")
    named = {"best_model_path": str(precious), "last_model_path": str(precious), "best_k_models": {str(precious): 1.0}}
    checkpoint = moved / "checkpoints" / "last.ckpt"
    changed = hostile_checkpoints.saved(
        checkpoint.read_bytes(),
        lambda content: content["callbacks"].update(
            {key: state | named for key, state in content["callbacks"].items() if "Checkpoint" in key}
        ),
    )
    hostile_checkpoints.write_sealed(checkpoint, changed)
    before = checkpoint.read_bytes()
    run = train(SCENE, settings=SETTINGS, resume=moved, folder=tmp_path / "new")
    assert precious.read_text() == "mine"
    assert (tmp_path / "new" / "model.safetensors").is_file()
    assert len(run.training.result.weight_history[0]) == SETTINGS.epochs
    assert checkpoint.read_bytes() == before
