"""The command line: ``fray COMMAND`` or ``python -m fray COMMAND``. One module per command.

Commands only read arguments, call the library and print. What a command reports goes to standard output, errors to standard
error as one message without a traceback. Exit codes, the same for all commands (see ``fray.cli.exits``):

    0    done
    1    the operation failed, such as an unknown task
    2    an argument or setting is wrong
    3    the controller cannot be reached
    4    not authorised: the token is wrong
    130  interrupted (Ctrl-C)

``controller``, ``worker`` and ``local`` end with 0 when a signal stops them, and with 128 + signal when a second one does not
let them finish. ``run`` ends with the script's exit code, or 128 + signal if a signal ended the script.
"""

from __future__ import annotations

from fray.cli.app import main

__all__ = ["main"]
