"""The command line: ``zephyr COMMAND`` or ``python -m zephyr COMMAND``. One module per command.

Commands only read arguments, call the library and print. What a command reports goes to standard output, errors to standard
error as one message without a traceback; only what a user's script raises is shown as Python shows it. Exit codes, the same
for all commands (see ``zephyr.cli.exits``):

    0    done
    1    the operation failed, a script raised, or what was inspected is damaged
    2    an argument, a setting or the plan of a dataset is wrong
    3    the controller cannot be reached
    4    not authorised: the token is wrong
    130  interrupted (Ctrl-C)

A script that calls ``sys.exit`` decides for itself.
"""

from __future__ import annotations

from zephyr.cli.app import main

__all__ = ["main"]
