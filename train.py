"""Trains a backbone for a task: python train.py backbone=convnext task=seg."""

from spine.commands.train import main

if __name__ == "__main__":
    main()
