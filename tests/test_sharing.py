"""Images dealt into one folder per hospital, and hospitals that have nothing but their folder."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom import examples
from typer.testing import CliRunner

import fedlens
from fedlens.arm_path import FEDERATED
from fedlens.arms import build_hospital, initial_network, train_arm
from fedlens.cli.main import app
from fedlens.coordinator.rounds import run_rounds
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.engines.local import LocalEngine
from fedlens.errors import DataError, SettingsError, SplitError
from fedlens.imaging.copies import load_copy_groups
from fedlens.imaging.formats import locate, read_record
from fedlens.imaging.manifest import Manifest, load_manifest
from fedlens.imaging.splits import CONFLICT
from fedlens.imaging.store import damaged_files
from fedlens.models.fingerprint import fingerprint
from fedlens.models.parameters import buffer_names, norm_names, to_parameters
from fedlens.preparation import PreparedStudy, plan_images, prepare, prepare_hospital
from fedlens.protocol.messages import Parameters
from fedlens.sharing import share_images
from fedlens.study import Study

CLASSES = ("NORMAL", "PNEUMONIA", "benign", "mel", "notumor", "tumor")
HOSPITALS = ("A", "B", "C")


def make_study(home: Path, **data: object) -> Study:
    """A small study in the clear over ``home/images``; one label is renamed."""
    return Study.model_validate(
        {
            "name": "tiny",
            "output": home / "runs",
            "data": {
                "folder": home / "images",
                "relabel": {"nv": "benign"},
                "classes": CLASSES,
                **data,
            },
            "hospitals": {"by": "paper", "names": HOSPITALS, "shares": (2, 3, 2)},
            "preprocess": {"size": 32},
            "training": {"passes": 1, "batch_size": 8, "device": "cpu"},
            "federation": {"rounds": 2},
            "sealing": {"mode": "off"},
        }
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported and audited phantoms with a pair of conflicting copies, not to be changed."""
    home = tmp_path_factory.mktemp("drawn")
    fedlens.draw_phantoms(home / "phantoms", images=180, seed=2, size=56)
    table = home / "phantoms" / "manifest.csv"
    path, label, rest = table.read_text().splitlines()[1].split(",", 2)
    shutil.copy(home / "phantoms" / path, home / "phantoms" / "copy.jpg")
    with table.open("a") as stream:
        stream.write(f"copy.jpg,{'mel' if label != 'mel' else 'nv'},{rest}\n")
    fedlens.import_images([home / "phantoms"], home / "images")
    fedlens.audit(home / "images")
    return home


@pytest.fixture
def home(drawn: Path, tmp_path: Path) -> Path:
    """The phantoms' study folder for one test; the images themselves are ``drawn``'s."""
    shutil.copytree(drawn / "images", tmp_path / "images", ignore=shutil.ignore_patterns("cache"))
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names_in(folder: Path) -> list[str]:
    """Names of all entries, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def train_apart(study: Study, parts: dict[str, PreparedStudy], folder: Path) -> Parameters:
    """Final weights of hospitals that were prepared one by one, around a coordinator without images."""
    members = [
        build_hospital(
            study,
            name,
            {split: part.images(split) for split in ("train", "validation")},
            folder / name,
            classes=part.classes,
        )
        for name, part in parts.items()
    ]
    network = initial_network(study, classes=len(study.data.classes))
    settings = CoordinatorSettings.from_study(
        study,
        fingerprint=fingerprint(network),
        classes=study.data.classes,
        norm_names=norm_names(network),
        buffer_names=buffer_names(network),
    )
    return run_rounds(settings, to_parameters(network), LocalEngine(members), folder / "run").parameters


def test_hospitals_apart_end_with_the_weights_of_one_machine_to_the_bit(home: Path) -> None:
    study = make_study(home)
    pooled = prepare(study)
    together = train_arm(pooled, FEDERATED).rounds.parameters
    share_images(study, home / "machines", copy=True)
    # Each machine has its own folder and nothing else.
    shutil.rmtree(home / "images")

    parts = {
        name: prepare_hospital(study, (home / "machines" / name).rename(home / f"machine {name}"), name)
        for name in HOSPITALS
    }
    apart = train_apart(study, parts, home / "apart")

    assert apart.keys() == together.keys()
    assert all(apart[name].tobytes() == together[name].tobytes() for name in together)
    start = to_parameters(initial_network(study, classes=len(CLASSES)))
    assert any(not np.array_equal(start[name], together[name]) for name in start)
    for name, part in parts.items():
        assert part.hospitals == (name,)
        mine, ours = part.images("test"), pooled.images("test", name)
        assert [record.image_id for record in mine.records] == [record.image_id for record in ours.records]
        assert np.array_equal(mine.labels, ours.labels)
        every = np.arange(len(mine))
        assert len(mine) and np.array_equal(mine.take(every), ours.take(every))


@pytest.mark.parametrize("copy", [False, True])
def test_each_folder_lists_its_images_as_the_study_deals_them(home: Path, copy: bool) -> None:
    study = make_study(home)
    plan = plan_images(study)
    before = contents(home / "images")
    steps: Counter[str] = Counter()

    dealt = share_images(
        study, home / "machines", copy=copy, progress=lambda step, done, total: steps.update([step])
    )

    assert tuple(dealt) == HOSPITALS
    assert names_in(home / "machines") == list(HOSPITALS)
    assert all(steps[f"share {name}"] == len(dealt[name]) + 1 for name in HOSPITALS)
    assert contents(home / "images") == before
    for name, returned in dealt.items():
        held = load_manifest(home / "machines" / name)
        planned = [record for record in plan if record.hospital == name]
        assert held == returned
        assert "benign" in held.labels() and "nv" not in held.labels()
        assert [dataclasses.replace(record, file="", mask="") for record in held] == [
            dataclasses.replace(record, file="", mask="") for record in planned
        ]
        assert any(record.mask for record in held)
        for mine, original in zip(held, planned, strict=True):
            assert held.path(mine).read_bytes() == plan.path(original).read_bytes()
            mask, drawn_mask = held.mask_path(mine), plan.mask_path(original)
            assert (mask is None) == (drawn_mask is None)
            assert mask is None or drawn_mask is None or mask.read_bytes() == drawn_mask.read_bytes()
            for place in filter(None, (mine.file, mine.mask)):
                assert Path(place).is_absolute() is not copy
        assert damaged_files(home / "machines" / name) == ()


def test_images_that_the_study_leaves_out_are_in_no_folder(home: Path) -> None:
    study = make_study(home)
    torn = fedlens.split(load_manifest(home / "images"), validation=0.1, test=0.2, seed=0)
    conflicts = {record.image_id for record in torn if record.excluded == CONFLICT}
    assert len(conflicts) == 2

    dealt = share_images(study, home / "machines")

    ids = [record.image_id for held in dealt.values() for record in held]
    assert sorted(ids) == sorted(record.image_id for record in torn if record.image_id not in conflicts)
    limited = share_images(make_study(home, limit=120), home / "fewer")
    assert sum(map(len, limited.values())) <= 120


def test_stored_images_are_referred_to_where_they_lie(drawn: Path, tmp_path: Path) -> None:
    fedlens.import_images([drawn / "phantoms"], tmp_path / "images", copy=True)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    study = make_study(tmp_path, folder=tmp_path / "elsewhere" / ".." / "link")
    (tmp_path / "elsewhere").mkdir()

    dealt = share_images(study, tmp_path / "machines")

    for record in dealt["A"]:
        assert record.file.startswith(f"{tmp_path.resolve()}/images/store/") and Path(record.file).is_file()
        assert not record.mask or Path(record.mask).is_file()


def test_frames_of_one_file_share_its_copy_and_stay_apart(home: Path) -> None:
    data = examples.get_path("ybr_color").read_bytes()
    manifest = load_manifest(home / "images")
    (home / "images" / "film.dcm").write_bytes(data)
    film = {record.image_id: number for number, record in enumerate(manifest) if record.label == "tumor"}
    digest = hashlib.sha256(data).hexdigest()
    manifest.with_records(
        dataclasses.replace(record, file=f"film.dcm#{film[record.image_id] % 30}", sha256=digest, mask="")
        if record.image_id in film
        else record
        for record in manifest
    ).save()

    dealt = share_images(make_study(home), home / "machines", copy=True)

    held = [record for record in dealt["B"] if record.label == "tumor"]
    assert len(held) > 2
    assert {locate(dealt["B"], record) for record in held} == {
        (home / "machines" / "B" / "store" / digest[:2] / f"{digest}.dcm", film[record.image_id] % 30)
        for record in held
    }
    assert read_record(dealt["B"], held[0]).ndim == 3


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_existing_folder_is_never_overwritten(home: Path, kind: str) -> None:
    taken = home / "machines" / "C"
    taken.parent.mkdir()
    if kind == "file":
        taken.write_text("mine")
    else:
        taken.mkdir()
        (taken / "notes.txt").write_text("mine")

    with pytest.raises(DataError, match=r"machines/C exists already\. .*never overwritten"):
        share_images(make_study(home), home / "machines", copy=True)

    assert names_in(home / "machines") == ["C"]
    assert (taken if kind == "file" else taken / "notes.txt").read_text() == "mine"


def test_other_folders_beside_and_empty_ones_are_no_hindrance(home: Path) -> None:
    (home / "machines" / "other").mkdir(parents=True)
    (home / "machines" / "A").mkdir()

    share_images(make_study(home), home / "machines")

    assert names_in(home / "machines") == ["A", "B", "C", "other"]


@pytest.mark.parametrize("failure", ["interrupt", "full", "changed", "missing"])
def test_a_failure_midway_leaves_no_folder_and_the_next_try_works(
    home: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    study = make_study(home)
    plan = plan_images(study)
    last = plan.path([record for record in plan if record.hospital == "C"][-1])
    before = contents(home / "images")

    def progress(step: str, done: int, total: int) -> None:
        if step == "share B" and done == 5:
            assert (home / "machines" / ".A.part").is_dir()
            if failure == "interrupt":
                raise KeyboardInterrupt
            if failure == "full":
                raise OSError(errno.ENOSPC, "No space left on device")

    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path == last and failure == "missing":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return real(path) + (b"!" if path == last and failure == "changed" else b"")

    monkeypatch.setattr(Path, "read_bytes", read)
    expected = {
        "interrupt": (KeyboardInterrupt, "^$"),
        "full": (DataError, r"Cannot write .*machines: No space left"),
        "changed": (DataError, f"{last} was changed since its import"),
        "missing": (DataError, f"Cannot read image {last}"),
    }
    error, words = expected[failure]

    with pytest.raises(error, match=words):
        share_images(study, home / "machines", copy=True, progress=progress)

    monkeypatch.undo()
    assert names_in(home / "machines") == []
    assert contents(home / "images") == before
    share_images(study, home / "machines", copy=True)
    assert names_in(home / "machines") == list(HOSPITALS)


def test_two_writers_do_not_replace_each_others_folders(home: Path) -> None:
    study = make_study(home)
    others: list[str] = []

    def progress(step: str, done: int, total: int) -> None:
        if step == "share A" and done == 1:
            with pytest.raises(DataError, match="is writing"):
                share_images(study, home / "machines")
            others.append(step)

    share_images(study, home / "machines", progress=progress)

    assert others and names_in(home / "machines") == list(HOSPITALS)


@pytest.mark.parametrize("name", ["../B", "a/b", ".hidden", ".."])
def test_a_hospital_name_that_is_no_folder_name_is_refused(home: Path, name: str) -> None:
    study = make_study(home)
    hospitals = study.hospitals.model_copy(update={"names": ("A", name, "C")})

    with pytest.raises(SettingsError, match="cannot have a folder of its name"):
        share_images(study.model_copy(update={"hospitals": hospitals}), home / "out" / "machines")

    assert not (home / "out").exists()


def test_classes_that_disagree_with_the_labels_are_refused_before_anything_is_written(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"disagree about \['benign'\]"):
        share_images(
            make_study(home, classes=("NORMAL", "PNEUMONIA", "mel", "notumor", "tumor")), home / "out"
        )
    assert not (home / "out").exists()


def test_the_command_shows_images_per_hospital_and_split(home: Path) -> None:
    file = home / "study.toml"
    file.write_text('name = "a"\n[data]\nfolder = "images"\n[hospitals]\nby = "site"\n')
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})

    machine = runner.invoke(app, ["data", "share", str(file), "--out", str(home / "one"), "--json"])
    readable = runner.invoke(app, ["data", "share", str(file), "--out", str(home / "two"), "--copy"])
    again = runner.invoke(app, ["data", "share", str(file), "--out", str(home / "two")])

    assert machine.exit_code == readable.exit_code == 0, machine.output + readable.output
    plan = plan_images(fedlens.load_study(file))
    counts = Counter((record.hospital, record.split) for record in plan)
    images = json.loads(machine.stdout)["images"]
    assert {(name, split): n for name, splits in images.items() for split, n in splits.items()} == counts
    assert "hospital  train  validation  test  all" in readable.stdout
    assert 'classes = ["NORMAL", "PNEUMONIA", "mel", "notumor", "nv", "tumor"]' in readable.stdout
    assert "share East: " in readable.stderr
    assert all((home / "two" / name / "store").is_dir() for name in images)
    assert again.exit_code == 3 and "exists already" in again.stderr


# A hospital that has nothing but its own folder.


def keep(folder: Path, labels: set[str]) -> Manifest:
    """Cut a study folder down to some labels."""
    manifest = load_manifest(folder).where(lambda record: record.label in labels)
    manifest.save()
    return manifest


def test_an_undealt_folder_is_audited_split_and_given_the_name(home: Path) -> None:
    manifest = load_manifest(home / "images").with_column("cluster", [""] * 181)
    (home / "images").rename(home / "own")
    own = dataclasses.replace(manifest, folder=home / "own")
    own.save()
    (home / "own" / "copies.parquet").unlink()
    study = make_study(home)

    part = prepare_hospital(study, home / "own", "North")

    assert load_copy_groups(home / "own")
    assert {record.hospital for record in part.manifest} == {"North"} == set(part.hospitals)
    assert part.classes == CLASSES and "benign" in part.manifest.labels()
    assert len(part.manifest) == 179, "conflicting copies are left out"
    assert all(len(part.images(name)) for name in ("train", "validation", "test"))
    places: dict[str, set[str]] = {}
    for record in part.manifest:
        places.setdefault(record.cluster, set()).add(record.split)
    assert all(len(where) == 1 for where in places.values())
    assert part.pixels.shape == (len(part.manifest), 32, 32, 3)
    assert list((home / "own" / "cache").glob("*.npy"))
    assert {record.split for record in load_manifest(home / "own")} == {""}, "a plan is not written down"
    assert not (home / "images").exists()
    assert prepare_hospital(study, home / "own", "North").manifest == part.manifest


def test_a_hospital_may_lack_classes_and_the_limit_is_its_own(home: Path) -> None:
    study = make_study(home, limit=30)
    keep(home / "images", {"NORMAL", "PNEUMONIA"})

    part = prepare_hospital(study, home / "images", "North")

    assert part.manifest.labels() == ("NORMAL", "PNEUMONIA")
    assert 20 < len(part.manifest) <= 30
    assert set(part.images("train").labels.tolist()) == {0, 1}
    assert part.classes == CLASSES


def test_splits_that_are_there_are_kept_and_not_limited(home: Path) -> None:
    manifest = fedlens.split(load_manifest(home / "images"), validation=0.3, test=0.3, seed=5)
    manifest.save()

    part = prepare_hospital(make_study(home, limit=30), home / "images", "North")

    assert "benign" in part.manifest.labels()
    assert {record.image_id: record.split for record in part.manifest} == {
        record.image_id: record.split for record in manifest if not record.excluded
    }


def test_dealt_labels_are_not_relabelled_again(home: Path) -> None:
    classes = ("NORMAL", "PNEUMONIA", "mel", "notumor", "nv", "tumor")
    study = make_study(home, relabel={"nv": "mel", "mel": "nv"}, classes=classes)
    dealt = share_images(study, home / "machines")

    part = prepare_hospital(study, home / "machines" / "A", "A")

    assert part.manifest.records == dealt["A"].records


def test_another_hospitals_folder_is_refused(home: Path) -> None:
    study = make_study(home)
    share_images(study, home / "machines")

    with pytest.raises(DataError, match=r"machines/A holds images of hospital A, and this is B"):
        prepare_hospital(study, home / "machines" / "A", "B")

    assert names_in(home / "machines" / "A") == ["manifest.parquet"]


def test_classes_must_be_named_and_hold_every_label(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"data\.classes is empty.*cannot agree on classes by looking"):
        prepare_hospital(make_study(home, classes=()), home / "images", "A")
    with pytest.raises(SettingsError, match=r"Labels \['benign', 'tumor'\] of .* not in data\.classes"):
        prepare_hospital(
            make_study(home, classes=("NORMAL", "PNEUMONIA", "mel", "notumor")), home / "images", "A"
        )
    assert not (home / "images" / "cache").exists()


def test_a_hospital_with_too_few_images_is_told_so(home: Path) -> None:
    fedlens.split(load_manifest(home / "images"), validation=0.1, test=0.2, seed=0).where(
        lambda record: record.split == "test"
    ).save()

    with pytest.raises(SplitError, match=r"Hospital A would have fewer than 2 training images.* Use more"):
        prepare_hospital(make_study(home), home / "images", "A")
