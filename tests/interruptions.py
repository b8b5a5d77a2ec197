"""Interrupts a training at a chosen step, for tests of resuming."""


def crash(task):
    raise RuntimeError("the machine is gone")


def at_call(monkeypatch, kind, number, action=crash):
    """Runs `action(task)` before call `number`, from 1, of `evaluate_batch` of a class of tasks."""
    original, calls = kind.evaluate_batch, [0]

    def evaluate_batch(self, batch):
        calls[0] += 1
        if calls[0] == number:
            action(self)
        return original(self, batch)

    monkeypatch.setattr(kind, "evaluate_batch", evaluate_batch)
