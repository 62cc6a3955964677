"""Words of the command line: what the user types, and what Hydra gets."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from hsfusion.cli.words import CONF, hydra_word, hydra_words, word_value
from hsfusion.errors import InputError


def read(word, *, multirun=False):
    """The value that Hydra reads from a word; a list of one for each run."""
    override = OverridesParser.create().parse_override(hydra_word(word, multirun=multirun))
    if not override.is_sweep_override():
        return override.value()
    return [OverridesParser.create().parse_override(f"_={text}").value() for text in override.sweep_string_iterator()]


# the word, and the value that the key shall have
TEXTS = {
    "scene.cube=Flug Köln/cube.tif": "Flug Köln/cube.tif",
    "scene.cube=a=b.tif": "a=b.tif",
    "scene.cube=Flug Köln, Süd [1]=#@'a'/cube.npy": "Flug Köln, Süd [1]=#@'a'/cube.npy",
    "scene.cube=a,b.tif": "a,b.tif",
    "scene.cube=(1) a.tif": "(1) a.tif",
    "scene.cube=range(1,3)": "range(1,3)",
    "scene.labels=both \"quotes\" and 'these'.tif": "both \"quotes\" and 'these'.tif",
    r"scene.cube=D:\Flüge\cube.img": r"D:\Flüge\cube.img",
    r"scene.cube=D:\Flüge\\": "D:\\Flüge\\\\",
    r"scene.cube=ü\'\"" + "\\": r"ü\'\"" + "\\",
    r"run_dir=\\nas\runs": r"\\nas\runs",
    r"scene.cube=D:\a\\(b).img": r"D:\a\\(b).img",
    r"scene.cube=a\,b": r"a\,b",
    "scene.cube=~/cube.tif": "~/cube.tif",
    "scene.of.cube=ü.tif": "ü.tif",
    "++scene.cube=ü.tif": "ü.tif",
    "run_dir=2026": "2026",
    "name=007": "007",
    "name=1e5": "1e5",
    "name=true": "true",
    "run=1_000": "1_000",
    "scene.class_field=1e5": "1e5",
    "scene.wavelengths=2026": "2026",
    "split.train=.5": ".5",
    "run_dir=[1]": "[1]",
    "name={a: 1}": "{a: 1}",
    "name=größe": "größe",
    # what Hydra's grammar means by itself
    "scene.cube='a, b (c)'": "a, b (c)",
    'scene.cube="Flug Köln"': "Flug Köln",
    "run_dir=null": None,
    "scene.wavelengths=[400,500.5]": [400, 500.5],
    "run_dir=runs/${seed}": "runs/${seed}",
    "run_dir=läufe/${seed}": "läufe/${seed}",
    "seed=7": 7,
    "seed=1_000": 1000,
    "progress=false": False,
    "scene.bad_bands=[water_vapour, [400, 420]]": ["water_vapour", [400, 420]],
    "select=none": [],
    "baselines=none": [],
    "model.whitening=none": "none",
    "scene.class_names={1: corn, 2: woods}": {1: "corn", 2: "woods"},
}


@pytest.mark.parametrize("word", TEXTS)
def test_text_after_a_key_that_takes_a_word_is_that_word(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = read(word)
    assert value == TEXTS[word]
    assert type(value) is type(TEXTS[word])
    once = hydra_word(word, multirun=False)
    assert hydra_word(once, multirun=False) == once


@pytest.mark.parametrize(
    "word",
    [
        "seed=0,1,2",
        "seed=range(1,3)",
        "name=plain",
        "run=runs/a/2026-01-01_00-00-00-000-abcd",
        "scene.cube=cube.tif",
        "--config-dir=Mein Ordner",
        "--multirun",
        "~trainer.max_epochs",
        "~logger=ü",
        "fast",
        "hydra/launcher=joblib",
        "scene.cube=",
    ],
)
def test_word_that_hydra_reads_as_it_is_meant_is_left_alone(word):
    assert hydra_word(word, multirun=False) == word


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=0,1,2", [0, 1, 2]),
        ("seed=range(1,3)", [1, 2]),
        ("scene.cube=a.tif,b.tif", ["a.tif", "b.tif"]),
        ("scene.cube=Köln/a.tif, Köln/b c.tif", ["Köln/a.tif", "Köln/b c.tif"]),
        ("run=2026,1e5,runs/a", ["2026", "1e5", "runs/a"]),
        ("scene.cube='a,b.tif',c.tif", ["a,b.tif", "c.tif"]),
        ("scene.cube=with, comma.tif", "with, comma.tif"),  # a file
        (r"run=D:\a,\\nas\b c", [r"D:\a", r"\\nas\b c"]),
    ],
)
def test_commas_separate_the_runs_of_a_multirun_but_in_the_name_of_a_file(word, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "with, comma.tif").touch()
    assert read(word, multirun=True) == values
    override, key = OverridesParser.create().parse_override(hydra_word(word, multirun=True)), word.partition("=")[0]
    if override.is_sweep_override():  # the words of a run can be given again
        assert [read(f"{key}={value}") for value in override.sweep_string_iterator()] == values


@pytest.mark.parametrize(
    "word", ["scene=Flug 1/ü, [a].yaml", "scene=2026/a.yaml", "scene='Flug 1/ü, [a].yaml'", r"scene=\\nas\a/b.yaml"]
)
def test_shorthand_of_a_scene_takes_any_path(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = word.removeprefix("scene=").strip("'")
    group, files, name = hydra_words([word], "train")
    assert group == "scene=described"
    assert word_value(files) == [path]
    assert word_value(name) == path.rpartition("/")[2].removesuffix(".yaml")
    group, file = hydra_words([word], "predict")
    assert (group, word_value(file)) == ("scene=described_cube", path)


def test_shorthand_of_scenes_in_a_multirun_takes_one_path_each():
    words = hydra_words(["-m", "scene=ä.yaml,b c.yaml"], "train")
    assert words == ["-m", "scene=described", 'scene.files=["ä.yaml"],[b c.yaml]']
    words = hydra_words(["--multirun", "scene=ä.img,b.img"], "predict")
    assert words == ["--multirun", "scene=cube", 'scene.path="ä.img",b.img']


def test_path_with_backslashes_is_no_scene_of_a_name():
    assert hydra_words([r"scene=data\flight"], "predict") == ["scene=cube", r"scene.path=data\flight"]


def test_cube_in_place_of_a_description_is_refused_with_the_words_that_train_on_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cube.img").touch()
    with pytest.raises(InputError, match=r"scene is cube\.img, .* scene=file scene\.cube=PATH scene\.labels=PATH"):
        hydra_words(["scene=cube.img"], "train")


def test_group_that_is_set_to_nothing_is_refused_with_its_choices():
    with pytest.raises(InputError, match=r"optimizer is null, expected adam \| adamw \| sgd"):
        hydra_word("optimizer=null", multirun=False)


@pytest.fixture(scope="module")
def composed():
    """Composes the configuration of a training from words."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda words: compose("train", overrides=hydra_words(["scene=file", "scene.labels=x", *words], "train"))


names = st.text(
    st.one_of(st.sampled_from("'\"\\[]{}(),=:#@$ ~%01e.üK"), st.characters(exclude_categories=["C"])),
    min_size=1,
    max_size=20,
).filter(lambda text: "/" not in text and text not in (".", "..") and text.lower() != "null")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=names)
def test_name_of_a_file_reaches_the_configuration_as_it_is(composed, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assume("${" not in name)
    (tmp_path / name).touch()
    cfg = composed([f"scene.cube={name}", f"run_dir={name}"])
    assert (cfg.scene.cube, cfg.run_dir) == (name, name)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=names)
@example(name='",')
def test_name_of_a_file_is_read_as_it_is_and_once_is_enough(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assume("${" not in name)
    (tmp_path / name).touch()
    word = hydra_word(f"scene.cube={name}", multirun=True)
    (tmp_path / name).unlink()
    assert read(word) == name
    assert hydra_word(word, multirun=True) == word


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["scene.cube=a/my cube.tif"], "my cube"),
        (["scene.cube=a.tif", "name=mine"], "mine"),
        (["scene.cube=a.tif,b.tif", "--multirun"], None),
    ],
)
def test_run_of_a_file_has_the_name_of_its_cube(words, name):
    for command in ("train", "finetune"):
        given = hydra_words(["scene=file", *words, "scene.labels=b"], command)
        said = [word_value(word) for word in given if word.startswith("name=")]
        assert said == ([] if name is None else [name])
    assert not any(word.startswith("name=") for word in hydra_words(["scene=salinas_a", *words[:1]], "train"))
