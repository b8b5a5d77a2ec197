"""From pre-training to a result: weights of pre-training, linear probes and nearest neighbors."""

import copy
import csv
import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from command_line import run_command
from interruptions import at_call
from test_configs import composed
from test_processes import TWO
from weight_files import random_network

import spine
from spine.checkpoints.adaptation import BLOCK_BIAS
from spine.commands import train
from spine.config import checks
from spine.config.building import build_run
from spine.errors import InputError
from spine.interfaces import Labels
from spine.models.assembly import NetworkConfig
from spine.tasks.cls import neighbors
from spine.tasks.cls.linear_probe import LinearProbe
from spine.tasks.cls.neighbors import NearestNeighbors
from spine.tasks.cls.task import Classification
from spine.training.optimizers import adamw, lars, sgd
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

SIZE = (64, 64)
TINY = (
    "backbone=mobilenet_v2", "dataset.length={train: 24, val: 10, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0",
    "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.num_sanity_val_steps=0",
    "trainer.log_every_n_steps=1",
)  # fmt: skip


def pretraining_checkpoint(path, backbone, task="mae", **options):
    """Writes the network of a pre-training run with random weights as last.ckpt does, and returns its state dict."""
    net = random_network(backbone, variant="micro", task=task, image_size=SIZE[0], **options)
    config = {"image_size": [*SIZE], "backbone": {"_target_": f"spine.backbones.{backbone}.{backbone}"}}
    state = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": {**state, "tokenizer.weight": torch.zeros(3)}, "config": config}, path)
    return net.state_dict()


# ---- weights of pre-training ----


@pytest.mark.parametrize("backbone", spine.list_backbones())
def test_a_classifier_takes_every_tensor_of_the_pretrained_encoder(tmp_path, caplog, backbone):
    pretrained = pretraining_checkpoint(tmp_path / "last.ckpt", backbone)
    with caplog.at_level("INFO", logger="spine"):
        net = spine.create_model(backbone, variant="micro", num_outputs=5, image_size=SIZE, weights=tmp_path / "last.ckpt")
    for name, tensor in net.state_dict().items():
        before = name.replace("backbone.pooling.norm.", "backbone.norm.") if backbone == "vit" else name  # ViT has one norm
        if before in pretrained:
            assert torch.equal(tensor, pretrained[before]), name
        else:
            new = ("head.", "backbone.pooling.", "backbone.stage4.0.fuse_layers.")  # HRNet fuses all maps only for a classifier
            assert name.startswith(new) or name.endswith(("num_batches_tracked", BLOCK_BIAS)), name
    new, unused = (caplog.messages[-1].partition(status)[2].splitlines()[0] for status in ("new", "unused"))
    assert "head.linear." in new and "mask" not in new
    assert ("head.mask_token" in unused) == (backbone in ("mae", "vit")) and "head.decoder_blocks.*" in unused
    assert "tokenizer" not in caplog.text


@pytest.mark.parametrize(
    ("backbone", "task", "head", "then"),
    [
        ("beit", "beit", None, "cls"),
        ("mae", "mae", None, "seg"),
        ("convnext", "mae", "token_classifier", "seg"),
        ("swin", "mae", None, "pose"),
    ],
)
def test_every_kind_of_masking_starts_every_task(tmp_path, caplog, backbone, task, head, then):
    pretrained = pretraining_checkpoint(tmp_path / "last.ckpt", backbone, task, **({"head": head} if head else {}))
    with caplog.at_level("INFO", logger="spine"):
        net = spine.create_model(
            backbone, variant="micro", task=then, num_outputs=5, image_size=SIZE, weights=tmp_path / "last.ckpt"
        )
    shared = "backbone.rel_pos_bias.relative_position_bias_table"
    taken = {name for name, tensor in net.state_dict().items() if name in pretrained and torch.equal(tensor, pretrained[name])}
    for name, tensor in net.backbone.state_dict().items():
        if name.endswith("relative_position_bias_table") and backbone == "beit":
            assert torch.equal(tensor, pretrained[shared])  # every block gets the shared table
        elif not name.startswith(("pooling.", "norms.")) and not name.endswith("num_batches_tracked"):
            assert f"backbone.{name}" in taken, name
    if backbone == "beit":
        assert "backbone.mask_token" in caplog.messages[-1].split("unused")[1]


# ---- linear probe ----


def labels(count=3):
    return Labels(classes=tuple(f"class {i}" for i in range(count)))


def network(**head_options):
    spec = spine.components.task_spec("cls")
    return NetworkConfig(
        "mobilenet_v2", "linear", spec, 3, image_size=SIZE, backbone_options={"variant": "micro"}, head_options=head_options
    ).build()


def train_by_hand(task, batches):
    """Takes the optimizer steps of a task without a Trainer."""
    optimizer = task.optimizer_of(task.make_optimizer)
    task.train()
    for batch in batches:
        optimizer.zero_grad()
        task.step_weight = None
        loss = task.evaluate_batch(batch)[0] * len(task.classifiers)
        loss.backward()
        optimizer.step()


def batches(count=3):
    return [{"image": torch.randn(4, 3, *SIZE), "label": torch.tensor([0, 1, 2, 0])} for _ in range(count)]


@pytest.mark.parametrize("optimizer", [partial(sgd, lr=0.1), partial(adamw, lr=0.01), partial(lars, lr=1.0)])
def test_each_classifier_of_a_probe_is_trained_as_if_it_were_alone(optimizer):
    net, data = network(batch_norm=True), batches()
    several = LinearProbe(
        model=copy.deepcopy(net), labels=labels(), optimizer=optimizer, lr_factors=[0.3, 1.0, 3.0], smoothing=0.0
    )
    train_by_hand(several, data)
    for factor, classifier in zip((0.3, 1.0, 3.0), several.classifiers, strict=True):
        alone = LinearProbe(model=copy.deepcopy(net), labels=labels(), optimizer=optimizer, lr_factors=[factor], smoothing=0.0)
        train_by_hand(alone, data)
        for name, tensor in classifier.state_dict().items():
            assert torch.equal(tensor, alone.classifiers[0].state_dict()[name]), (factor, name)
        assert not torch.equal(classifier.linear.weight, net.head.linear.weight)


def test_a_probe_leaves_the_backbone_in_evaluation_mode_and_without_gradients():
    net = network(batch_norm=True)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    task = LinearProbe(model=net, labels=labels(), optimizer=partial(sgd, lr=0.1))
    train_by_hand(task, batches())
    assert task.training and task.classifiers[0].training
    assert not any(module.training for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())
    norm = task.classifiers[0].norm
    assert isinstance(norm, torch.nn.BatchNorm1d) and not norm.affine and norm.eps == 1e-6


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """A finished run of protocol=linear, and the checkpoint that it started from."""
    folder = tmp_path_factory.mktemp("probe")
    pretraining_checkpoint(folder / "pretrained.ckpt", "mobilenet_v2")
    overrides = ("protocol=linear", f"backbone.weights={folder / 'pretrained.ckpt'}", *TINY)
    (folder / "run").mkdir()
    train.train_run(composed(*overrides), RunFolder(folder / "run"))
    return folder / "run", folder / "pretrained.ckpt", overrides


def test_a_probe_reports_every_learning_rate_and_keeps_the_best(probe):
    folder, _, _ = probe
    results = json.loads((folder / "metrics.json").read_text())["metrics"]
    of_each = [value for name, value in results.items() if name.startswith("val/top1/lr_factor_")]
    assert len(of_each) == 5 and results["val/top1"] == max(of_each)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/top1"]]
    for row in rows:
        assert float(row["val/top1"]) == max(float(row[name]) for name in row if name.startswith("val/top1/"))
    assert results["val/top1"] == max(float(row["val/top1"]) for row in rows)


def test_a_checkpoint_of_a_probe_is_one_of_a_classifier(probe, tmp_path):
    folder, _, _ = probe
    path = folder / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    chosen = content["linear_probe"]["chosen"]
    task = Classification.load_from_checkpoint(path)
    for name, tensor in task.model.head.state_dict().items():
        assert torch.equal(tensor, content["state_dict"][f"classifiers.{chosen}.{name}"]), name
    image = torch.randn(2, 3, *SIZE)
    again = spine.create_model("mobilenet_v2", variant="micro", num_outputs=5, weights=path, head_options={"batch_norm": True})
    assert torch.equal(task.model(image), again.eval()(image))


@pytest.mark.slow
def test_a_probe_that_was_interrupted_is_resumed_exactly(probe, tmp_path, monkeypatch):
    folder, _, overrides = probe
    at_call(monkeypatch, LinearProbe, 9)  # in the second epoch; an epoch has 6 steps
    with pytest.raises(RuntimeError):
        train.train_run(composed(*overrides), RunFolder(tmp_path))
    train.train_run(composed(*overrides), RunFolder(tmp_path))
    one, two = (torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (folder, tmp_path))
    assert all(torch.equal(tensor, two["state_dict"][name]) for name, tensor in one["state_dict"].items())
    results = [json.loads((each / "metrics.json").read_text())["metrics"] for each in (folder, tmp_path)]
    assert results[0] == results[1]


# ---- nearest neighbors ----


def test_votes_equal_those_of_the_whole_matrix_of_similarities(monkeypatch):
    monkeypatch.setattr(neighbors, "BLOCK", 7)
    task = NearestNeighbors(model=network(), labels=labels(), k=5, temperature=0.1)
    task.embeddings = F.normalize(torch.randn(40, 16), dim=1)
    task.classes = torch.randint(3, (40,))
    queries = F.normalize(torch.randn(6, 16), dim=1)
    similarity, places = (queries @ task.embeddings.T).topk(5, dim=1)
    expected = torch.zeros(6, 3)
    for row, (values, found) in enumerate(zip(similarity, places, strict=True)):
        for value, place in zip(values, found, strict=True):
            expected[row, task.classes[place]] += torch.exp(value / 0.1)
    assert torch.allclose(task.vote(queries), expected / expected.sum(1, keepdim=True), rtol=1e-5)


def test_nearest_neighbors_find_the_training_images_themselves(tmp_path):
    """With one neighbor, every image of the training split has its own class."""
    config = checks.prepare(composed("protocol=knn", "protocol.k=1", *TINY))
    from spine.config.building import build_trainer
    from spine.evaluation.evaluate import evaluate_split

    run = build_run(config)
    trainer = build_trainer(run.config, tmp_path, run.task)
    assert evaluate_split(trainer, run.task, run.data, "train")["train/top1"] == 1.0


def test_a_run_of_nearest_neighbors_writes_results_and_nothing_is_trained(tmp_path, caplog):
    overrides = ("protocol=knn", "protocol.k=3", *TINY)
    with caplog.at_level("WARNING", logger="spine"):
        train.train_run(composed(*overrides), RunFolder(tmp_path))
    assert "The backbone is random: protocol=knn needs backbone.weights=<file>." in caplog.text
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert results["metrics"].keys() >= {"val/top1", "val/loss"} and results["checkpoint"] == "" and results["steps"] == 0
    assert not (tmp_path / "checkpoints").exists()
    before = (tmp_path / "metrics.json").stat().st_mtime_ns
    train.train_run(composed(*overrides, "trainer.max_epochs=7"), RunFolder(tmp_path))  # finished: more epochs change nothing
    assert (tmp_path / "metrics.json").stat().st_mtime_ns == before


def test_too_many_neighbors_are_reported(tmp_path):
    with pytest.raises(InputError, match=r"protocol.k is 30, but the training split has 24 samples"):
        train.train_run(composed("protocol=knn", "protocol.k=30", *TINY), RunFolder(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_several_processes_measure_the_same(tmp_path, protocol):
    pretraining_checkpoint(tmp_path / "pretrained.ckpt", "mobilenet_v2")
    found = []
    for name, more in (("one", ("trainer.devices=1", "dataset.batch_size=8")), ("two", TWO)):
        done = run_command(
            "train.py",
            f"protocol={protocol}",
            f"backbone.weights={tmp_path / 'pretrained.ckpt'}",
            *TINY,
            f"task_name={name}",
            *more,
            folder=tmp_path,
            processes=2 if more == TWO else 1,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (results,) = tmp_path.glob(f"logs/{name}/**/metrics.json")
        found.append(json.loads(results.read_text())["metrics"])
    if protocol == "knn":
        assert found[0] == pytest.approx(found[1], abs=1e-5)
    else:  # batch norm sees other batches
        assert found[0].keys() == found[1].keys()


# ---- mistakes, names ----


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["protocol=linear", "task=seg"], "protocol=linear is for task=cls; this run has task=seg. Use protocol=finetune."),
        (["protocol=knn", "task=mae"], "protocol=knn is for task=cls; this run has task=mae. Use protocol=finetune."),
        (["protocol.name=knnn"], "protocol is 'knnn'. Did you mean 'knn'? Choices: finetune, knn, linear."),
        (["+protocol.k=3"], "Unknown key 'protocol.k'. Allowed keys: none."),
        (["protocol=knn", "protocol.k=0"], "protocol.k is 0; it must be a whole number of neighbors, 1 or more."),
        (
            ["protocol=linear", "protocol.lr_factors=[]"],
            "protocol.lr_factors is []; it must be a list of factors of optimizer.lr above 0, one for each classifier.",
        ),
        (
            ["protocol=linear", "trainer.strategy=fsdp"],
            "trainer.strategy is fsdp, which shards a network that is trained; protocol=linear needs ddp or auto.",
        ),
        (
            ["protocol=linear", "callbacks.ema={decay: 0.9}"],
            "callbacks.ema is for a network that is trained; protocol=linear leaves the backbone as it is.",
        ),
        (
            ["protocol=linear", "callbacks.freeze={names: [backbone]}"],
            "callbacks.freeze is for a network that is trained; protocol=linear leaves the backbone as it is.",
        ),
        (
            ["protocol=knn", "trainer.limit_val_batches=0"],
            "trainer.limit_val_batches is 0, and protocol=knn does nothing but evaluate the validation split.",
        ),
        (
            ["protocol=knn", "ckpt_path=last"],
            "ckpt_path resumes a training, and protocol=knn trains nothing. Give the file as backbone.weights.",
        ),
    ],
)
def test_mistakes_are_reported_in_one_sentence(overrides, message):
    with pytest.raises(InputError) as error:
        checks.prepare(composed(*overrides))
    assert str(error.value) == message


def test_protocols_take_every_option_of_the_task():
    import inspect

    own = {name for name in inspect.signature(Classification).parameters if name != "common"}
    for protocol in (LinearProbe, NearestNeighbors):
        assert own <= set(inspect.signature(protocol).parameters)


def test_the_run_folder_names_the_protocol():
    from hydra import compose, initialize_config_dir
    from test_configs import CONF

    from spine.config.resolving import run_id

    ids = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides in ([], ["protocol=knn"], ["protocol=knn", "protocol.k=3"]):
            ids.append(run_id(_root_=compose("train", overrides, return_hydra_config=True)))
    assert ids[0].startswith("convnext-micro_cls_shapes_") and ids[1].startswith("convnext-micro_cls-knn_shapes_")
    assert len(set(ids)) == 3


def test_a_moving_average_in_a_checkpoint_starts_a_run(tmp_path):
    """`state_dict` holds the average, `current_model_state` the weights of the optimizer."""
    average, trained = (random_network("mobilenet_v2", variant="micro").state_dict() for _ in range(2))
    trained = {name: tensor + 1 for name, tensor in trained.items()}
    named = [{f"model.{name}": tensor for name, tensor in state.items()} for state in (average, trained)]
    torch.save({"config": {}, "current_model_state": named[1], "state_dict": named[0]}, tmp_path / "last.ckpt")
    net = spine.create_model("mobilenet_v2", variant="micro", num_outputs=3, weights=tmp_path / "last.ckpt")
    assert all(torch.equal(tensor, average[name]) for name, tensor in net.state_dict().items() if tensor.is_floating_point())
