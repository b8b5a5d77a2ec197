"""Makes a batch of a run again, from the record of a bad batch."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from spine.checkpoints.run_checkpoint import tokenizer_of_run
from spine.config.building import batch_transform, build_run
from spine.config.untrusted import strip_untrusted
from spine.data.collation import collate
from spine.data.sampler import Draw
from spine.errors import InputError
from spine.reporting.bad_batches import read_record
from spine.training.batch_augmentation import batch_generator, is_on


def replay(source: str | Path, number: int = -1) -> dict[str, Tensor]:
    """Returns the batch of a record, bit-identical to that of training, on the CPU.

    `source`: a run folder with bad_batch.json, or its skipped.jsonl or spikes.jsonl. `number`: the
    line of a .jsonl file, from 0; -1 is the last. The batch has the keys of the task: image
    (B, 3, H, W), index (B,), and others such as label, mask, keypoints or patch_mask. With
    augment.batch, images and labels are mixed. Raises
    InputError if there is no record, or if the data is missing.
    """
    folder, record = read_record(Path(source), number)
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        raise InputError(f"'{folder}' has no readable config.json; it is not the folder of a run.") from None
    config = strip_untrusted(config)  # without weights: the network is built for what the task adds to samples
    config |= {"compile": False, "tokenizer": tokenizer_of_run(config, folder)}
    run, epoch = build_run(config), record["epoch"] - 1
    samples = run.data.transformed("train", training=True)
    copies = record.get("copies", [0] * len(record["indices"]))
    batch = collate([samples[Draw(epoch, index, copy)] for index, copy in zip(record["indices"], copies, strict=True)])
    transform = batch_transform(config)
    if transform is not None and "position" in record and is_on(transform, epoch, config["trainer"].get("max_epochs")):
        rng = batch_generator(record["seed"], epoch, record["position"])
        batch.update(transform(batch, len(run.task.labels.classes), rng))
    return batch
