"""Study files: nothing is silently ignored, and the defaults are the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from fedlens.errors import SettingsError
from fedlens.study import PAPER_SHARES, Study, load_study

SMALLEST = 'name = "chest"\n[data]\nfolder = "images"\n'


def _load(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return load_study(path)


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    study = _load(tmp_path, SMALLEST)

    assert (study.preprocess.size, study.preprocess.denoise, study.preprocess.contrast) == (
        224,
        "median",
        "clahe",
    )
    assert (study.training.batch_size, study.training.learning_rate, study.training.passes) == (32, 0.001, 50)
    assert (study.training.schedule, study.training.weight_decay, study.training.label_smoothing) == (
        "constant",
        0,
        0,
    )
    assert (study.federation.strategy, study.federation.rounds) == ("fedavg", 50)
    assert study.hospitals.by == "paper"
    assert study.hospitals.shares == PAPER_SHARES == (5000, 6000, 6500, 5401)
    assert sum(PAPER_SHARES) == 22901
    assert study.model.name == "efdl-cnn"


def test_relative_paths_start_from_the_study_file(tmp_path: Path) -> None:
    study = _load(tmp_path, SMALLEST + '[model]\nstart = "old/model"\n')

    assert study.data.folder == tmp_path / "images"
    assert study.output == tmp_path / "runs" / "chest"
    assert study.model.start == tmp_path / "old" / "model"


def test_absolute_paths_stay(tmp_path: Path) -> None:
    study = _load(tmp_path, 'name = "chest"\noutput = "/results"\n[data]\nfolder = "/images"\n')

    assert (study.data.folder, study.output) == (Path("/images"), Path("/results"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALLEST + "[training]\nlearning_rat = 0.1\n", "did you mean training.learning_rate?"),
        (SMALLEST + "[trainig]\npasses = 3\n", "did you mean training?"),
        (SMALLEST + "[decision]\ncoverag = 0.8\n", "did you mean decision.coverage?"),
        (SMALLEST + "sed = 3\n", "unknown key data.sed"),
        ("sed = 3\n" + SMALLEST, "did you mean seed?"),
        ('name = "chest"\n', "data is missing"),
        ("[data]\nfolder = 'images'\n", "name is missing"),
        (SMALLEST + "[training]\nbatch_size = 1\n", "training.batch_size = 1:"),
        (SMALLEST + '[federation]\nstrategy = "fedavgg"\n', "'fedprox'"),
        (SMALLEST + "validation = 0.6\ntest = 0.4\n", "leave no training images"),
        ('name = "a b"\n[data]\nfolder = "images"\n', "name = 'a b':"),
        ("name = \n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_mend(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _load(tmp_path, text)

    assert message in str(caught.value)
    assert "study.toml" in caught.value.what


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        _load(tmp_path, SMALLEST + "[training]\nbatch_size = 0\npasse = 3\n[augment]\nflip = 2\n")

    for name in ("training.batch_size", "training.passe", "augment.flip"):
        assert name in caught.value.what


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_study(tmp_path / "study.toml")

    assert "fedlens study new" in caught.value.fix


def test_settings_are_frozen(tmp_path: Path) -> None:
    study = _load(tmp_path, SMALLEST)

    with pytest.raises(ValidationError):
        study.training.passes = 3  # type: ignore[misc]


def test_the_digest_does_not_depend_on_where_things_lie(tmp_path: Path) -> None:
    here = _load(tmp_path, SMALLEST + '[model]\nstart = "w.safetensors"\n')
    there = _load(
        tmp_path,
        'name = "other"\noutput = "/x"\n[data]\nfolder = "/y"\n[compare]\nseeds = [1]\n'
        "[decision]\nfederated = false\nshrinkage = 0.2\n"
        '[model]\nstart = "/z/w.safetensors"\n',
    )

    assert here.digest() == there.digest()


@pytest.mark.parametrize(
    "change",
    [
        "[training]\npasses = 51\n",
        "[federation]\nrounds = 51\n",
        "[preprocess]\nsize = 96\n",
        "[augment]\nflip = 0\n",
        "[hospitals]\nseed = 1\n",
        "[model]\nname = 'vit'\n",
        "split_seed = 1\n",
    ],
)
def test_the_digest_changes_with_every_setting_that_shapes_the_result(tmp_path: Path, change: str) -> None:
    assert _load(tmp_path, SMALLEST).digest() != _load(tmp_path, SMALLEST + change).digest()


def test_the_digest_is_the_same_in_every_process(tmp_path: Path) -> None:
    study = _load(tmp_path, SMALLEST)

    assert Study.model_validate_json(study.model_dump_json()).digest() == study.digest()
