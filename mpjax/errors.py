"""The exceptions a user should ever see; `status` is that of the process that ends by one."""

from collections.abc import Sequence

NAMED = 5  # things a message names before it only counts


class InputError(ValueError):
    """Something the user gave (a config field, a flag, a file) cannot be used.

    The message is one sentence that names the field or file and says what to do instead. The command line prints it
    and exits with status 2; no traceback, nothing half-written.
    """

    status = 2


class LostProcess(RuntimeError):
    """Other processes of the group did not come; the message names them. The same command again goes on."""

    status = 75  # EX_TEMPFAIL


def some_of(names: Sequence[str]) -> str:
    """`a, b, c, d, e and 7 more`, for a message."""
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
