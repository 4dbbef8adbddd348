"""How long does one wait for the viewer? The first page with 10,000 cases, and a chest film dropped in.

Give a trained run whose study has X-ray films, and chest films as NAME=FILE: DICOM files, or pictures that
are made into one of a detector's size (2,544 x 3,056 at 12 bits, not compressed). ``fedlens view`` runs as
its users start it, and is asked through its port on this machine, twice: at rest, where every case is judged,
and at work, where it judges the study's own images in the background all the while. Bars: the page within
300 ms (95 of 100 requests), and each film within 2 s from the first byte sent until class, advice and map
are there; the first film of each kind is not counted, after which the network is warm.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pydicom
import requests
from _figures import write_figures
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from fedlens.decision.advice import Advice, Kind
from fedlens.imaging.dicom import is_dicom
from fedlens.imaging.formats import read_image
from fedlens.predicting import Prediction
from fedlens.run_folder import IMAGES_NAME, find_model, keep_study, kept_study
from fedlens.viewer.case import Case, CaseQuery, new_case_id
from fedlens.viewer.library import Library
from fedlens.viewer.services import viewer_folder
from fedlens.viewer.store import STORE_NAME, CaseStore

CASES = 10_000
BAR_PAGE_MS = 300.0
BAR_FILM_S = 2.0
_DETECTOR = (3056, 2544)
_PATIENCE = 60.0


def main() -> int:
    """Fill, serve, ask; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="output folder of a trained run")
    parser.add_argument("--arm", default="federated")
    parser.add_argument("--film", action="append", required=True, metavar="NAME=FILE", help="a chest film")
    parser.add_argument("--out", type=Path, default=Path("runs/viewer"))
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--films", type=int, default=10, help="how often each film is dropped in")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    work = copied(options.run, options.arm, options.out / "work", study=True)
    # Advice is fitted here, where the study's images are.
    filled(work, options.arm)
    rest = copied(work, options.arm, options.out / "rest", study=False)
    for state, run in (("rest", rest), ("work", work)):
        figures[f"{state}_cases"] = filled(run, options.arm)
        with viewer(run, options.arm) as address:
            visitor = Visitor(address)
            figures |= {
                f"{state}_{name}": value for name, value in page_times(visitor, options.requests).items()
            }
            for film in options.film:
                kind, _, file = film.partition("=")
                found = film_times(visitor, Path(file), options.films)
                figures |= {f"{state}_{kind}_{name}": value for name, value in found.items()}
            figures[f"{state}_still_waiting"] = visitor.waiting()
    write_figures(options.json, figures)
    missed = misses(figures)
    print("bars missed: " + "; ".join(missed) if missed else "all bars held")
    return 1 if missed else 0


def misses(figures: dict[str, float]) -> list[str]:
    """Bars that were not held, in words."""
    pages = {name: value for name, value in figures.items() if name.endswith("page_ms_p95")}
    films = {name: value for name, value in figures.items() if name.endswith("film_s_most")}
    return [
        *(
            f"{name} is {value:.0f}, not {BAR_PAGE_MS:.0f}"
            for name, value in pages.items()
            if value > BAR_PAGE_MS
        ),
        *(
            f"{name} is {value:.2f}, not {BAR_FILM_S:g}"
            for name, value in films.items()
            if value > BAR_FILM_S
        ),
    ]


def copied(run: Path, arm: str, target: Path, *, study: bool) -> Path:
    """A run folder with one arm's network, and with the study's own images only where they are wanted."""
    shutil.rmtree(target, ignore_errors=True)
    model = find_model(run, arm)
    shutil.copytree(model, target / "seed-0" / arm / "model")
    kept = kept_study(model)
    if study and kept is not None:
        keep_study(kept, target)
        if (run / IMAGES_NAME).is_file():
            shutil.copy(run / IMAGES_NAME, target)
    return target


def filled(run: Path, arm: str) -> int:
    """Judged cases beside those of the study, so that there are 10,000 in all; returns how many there are."""
    store = CaseStore(viewer_folder(run) / STORE_NAME)
    with contextlib.closing(store):
        library = Library.open(run, arm, store)
        with contextlib.closing(library):
            drawn = np.random.default_rng(0)
            missing = CASES - store.page(CaseQuery(), 1).total
            store.add(case(number, library.classes, drawn) for number in range(missing))
        return store.page(CaseQuery(), 1).total


def case(number: int, classes: tuple[str, ...], drawn: np.random.Generator) -> Case:
    """A judged case without an image; uploads outlast the next opening."""
    chances = np.sort(drawn.dirichlet(np.ones(len(classes)) / 4))[::-1]
    names = drawn.permutation(classes)
    kind: Kind = "report" if chances[0] > 0.8 else "refer"
    reasons = (
        "its likeliest class is among the least certain ones",
        "the image is unlike the training images",
    )
    return Case(
        case_id=new_case_id(),
        title=f"film {number}.dcm",
        origin="upload",
        file=Path(f"/nowhere/{number}"),
        patient=f"Patient Number {number} ({number:08d})",
        added=f"2026-03-{1 + number % 28:02d}T09:30:00+00:00",
        prediction=Prediction(
            file=f"film {number}.dcm",
            probabilities=tuple(zip(map(str, names), chances.tolist(), strict=True)),
            label_set=tuple(map(str, names[:2])),
            advice=Advice(kind, reasons),
            modality="xray",
            distance=1.0,
        ),
    )


@contextlib.contextmanager
def viewer(run: Path, arm: str) -> Iterator[str]:
    """``fedlens view`` in a process of its own; gives its address."""
    command = [sys.executable, "-m", "fedlens", "view", str(run), "--arm", arm, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if "http" in line), "")
            found = re.search(r"http://\S+", line)
            if found is None:
                raise RuntimeError("fedlens view gave no address.")
            yield found[0]
        finally:
            process.terminate()
            process.wait(_PATIENCE)


class Visitor:
    """Somebody at the viewer."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = requests.Session()
        page = self.get("", Accept="text/html").text
        found = re.search(r'name="csrf" content="([^"]+)"', page)
        if found is None:
            raise RuntimeError("The first page holds no token.")
        self._token = found[1]

    def get(self, path: str, **headers: str) -> requests.Response:
        """An answer, read to its end."""
        answer = self._session.get(f"{self._address}{path}", headers=headers, timeout=_PATIENCE)
        answer.raise_for_status()
        return answer

    def drop(self, content: bytes) -> dict[str, str]:
        """Drop a file in; what the page is told of it."""
        answer = self._session.post(
            f"{self._address}upload",
            files={"files": ("film.dcm", content)},
            headers={"X-CSRF-Token": self._token},
            timeout=_PATIENCE,
        )
        answer.raise_for_status()
        found: dict[str, str] = answer.json()["files"][0]
        return found

    def waiting(self) -> int:
        """Cases that the network has not judged yet."""
        return int(self.get("waiting").json()["waiting"])


def page_times(visitor: Visitor, count: int) -> dict[str, float]:
    """Milliseconds from asking for the first page until its last byte is there."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        page = visitor.get("", Accept="text/html")
        times.append(1e3 * (time.perf_counter() - started))
    return {
        "page_ms_p50": float(np.median(times)),
        "page_ms_p95": float(np.quantile(times, 0.95)),
        "page_ms_most": max(times),
        "page_kilobytes": len(page.content) / 1e3,
    }


def film_times(visitor: Visitor, path: Path, count: int) -> dict[str, float]:
    """Seconds from dropping a film in until class and advice are there, and the map; then the whole page."""
    film = dicom_film(path)
    said, mapped, shown = [], [], []
    for number in range(count + 1):
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        stream = io.BytesIO()
        film.save_as(stream, enforce_file_format=True)
        started = time.perf_counter()
        found = visitor.drop(stream.getvalue())
        if found["kind"] not in ("report", "refer"):
            raise RuntimeError(f"The network does not judge {path}: {found['problem'] or found['said']}.")
        if number:
            said.append(time.perf_counter() - started)
        visitor.get(f"case/{found['case']}/map/grad-cam")
        if number:
            mapped.append(time.perf_counter() - started)
        visitor.get(f"case/{found['case']}", Accept="text/html")
        visitor.get(f"case/{found['case']}/pixels")
        visitor.get(f"case/{found['case']}/neighbours?part=1")
        if number:
            shown.append(time.perf_counter() - started)
    return {
        "megabytes": len(stream.getvalue()) / 1e6,
        "megapixels": film.Rows * film.Columns / 1e6,
        "advice_s_p50": float(np.median(said)),
        "film_s_p50": float(np.median(mapped)),
        "film_s_most": max(mapped),
        "whole_page_s_p50": float(np.median(shown)),
    }


def dicom_film(path: Path) -> pydicom.Dataset:
    """The file's data set; a picture becomes an uncompressed film of a detector's size."""
    content = path.read_bytes()
    if is_dicom(content):
        return pydicom.dcmread(io.BytesIO(content))
    pixels = read_image(path)
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    large = cv2.resize(grey, _DETECTOR[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint16) * 16
    film = pydicom.Dataset()
    film.file_meta = pydicom.dataset.FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    film.Modality, film.PatientName, film.PatientID = "DX", "Doe^Jane", "4711"
    film.Rows, film.Columns = _DETECTOR
    film.SamplesPerPixel, film.PhotometricInterpretation, film.PixelRepresentation = 1, "MONOCHROME2", 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    film.WindowCenter, film.WindowWidth = 2048, 4096
    film.PixelData = large.tobytes()
    return film


if __name__ == "__main__":
    sys.exit(main())
