"""Writes a model as others publish it: python export.py ckpt_path=logs/.../checkpoints/best.ckpt format=timm out=model.safetensors."""

import sys

import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="export")
def main(cfg):
    """Writes the weights of the configuration that the checkpoint carries."""
    from spine.commands.export import export

    return export(cfg)


if __name__ == "__main__":
    from spine.commands.command_line import command_line
    from spine.commands.evaluate import register_checkpoint

    command_line(lambda: (register_checkpoint(sys.argv[1:]), main()))
