"""The folder of predictions: pictures and records while predicting, tables and a contact sheet at the end."""

from __future__ import annotations

import csv
import json
import os
import shutil
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TextIO

import cv2
import numpy as np

from spine.data.image_files import evenly_spaced
from spine.errors import InputError
from spine.option_types import Config
from spine.prediction.contact_sheet import MAX_CELLS, draw_sheet, read_cells, write_cell
from spine.prediction.description import ModelDescription
from spine.prediction.items import Item
from spine.prediction.prediction import Prediction, Row, write_image

MAX_PENDING = 32  # predictions that wait to be written
WRITERS = 4  # threads that encode pictures


class Summary(NamedTuple):
    """How many images of a source have predictions, those that cannot be read (name -> reason), and images per second."""

    predicted: int
    unreadable: Mapping[str, str]
    speed: float = 0.0


class OutputFolder:
    """Writes predictions to a folder. Several processes may write to the same one.

    Each process appends the records of its images to a file in `.parts`, after their pictures are written. `finish` makes the tables
    from the records of all processes, also those of an earlier run that was interrupted, and removes `.parts`.
    """

    def __init__(self, path: Path, kind: type[Prediction], *, rank: int = 0, top_k: int = 5, draw: bool = True):
        """`kind`: of the predictions. `rank`: of this process. `top_k`: classes of a record. `draw`: whether pictures are written."""
        self.path, self.kind, self.rank, self.top_k, self.draw = path, kind, rank, top_k, draw
        self.parts = path / ".parts"
        self.thumbnails = self.parts / "thumbnails"
        self.table = path / "predictions.json"
        self.stems: Mapping[str, str] = {}
        self.in_sheet: frozenset[int] = frozenset()
        self.lock, self.writers = threading.Lock(), ThreadPoolExecutor(WRITERS)
        self.pending: deque[Future[None]] = deque()
        self.records: TextIO | None = None

    # ---- before ----

    def prepare(self, description: ModelDescription, keep: bool) -> None:
        """Makes the folder ready. One process calls it, before the others start. `keep`: whether earlier predictions stay.

        Raises InputError if these are of another model, or if the folder cannot be written.
        """
        model = self.path / "model.json"
        if os.path.isfile(description.weights):
            description = replace(description, weights=os.path.abspath(description.weights))
        try:
            if keep and model.is_file() and ModelDescription.from_json(model.read_text()).to_json() != description.to_json():
                raise InputError(
                    f"The predictions in '{self.path}' were made by another model or with other options. Give another folder with "
                    f"out=, or skip_existing=false to replace them."
                )
            if not keep:
                shutil.rmtree(self.parts, ignore_errors=True)
                self.table.unlink(missing_ok=True)
            self.thumbnails.mkdir(parents=True, exist_ok=True)
            model.write_text(description.to_json())
        except OSError as error:
            raise InputError(f"'{self.path}' cannot be written ({error.strerror}). Give another folder with out=.") from error

    def done(self) -> frozenset[str]:
        """The names of the images that have predictions from an earlier run."""
        return frozenset(record["file"] for record in self._stored() if "error" not in record)

    def expect(self, names: Sequence[str]) -> None:
        """Tells the names of all images of the source, in order: they determine file names and the cells of the contact sheet."""
        self.stems = unique_stems(names)
        self.in_sheet = frozenset(evenly_spaced(len(names), MAX_CELLS))

    def expect_frames(self, count: int | None, step: int) -> None:
        """The same for the frames of a video. `count`: None if it is not known: every `step`-th frame is then in the contact sheet."""
        self.in_sheet = frozenset(evenly_spaced(count, MAX_CELLS) if count is not None else range(0, MAX_CELLS * step, step))

    # ---- while predicting ----

    def add(self, prediction: Prediction, draw: bool | None = None) -> None:
        """Writes the files of a prediction, in another thread. `draw`: None for that of the folder.

        Raises InputError if an earlier one could not be written.
        """
        while len(self.pending) >= MAX_PENDING:
            self.pending.popleft().result()
        self.pending.append(self.writers.submit(self._write, prediction, self.draw if draw is None else draw))

    def add_unreadable(self, item: Item) -> None:
        """Records a file that cannot be read."""
        self._record({"file": item.name, "error": item.error})

    def _write(self, prediction: Prediction, draw: bool) -> None:
        try:
            written = prediction.write(self.path, self.stems.get(prediction.name, _frame_stem(prediction.name)), draw)
            if prediction.item.index in self.in_sheet:
                write_cell(prediction, self.thumbnails)
            self._record({**prediction.record(self.top_k), **written})
        except OSError as error:
            raise InputError(f"A prediction cannot be written to '{self.path}' ({error.strerror or error}).") from error

    def _record(self, record: Config) -> None:
        with self.lock:
            if self.records is None:
                self.records = (self.parts / f"{self.rank}.jsonl").open("a")
                self.records.write("\n")  # the last line of an earlier run may not be complete
            self.records.write(json.dumps(record) + "\n")
            self.records.flush()

    def close(self) -> None:
        """Waits until everything is written. Raises InputError if something could not be."""
        try:
            while self.pending:
                self.pending.popleft().result()
        finally:
            self.writers.shutdown(cancel_futures=True)
            if self.records is not None:
                self.records.close()

    # ---- after ----

    def finish(self, names: Sequence[str], title: str) -> Summary:
        """Writes the tables and the contact sheet. One process calls it, when all have closed their folders.

        `names`: of the images of the source, in order. `title`: of the contact sheet.
        """
        place = {name: i for i, name in enumerate(names)}
        records = {record["file"]: record for record in self._stored()}  # a later record replaces an earlier one
        ordered = sorted(records.values(), key=lambda record: (place.get(record["file"], len(place)), record["file"]))
        good = [record for record in ordered if "error" not in record]
        unreadable = {record["file"]: str(record["error"]) for record in ordered if "error" in record}
        for name, content in self.kind.result_files(good).items():
            _write_json(self.path / name, content)
        write_table(self.path / "predictions.csv", (row for record in good for row in self.kind.rows(record)))
        _write_json(self.table, good)
        self._list_unreadable(unreadable)
        if cells := read_cells(self.thumbnails):
            write_image(draw_sheet(cells, title), self.path / "contact_sheet.jpg")
        shutil.rmtree(self.parts, ignore_errors=True)
        return Summary(sum(record["file"] in place for record in good), unreadable)

    def _list_unreadable(self, unreadable: Mapping[str, str]) -> None:
        path = self.path / "unreadable.txt"
        path.unlink(missing_ok=True)
        if unreadable:
            path.write_text("".join(f"{name}\t{reason}\n" for name, reason in unreadable.items()))

    def _stored(self) -> Iterator[Config]:
        """Yields the records of an earlier run, and those of all processes. A line that was not written completely is left out."""
        if self.table.is_file():
            try:
                yield from json.loads(self.table.read_text())
            except ValueError as error:
                raise InputError(f"'{self.table}' is damaged ({error}). Use skip_existing=false.") from error
        for path in sorted(self.parts.glob("*.jsonl")):
            for line in path.read_text().splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


class VideoFile:
    """Writes pictures (H, W, 3) uint8 as the frames of an MP4 video. The file is opened with the first one."""

    def __init__(self, path: Path, rate: float):
        """`rate`: frames per second."""
        self.path, self.rate = path, rate
        self.writer: cv2.VideoWriter | None = None
        self.size = (0, 0)  # width, height

    def add(self, picture: np.ndarray) -> None:
        """Appends a frame. Raises InputError if the video cannot be written."""
        even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.size = (even.shape[1], even.shape[0])
            self.writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self.rate, self.size)
            if not self.writer.isOpened():
                raise InputError(f"The video '{self.path}' cannot be written. Leave it out with draw=false.")
        if (even.shape[1], even.shape[0]) != self.size:
            even = cv2.resize(even, self.size, interpolation=cv2.INTER_AREA)
        self.writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Completes the file."""
        if self.writer is not None:
            self.writer.release()


def unique_stems(names: Sequence[str]) -> dict[str, str]:
    """Returns the names without their suffixes; those that would become equal, such as a.jpg and a.png, keep them."""
    stems = {name: name.rpartition(".")[0] if "." in name.rpartition("/")[2] else name for name in names}
    counts = Counter(stem.lower() for stem in stems.values())  # some file systems do not distinguish cases
    return {name: name if counts[stem.lower()] > 1 else stem for name, stem in stems.items()}


def _frame_stem(name: str) -> str:
    """Returns `video/000012` for the frame `video.mp4#000012`."""
    video, _, number = name.rpartition("#")
    return f"{Path(video).stem}/{number}"


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows to a CSV file, which is replaced when it is complete. The columns are those of the first row."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)
    part.replace(path)


def _write_json(path: Path, content: object) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, ensure_ascii=False))
    part.replace(path)
