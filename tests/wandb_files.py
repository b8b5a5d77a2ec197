"""Reads .wandb files: LevelDB's log framing around protocol buffers."""

import json
import struct
import time

BLOCK, HEADER, START = 32768, 7, 7


def records(path):
    """Yields the records of a .wandb file up to its end, or to where it was cut."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), START, b""
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0:
            return
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def values(items):
    """Returns the items of a history, summary or configuration as key -> value; keys of nested values have dots."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def finished_records(path):
    """Returns the records of a finished run. W&B's service writes them after `finish` has returned."""
    end = time.monotonic() + 30
    while True:
        found = list(records(path))
        if (found and found[-1].HasField("exit")) or time.monotonic() > end:
            return found
        time.sleep(0.05)


class OfflineRun:
    """The content of the only offline run in a run folder."""

    def __init__(self, folder):
        (self.file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
        found = finished_records(self.file)
        self.run = next(record.run for record in found if record.HasField("run"))
        self.history = [values(record.history.item) for record in found if record.HasField("history")]
        self.metrics = {
            record.metric.name or record.metric.glob_name: record.metric for record in found if record.HasField("metric")
        }
        self.summary, self.config = {}, values(self.run.config.update)
        for record in found:
            if record.HasField("summary"):
                self.summary |= values(record.summary.update)
            if record.HasField("config"):
                self.config |= values(record.config.update)

    @property
    def rows(self):
        """The rows of metrics.csv; pictures and tables are between them."""
        return [row for row in self.history if row["_step"] % 2 == 0]

    @property
    def media(self):
        """The keys of pictures and tables."""
        return {key.partition(".")[0] for row in self.history for key in row if key.endswith("._type")}
