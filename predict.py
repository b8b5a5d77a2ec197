"""Predicts for images: python predict.py ckpt_path=logs/.../checkpoints/best.ckpt source=photos."""

from spine.commands.predict import main

if __name__ == "__main__":
    main()
