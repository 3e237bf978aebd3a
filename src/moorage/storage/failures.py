"""What can be wrong with a database, as the rest of the program tells it apart."""


class DatabaseUnavailable(Exception):
    """The database does not answer now, or not in time; another try may succeed. Nothing was written, or it is not
    known whether it was."""


class UnusableDatabase(Exception):
    """This database cannot be used as it is, however often it is tried. The text is for the operator: what, why, and
    what to do."""
