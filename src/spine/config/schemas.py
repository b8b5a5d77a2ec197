"""Types, ranges and units of the keys of a configuration.

This module imports neither torch nor Lightning, so that mistakes are reported quickly.
`Allowed.kind` is a type for pydantic; `Allowed.description` completes the message "<key> is
<value>; it must be ...". Tests compare these tables with the signatures of the functions and
classes, and with the yaml files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from spine.option_types import (
    OPTIONAL_SWITCH,
    SWITCH,
    AboveZero,
    Allowed,
    BelowOne,
    Channels,
    Config,
    Count,
    Duration,
    Fraction,
    NotNegative,
    Positive,
    Schema,
    Size,
    Text,
)

Color = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
BATCHES = Allowed(Count | Fraction, "a whole number of batches, or a fraction of them with a decimal point, 0.0 to 1.0")
IMAGE_SIZE = Allowed(
    Size | None, "two numbers of pixels, [height, width], such as image_size=[180,240], or null for the size of the weights"
)

PRECISIONS = (
    "auto", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "16", "bf16", "32", "64", 16, 32, 64,
)  # fmt: skip
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
STRATEGIES = (
    "auto", "single_device", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true", "ddp_spawn", "ddp_fork",
    "ddp_notebook", "ddp_spawn_find_unused_parameters_false", "ddp_spawn_find_unused_parameters_true",
    "ddp_fork_find_unused_parameters_false", "ddp_fork_find_unused_parameters_true", "ddp_notebook_find_unused_parameters_false",
    "ddp_notebook_find_unused_parameters_true", "fsdp", "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2",
    "deepspeed_stage_2_offload", "deepspeed_stage_3", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme",
)  # fmt: skip

TOP: Schema = {
    "task_name": Allowed(Text, "the name of a folder under logs/"),
    "seed": Allowed(Annotated[int, Field(ge=0, lt=2**32)], "a whole number from 0 to 4294967295"),
    "image_size": IMAGE_SIZE,
    "num_outputs": Allowed(Positive | None, "a whole number of classes or keypoints, or null for the number of the data set"),
    "tokenizer": Allowed(Text | None, "the path of a checkpoint of task=dvae or of a published tokenizer, or null"),
    "compile": SWITCH,
    "ckpt_path": Allowed(Text | None, "the path of a checkpoint, or null"),
    "restart": SWITCH,
    "plugins": Allowed(Text | list[Text] | None, "a folder with additional parts, a list of folders, or null"),
    "optimized_metric": Allowed(Text | None, "the name of a metric, such as val/top1, or null"),
    "tags": Allowed(list[str], "a list of tags, such as tags=[first,baseline]"),
}
SECTIONS = ("backbone", "head", "task", "dataset", "augment", "optimizer", "schedule", "trainer", "callbacks")
NETWORK_SECTIONS = ("backbone", "head")  # absent if the task has a network of its own
OPTIONAL_SECTIONS = ("logger", "sweep", "protocol", "auxiliary_head")

VALIDATION_STEPS: Schema = {  # of `trainer`, in addition to the arguments of Lightning's Trainer
    "val_every_n_steps": Allowed(Positive | None, "a whole number of optimizer steps, 1 or more, or null"),
}
TRAINER: Schema = {
    "accelerator": Allowed(Literal[ACCELERATORS], f"one of {', '.join(ACCELERATORS)}"),
    "strategy": Allowed(Literal[STRATEGIES], f"one of Lightning's strategies: {', '.join(STRATEGIES)}"),
    "devices": Allowed(
        Positive
        | Literal[-1]
        | Annotated[list[Count], Field(min_length=1)]
        | Annotated[str, Field(pattern=r"^(auto|\d+(,\d+)*)$")],
        "a number of devices, 1 or more, -1 or auto for all, or a list of their numbers, such as [0,1]",
    ),
    "num_nodes": Allowed(Positive, "a whole number of machines, 1 or more"),
    "precision": Allowed(Literal[PRECISIONS], f"one of {', '.join(map(str, PRECISIONS[:7]))}"),
    "fast_dev_run": Allowed(bool | Count, "true, false or a number of batches"),
    "max_epochs": Allowed(Positive | Literal[-1] | None, "a whole number of epochs, 1 or more"),
    "min_epochs": Allowed(Count | None, "a whole number of epochs, or null"),
    "max_steps": Allowed(Positive | Literal[-1] | None, "a whole number of optimizer steps, 1 or more, or null for no limit"),
    "min_steps": Allowed(Count | None, "a whole number of steps, or null"),
    "max_time": Allowed(
        Duration | dict[Literal["weeks", "days", "hours", "minutes", "seconds"], Count] | None,
        "a duration as days:hours:minutes:seconds, such as 00:00:15:00, or null",
    ),
    "limit_train_batches": BATCHES,
    "limit_val_batches": BATCHES,
    "overfit_batches": BATCHES,
    "val_check_interval": Allowed(
        Positive | Fraction | Duration | None,
        "a whole number of batches, a fraction of an epoch with a decimal point, a duration as days:hours:minutes:seconds, or null",
    ),
    "check_val_every_n_epoch": Allowed(Positive | None, "a whole number of epochs, 1 or more, or null"),
    "num_sanity_val_steps": Allowed(Count | Literal[-1], "a whole number of batches, 0 or more, or -1 for all"),
    "log_every_n_steps": Allowed(Count, "a whole number of steps, 0 or more"),
    "accumulate_grad_batches": Allowed(Positive, "a whole number of batches, 1 or more"),
    "gradient_clip_val": Allowed(NotNegative | None, "a number, 0 or more, or null"),
    "gradient_clip_algorithm": Allowed(Literal["norm", "value", None], "norm, value or null"),
    "deterministic": Allowed(bool | Literal["warn"] | None, "true, false or warn"),
    "benchmark": OPTIONAL_SWITCH,
    "inference_mode": SWITCH,
    "profiler": Allowed(Literal["simple", "advanced", "pytorch", None], "simple, advanced, pytorch or null"),
    "detect_anomaly": SWITCH,
    "sync_batchnorm": SWITCH,
}
# Arguments of Lightning's Trainer that a configuration cannot set, and what to do instead.
TRAINER_FIXED: Mapping[str, str] = {
    "logger": "metrics.csv is always written, and logger=tensorboard or logger=wandb adds a logger",
    "callbacks": "spine adds its own, and +callbacks.more.<name>._target_=<class> adds another one",
    "default_root_dir": "a run writes to its run folder, which hydra.run.dir=<folder> changes",
    "enable_checkpointing": "spine saves the best and the last checkpoint itself; trainer.fast_dev_run=true saves none",
    "enable_progress_bar": "spine shows a progress bar on a terminal and prints lines otherwise",
    "enable_model_summary": "spine prints the number of parameters itself",
    "use_distributed_sampler": "the seed determines the order of the samples for any number of processes",
    "reload_dataloaders_every_n_epochs": "loaders are created once, and shuffle the samples in every epoch",
    "limit_test_batches": "every split is evaluated by the validation loop: set trainer.limit_val_batches",
    "limit_predict_batches": "no command predicts through Lightning's Trainer",
    "barebones": "it would turn off loggers and checkpoints, which spine needs",
    "plugins": "a plugin is an object, and a configuration holds plain values only",
    "enable_autolog_hparams": "spine logs the complete configuration itself",
    "model_registry": "checkpoints stay in the run folder",
}

LR = Allowed(AboveZero, "a learning rate above 0")
WEIGHT_DECAY = Allowed(NotNegative, "a factor, 0 or more")
BETAS = Allowed(Annotated[list[BelowOne], Field(min_length=2, max_length=2)], "two numbers, 0 or more and below 1")
EPS = Allowed(AboveZero, "a number above 0")
MOMENTUM = Allowed(BelowOne, "a number, 0 or more and below 1")
OPTIMIZER: Schema = {  # options of every optimizer
    "lr": LR,
    "weight_decay": WEIGHT_DECAY,
    "layer_decay": Allowed(Annotated[float, Field(gt=0, le=1)], "a factor for each layer, above 0 and at most 1"),
    "head_lr_scale": Allowed(NotNegative, "a factor, 0 or more"),
    "lr_scales": Allowed(
        dict[Text, NotNegative] | None, "factors, 0 or more, by regular expression, such as {'^backbone': 0.1}, or null"
    ),
    "no_decay": Allowed(
        list[Text] | None, "a list of regular expressions, such as [pos_embed], or null for tokens and positions"
    ),
    "decay_norm_and_bias": SWITCH,
    "lr_batch_size": Allowed(Positive | None, "a whole number of samples, 1 or more, or null"),
}
EPOCHS = Allowed(AboveZero, "a number of epochs above 0")
RATE = Allowed(Annotated[float, Field(gt=0, le=1)], "a factor above 0 and at most 1")
LOWEST: Schema = {
    "min_lr": Allowed(NotNegative | None, "a learning rate, 0 or more, or null"),
    "min_lr_ratio": Allowed(Fraction, "a fraction of optimizer.lr, 0 to 1"),
}
SCHEDULE: Schema = {  # options of every schedule
    "warmup": Allowed(BelowOne, "a fraction of all steps, 0 or more and below 1"),
    "warmup_epochs": Allowed(NotNegative | None, "a number of epochs, 0 or more, or null"),
    "warmup_steps": Allowed(Count | None, "a whole number of steps, 0 or more, or null"),
    "warmup_start": Allowed(NotNegative | None, "a learning rate, 0 or more, or null"),
    "warmup_start_ratio": Allowed(Fraction | None, "a fraction of optimizer.lr, 0 to 1, or null"),
    "warmup_reaches_lr": SWITCH,
    "warmup_mode": Allowed(Literal["prefix", "replace", "multiply", None], "prefix, replace or multiply"),
    "per_epoch": SWITCH,
    "delay": Allowed(int, "a whole number of steps"),
}
PARTS: Mapping[str, Mapping[str, Schema]] = {  # the targets that each place may name, with the schema of their options
    "optimizer": {
        "spine.training.optimizers.adamw": {**OPTIMIZER, "betas": BETAS, "eps": EPS},
        "spine.training.optimizers.sgd": {**OPTIMIZER, "momentum": MOMENTUM, "nesterov": SWITCH},
        "spine.training.optimizers.rmsprop": {**OPTIMIZER, "alpha": MOMENTUM, "momentum": MOMENTUM, "eps": EPS},
        "spine.training.optimizers.lars": {
            **OPTIMIZER,
            "momentum": MOMENTUM,
            "trust_coefficient": Allowed(AboveZero, "a factor above 0"),
        },
        "spine.training.optimizers.lamb": {**OPTIMIZER, "betas": BETAS, "eps": EPS},
        "spine.training.optimizers.lion": {**OPTIMIZER, "betas": BETAS},
    },
    "schedule": {
        "spine.training.schedules.cosine": {**SCHEDULE, **LOWEST},
        "spine.training.schedules.poly": {**SCHEDULE, **LOWEST, "power": Allowed(AboveZero, "an exponent above 0")},
        "spine.training.schedules.constant": SCHEDULE,
        "spine.training.schedules.step": {**SCHEDULE, "every_epochs": EPOCHS, "rate": RATE},
        "spine.training.schedules.multi_step": {
            **SCHEDULE,
            "milestones": Allowed(list[AboveZero], "a list of epochs above 0, such as [30, 60, 90]"),
            "rate": RATE,
        },
        "spine.training.schedules.exponential": {**SCHEDULE, "every_epochs": EPOCHS, "rate": RATE},
    },
    "logger": {
        "spine.training.loggers.tensorboard.tensorboard": {},
        "spine.training.loggers.wandb.wandb": {
            "project": Allowed(Text, "the name of a W&B project"),
            "name": Allowed(Text | None, "the name of the run, or null for the name of its folder"),
            "entity": Allowed(Text | None, "the name of a W&B user or team, or null"),
            "group": Allowed(Text | None, "the name of a group of runs, or null"),
            "tags": Allowed(list[str] | None, "a list of tags, or null"),
            "online": SWITCH,
            "timeout": Allowed(Positive, "a whole number of seconds, 1 or more"),
            "log_model": Allowed(Literal[True, False, "all"], "true, false or all"),
        },
    },
}

LOADER: Schema = {  # keys of every data set, even if its format does not use them
    "root": Allowed(Text | None, "the path of a folder, or null"),
    "image_size": IMAGE_SIZE,
    "batch_size": Allowed(Positive, "a whole number of samples, 1 or more"),
    "global_batch_size": Allowed(Positive | None, "a whole number of samples of an optimizer step, 1 or more, or null"),
    "limit": Allowed(
        Positive | Annotated[float, Field(gt=0, le=1)] | None,
        "a fraction of the training split with a decimal point, above 0 and at most 1.0, a whole number of samples, or null",
    ),
    "limit_seed": Allowed(Count | None, "a whole number, 0 or more, or null for the seed of the run"),
    "k_fold": Allowed(Annotated[int, Field(ge=2)] | None, "a whole number of folds, 2 or more, or null"),
    "fold": Allowed(Count, "the number of a fold, from 0"),
    "fold_seed": Allowed(Count, "a whole number, 0 or more"),
    "num_workers": Allowed(
        Count | Literal[-1] | None,
        "a whole number of processes, 0 or more, -1 for one per core, or null for a number that fits the cores",
    ),
    "cache": Allowed(Literal["none", "encoded", "decoded"], "none, encoded or decoded"),
    "cache_gb": Allowed(AboveZero, "a number of GiB above 0"),
    "repeats": Allowed(Positive, "a whole number of draws of each sample in an epoch, 1 or more"),
    "sampling": Allowed(
        Literal["shuffle", "class_balanced", "square_root", "weighted"], "shuffle, class_balanced, square_root or weighted"
    ),
    "on_error": Allowed(Literal["raise", "skip"], "raise or skip"),
    "max_error_share": Allowed(BelowOne, "a fraction of the samples, 0 or more and below 1"),
    "mean": Allowed(Channels | None, "three numbers, one per channel of pixels in 0..1, or null"),
    "std": Allowed(
        Annotated[list[AboveZero], Field(min_length=3, max_length=3)] | None,
        "three numbers above 0, one per channel of pixels in 0..1, or null",
    ),
    "channels": Allowed(Literal["rgb", "bgr", None], "rgb, bgr or null"),
}
TASK: Schema = {  # keys of every task, in addition to the options of its TaskSpec
    "loss": Allowed(
        Config | Annotated[list[Config], Field(min_length=1)] | None,
        "a loss with its _target_, a list of losses with a weight each, or null for the loss of the task's paper",
    ),
}
LOADER_KEYS = tuple(key for key in LOADER if key != "root")  # keys of `dataset` that are not arguments of its format
CALLBACKS: Schema = {
    "figure_every_n_epochs": Allowed(Count, "a whole number of epochs, or 0 for figures of the best checkpoint only"),
    "report_every_minutes": Allowed(AboveZero | None, "a number of minutes above 0, or null for a report at the end only"),
    "checkpoint_every_minutes": Allowed(
        AboveZero | None, "a number of minutes above 0, or null for checkpoints at the end of epochs only"
    ),
    "checkpoint_every_steps": Allowed(Positive | None, "a whole number of steps, 1 or more, or null"),
    "keep_best": Allowed(Positive, "a whole number of checkpoints, 1 or more"),
    "on_preemption": Allowed(Literal["stop", "requeue"], "stop or requeue"),
    "on_nan": Allowed(Literal["stop", "skip"], "stop or skip"),
    "spike_threshold": Allowed(AboveZero | None, "a number of standard deviations above 0, or null to report no spikes"),
    "more": Allowed(dict[str, Config] | None, "named callbacks, each with its _target_"),
    "ema": Allowed(Config | None, "null or options, such as {decay: 0.9999}"),
    "freeze": Allowed(Config | None, "null or options, such as {names: ['^backbone'], until_epoch: 5}"),
    "early_stopping": Allowed(Config | None, "null or options, such as {patience: 10}"),
    "reestimate_batch_norm": Allowed(Positive | None, "a whole number of batches, 1 or more, or null"),
}
CALLBACK_OPTIONS: Mapping[str, Schema] = {  # of the keys of `callbacks` that hold options
    "ema": {
        "decay": Allowed(Annotated[float, Field(gt=0, lt=1)], "a factor above 0 and below 1"),
        "warmup": SWITCH,
        "warmup_gamma": Allowed(AboveZero, "a number above 0"),
        "warmup_power": Allowed(AboveZero, "an exponent above 0"),
    },
    "freeze": {
        "names": Allowed(Annotated[list[Text], Field(min_length=1)], "a list of regular expressions, such as ['^backbone']"),
        "until_epoch": Allowed(Positive | None, "a whole number of epochs, 1 or more, or null for the whole training"),
    },
    "early_stopping": {
        "patience": Allowed(Positive, "a whole number of validations, 1 or more"),
        "min_delta": Allowed(NotNegative, "a number, 0 or more"),
    },
}
SWEEP: Schema = {
    "retries": Allowed(Count, "a whole number of further attempts, 0 or more"),
    "gpus_per_job": Allowed(Positive | None, "a whole number of GPUs, 1 or more, or null"),
    "space": Allowed(dict[str, Any], "keys with their values, such as optimizer.lr: {low: 1e-5, high: 1e-2, log: true}"),
    "trials": Allowed(Positive, "a whole number of trials, 1 or more"),
    "parallel_trials": Allowed(Positive | None, "a whole number of trials, 1 or more, or null"),
    "objectives": Allowed(
        list[Text] | dict[str, Literal["max", "min"]] | None,
        "a list of metrics and costs, a dictionary of them with max or min, or null for the metric that the task monitors",
    ),
    "sampler": Allowed(Literal["tpe", "random", "nsga2"], "tpe, random or nsga2"),
    "seed": Allowed(Count, "a whole number, 0 or more"),
    "pruner": Allowed(Literal["median", "hyperband", None], "median, hyperband or null"),
}
PREDICTION: Schema = {  # keys of predict.yaml that train.yaml does not have
    "source": Allowed(
        Count | Text | Annotated[list[Text], Field(min_length=1)],
        "an image, a folder, a pattern, a text file with one path per line, a video, the number of a camera, or a list of paths",
    ),
    "skip_existing": SWITCH,
    "classes": Allowed(Text | Annotated[list[Text], Field(min_length=1)] | None, "a list of names, a file with them, or null"),
    "top_k": Allowed(Positive, "a whole number of classes, 1 or more"),
    "boxes": Allowed(Text | None, "the path of a JSON file of boxes, or null"),
    "min_box_score": Allowed(float, "the lowest score of a box that is used"),
    "draw": SWITCH,
    "max_frames": Allowed(Positive | None, "a whole number of frames, 1 or more, or null for all"),
}
COSTS = {
    "latency_ms": "min",
    "parameters": "min",
    "multiply_adds": "min",
    "images_per_s": "max",
}  # of metrics.json, as objectives
# Ranges of options. Their types are in the signatures, which are checked after torch is imported.
OPTIONS: Mapping[str, Schema] = {
    "backbone": {
        "variant": Allowed(Text | None, "the name of a variant, or null"),
        "weights": Allowed(Text | None, "a weights file, a name of the weight table such as imagenet1k, or null"),
        "layout": Allowed(Text | None, "the name of a layout, such as timm_tf, or null"),
        "patch_size": Allowed(Positive | None, "a whole number of pixels, 1 or more, or null for the patch size of the variant"),
        "drop_path_rate": Allowed(BelowOne, "a probability, 0 or more and below 1"),
        "dropout": Allowed(BelowOne | None, "a probability, 0 or more and below 1, or null for the value of the variant"),
        "grad_checkpointing": SWITCH,
        "layer_scale": Allowed(AboveZero | None, "a number above 0, or null"),
        "norm_eps": Allowed(AboveZero, "a number above 0"),
        "output_stride": Allowed(Literal[8, 16, 32, None], "8, 16, 32 or null: pixels between positions of the coarsest map"),
        "in_chans": Allowed(Literal[3], "3: data sets provide color images"),
    },
    "head": {
        "levels": Allowed(Annotated[list[int], Field(min_length=1)] | None, "a list of feature levels (0 is the finest), or null"),
        "channels": Allowed(Positive | None, "a whole number of channels, 1 or more, or null"),
        "split_ratio": Allowed(AboveZero | None, "a number of bins above 0, or null"),
        "rank": Allowed(Positive | None, "a whole number of bases, 1 or more, or null"),
        "dropout": Allowed(BelowOne | None, "a probability, 0 or more and below 1, or null"),
        "bias": OPTIONAL_SWITCH,
        "num_convs": Allowed(Count | None, "a whole number of convolutions, 0 or more, or null"),
        "concat_input": OPTIONAL_SWITCH,
        "join": OPTIONAL_SWITCH,
        "join_norm": OPTIONAL_SWITCH,
        "conv_bias": OPTIONAL_SWITCH,
        "dilations": Allowed(list[Positive] | None, "a list of dilations, 1 or more each, such as [6,12,18], or null"),
        "branch_channels": Allowed(list[Positive] | None, "a list of channels, 1 or more each, such as [32,64], or null"),
        "windows": OPTIONAL_SWITCH,
        "low_channels": Allowed(Positive | None, "a whole number of channels, 1 or more, or null"),
        "bottleneck_kernel": Allowed(Literal[1, 3, None], "1, 3 or null"),
        "key_channels": Allowed(Positive | None, "a whole number of channels, 1 or more, or null"),
        "region_weight": Allowed(NotNegative | None, "a factor, 0 or more, or null"),
        "fusion": Allowed(Literal["early", "late", "none", None], "early, late, none or null"),
        "decoder_dim": Allowed(Positive | None, "a whole number of channels, 1 or more, or null"),
        "decoder_depth": Allowed(Positive | None, "a whole number of blocks, 1 or more, or null"),
        "decoder_heads": Allowed(Positive | None, "a whole number of attention heads, 1 or more, or null"),
        "norm_eps": Allowed(AboveZero | None, "a number above 0, or null"),
    },
    "auxiliary_head": {
        "level": Allowed(int | None, "a feature level (0 is the finest, -1 the coarsest), or null"),
        "weight": Allowed(NotNegative | None, "a factor of the loss, 0 or more, or null"),
        "channels": Allowed(Positive | None, "a whole number of channels, 1 or more, or null"),
        "num_convs": Allowed(Count | None, "a whole number of convolutions, 0 or more, or null"),
        "concat_input": OPTIONAL_SWITCH,
        "dropout": Allowed(BelowOne | None, "a probability, 0 or more and below 1, or null"),
    },
    "dataset": {
        **LOADER,
        "seed": Allowed(Count, "a whole number, 0 or more"),
        "split_seed": Allowed(Count, "a whole number, 0 or more"),
        "val_fraction": Allowed(Annotated[float, Field(gt=0, lt=1)], "a fraction of the images, above 0 and below 1"),
        "window": Allowed(Positive | None, "a number of samples, 1 or more, or null"),
        "streams": Allowed(Positive, "a whole number, 1 or more"),
        "copies_gb": Allowed(NotNegative, "a number of GiB, 0 or more"),
        "length": Allowed(dict[str, Positive] | None, "a number of samples, 1 or more, for each split, such as {train: 400, val: 40}"),
        "sigmas": Allowed(
            AboveZero | Annotated[list[AboveZero], Field(min_length=1)] | None,
            "a number above 0 for all keypoints, a list with one for each, or null",
        ),
        "label_map": Allowed(
            dict[Count, Count | Text | None] | None,
            "a dictionary from stored values to indices or names of classes (null: ignored), such as {0: 0, 255: 1}, or null",
        ),
        "color_map": Allowed(
            dict[Text, Color | list[Color]] | Literal["palette"] | None,
            "a dictionary from classes to a color [red, green, blue] or several, such as {road: [128, 64, 128]}, palette, or null",
        ),
        "palette": Allowed(list[Color] | None, "a list with a color [red, green, blue], 0 to 255, for each class, or null"),
    },
}  # fmt: skip
