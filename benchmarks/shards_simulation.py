"""Plans the training on 1.3 billion images in shards with 512 processes: index, start-up, memory, order, and reads of the store.

    python benchmarks/shards_simulation.py [--entries 13000000] [--images 1300000000] [--processes 512]

Measured with spine's own code: an index of `entries` samples, the list of all shards at full size, the order of windows at full
size, and reads of records from the local disk. Computed from these and from the sizes of images: what is marked so. No image is
decoded and no store is used. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spine.data.shards.index import Shard, open_split, read_description, write_description, write_split
from spine.data.shards.order import WindowOrder
from spine.data.shards.storage import LocalFiles
from spine.data.shards.tar import pack_members, unpack_members
from spine.interfaces import Labels

IMAGE = 110_000  # bytes of an image: ImageNet's mean
SHARD = 1 << 30  # bytes of a shard
CLASSES = 21_841
RATE = 500  # images per second that a process trains on
PER_MACHINE = 8  # processes
STORE = 2.5e9  # bytes per second from a store to a machine
BATCH = 16  # images of a process in a step


def resident() -> int:
    """Bytes of memory of this process that no file backs."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def timed(action: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def table(title: str, rows: list[tuple[str, str]]) -> None:
    print(f"\n## {title}\n\n| | |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


def measure_index(folder: Path, entries: int, images: int, per_shard: int) -> None:
    """An index with `entries` samples, and the list of the shards of `images` samples."""
    shards = -(-entries // per_shard)
    counts = np.full(shards, per_shard)
    counts[-1] = entries - per_shard * (shards - 1)
    ends = np.concatenate([np.cumsum(np.full(count, IMAGE // 512 + 4, np.uint32)) for count in counts.tolist()])
    classes = (np.arange(entries) * CLASSES // entries).astype(np.uint16)
    names = write_split(folder, "train", {"ends": ends.astype(np.uint32), "classes": classes})
    listed = [dataclasses.asdict(Shard(f"train-{i:06d}.tar", count, SHARD, "0" * 64)) for i, count in enumerate(counts.tolist())]
    write_description(
        folder, Labels(), {"train": {"provides": ["image", "label"], "columns": names, "objects": None, "shards": listed}}
    )
    size = sum((folder / name).stat().st_size for name in names.values())
    del ends, classes
    before = resident()
    seconds, index = timed(lambda: open_split(folder, "train", read_description((folder / "shards.json").read_bytes(), "")))
    memory = resident() - before
    wanted = np.random.default_rng(0).integers(0, entries, 20_000).tolist()
    found, _ = timed(lambda: [index.find(i) for i in wanted])  # type: ignore[attr-defined]
    full = -(-images // per_shard)
    everything = [dataclasses.asdict(Shard(f"train-{i:06d}.tar", per_shard, SHARD, "0" * 64)) for i in range(full)]
    large = {"provides": [], "columns": {}, "objects": None, "shards": everything}
    write_description(folder, Labels(), {"train": large})
    listing = (folder / "shards.json").stat().st_size
    reading, _ = timed(
        lambda: [
            Shard(**each) for each in read_description((folder / "shards.json").read_bytes(), "")["splits"]["train"]["shards"]
        ]
    )
    scale = images / entries
    table(
        f"Index: {entries:,} samples measured, {images:,} scaled",
        [
            ("index files, measured", f"{size / 1e6:,.1f} MB, {size / entries:.1f} bytes a sample (4 of the place, 2 of the class)"),
            ("index files, scaled", f"{size * scale / 1e9:,.1f} GB on the disk of each machine"),
            ("opening them, measured", f"{seconds * 1e3:,.1f} ms, {memory / 1e6:,.2f} MB of memory of the process; pages are shared"),
            ("finding a sample, measured", f"{found / len(wanted) * 1e6:.1f} us"),
            (f"list of {full:,} shards, measured at full size", f"{listing / 1e6:,.1f} MB, read in {reading:.2f} s"),
            ("copying the index to a machine, computed", f"{size * scale / STORE:,.1f} s once, at {STORE / 1e9:g} GB/s"),
        ],
    )  # fmt: skip


def entropy(classes: np.ndarray) -> float:
    """Entropy in bits of the classes of a batch."""
    share = np.unique(classes, return_counts=True)[1] / len(classes)
    return float(-(share * np.log2(share)).sum())


def measure_order(images: int, per_shard: int, processes: int) -> None:
    """The order of windows at full size: cost, and how well it mixes."""
    counts = np.full(images // per_shard, per_shard)
    total, step = int(counts.sum()), BATCH * processes
    places = total // 2 // step * step + np.arange(step)  # a step in the middle of the epoch
    rng = np.random.default_rng(0)
    print(
        f"\n## Order of windows: {total:,} samples in {len(counts):,} shards, steps of {step:,} samples, measured at full size\n\n"
        "A process makes the windows of its own parts only: one of 512 with 512 streams. A batch is that of one process. Entropies of "
        "the classes of a step are in bits; the classes of a random one are drawn.\n\n"
        "| streams | window | begin | windows of all parts | memory of all parts | shards in a step | pairs of a batch from one shard "
        "| entropy, stored by class | entropy, stored shuffled | a shard is read in | copies of a machine, computed |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for streams, window in ((64, 4096), (processes, 4096), (processes, 16384), (processes * 4, 4096)):
        begin, order = timed(lambda s=streams, w=window: WindowOrder(counts, w, s, (0, 0)))  # type: ignore[misc]
        seconds, samples = timed(lambda o=order: o[places])  # type: ignore[misc]
        open_shards = -(-2 * window // per_shard) + 1  # of a window and the next one
        copies = PER_MACHINE * max(1, streams // processes) * open_shards * SHARD
        arrays = (order.shards, order.ends, order.firsts, *order.opened.values())  # type: ignore[attr-defined]
        memory = sum(array.nbytes for array in arrays)
        shards = samples // per_shard  # type: ignore[operator]
        batches = np.sort(shards.reshape(BATCH, processes).T, axis=1)
        pairs = sum(float((batches[:, i:] == batches[:, :-i]).sum()) for i in range(1, BATCH))
        same = pairs / (processes * BATCH * (BATCH - 1) / 2)
        by_class = entropy(samples * CLASSES // total)  # type: ignore[operator]
        mixed = entropy(rng.integers(0, CLASSES, step))
        spread = (per_shard + window) * streams / total  # of the epoch between the first and the last sample of a shard
        print(
            f"| {streams:,} | {window:,} | {begin * 1e3:,.0f} ms | {seconds * 1e3:,.0f} ms | {memory / 1e6:,.0f} MB "
            f"| {len(np.unique(shards)):,} | {same:.1%} | {by_class:.2f} | {mixed:.2f} | {spread:.2%} of the epoch "
            f"| {copies / 2**30:,.0f} GiB |"
        )
    shards = rng.integers(0, total, step) // per_shard
    random = entropy(rng.integers(0, CLASSES, step))
    print(
        f"| all shuffled | | | | | {len(np.unique(shards)):,} | {per_shard / total:.4%} | {random:.2f} | {random:.2f} | the epoch | all |"
    )
    count = 13_000_000
    seconds, _ = timed(lambda: np.random.default_rng(0).permutation(count))
    print(
        f"\nA permutation of {count:,} samples takes {seconds:.2f} s and {count * 8 / 1e6:.0f} MB (measured); of {total:,} it would take "
        f"{seconds * total / count:,.0f} s and {total * 8 / 1e9:.1f} GB in each process (scaled)."
    )


def measure_reads(folder: Path, processes: int, images: int, per_shard: int) -> None:
    """Records of a shard from the local disk, and the requests to a store."""
    rng, number = np.random.default_rng(0), 1000
    image = rng.integers(0, 255, IMAGE, dtype=np.uint8).tobytes()
    record = pack_members("0000000000", [("jpg", image), ("cls", b"7")])
    (folder / "train-000000.tar").write_bytes(record * number)
    files, order = LocalFiles(folder), rng.permutation(number).tolist()

    def read() -> None:
        for index in order:
            unpack_members(files.read("train-000000.tar", index * len(record), len(record)), "")

    seconds = min(timed(read)[0] for _ in range(5))
    rate = RATE * len(record)
    whole = RATE / per_shard
    table(
        f"Reads: {processes} processes that train on {RATE} images/s each",
        [
            ("records from the page cache, measured", f"{number / seconds:,.0f} a second of one process"),
            ("bytes, computed", f"{rate / 1e6:.0f} MB/s a process, {rate * processes / 1e9:.1f} GB/s of all"),
            ("requests for whole shards, computed", f"one each {1 / whole:.0f} s of a process, {whole * processes:.1f} a second of all"),
            ("requests without copies (copies_gb=0), computed", f"{RATE:,} a second of a process, {RATE * processes:,} of all"),
            ("an epoch, computed", f"{images / RATE / processes / 3600:.1f} h"),
        ],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=13_000_000)
    parser.add_argument("--images", type=int, default=1_300_000_000)
    parser.add_argument("--processes", type=int, default=512)
    given = parser.parse_args()
    per_shard = SHARD // len(pack_members("0000000000", [("jpg", bytes(IMAGE)), ("cls", b"7")]))
    print(f"Shards of {per_shard:,} images of {IMAGE / 1e3:g} kB, {CLASSES:,} classes.")
    with tempfile.TemporaryDirectory() as folder:
        measure_index(Path(folder), given.entries, given.images, per_shard)
        measure_order(given.images, per_shard, given.processes)
        measure_reads(Path(folder), given.processes, given.images, per_shard)


if __name__ == "__main__":
    main()
