"""Seconds to open an image folder of many empty files the first time and when it is remembered, and bytes of memory per image.

    python benchmarks/folder_index.py [--files 1300000]

The files are in 1000 folders, as those of ImageNet. Writes the files and the cache into a temporary folder and removes them.
"""

import argparse
import os
import tempfile
import time
import tracemalloc
from pathlib import Path

from spine.data.folder_index import SETTLED_SECONDS
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.unlabeled_folder import UnlabeledFolder

FOLDERS = 1000


def write(root: Path, count: int) -> None:
    for number in range(FOLDERS):
        folder = root / "train" / f"n{number:08d}"
        folder.mkdir(parents=True)
        for i in range(count // FOLDERS):
            (folder / f"n{number:08d}_{i}.JPEG").touch()


def seconds(kind, root: Path) -> float:
    start = time.perf_counter()
    assert len(kind("train", root=str(root))) > 0
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_300_000)
    count = parser.parse_args().files
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "photos")
        write(root, count)
        time.sleep(SETTLED_SECONDS + 1)  # a folder that was just written is not remembered
        for number, kind in enumerate((ImageFolder, UnlabeledFolder)):
            os.environ["SPINE_CACHE"] = str(Path(folder, f"cache{number}"))
            first = seconds(kind, root)
            again = sorted(seconds(kind, root) for _ in range(3))[1]
            tracemalloc.start()
            data = kind("train", root=str(root))
            size = tracemalloc.get_traced_memory()[0] / len(data)
            tracemalloc.stop()
            file = next(Path(os.environ["SPINE_CACHE"], "folders").glob("*.safetensors")).stat().st_size / len(data)
            print(
                f"{kind.__name__}: {len(data)} files, first {first:.2f} s, remembered {again:.2f} s, {size:.0f} bytes per image in memory, "
                f"{file:.0f} in the cache"
            )


if __name__ == "__main__":
    main()
