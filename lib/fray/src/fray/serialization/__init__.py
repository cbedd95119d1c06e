"""Turning objects into bytes and back: the only place in Fray that pickles or unpickles.

Unpickling runs code chosen by whoever made the bytes. Executors and clients unpickle, workers and the controller never do.
"""

from fray.serialization.callables import PackedCallable, decode_callable, encode_callable
from fray.serialization.envelope import decode, decode_json_call, encode, encode_json, encode_parts, stored_location
from fray.serialization.failures import Failure, capture_failure, decode_failure, encode_failure

__all__ = [
    "Failure",
    "PackedCallable",
    "capture_failure",
    "decode",
    "decode_callable",
    "decode_failure",
    "decode_json_call",
    "encode",
    "encode_callable",
    "encode_failure",
    "encode_json",
    "encode_parts",
    "stored_location",
]
