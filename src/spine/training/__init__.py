"""Training: the trainer, its callbacks, optimizers, schedules and loggers, and the run folder."""
