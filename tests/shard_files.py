"""Small image folders and shards for tests."""

import cv2
import numpy as np

from spine.commands.pack import pack_data

OPTIONS = {"pack_splits": None, "shard_mb": 0.05, "store_seed": None, "workers": 1}


def write_photos(root, train=41, val=7, classes="abc"):
    """Writes JPEG files of different content and size: root/<split>/<class>/<number>.jpg."""
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            rng = np.random.default_rng((count, i))
            path = root / split / classes[i % len(classes)] / f"{i:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.resize(image, (80 + i % 5, 70 + i % 3)))
    return root


def pack(out, format_name, kind, root=None, *, splits=None, shard_mb=0.05, store_seed=None, workers=1, **options):
    """Packs a data set: `spine.data.formats.<format_name>.<kind>`."""
    node = {"_target_": f"spine.data.formats.{format_name}.{kind}", "root": None if root is None else str(root), **options}
    chosen = {"pack_splits": splits, "shard_mb": shard_mb, "store_seed": store_seed, "workers": workers}
    pack_data(node, out, {**OPTIONS, **chosen})
    return out


def pack_photos(folder, **options):
    """Returns a folder of photos and one of its shards."""
    photos = write_photos(folder / "photos")
    return photos, pack(folder / "shards", "image_folder", "ImageFolder", photos, **options)
