"""The controller's decisions as a pure state machine: events in, effects out.

Nothing here knows a clock, an id generator, a thread, a socket or a pickle: events carry the time and all ids. The driver
owns the one ``State``, feeds it events and performs the effects.
"""

from fray.job.rpc.controller.core.machine import apply, next_deadline

__all__ = ["apply", "next_deadline"]
