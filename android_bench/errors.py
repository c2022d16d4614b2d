"""The one exception that users see as a single line."""


class UserError(Exception):
    """Something the user can mend: a wrong flag, file, name or device.

    Its message is printed as one line on stderr, without a traceback. It says what was expected,
    what was found and what to do.
    """
