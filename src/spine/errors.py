"""The one kind of error that is told to a person without a stack trace."""


class InputError(ValueError):
    """Something a person gave does not fit. The message says what was seen, what is allowed and what to do, in one short paragraph."""
