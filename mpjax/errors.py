"""The one exception a user should ever see."""


class InputError(ValueError):
    """Something the user gave (a config field, a flag, a file) cannot be used.

    The message is one sentence that names the field or file and says what to do instead. The command line prints it
    and exits with status 2; no traceback, nothing half-written.
    """
