"""The error that says what to do differently."""


class UserError(ValueError):
    """Bad input: the message names the field, its value and what is allowed.

    The command line prints the message alone; every other exception is a fault of the program and keeps its traceback.
    """
