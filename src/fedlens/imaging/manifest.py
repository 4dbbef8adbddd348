"""The manifest: one row for each image of a study folder, kept as Parquet.

A study folder holds ``manifest.parquet``, and ``store/`` where image bytes were copied in
(content-addressed: ``store/ab/abcdef….png``). ``file`` and ``mask`` are absolute paths to
originals, or paths relative to the study folder.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fedlens.errors import ManifestError
from fedlens.files import write_bytes

MANIFEST_NAME = "manifest.parquet"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a study.

    Attributes:
        image_id: Unique in the manifest; ``<source>/<path inside the source>``, with ``#n`` for
            frame ``n`` of an array file.
        file: Where the pixels are (see the module docstring).
        label: Diagnostic class as the source names it.
        group: Patient or lesion key, unique over sources (``<source>:<key>``); images of one
            group never cross splits or hospitals. Falls back to the image id where unknown.
        modality: ``xray``, ``mri``, ``dermoscopy``, ``ct``, ``other``.
        source: Name of the data set the image came from.
        sha256: Digest of the file's bytes, hexadecimal.
        width: Pixels, after EXIF rotation.
        height: Pixels, after EXIF rotation.
        cluster: Group after the audit joined groups that share copies; empty before.
        mask: Expert outline, or empty.
        age: Years, or None where unknown.
        sex: ``male``, ``female`` or empty.
        site: Where it was taken, if the source says so.
        subtype: A finer label, if the source has one, e.g. ``glioma`` under ``tumor``.
        split: ``train``, ``validation``, ``test``, or empty before splitting.
        hospital: Hospital that holds the image, or empty before sharing out.
        excluded: Why the image is left out of splits; empty for images in use.
    """

    image_id: str
    file: str
    label: str
    group: str
    modality: str
    source: str
    sha256: str
    width: int
    height: int
    cluster: str = ""
    mask: str = ""
    age: float | None = None
    sex: str = ""
    site: str = ""
    subtype: str = ""
    split: str = ""
    hospital: str = ""
    excluded: str = ""


_SCHEMA = pa.schema(
    [
        (
            field.name,
            pa.int32()
            if field.name in ("width", "height")
            else pa.float32()
            if field.name == "age"
            else pa.string(),
        )
        for field in dataclasses.fields(ImageRecord)
    ]
)


@dataclass(frozen=True)
class Manifest:
    """All images of one study folder, in a fixed order.

    Attributes:
        folder: The study folder that relative paths start from.
        records: The rows, ordered by import.
    """

    folder: Path
    records: tuple[ImageRecord, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[ImageRecord]:
        return iter(self.records)

    def path(self, record: ImageRecord) -> Path:
        """Absolute path of a record's pixels."""
        return self.folder / record.file

    def mask_path(self, record: ImageRecord) -> Path | None:
        """Absolute path of a record's expert outline, or None."""
        return self.folder / record.mask if record.mask else None

    def where(self, keep: Callable[[ImageRecord], bool]) -> Manifest:
        """The same folder with the records that ``keep`` accepts."""
        return Manifest(self.folder, tuple(record for record in self.records if keep(record)))

    def with_records(self, records: Iterable[ImageRecord]) -> Manifest:
        """The same folder with other records."""
        return Manifest(self.folder, tuple(records))

    def with_column(self, name: str, values: Sequence[object]) -> Manifest:
        """A copy in which column ``name`` has ``values``, one for each record."""
        if len(values) != len(self.records):
            raise ManifestError(f"Column {name} has {len(values)} values for {len(self.records)} images.")
        return self.with_records(
            dataclasses.replace(record, **{name: value})  # type: ignore[arg-type]
            for record, value in zip(self.records, values, strict=True)
        )

    def labels(self) -> tuple[str, ...]:
        """Distinct labels, sorted."""
        return tuple(sorted({record.label for record in self.records}))

    def to_bytes(self) -> bytes:
        """The manifest as Parquet.

        Raises:
            ManifestError: An image id stands twice.
        """
        ids = {record.image_id for record in self.records}
        if len(ids) != len(self.records):
            raise ManifestError(
                f"The manifest of {self.folder} has {len(self.records) - len(ids)} repeated image ids.",
                fix="Give every source its own name with --name.",
            )
        columns = {name: [getattr(record, name) for record in self.records] for name in _SCHEMA.names}
        stream = io.BytesIO()
        pq.write_table(pa.table(columns, schema=_SCHEMA), stream, compression="zstd")
        return stream.getvalue()

    def save(self) -> Path:
        """Write ``manifest.parquet`` whole or not at all; returns its path."""
        target = self.folder / MANIFEST_NAME
        write_bytes(target, self.to_bytes())
        return target


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a study folder.

    Raises:
        ManifestError: Missing, torn, or with columns that this version does not know.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ManifestError(
            f"No {MANIFEST_NAME} in {folder}.",
            fix=f"Make one with: fedlens data import SOURCE --out {folder}",
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"Cannot read {path}: {error}.", fix="Import the images again.") from error
    if table.schema.names != _SCHEMA.names:
        raise ManifestError(
            f"{path} has columns {table.schema.names}.",
            why=f"Expected {_SCHEMA.names}.",
            fix="Import the images again with this version.",
        )
    return Manifest(folder, tuple(ImageRecord(**row) for row in table.to_pylist()))
