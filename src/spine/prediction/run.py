"""Predicts for a whole source, alone or together with other processes, and writes a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from spine.data.workers import count_workers, prepare_worker
from spine.errors import InputError, RunStopped
from spine.prediction.boxes import BoxTable
from spine.prediction.items import FileItems, Item, ItemBatch, collate_items
from spine.prediction.output_folder import OutputFolder, Summary, VideoFile
from spine.prediction.predictor import Predictor
from spine.prediction.progress import PredictionProgress
from spine.prediction.sources import ImageFile, Source, Video

STEP = 30  # frames of a video of unknown length between two pictures of the contact sheet


@dataclass(frozen=True)
class Processes:
    """The processes that share a source. wait: returns when all of them have called it."""

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class RunOptions:
    """What is predicted, and how.

    batch_size: images, or boxes, that the network gets at once. num_workers: processes that read images, see `count_workers`.
    skip_existing: images with predictions in the folder are left out. boxes: of the objects in the images. max_frames: of a video.
    """

    batch_size: int = 32
    num_workers: int | None = None
    skip_existing: bool = False
    boxes: BoxTable | None = None
    max_frames: int | None = None


def predict_source(
    predictor: Predictor, source: Source, folder: OutputFolder, options: RunOptions, processes: Processes | None = None
) -> Summary | None:
    """Predicts for all images of a source, and writes them to a folder.

    Each process takes a part of the files; only the first one returns the summary. Files that cannot be read are listed and do not
    stop the others. Raises InputError if a video cannot be opened, or if the folder cannot be written.
    """
    processes = processes or Processes()
    if isinstance(source, Video):
        _check_video(source, options, processes)
    if processes.rank == 0:
        folder.prepare(predictor.description, options.skip_existing)
    processes.wait()
    done = folder.done() if options.skip_existing else frozenset()
    processes.wait()  # a process must not write before the others have read what was done before
    try:
        if isinstance(source, Video):
            names, speed = _predict_video(predictor, source, folder, options)
        else:
            names = [file.name for file in source]
            folder.expect(names)
            speed = _predict_files(predictor, [file for file in source if file.name not in done], folder, options, processes)
    finally:
        folder.close()
    processes.wait()
    if processes.rank > 0:
        return None
    title = f"{predictor.description.task}: {predictor.description.summary}, {len(names)} images"
    return folder.finish(names, title)._replace(speed=speed)


def _predict_files(
    predictor: Predictor, files: Sequence[ImageFile], folder: OutputFolder, options: RunOptions, processes: Processes
) -> float:
    """Predicts for files. Returns images per second.

    Process r takes the batches r, r + count, ... so that every batch has the same images for any number of processes.
    """
    size = options.batch_size
    batches = [list(range(start, min(start + size, len(files)))) for start in range(0, len(files), size)]
    own = batches[processes.rank :: processes.count]
    loader = DataLoader(
        FileItems(files, predictor.preprocessing, options.boxes),
        batch_sampler=own,
        num_workers=count_workers(options.num_workers, processes.count, accelerated=predictor.device.type != "cpu"),
        collate_fn=collate_items,
        pin_memory=predictor.device.type == "cuda",
        worker_init_fn=prepare_worker,
        generator=torch.Generator(),
    )
    with PredictionProgress(sum(map(len, own)), processes.count, shown=processes.rank == 0) as progress:
        for batch in loader:
            for item in batch.unreadable:
                folder.add_unreadable(item)
            for prediction in predictor.predict_batch(batch, size):
                folder.add(prediction)
            progress.advance(len(batch.items) + len(batch.unreadable))
    return progress.speed


def _check_video(video: Video, options: RunOptions, processes: Processes) -> None:
    """Raises InputError if an option is for files only, or if the video cannot be opened. Nothing is written before."""
    if processes.count > 1:
        raise InputError(
            f"The frames of {video.name} are read one after the other: use trainer.devices=1 for a video or a camera."
        )
    if options.skip_existing:
        raise InputError("skip_existing is for files; a video or a camera starts with its first frame.")
    video.open().release()


def _predict_video(predictor: Predictor, video: Video, folder: OutputFolder, options: RunOptions) -> tuple[list[str], float]:
    """Predicts for the frames of a video in order, and writes them as a video. Returns their names, and frames per second."""
    rate, length = video.rate_and_length()
    if length is not None and options.max_frames is not None:
        length = min(length, options.max_frames)
    folder.expect_frames(length, STEP)
    drawn = VideoFile(folder.path / f"{Path(video.name).stem}.mp4", rate) if folder.draw else None
    names: list[str] = []
    progress = PredictionProgress(length)
    try:
        with progress:
            for batch in _frames(predictor, video, options):
                for prediction in predictor.predict_batch(batch, options.batch_size):
                    names.append(prediction.name)
                    folder.add(prediction, draw=False)
                    if drawn is not None:
                        drawn.add(prediction.draw())
                progress.advance(len(batch.items))
    except RunStopped:
        if not video.is_endless:  # a camera ends when it is stopped
            raise
    finally:
        if drawn is not None:
            drawn.close()
    return names, progress.speed


def _frames(predictor: Predictor, video: Video, options: RunOptions) -> Iterator[ItemBatch]:
    """Yields the frames of a video in batches; those of a camera one by one, because each is shown when it is there."""
    size = 1 if video.is_endless else options.batch_size
    items: list[Item] = []
    for i, frame in enumerate(video.frames(options.max_frames)):
        items.append(predictor.frame_item(video, i, frame))
        if len(items) == size:
            yield collate_items(items)
            items = []
    if items:
        yield collate_items(items)
