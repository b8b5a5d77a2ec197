"""Checks whether the parts of a configuration fit together, before data is read. Nothing is changed."""

from __future__ import annotations

from pathlib import Path

from spine import components
from spine.components import check_arguments, component_name, dataset_class, task_spec
from spine.config.dataset_parts import dataset_parts, format_options
from spine.config.instantiate import instantiate, target_of
from spine.config.places import augmentations, check_targets
from spine.config.resume import check_resume
from spine.config.schemas import Config
from spine.config.tokenizer import check_tokenizer
from spine.config.values import check_options, check_values, format_value
from spine.errors import InputError
from spine.task_spec import TaskSpec

REQUIRED = "required"  # backbone.weights of an experiment that starts from pre-trained weights, which the user gives


def prepare(config: Config, with_files: bool = True) -> Config:
    """Checks a plain configuration and returns a complete copy: what was null is filled in (see `completion.complete`).

    `with_files`: False leaves out the checks of files and devices, for plans.

    Raises InputError for the first mistake: names, types and ranges first, which needs no torch; then paths and devices; then
    whether task, data set, head, backbone, image size and weights fit together.
    """
    check_targets(config)
    check_values(config)
    if with_files:
        check_paths(config)
        check_tokenizer(config)
        check_devices(config["trainer"])
    check_data(config, with_files)
    check_network_options(config)
    from spine.config.completion import complete  # imports torch

    completed = complete(config)
    check_network(completed)
    for path, step in augmentations(completed):  # last: the import of albumentations takes a second
        instantiate(path, step)
    check_batches(completed)
    return completed


def check_paths(config: Config) -> None:
    """Raises InputError if the folder of the data set or the checkpoint to resume does not exist, or if required weights are not given."""
    checkpoint = config.get("ckpt_path")
    if (config.get("backbone") or {}).get("weights") == REQUIRED:
        raise InputError(
            "This experiment starts from pre-trained weights, and none are given. Give backbone.weights=<checkpoint of the pre-training>."
        )
    if config["dataset"].get("root") is not None:  # a missing root is reported later, if data set and task fit
        check_root(config["dataset"])
    if checkpoint not in (None, "last") and not Path(checkpoint).is_file():
        raise InputError(f"There is no checkpoint '{checkpoint}'. Give ckpt_path=logs/.../checkpoints/last.ckpt.")


def check_root(node: Config) -> None:
    """Raises InputError if the folder of a data set is not given or does not exist. Addresses of stores are opened later."""
    from spine.data.image_files import need_root

    if "://" in (node.get("root") or "") and getattr(target_of("dataset", node), "reads_urls", False):
        return
    need_root(node.get("root"), component_name("dataset", node["_target_"]))


def check_devices(trainer: Config) -> None:
    """Raises InputError if the devices that the trainer asks for do not exist."""
    import torch

    wanted, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    found = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    found["gpu"] = found["cuda"] or found["mps"]
    if wanted in found and not found[wanted]:
        raise InputError(f"trainer.accelerator is '{wanted}', but torch {torch.__version__} finds none here. Use auto or cpu.")
    on_cpu = wanted == "cpu" or (wanted == "auto" and not found["gpu"])
    if on_cpu and not (devices == "auto" or (isinstance(devices, int) and devices > 0) or str(devices).isdigit()):
        raise InputError(
            f"trainer.devices is {format_value(devices)}; on the CPU it is a number of processes, 1 or more, or auto."
        )
    if on_cpu and trainer.get("precision") in ("16-mixed", "16", 16):
        raise InputError(
            f"trainer.precision is {format_value(trainer['precision'])}, which needs a GPU. Use auto, bf16-mixed or 32-true."
        )
    if on_cpu and trainer.get("sync_batchnorm"):
        raise InputError("trainer.sync_batchnorm is true, which needs GPUs: PyTorch has no synchronized batch norm on the CPU.")
    if not on_cpu:
        _check_gpus(devices, found["gpu"])


def _check_gpus(devices: str | int | list[int], count: int) -> None:
    listed = [int(one) for one in devices.split(",")] if isinstance(devices, str) and "," in devices else devices
    wanted = max(listed) + 1 if isinstance(listed, list) else int(listed) if str(listed).isdigit() else 1
    if wanted > count:
        raise InputError(f"trainer.devices is {format_value(devices)}, but this machine has {count}, numbered from 0.")


def check_data(config: Config, with_files: bool = True) -> None:
    """Raises InputError if the data set does not provide what the task needs, has no folder, or does not take its options."""
    name, spec = component_name("task", config["task"]["_target_"]), _task(config)
    dataset = target_of("dataset", config["dataset"])
    if missing := sorted(spec.needs - dataset.provides):
        others = [other for other in components.modules("dataset") if spec.needs <= dataset_class(other).provides]
        raise InputError(
            f"Task '{name}' reads {', '.join(missing)}, which data set '{component_name('dataset', config['dataset']['_target_'])}' "
            f"does not provide (it gives {', '.join(sorted(dataset.provides))}). Data sets that do: {', '.join(others)}."
        )
    mean, std = config["dataset"].get("mean"), config["dataset"].get("std")
    if spec.reads_pixels and (mean, std) != ([0, 0, 0], [1, 1, 1]):
        raise InputError(
            f"dataset.mean is {format_value(mean)} and dataset.std is {format_value(std)}; task '{name}' reads pixels in 0..1, "
            f"which needs dataset.mean=[0,0,0] and dataset.std=[1,1,1]."
        )
    for path, node in {"dataset": config["dataset"], **dataset_parts(config)}.items():
        part = target_of(path, node)
        if missing := sorted(spec.needs - part.provides):
            raise InputError(
                f"Task '{name}' reads {', '.join(missing)}, which {path} does not provide (it gives {', '.join(sorted(part.provides))})."
            )
        if with_files and part.reads_files:
            check_root(node)
        own = {key: value for key, value in format_options(node).items() if key != "_target_"}
        check_arguments(part.__init__, own, path)
        check_options(part, own, path)


def _task(config: Config) -> TaskSpec:
    return task_spec(component_name("task", config["task"]["_target_"]))


def check_network(config: Config) -> None:
    """Raises InputError if head, backbone, image size, weights or the checkpoint to resume do not fit together.

    The network of a complete configuration is built on the meta device.
    """
    import torch

    from spine.config.completion import placeholder_outputs
    from spine.models.assembly import network_of
    from spine.models.pretrained import configured_weights, load_weights

    network = network_of(config, placeholder_outputs(config))
    with torch.device("meta"):
        model = network.build()
    if (weights := configured_weights(config, network)) is not None:  # on the meta device names and shapes are compared
        load_weights(model, weights)
    if config.get("ckpt_path") not in (None, "last"):
        check_resume(config["ckpt_path"], config, model)


def check_batches(config: Config) -> None:
    """Raises InputError if augment.batch does not fit the task, the batch size or the length of the training."""
    node = config["augment"].get("batch")
    if node is None:
        return
    task, size = _task(config), config["dataset"]["batch_size"]
    if not task.takes_targets:
        raise InputError(
            f"augment.batch mixes images and the labels of classes, which task '{task.name}' does not support. Set augment.batch=null."
        )
    transform = instantiate("augment.batch", node)
    if size % 2 and config["dataset"].get("global_batch_size") is None:
        raise InputError(f"augment.batch mixes pairs of images: dataset.batch_size is {size}; it must be even.")
    if transform.off_epochs and config["trainer"].get("max_epochs") in (None, -1):
        raise InputError("augment.batch.off_epochs counts the last epochs: set trainer.max_epochs, or off_epochs to 0.")


def check_network_options(config: Config) -> None:
    """Raises InputError if an option of the backbone or the head is unknown, or does not have the type of the signature."""
    for place, others in (("backbone", ("_target_", "weights", "layout")), ("head", ("_target_", "levels"))):
        if place not in config:  # the task has a network of its own
            continue
        target = target_of(place, config[place])
        options = {key: value for key, value in config[place].items() if key not in others}
        if options.get("variant", "") is None:
            del options["variant"]  # the builder's own default
        check_arguments(target if place == "backbone" else target.__init__, options, place)
        given = {key: value for key, value in options.items() if value is not None}  # null: the published value, or the default
        check_options(target, given, place)
