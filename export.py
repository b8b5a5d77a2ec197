"""Writes a model as others publish it: python export.py ckpt_path=logs/.../checkpoints/best.ckpt format=timm out=model.safetensors."""

from spine.commands.export import main

if __name__ == "__main__":
    main()
