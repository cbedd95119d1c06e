"""Numbers and names that both ends of the wire agree on."""

from __future__ import annotations

PROTOCOL_VERSION = "1"
"""Changes when an old and a new side would misunderstand each other."""
PROTOCOL_HEADER = "fray-protocol"

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message either side reads; what is larger is a payload on storage."""
MAX_ANSWER_BYTES = 1024 * 1024 * 1024
"""Largest message a client or worker reads from its controller: a task's dependencies come together."""
MAX_DEPENDENCIES = 4000
"""Unfinished tasks that one task may depend on: their inline values, 256 KiB at most each, fit into one message."""
MAX_CODE_BYTES = 16 * 1024 * 1024
"""Largest function, with what it captured."""
BATCH_BYTES = 4 * 1024 * 1024
"""Senders start a new message beyond this."""
BATCH_ITEMS = 2000
"""Senders start a new message beyond this many tasks or results."""
MAX_TASK_BYTES = 1024 * 1024
"""Largest task (arguments and code apart) that the controller takes inline."""
MAX_NAME_CHARS = 256
"""Longest id or name that the controller takes."""

KEEP_ALIVE_S = 120
"""How long a server keeps an idle connection: longer than the 90 s of the clients' pools, else calls meet closed ones."""
STREAM_PULSE_S = 5.0
"""A server stream with nothing to say sends an empty message so often, so that each side notices a dead other."""
STREAM_SILENCE_S = 20.0
"""A client takes a stream that is silent for so long as broken."""
HEARTBEAT_S = 2.0
"""A worker reports at least so often."""
CALL_TIMEOUT_S = 30.0
"""A unary call that has no answer for so long is repeated under the same id."""
CONNECT_TIMEOUT_S = 5.0
"""A connection that is not made within this has failed."""
ACTORS_DIRECTORY = "actors"
"""Holds the checkpoints of a session's actors, within the session's storage."""
LEASE_SHARE = 0.8
"""A worker's actors take no calls when the latest report that was acknowledged was sent before this share of the silence after
which the controller gives the worker up: the rest is for clocks that run apart, and for answers on their way."""
