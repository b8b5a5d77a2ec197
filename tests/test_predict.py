"""Predictions: the same answers as evaluations, typed results, sources, boxes, folders of results."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from predictable import COUNT, FAST, SIZE, write_boxes, write_checkpoint, write_images, write_video
from test_evaluate import evaluated
from tokenizer_file import for_task, tokenizer_file

import spine
from spine.commands import eval as evaluate
from spine.commands.predict import predict_config
from spine.components import modules, task_spec
from spine.config.model_source import compose_model
from spine.errors import InputError
from spine.interfaces import Labels
from spine.prediction.boxes import read_boxes
from spine.prediction.description import ModelDescription
from spine.prediction.drawing import CENTER, LEFT, RIGHT, side_colors
from spine.prediction.output_folder import OutputFolder, Summary, unique_stems
from spine.prediction.parts import task_class
from spine.prediction.run import RunOptions, predict_source
from spine.prediction.sources import Video, find_source
from spine.tokenizers.dvae import expected_pixels
from spine.training.run_folder import RunFolder

SMALL = ("backbone.variant=micro", "image_size=[64,64]")
MODELS = {  # task: overrides of a network whose images need padding, a crop by boxes, a mask or a tokenizer
    "cls": ("backbone=vit", *SMALL),
    "seg": ("backbone=vit", "backbone.variant=micro", "image_size=[72,56]"),
    "pose": ("backbone=hrnet", "task.flip_test=true", *SMALL),
    "mae": ("backbone=mae", *SMALL),
    "beit": ("backbone=beit", *SMALL),
    "dvae": ("image_size=[64,64]",),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "val")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Returns the checkpoint of a task; each is written once."""
    written = {}

    def checkpoint(task):
        if task not in written:
            written[task] = write_checkpoint(tmp_path_factory.mktemp(task), *for_task(task), *MODELS[task])
        return written[task]

    return checkpoint


def predicted(checkpoint, source, out, *overrides):
    """Runs predict.py in this process, and returns the records of predictions.json."""
    config = compose_model([f"ckpt_path={checkpoint}", "trainer.accelerator=cpu", *overrides])
    predict_config({**config, "source": str(source)}, out)
    return json.loads((out / "predictions.json").read_text())


# ---- the same answers as evaluations ----


def evaluated_outputs(monkeypatch, checkpoint, task, folder):
    """Runs eval.py in this process. Returns what the metrics get: the outputs, and the batches."""
    outputs, batches, kind = [], [], task_class(task)
    update = kind.update_metrics

    def recorded(self, output, batch):
        outputs.append(output.cpu().clone())
        batches.append({key: value.cpu().clone() for key, value in batch.items()})
        update(self, output, batch)

    monkeypatch.setattr(kind, "update_metrics", recorded)
    folder.mkdir()
    evaluate.evaluate_config(evaluated(checkpoint, *FAST[:3]), RunFolder(folder))
    return outputs, batches


def answers_of_evaluation(task, outputs, batches, model, folder):
    """The answers of an evaluation for each image, in the form of the records of predictions."""
    if task == "cls":
        return [row.tolist() for output in outputs for row in output.softmax(1)]
    if task == "seg":
        return [mask.numpy() for output in outputs for mask in output]
    if task == "pose":
        return json.loads((folder / "val_keypoints.json").read_text())
    if task == "mae":
        return [
            image
            for output, batch in zip(outputs, batches, strict=True)
            for image in model.to_pixels(model.task._reconstruct(batch["image"], output.float(), batch["patch_mask"]))
        ]
    if task == "beit":
        return [tokens.tolist() for output in outputs for tokens in output.argmax(-1)]
    return [image for output in outputs for image in model.to_pixels(expected_pixels(output))]


@pytest.mark.parametrize(
    "task", ["cls", "seg", *(pytest.param(name, marks=pytest.mark.slow) for name in sorted({*MODELS} - {"cls", "seg"}))]
)
def test_answers_are_those_of_evaluation_digit_for_digit(task, checkpoints, images, tmp_path, monkeypatch):
    checkpoint = checkpoints(task)
    outputs, batches = evaluated_outputs(monkeypatch, checkpoint, task, tmp_path / "eval")
    boxes = [f"boxes={write_boxes(tmp_path / 'boxes.json')}"] if task == "pose" else []
    out = tmp_path / "out"
    records = predicted(checkpoint, images, out, *FAST[:2], "top_k=1000", *boxes)
    assert [record["file"] for record in records] == [f"{i:03}.png" for i in range(COUNT)]
    model = spine.load(checkpoint, device="cpu")
    expected = answers_of_evaluation(task, outputs, batches, model, tmp_path / "eval")
    if task == "cls":
        found = [[each["probability"] for each in sorted(r["classes"], key=lambda c: c["index"])] for r in records]
        assert found == expected and len({tuple(row) for row in found}) == COUNT
    elif task == "seg":
        masks = [np.asarray(Image.open(out / record["mask"])) for record in records]
        assert all(mask.shape == SIZE for mask in masks) and len(np.unique(masks)) > 1
        assert all(map(np.array_equal, masks, expected))
    elif task == "pose":
        found = json.loads((out / "keypoints.json").read_text())
        keys = ("category_id", "keypoints", "score")
        assert [[each[key] for key in keys] for each in found] == [[each[key] for key in keys] for each in expected]
        assert [each["image_id"] - 1 for each in found] == [each["image_id"] for each in expected]
    elif task == "beit":
        assert [record["tokens"] for record in records] == expected
    else:
        again = model.predict(sorted(images.iterdir()), batch_size=4)
        assert all(np.array_equal(one.reconstruction, other) for one, other in zip(again, expected, strict=True))
        assert not np.array_equal(expected[0], expected[1])


def pairs_of_backbone_and_task():
    """Every backbone with two tasks, and every task with several backbones: all pairs would take minutes."""
    tasks = [task for task in modules("task") if task_spec(task).network is None]
    backbones = enumerate(spine.list_backbones())
    return [(backbone, tasks[(i + step) % len(tasks)]) for i, backbone in backbones for step in (0, 2)]


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "task"), pairs_of_backbone_and_task())
def test_every_backbone_predicts_for_images_of_any_size(backbone, task, tmp_path):
    checkpoint = write_checkpoint(tmp_path, *for_task(task), f"backbone={backbone}", *SMALL)
    model = spine.load(checkpoint, device="cpu")
    rng = np.random.default_rng(0)
    sizes = ((90, 70), (64, 64), (33, 120))
    found = model.predict([rng.integers(0, 255, (*size, 3), np.uint8) for size in sizes])
    for prediction, size in zip(found, sizes, strict=True):
        assert prediction.draw().dtype == np.uint8 and prediction.caption
        if task in ("seg", "pose"):
            assert prediction.draw().shape[:2] == size


# ---- in Python ----


def test_paths_arrays_and_lists_have_the_same_prediction(checkpoints, images):
    model = spine.load(checkpoints("cls"), device="cpu")
    path = images / "002.png"
    pixels = cv2.imread(str(path))[..., ::-1]
    found = [model.predict(path), model.predict(str(path)), model.predict(pixels), model.predict(Image.open(path))]
    found.append(next(iter(model.stream(path))))
    for each in found:
        assert np.array_equal(each.probabilities, found[0].probabilities)
        assert np.array_equal(each.image, pixels)
    for each in model.predict([path, pixels]):  # some processors add the numbers of a batch in another order
        np.testing.assert_allclose(each.probabilities, found[0].probabilities, rtol=1e-6)
        assert np.array_equal(each.image, pixels)
    best = found[0].top(2)
    assert (
        best[0].probability >= best[1].probability
        and found[0].label == best[0].name == model.description.labels.classes[best[0].index]
    )
    assert model.predict([]) == []


def test_gray_arrays_are_read_as_rgb_and_others_are_refused(checkpoints, tmp_path):
    model = spine.load(checkpoints("cls"), device="cpu")
    gray = np.random.default_rng(0).integers(0, 255, (70, 50), np.uint8)
    same = [gray, gray[..., None], np.repeat(gray[..., None], 3, axis=2)]
    assert len({model.predict(image).probabilities.tobytes() for image in same}) == 1
    for wrong in (gray.astype(np.float32), np.zeros((3, 4, 5), np.uint8), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(InputError, match=r"An image (is|has shape) .*; it should be"):
            model.predict(wrong)
    with pytest.raises(InputError, match="File 'nothing.jpg' is missing"):
        model.predict("nothing.jpg")
    with pytest.raises(InputError, match="is a folder; model.stream"):
        model.predict(tmp_path)
    with pytest.raises(InputError, match="boxes are for keypoints; this model is for task 'cls'"):
        model.predict(gray, boxes=np.ones((1, 4)))


def test_masks_have_the_sizes_of_their_images(checkpoints):
    model = spine.load(checkpoints("seg"), device="cpu")
    sizes = ((50, 90), (121, 77))
    found = model.predict([np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8) for i, size in enumerate(sizes)])
    for each, size in zip(found, sizes, strict=True):
        assert each.mask.shape == size and each.draw().shape == (*size, 3)
        assert sum(each.shares.values()) == pytest.approx(1) and len(each.shares) == len(model.description.labels.mask_classes)


def test_masks_are_those_of_the_crop_if_evaluations_crop_images(tmp_path):
    crop = "augment.eval=[{_target_: spine.data.transforms.CenterCrop, size: [48, 48]}]"
    checkpoint = write_checkpoint(tmp_path, "task=seg", "task.resolution=input", "backbone=mobilenet_v2", *SMALL, crop)
    found = spine.load(checkpoint, device="cpu").predict(np.zeros((100, 60, 3), np.uint8))
    assert found.mask.shape == (48, 48) and found.draw().shape == (48, 48, 3)


def test_keypoints_of_every_box_are_in_pixels_of_the_image(checkpoints):
    model = spine.load(checkpoints("pose"), device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (100, 140, 3), np.uint8)
    boxes = np.array([[10, 20, 40, 60], [60, 10, 70, 80]])
    found, whole = model.predict(image, boxes=boxes), model.predict(image)
    assert found.keypoints.shape == (2, 5, 3) and whole.keypoints.shape == (1, 5, 3)
    assert np.allclose(whole.boxes, [[0, 0, 140, 100]])
    for points, (x, y, width, height) in zip(found.keypoints, boxes, strict=True):
        margin = 0.25 * max(width, height) + 2  # the padding of the crop
        assert (points[:, 0] > x - margin).all() and (points[:, 0] < x + width + margin).all()
        assert (points[:, 1] > y - margin).all() and (points[:, 1] < y + height + margin).all()
    assert model.predict(image, boxes=np.zeros((0, 4))).keypoints.shape == (0, 5, 3)
    with pytest.raises(InputError, match=r"boxes should be \(n, 4\)"):
        model.predict(image, boxes=[[1, 2, 0, 5]])


def test_a_description_survives_json_and_builds_the_same_model(checkpoints):
    model = spine.load(checkpoints("pose"), device="cpu")
    description = ModelDescription.from_json(model.description.to_json())
    assert description == model.description and description.output_names == model.description.labels.keypoints
    with pytest.raises(InputError, match="newer version of spine"):
        ModelDescription.from_dict({**description.to_dict(), "format": 2})
    with pytest.raises(InputError, match="has no 'labels'"):
        ModelDescription.from_dict({key: value for key, value in description.to_dict().items() if key != "labels"})


def test_a_description_cannot_name_what_a_configuration_cannot(checkpoints):
    model = spine.load(checkpoints("cls"), device="cpu")
    evil = replace(model.description, eval_steps=({"_target_": "os.system", "command": "true"},))
    with pytest.raises(InputError, match=r"_target_='os.system' is not allowed"):
        type(model)(evil, model.task.model)


def test_tokens_need_the_tokenizer_of_the_training(checkpoints, tmp_path):
    checkpoint = checkpoints("beit")
    assert spine.load(checkpoint, device="cpu").predict(np.zeros((64, 64, 3), np.uint8)).tokens.shape == (4, 4)
    with pytest.raises(InputError, match="trained with another tokenizer"):
        spine.load(checkpoint, device="cpu", tokenizer=tokenizer_file(1))


def test_masked_tokens_are_drawn_without_a_decoder_too(tmp_path):
    checkpoint = write_checkpoint(tmp_path, "task=beit", f"tokenizer={tokenizer_file(decoder=False)}", *MODELS["beit"])
    found = spine.load(checkpoint, device="cpu").predict(np.zeros((64, 64, 3), np.uint8))
    assert found.draw().shape[1] == 2 * 128 + 4


# ---- published weights ----


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of a whole classifier with seven classes."""
    net = spine.create_model("mobilenet_v2", variant="micro", num_outputs=7)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.pth"
    torch.save(net.state_dict(), path)
    return path, net.eval()


def test_published_weights_predict_the_given_classes(weights, tmp_path):
    path, net = weights
    names = [f"animal {i}" for i in range(7)]
    (tmp_path / "classes.txt").write_text("\n".join(names))
    options = {"backbone": "mobilenet_v2", "variant": "micro", "device": "cpu", "precision": "32-true"}
    model = spine.load(path, classes=tmp_path / "classes.txt", **options)
    image = np.random.default_rng(0).integers(0, 255, (300, 260, 3), np.uint8)
    found = model.predict(image)
    sample = model.preprocessing(image, 0)[0]["image"][None]
    with torch.inference_mode():
        expected = net(sample)[0].softmax(0).numpy()
    assert sample.shape[-2:] == (224, 224) and np.allclose(found.probabilities, expected, atol=1e-6)
    assert found.label == names[expected.argmax()]
    assert spine.load(path, **options).description.labels.classes == tuple(f"class {i}" for i in range(7))


def test_published_weights_without_a_head_for_the_task_are_refused(weights, tmp_path):
    path, net = weights
    options = {"backbone": "mobilenet_v2", "variant": "micro", "device": "cpu"}
    with pytest.raises(InputError, match=r"has no head for task 'cls' with 3 outputs.*predictions would be random"):
        spine.load(path, classes=["a", "b", "c"], **options)
    torch.save(net.backbone.state_dict(), tmp_path / "backbone.pth")
    with pytest.raises(InputError, match="does not tell its number of outputs"):
        spine.load(tmp_path / "backbone.pth", task="seg", **options)


def test_keypoints_of_published_weights_are_named_by_a_file_in_coco_format(tmp_path):
    net = spine.create_model("hrnet", variant="micro", task="pose", num_outputs=2)
    torch.save(net.state_dict(), tmp_path / "hrnet.pth")
    category = {"id": 1, "keypoints": ["left_eye", "right_eye"], "skeleton": [[1, 2]], "sigmas": [0.1, 0.1]}
    content = {"images": [], "annotations": [], "categories": [category]}
    (tmp_path / "names.json").write_text(json.dumps(content))
    model = spine.load(
        tmp_path / "hrnet.pth", backbone="hrnet", variant="micro", task="pose", classes=tmp_path / "names.json", device="cpu"
    )
    labels = model.description.labels
    assert (labels.keypoints, labels.skeleton, labels.flip_pairs) == (("left_eye", "right_eye"), ((0, 1),), ((0, 1),))
    assert model.predict(np.zeros((60, 40, 3), np.uint8)).keypoints.shape == (1, 2, 3)


def test_a_checkpoint_has_its_own_names(checkpoints):
    with pytest.raises(InputError, match="a checkpoint has the names that it was trained with"):
        spine.load(checkpoints("cls"), classes=["a"], device="cpu")


# ---- sources ----


def test_sources_name_files_relative_to_what_was_given(tmp_path):
    for name in ("b.jpg", "a.PNG", "sub/deep/c.webp", ".hidden/d.jpg", "._e.jpg", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(source):
        return [file.name for file in find_source(source)]

    assert names(tmp_path) == ["a.PNG", "b.jpg", "sub/deep/c.webp"]
    assert names(tmp_path / "b.jpg") == ["b.jpg"]
    assert names(f"{tmp_path}/*") == ["a.PNG", "b.jpg"] and names(f"{tmp_path}/**/*.webp") == ["sub/deep/c.webp"]
    (tmp_path / "list.txt").write_text(f"sub/deep/c.webp\n\n{tmp_path}/b.jpg\nb.jpg\nmissing.jpg\n")
    assert names(tmp_path / "list.txt") == ["sub/deep/c.webp", "b.jpg", "missing.jpg"]
    assert names([tmp_path / "sub", tmp_path / "b.jpg"]) == ["sub/deep/c.webp", "b.jpg"]
    assert [file.index for file in find_source(tmp_path)] == [0, 1, 2]
    assert [file.name for file in find_source(tmp_path, leave_out=tmp_path / "sub")] == ["a.PNG", "b.jpg"]
    with pytest.raises(InputError, match="are in .*, the folder of the predictions"):
        find_source(tmp_path / "sub", leave_out=tmp_path / "sub")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("phots", r"There is no 'phots'\. Did you mean 'photos'\? source is an image, a folder"),
        ("photos", r"Folder 'photos' has no image"),
        ("photos/*.jpg", r"No image matches 'photos/\*\.jpg'\."),
        ("photos/*", r"No image matches 'photos/\*': notes\.md are none"),
        ("empty.txt", r"'empty\.txt' lists no image"),
    ],
)
def test_sources_without_images_are_refused(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.md").touch()
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match=message):
        find_source(source)


def test_files_with_equal_stems_keep_their_suffixes():
    assert unique_stems(["a.jpg", "a.PNG", "b/c.d.jpg", "e"]) == {
        "a.jpg": "a.jpg",
        "a.PNG": "a.PNG",
        "b/c.d.jpg": "b/c.d",
        "e": "e",
    }


def test_a_video_gives_a_video_and_a_mask_for_each_frame(checkpoints, tmp_path):
    video = write_video(tmp_path / "clip.avi")
    records = predicted(checkpoints("seg"), video, tmp_path / "out", "dataset.batch_size=2", "max_frames=3")
    assert [record["file"] for record in records] == [f"clip.avi#{i:06}" for i in range(3)]
    assert np.asarray(Image.open(tmp_path / "out" / records[2]["mask"])).shape == (48, 64)
    assert sum(1 for _ in Video(str(tmp_path / "out" / "clip.mp4")).frames()) == 3
    assert len(list(spine.load(checkpoints("seg"), device="cpu").stream(video))) == 5


def test_a_number_is_a_camera(checkpoints, tmp_path, monkeypatch):
    video, capture = write_video(tmp_path / "clip.avi"), cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: capture(str(video)) if source == 0 else capture(source))
    assert find_source("0") == find_source(0) == Video(0) and Video(0).is_endless
    records = predicted(checkpoints("cls"), "0", tmp_path / "out", "max_frames=4")
    assert [record["file"] for record in records] == [f"camera0#{i:06}" for i in range(4)]
    with pytest.raises(InputError, match="Camera 7 cannot be opened"):
        list(Video(7).frames())


# ---- boxes ----


def test_keypoints_have_the_color_of_their_side():
    names = ("nose", "left_eye", "right_eye", "rhip", "lhip", "jaw_0", "jaw_16", "eyeLeft", "eyeRight")
    colors = side_colors(names, ((1, 2), (3, 4), (5, 6), (7, 8)))
    assert colors == [CENTER, LEFT, RIGHT, RIGHT, LEFT, CENTER, CENTER, LEFT, RIGHT]


def test_boxes_are_read_from_every_format(tmp_path):
    detection = {"image_id": 785, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    named = {"file_name": "val/b.jpg", "bbox": [1, 2, 3, 4], "score": 0.1}
    annotated = {
        "images": [{"id": 9, "file_name": "a.jpg", "width": 50, "height": 40}, {"id": 10, "file_name": "empty.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 9, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 9, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"id": 3, "image_id": 9, "bbox": [1, 2, 0, 4]},
        ],
    }

    def table(content, **options):
        (tmp_path / "boxes.json").write_text(json.dumps(content))
        return read_boxes(tmp_path / "boxes.json", **options)

    found = table([detection, named], min_score=0.2)
    assert found.of_file("sub/000000000785.jpg").image_id == 785 and len(found.of_file("val/b.jpg").boxes) == 0
    assert found.of_file("000000000785.jpg").scores.tolist() == [0.5]
    assert table([detection, named]).of_file("other/b.jpg").boxes.tolist() == [[1, 2, 3, 4]]
    found = table(annotated).of_file("a.jpg")
    assert len(found.boxes) == 1 and found.image_id == 9 and found.size == (40, 50)
    assert table({"c.jpg": [[1, 2, 3, 4, 0.7]]}).of_file("c.jpg").scores.tolist() == pytest.approx([0.7])
    with pytest.raises(InputError, match="No image has a box in"):
        table({"c.jpg": [[1, 2, 3, 4]]}).check(["d.jpg"])
    for wrong in (3, [{"bbox": [1, 2, 3, 4]}], {"c.jpg": [[1, 2, 3]]}, {"c.jpg": [[1, 2, 3, "x"]]}):
        with pytest.raises(InputError, match=r"boxes\.json"):
            table(wrong)


def test_results_of_keypoints_are_read_by_the_coco_library(checkpoints, images, tmp_path):
    from faster_coco_eval import COCO

    boxes = write_boxes(tmp_path / "boxes.json", count=COUNT - 1)  # the last image has no object
    records = predicted(checkpoints("pose"), images, tmp_path / "out", *FAST[:2], f"boxes={boxes}")
    assert [len(record["objects"]) for record in records] == [1] * (COUNT - 1) + [0]
    truth = {"images": [{"id": i + 1} for i in range(COUNT)], "annotations": [], "categories": [{"id": 1, "name": "object"}]}
    results = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert len(COCO(truth).loadRes(results).getAnnIds()) == COUNT - 1
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5 * (COUNT - 1)


# ---- folders of results ----


def test_unreadable_files_are_listed_and_do_not_stop_the_others(checkpoints, images, tmp_path, caplog):
    source = write_images(tmp_path / "photos", 3)
    (source / "001.png").write_bytes((source / "001.png").read_bytes()[:60])
    (source / "sub").mkdir()
    (source / "sub" / "empty.jpg").touch()
    config = compose_model([f"ckpt_path={checkpoints('seg')}", *FAST[:3]])
    with caplog.at_level("INFO", logger="spine"):
        summary = predict_config({**config, "source": str(source)}, tmp_path / "out")
    assert summary.predicted == 2 and sorted(summary.unreadable) == ["001.png", "sub/empty.jpg"]
    listed = (tmp_path / "out" / "unreadable.txt").read_text()
    assert "sub/empty.jpg\tFile" in listed and "001.png" in listed
    assert "2 files cannot be read" in caplog.text and "2 images in" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["000.png", "002.png"]
    assert (tmp_path / "out" / "contact_sheet.jpg").is_file() and not (tmp_path / "out" / ".parts").exists()


def test_label_images_have_the_palette_of_the_classes(checkpoints, images, tmp_path):
    records = predicted(checkpoints("seg"), images / "001.png", tmp_path / "out")
    mask = Image.open(tmp_path / "out" / "masks" / "001.png")
    assert mask.mode == "P" and mask.size == SIZE[::-1] and records[0]["mask"] == "masks/001.png"
    values = np.asarray(mask)
    names = list(records[0]["shares"])
    assert {names[i]: float((values == i).mean()) for i in range(len(names))} == pytest.approx(records[0]["shares"])
    assert len(set(map(tuple, np.array(mask.getpalette()).reshape(-1, 3)[: len(names)]))) == len(names)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert list(next(csv.DictReader(file))) == ["file", "height", "width", *names]


def test_classes_that_may_overlap_have_a_mask_each(tmp_path):
    from spine.prediction.items import Item
    from spine.prediction.results.seg import Segmentation

    mask = np.zeros((2, 6, 5), np.uint8)
    mask[0, :3], mask[1, 2:] = 1, 1
    found = Segmentation(
        Item(0, "a.png", pixels=np.zeros((6, 5, 3), np.uint8)), Labels(mask_classes=("x", "y/z"), multi_label=True), mask
    )
    assert found.write(tmp_path, "a", draw=True)["mask"] == "masks/a"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "masks" / "a" / "y_z.png")), mask[1] * 255)
    assert found.shares == {"x": 0.5, "y/z": pytest.approx(4 / 6)} and len(found.legend()) == 2


def test_skip_existing_predicts_only_what_is_missing(checkpoints, images, tmp_path, monkeypatch):
    model, source, out = spine.load(checkpoints("cls"), device="cpu"), find_source(images), tmp_path / "out"
    options = RunOptions(batch_size=2, num_workers=0)
    complete = tmp_path / "complete"
    predict_source(model, source, OutputFolder(complete, model.kind), options)
    interrupted = OutputFolder(out, model.kind)
    monkeypatch.setattr(interrupted, "finish", lambda *_: Summary(0, {}))
    predict_source(model, source[:3], interrupted, options)
    with (out / ".parts" / "0.jsonl").open("a") as file:
        file.write('{"file": "003.png", "clas')  # killed while it was written

    calls = []
    monkeypatch.setattr(
        model, "predict_batch", lambda batch, size: calls.append(batch) or type(model).predict_batch(model, batch, size)
    )
    again = OutputFolder(out, model.kind)
    summary = predict_source(model, source, again, replace(options, skip_existing=True))
    assert [item.name for batch in calls for item in batch.items] == ["003.png", "004.png", "005.png"]
    assert summary.predicted == COUNT
    found, expected = (json.loads((folder / "predictions.json").read_text()) for folder in (out, complete))
    assert [record["file"] for record in found] == [record["file"] for record in expected]
    calls.clear()
    predict_source(model, source, OutputFolder(out, model.kind), replace(options, skip_existing=True))
    assert not calls and json.loads((out / "predictions.json").read_text()) == found
    other = spine.load(checkpoints("seg"), device="cpu")
    with pytest.raises(InputError, match="were made by another model or with other options"):
        predict_source(other, source, OutputFolder(out, other.kind), replace(options, skip_existing=True))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["boxes=boxes.json"], "boxes are those of objects in image files, for task=pose"),
        (["top_k=0"], "top_k is 0; it must be a whole number of classes, 1 or more"),
        (["trainer.accelerator=gpu"], "torch .* finds none here"),
        (["classes=[a,b]"], "a checkpoint has the names that it was trained with"),
    ],
)
def test_mistakes_of_the_command_are_one_sentence(overrides, message, checkpoints, images, tmp_path):
    if "trainer.accelerator=gpu" in overrides and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("there is a GPU")
    config = compose_model([f"ckpt_path={checkpoints('cls')}", *FAST[:2], *overrides])
    with pytest.raises(InputError, match=message):
        predict_config({**config, "source": str(images)}, tmp_path / "out")


def test_a_model_must_be_named():
    with pytest.raises(InputError, match="Which model\\? Give ckpt_path="):
        compose_model(["backbone=vit"])
