"""The one exception that users see as a single line."""


class UserError(Exception):
    """Something the user can mend: a wrong configuration, file, name or device.

    Commands print its message as one line on stderr and exit with code 2, without a traceback.
    The message says what was expected, what was found and what to do.
    """
