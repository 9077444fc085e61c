"""How a reader here answers: its JSON on a line, and an end without farewell."""

import json
import os
import sys


def tell(answer):
    """Prints `answer` and ends the process.

    DuckDB reads delta-rs' dataset on threads of Arrow's, which may still be giving back Python objects when the interpreter takes itself down; one that
    asks for its lock then is ended in the middle of C++, and the process aborts ("terminate called without an active exception") after a right answer.
    So nothing is taken down: what is worth keeping has been printed.
    """
    print(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)
