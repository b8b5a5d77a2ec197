"""Evaluates a checkpoint: python eval.py ckpt_path=logs/.../checkpoints/best.ckpt split=val."""

from spine.commands.eval import main

if __name__ == "__main__":
    main()
