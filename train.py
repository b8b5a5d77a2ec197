"""Trains a backbone for a task: python train.py backbone=convnext task=seg."""

import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg):
    """Runs one training; with -m, one of a sweep."""
    from spine.commands.train import train

    return train(cfg)


if __name__ == "__main__":
    from spine.commands.command_line import command_line

    command_line(main)
