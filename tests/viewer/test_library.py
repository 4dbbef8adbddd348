"""A network and its cases: what it says of them, when, and whatever is wrong with one."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from pydicom.data import get_testdata_file
from tests.imaging.test_dicom import made, written

from fedlens.errors import ExplanationError, HistoryError, SettingsError, UnreadableImageError
from fedlens.imaging.dicom import is_dicom
from fedlens.imaging.formats import decode, read_image
from fedlens.models.checkpoint import load_checkpoint, save_checkpoint
from fedlens.predicting import predict_images
from fedlens.predictor import Found, Prediction, Predictor, Ready
from fedlens.run_folder import find_model
from fedlens.viewer.case import Case, CaseQuery, Review
from fedlens.viewer.library import Library
from fedlens.viewer.store import CaseStore

PATIENCE = 60.0


@dataclass(frozen=True)
class Decoded:
    pixels: npt.NDArray[np.uint8]
    modality: str


class TrialDecoder:
    """Decodes in this process, and remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, int]] = []

    def decode(self, data: bytes, name: str, frame: int = 0) -> Decoded:
        self.given.append((name, frame))
        return Decoded(decode(data, name, frame).pixels, "mri" if is_dicom(data) else "")


@dataclass
class Viewed:
    library: Library
    store: CaseStore
    decoder: TrialDecoder

    def case(self, title: str = "", **query: str) -> Case:
        """The first case of a list, or the one of a title."""
        rows = self.store.page(CaseQuery(text=title, order="title", **query), 500).rows  # type: ignore[arg-type]
        return next(row.case for row in rows if title in ("", row.case.title))

    def again(self, case: Case) -> Case:
        found = self.store.case(case.case_id)
        assert found is not None
        return found

    def upload(self, tmp_path: Path, content: bytes, title: str = "film.dcm", frame: int = 0) -> Case:
        file = tmp_path / f"upload-{time.monotonic_ns()}"
        file.write_bytes(content)
        case = Case(
            f"upload{time.monotonic_ns()}",
            title,
            "upload",
            file,
            frame,
            hashlib.sha256(content).hexdigest(),
        )
        (case_id,) = self.store.add([case])
        return dataclasses.replace(case, case_id=case_id)


@contextlib.contextmanager
def view(run: Path, folder: Path, paths: Sequence[Path] = (), hospital: str = "") -> Iterator[Viewed]:
    store, decoder = CaseStore(folder / "viewer.sqlite"), TrialDecoder()
    library = Library.open(run, "federated", store, hospital=hospital, paths=paths, decoder=decoder)
    try:
        yield Viewed(library, store, decoder)
    finally:
        library.close()
        store.close()


@pytest.fixture(scope="module")
def viewed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewed]:
    """The study's images, not judged yet."""
    with view(run, tmp_path_factory.mktemp("viewed")) as found:
        yield found


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < until, "the background does not get on"
        time.sleep(0.02)


def draw(path: Path, seed: int = 0) -> Path:
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (60, 60, 3), np.uint8))
    return path


def test_it_knows_its_network(viewed: Viewed) -> None:
    assert viewed.library.calibrated and not viewed.library.note and len(viewed.library.classes) == 6
    assert viewed.library.methods[0] == "grad-cam" and "layer-cam" in viewed.library.methods
    assert not {"score-cam", "occlusion", "attention-rollout"} & set(viewed.library.methods)
    assert len(set(viewed.library.methods)) == len(viewed.library.methods)


def test_what_is_said_is_what_the_command_says(run: Path, viewed: Viewed) -> None:
    case = viewed.case(origin="study")
    given = viewed.library.image(case)
    found = viewed.library.judge(case, given.pixels, "")
    (expected,) = predict_images(run, [case.file]).images
    assert found == dataclasses.replace(expected, file=case.title)
    assert viewed.again(case).prediction == found
    assert given.label == case.label and given.modality


def test_maps_of_any_class_and_method(viewed: Viewed) -> None:
    case = viewed.case(origin="study")
    likeliest = viewed.library.saliency(case, "grad-cam", "")
    prediction = viewed.again(case).prediction
    assert prediction is not None and prediction.likeliest is not None
    assert likeliest.target_name == prediction.likeliest[0]
    assert viewed.library.saliency(case, "grad-cam", likeliest.target_name) is likeliest
    other = next(name for name in viewed.library.classes if name != likeliest.target_name)
    for method in viewed.library.methods:
        found = viewed.library.saliency(case, method, other)
        assert (found.method, found.target_name) == (method, other)
        assert found.values.shape == likeliest.values.shape
    with pytest.raises(ExplanationError, match="no class 'x'"):
        viewed.library.saliency(case, "grad-cam", "x")
    with pytest.raises(SettingsError, match="No explanation method"):
        viewed.library.saliency(case, "x", "")


def test_uploads_are_decoded_elsewhere(viewed: Viewed, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 4000, (3, 40, 50)).astype(np.uint16)
    case = viewed.upload(tmp_path, written(made(values)), frame=2)
    viewed.decoder.given.clear()
    found = viewed.library.image(case)
    assert viewed.decoder.given == [("film.dcm", 2)] and found.modality == "mri"
    assert found.pixels.shape == (40, 50)
    prediction = viewed.library.judge(case, found.pixels, found.modality)
    assert prediction.modality == "mri" and prediction.file == "film.dcm"
    # Neither the map nor the neighbours need the file again.
    viewed.library.saliency(case, "layer-cam", "")
    viewed.library.neighbours(case)
    assert len(viewed.decoder.given) == 1


def test_the_study_knows_the_kind_of_its_own_images(viewed: Viewed, tmp_path: Path) -> None:
    film = next(
        case
        for row in viewed.store.page(CaseQuery(origin="study"), 500).rows
        if viewed.library.image(case := row.case).modality == "xray"
    )
    case = viewed.upload(tmp_path, film.file.read_bytes(), "film.png")
    assert viewed.library.judge(case, read_image(film.file), "").modality == "xray"


def test_without_a_decoder_uploads_stay_closed(run: Path, viewed: Viewed, tmp_path: Path) -> None:
    case = viewed.upload(tmp_path, written(made(np.eye(9, dtype=np.uint16))))
    store = CaseStore(tmp_path / "viewer.sqlite")
    library = Library.open(run, "federated", store)
    with pytest.raises(UnreadableImageError, match="decodes uploads"):
        library.image(case)
    library.close()
    store.close()


def test_an_image_that_the_network_must_not_judge_has_no_map(viewed: Viewed, tmp_path: Path) -> None:
    case = viewed.upload(tmp_path, written(made(np.eye(30, dtype=np.uint16))))
    prediction = viewed.library.judge(case, np.zeros((30, 30), np.uint8), "ct")
    assert prediction.advice is not None and prediction.advice.kind == "refused"
    grey = np.zeros((30, 30), np.uint8)
    refused = dataclasses.replace(case, file=case.file)
    viewed.decoder.decode = lambda data, name, frame=0: Decoded(grey, "ct")  # type: ignore[method-assign]
    try:
        with pytest.raises(ExplanationError, match="no map"):
            viewed.library.saliency(refused, "grad-cam", "")
        assert viewed.library.neighbours(refused) == ()
    finally:
        del viewed.decoder.decode


def test_an_image_that_is_gone_has_neither_map_nor_neighbours(viewed: Viewed, tmp_path: Path) -> None:
    case = viewed.upload(tmp_path, b"gone")
    case.file.unlink()
    for ask in (viewed.library.image, lambda case: viewed.library.saliency(case, "grad-cam", "")):
        with pytest.raises(UnreadableImageError):
            ask(case)
    assert viewed.library.neighbours(case) == ()


def test_all_that_waits_is_judged_and_learnt(run: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    draw(inbox / "noise.png")
    (inbox / "torn.png").write_bytes((inbox / "noise.png").read_bytes()[:300])
    shutil.copy(str(get_testdata_file("examples_ybr_color.dcm")), inbox / "series.dcm")
    with view(run, tmp_path / "viewer", [inbox]) as viewed:
        listed = viewed.store.page(CaseQuery(), 1)
        assert listed.total == listed.waiting > 30
        upload = viewed.upload(tmp_path, (inbox / "noise.png").read_bytes())
        confirmed = len(viewed.store.confirmed())
        viewed.library.start()
        wait_for(lambda: not viewed.store.waiting(1))
        torn, noise = viewed.case("torn.png"), viewed.case("noise.png")
        assert torn.prediction is not None and "truncated" in torn.prediction.problem
        assert noise.prediction is not None and noise.prediction.advice is not None
        # DICOM from a folder is decoded where it can do no harm, as uploads are.
        assert ("series.dcm#29", 29) in viewed.decoder.given
        assert viewed.again(upload).prediction is not None
        wait_for((tmp_path / "viewer" / "features.safetensors").is_file)
        found = viewed.library.neighbours(viewed.case(origin="study"), count=confirmed)
        assert {each.case.origin for each in found} == {"study", "reference"}
        said = viewed.case(origin="study").prediction
    with view(run, tmp_path / "viewer", [inbox]) as viewed:
        assert [case.title for case in viewed.store.waiting(99)] == ["torn.png"]
        assert viewed.case(origin="study").prediction == said


def test_neighbours_are_confirmed_and_of_others(viewed: Viewed, tmp_path: Path) -> None:
    cases = [row.case for row in viewed.store.page(CaseQuery(origin="study", order="title"), 8).rows]
    for case in cases:
        given = viewed.library.image(case)
        viewed.library.judge(case, given.pixels, given.modality)
    found = viewed.library.neighbours(cases[0], count=3)
    assert len(found) == 3 and cases[0].case_id not in {each.case.case_id for each in found}
    assert all(each.label == each.case.label and 0 <= each.similarity <= 1 for each in found)
    similarities = [each.similarity for each in found]
    assert similarities == sorted(similarities, reverse=True)

    # The same image from elsewhere is no neighbour of itself.
    copy = viewed.upload(tmp_path, cases[0].file.read_bytes(), "copy.png")
    of_copy = {each.case.case_id for each in viewed.library.neighbours(copy, count=99)}
    assert of_copy and cases[0].case_id not in of_copy

    # What a reviewer confirms becomes one.
    noise = viewed.upload(tmp_path, draw(tmp_path / "noise.png").read_bytes(), "noise.png")
    assert viewed.library.neighbours(noise)
    before = {each.case.case_id for each in viewed.library.neighbours(cases[0], count=99)}
    label = viewed.library.classes[0]
    viewed.store.review(Review(noise.case_id, "Dr A", "disagree", label, "", "2026-03-01T09:30:00+00:00"))
    after = {each.case.case_id: each.label for each in viewed.library.neighbours(cases[0], count=99)}
    assert noise.case_id not in before and after[noise.case_id] == label


def test_one_hospital_sees_its_own_neighbours(run: Path, tmp_path: Path, viewed: Viewed) -> None:
    hospital = viewed.case(origin="study").hospital
    with view(run, tmp_path, hospital=hospital) as own:
        rows = own.store.page(CaseQuery(), 500).rows
        assert rows and {row.case.hospital for row in rows} == {hospital}
        assert len(own.store.confirmed()) < len(viewed.store.confirmed())
    with pytest.raises(SettingsError, match="no hospital"), view(run, tmp_path, hospital="nowhere"):
        pass


def test_one_bad_image_spoils_no_other(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = [draw(tmp_path / f"{name}.png", seed) for seed, name in enumerate(["a", "bad", "c", "worse"])]
    judge, prepare = Predictor.judge, Predictor.prepare

    def fail(self: Predictor, images: Sequence[Ready | Prediction], *, maps: bool = False) -> list[Found]:
        if any(isinstance(image, Ready) and image.name == "bad.png" for image in images):
            raise RuntimeError("of bad.png, whose patient is Jane Doe")
        return judge(self, images, maps=maps)

    def stumble(self: Predictor, given: object, name: str) -> Ready | Prediction:
        if name == "worse.png":
            raise MemoryError
        return prepare(self, given, name)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "judge", fail)
    monkeypatch.setattr(Predictor, "prepare", stumble)
    with view(run, tmp_path / "viewer", files) as viewed:
        viewed.library.start()
        wait_for(lambda: not viewed.store.waiting(1))
        said = {name: viewed.case(f"{name}.png").prediction for name in ("a", "bad", "c", "worse")}
    assert said["a"] and said["a"].advice and said["c"] and said["c"].advice
    assert said["bad"] and "RuntimeError" in said["bad"].problem
    assert said["worse"] and "MemoryError" in said["worse"].problem
    assert "could not be judged" in caplog.text and "Jane" not in caplog.text and "bad" not in caplog.text


def copied(run: Path, home: Path) -> Path:
    target = home / "run"
    shutil.copytree(run, target)
    for file in find_model(target, "federated").glob("decision.*"):
        file.unlink()
    return target


def test_where_the_studys_images_are_elsewhere_others_are_shown(run: Path, tmp_path: Path) -> None:
    away = copied(run, tmp_path)
    kept = away / "study.json"
    kept.write_text(kept.read_text().replace(str(run.parent / "images"), str(tmp_path / "gone")))
    with view(away, tmp_path / "viewer", [draw(tmp_path / "noise.png")]) as viewed:
        assert not viewed.library.calibrated
        assert "not calibrated" in viewed.library.note and "not shown" in viewed.library.note
        viewed.library.start()
        wait_for(lambda: not viewed.store.waiting(1))
        case = viewed.case("noise.png")
        assert case.prediction is not None and case.prediction.advice is not None
        assert "not calibrated" in case.prediction.advice.sentence()
        assert viewed.library.neighbours(case) == () and viewed.library.saliency(case, "grad-cam", "")


def test_a_network_whose_training_diverged_says_so(run: Path, tmp_path: Path) -> None:
    diverged = copied(run, tmp_path)
    folder = find_model(diverged, "federated")
    network, contract = load_checkpoint(folder)
    next(network.parameters()).data.fill_(float("nan"))
    shutil.rmtree(folder)
    save_checkpoint(folder, network, contract)
    image = draw(tmp_path / "noise.png")
    with view(diverged, tmp_path / "viewer", [image]) as viewed:
        case = viewed.case("noise.png")
        found = viewed.library.judge(case, read_image(image), "")
        assert "not finite" in found.problem and not found.probabilities
        viewed.library.start()
        wait_for(lambda: not viewed.store.waiting(1))
        with pytest.raises(UnreadableImageError, match="not finite"):
            viewed.library.saliency(case, "grad-cam", "")


def test_no_network_is_named(run: Path, tmp_path: Path) -> None:
    store = CaseStore(tmp_path / "viewer.sqlite")
    with pytest.raises(HistoryError, match="No trained network"):
        Library.open(tmp_path, "federated", store)
    store.close()


def test_it_closes_while_there_is_more_to_do(run: Path, tmp_path: Path) -> None:
    with view(run, tmp_path) as viewed:
        viewed.library.start()
    store = CaseStore(tmp_path / "viewer.sqlite")
    assert store.page(CaseQuery(), 1).total
    store.close()
