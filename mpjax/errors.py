"""The exceptions a user should ever see; `status` is that of the process that ends by one."""


class InputError(ValueError):
    """Something the user gave (a config field, a flag, a file) cannot be used.

    The message is one sentence that names the field or file and says what to do instead. The command line prints it
    and exits with status 2; no traceback, nothing half-written.
    """

    status = 2


class LostProcess(RuntimeError):
    """Other processes of the group did not come; the message names them. The same command again goes on."""

    status = 75  # EX_TEMPFAIL
