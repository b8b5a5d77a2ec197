"""Evaluates a checkpoint: python eval.py ckpt_path=logs/.../checkpoints/best.ckpt split=val."""

import sys

import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(cfg):
    """Runs one evaluation on the configuration that the checkpoint carries."""
    from spine.commands.evaluate import evaluate

    return evaluate(cfg)


if __name__ == "__main__":
    from spine.commands.command_line import command_line
    from spine.commands.evaluate import register_checkpoint

    command_line(lambda: (register_checkpoint(sys.argv[1:]), main()))
