"""The helpers beside these tests are modules that actors can import too: the path travels with their classes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fray.job.rpc.actors.hub import ActorHub

sys.path.insert(0, str(Path(__file__).parent))

from stand_ins import Session


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def hub(session: Session) -> Iterator[ActorHub]:
    hub = ActorHub(session, "token")
    yield hub
    hub.close()
