"""Pickles that do something when they are opened: each makes the file $HSFUSION_MARKER, if anything lets it."""

import os
import pickle

MARKER = "HSFUSION_MARKER"


class Call:
    """Pickles into a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def shell() -> Call:
    return Call(os.system, f'touch "${MARKER}"')


def code() -> Call:
    return Call(exec, f"import os; open(os.environ['{MARKER}'], 'w')")


def resolver() -> Call:
    import socket

    return Call(socket.create_connection, ("127.0.0.1", 9), 1)


def pickled(protocol: int) -> bytes:
    return pickle.dumps({"state_dict": shell()}, protocol=protocol)
