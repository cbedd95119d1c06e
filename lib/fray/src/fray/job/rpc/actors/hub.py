"""All actors that a session knows: their lanes, the connections to their workers, and a thread for what may take long."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from fray import errors
from fray.job.rpc.actors.lane import ActorLane
from fray.job.rpc.actors.link import WorkerLink
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.errors import NotKnown

log = logging.getLogger("fray.client")

AVOID_S = 30.0
"""A worker that could not be reached is called by way of the controller for so long, before it is tried again."""
ACK_DELAY_S = 0.5
"""Answers are acknowledged after so long if no other call takes the acknowledgement along."""
ASK_AGAIN_S = 1.0
"""Before asking again where an actor is, when the controller did not answer."""
MAX_EARLY = 1000
"""News kept of actors that nobody here has a handle of; what is dropped counts as lost."""
JOIN_TIMEOUT_S = 5.0
"""How long ``close`` waits for threads."""


class SessionLink(Protocol):
    """What the hub needs of its session."""

    @property
    def id(self) -> str:
        """The session's."""

    def ask_actor(self, method: str, request: pb.ActorRef) -> pb.ActorInfo:
        """Ask the controller; blocks, and goes on trying while it cannot be reached."""

    def send(self, calls: pb.ActorCalls) -> None:
        """Send calls through the controller; does not block."""

    @property
    def is_broken(self) -> bool:
        """Never: the session looks after its own connection."""

    @property
    def delivers_once(self) -> bool:
        """Not so: requests are repeated."""

    def is_own_thread(self) -> bool:
        """Whether this thread delivers answers: then it must not wait for any."""


class ActorHub:
    """One for each session. Thread-safe."""

    def __init__(self, session: SessionLink, token: str) -> None:
        self.session_id = session.id
        self._session, self._token = session, token
        self._changed = threading.Condition()  # guards all fields below
        self._lanes: dict[str, ActorLane] = {}
        self._links: dict[str, WorkerLink] = {}
        self._avoid: dict[str, float] = {}
        self._early: dict[str, pb.ActorInfo] = {}
        self.period = 0
        """Grows whenever news may have been lost: with the session's stream of results, and with a lane that is forgotten."""
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._to_pump: queue.SimpleQueue[ActorLane | None] = queue.SimpleQueue()
        self._sender: threading.Thread | None = None
        self._wants_ack = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def open(self, info: pb.ActorInfo, label: str, asked_in: int) -> ActorLane:
        """Return the lane to an actor that the controller has told of, in answer to what was asked in a ``period``."""
        lane, is_new = self._ensure(info.actor_id, label)
        with self._changed:
            newer = self._early.pop(info.actor_id, None)
            may_have_missed = is_new and asked_in != self.period
        lane.take_info(info)
        if newer is not None:
            lane.take_info(newer)
        if may_have_missed:
            self.locate_later(lane, 0.0)
        return lane

    def find(self, actor_id: str, label: str) -> ActorLane:
        """Return the lane to an actor; one that is new asks the controller where the actor is."""
        lane, is_new = self._ensure(actor_id, label)
        if is_new:
            self.locate_later(lane, 0.0)
        return lane

    def take_answers(self, answers: pb.ActorAnswers) -> None:
        """Take answers, whichever way they came."""
        with self._changed:
            lane = self._lanes.get(answers.actor_id)
            if not self._wants_ack and not self._closed:
                self._wants_ack = True
                self._run_later(ACK_DELAY_S, self._acknowledge)
        if lane is not None:
            lane.take_answers(answers)

    def take_info(self, info: pb.ActorInfo) -> None:
        """Take news of an actor."""
        with self._changed:
            lane = self._lanes.get(info.actor_id)
            if lane is None:  # it may overtake the answer that tells of the actor
                self._early.pop(info.actor_id, None)
                self._early[info.actor_id] = info
                if len(self._early) > MAX_EARLY:
                    del self._early[next(iter(self._early))]
                    self.period += 1
        if lane is not None:
            lane.take_info(info)

    def resync(self) -> None:
        """Ask for all actors again: news and answers may have been lost on their way."""
        with self._changed:
            self.period += 1
            lanes = list(self._lanes.values())
        for lane in lanes:
            self.locate_later(lane, 0.0)

    def connect(self, lane: ActorLane, info: pb.ActorInfo) -> None:
        """Find a way to the worker of an actor, and give it to the lane. Does not block."""
        address = info.lane_address
        with self._changed:
            link = self._links.get(address)
            avoided = self._avoid.get(address, 0.0) > time.monotonic()
            if address and link is None and not avoided:
                self._run_later(0.0, lambda: self._connect(lane, info))
                return
        lane.take_route(link or self._session, info.incarnation)

    def locate_later(self, lane: ActorLane, delay_s: float) -> None:
        """Ask the controller where an actor is, on the hub's thread."""
        with self._changed:
            self._run_later(delay_s, lambda: self.refresh(lane))

    def pump_soon(self, lane: ActorLane) -> None:
        """Let the sender send what has gathered in a lane. Does not block."""
        self._to_pump.put(lane)
        if self._sender is None:
            with self._changed:
                if self._sender is None and not self._closed:
                    self._sender = threading.Thread(target=self._keep_pumping, name="fray-calls", daemon=True)
                    self._sender.start()

    def _keep_pumping(self) -> None:
        while (lane := self._to_pump.get()) is not None:
            try:
                lane.pump()
            except Exception:  # as in ``_work``
                log.exception("calls of the actor %s could not be sent", lane.label)

    def refresh(self, lane: ActorLane) -> None:
        """Ask the controller where an actor is. Blocks."""
        request = pb.ActorRef(actor_id=lane.actor_id, session_id=self.session_id)
        try:
            info = self._session.ask_actor("get_actor", request)
        except NotKnown as error:
            lane.fail(errors.ActorDied(f"the controller does not know it any more: {error}"))
            self.forget(lane)
        except Exception as error:  # whatever the network has: the lane relies on an answer
            log.info("where the actor %s is cannot be asked: %s; trying again", lane.label, error)
            self.locate_later(lane, ASK_AGAIN_S)
        else:
            lane.take_info(info)

    def forget(self, lane: ActorLane) -> None:
        """Drop a lane whose actor has ended; its handles keep it. Who was told of the actor before that must ask again."""
        with self._changed:
            if self._lanes.get(lane.actor_id) is lane:
                del self._lanes[lane.actor_id]
                self.period += 1

    def may_block(self) -> bool:
        """Whether this thread may wait for answers: not the ones that deliver them."""
        name = threading.current_thread().name
        return not (name in ("fray-lane", "fray-actors") or self._session.is_own_thread())

    def fail(self, error: errors.FrayError) -> None:
        """Give up all actors: the session is over."""
        with self._changed:
            lanes, links = list(self._lanes.values()), list(self._links.values())
            self._lanes.clear()
            self._links.clear()
            self._closed = True
            self._changed.notify_all()
        for lane in lanes:
            lane.fail(error)
        for link in links:
            link.close()
        self._to_pump.put(None)

    def close(self) -> None:
        """The same, and wait for the hub's threads."""
        self.fail(errors.ActorDied("the context of this handle is closed"))
        for thread in (self._thread, self._sender):
            if thread is not None and thread is not threading.current_thread():
                thread.join(JOIN_TIMEOUT_S)

    # --- the hub's thread

    def _ensure(self, actor_id: str, label: str) -> tuple[ActorLane, bool]:
        """Return the lane to an actor, and whether it is new."""
        with self._changed:
            known = self._lanes.get(actor_id)
            if known is not None:
                return known, False
            lane = ActorLane(self, actor_id, label)
            if not self._closed:
                self._lanes[actor_id] = lane
            closed = self._closed
        if closed:
            lane.fail(errors.ActorDied("the context of this handle is closed"))
        return lane, True

    def _run_later(self, delay_s: float, job: Callable[[], None]) -> None:
        """Let the hub's thread do something; the lock is held."""
        if self._closed:
            return
        heapq.heappush(self._jobs, (time.monotonic() + delay_s, next(self._order), job))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="fray-actors", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed:
                    wait_s = self._jobs[0][0] - time.monotonic() if self._jobs else None
                    if wait_s is not None and wait_s <= 0:
                        break
                    self._changed.wait(wait_s)
                if self._closed:
                    return
                _, _, job = heapq.heappop(self._jobs)
            try:
                job()
            except Exception:  # a defect of ours must not leave a session whose actors cannot be reached
                log.exception("a step for actors failed")

    def _connect(self, lane: ActorLane, info: pb.ActorInfo) -> None:
        address = info.lane_address
        with self._changed:
            link = self._links.get(address)
        if link is None:
            try:
                link = WorkerLink(address, self._token, self.take_answers)
            except Exception as error:  # also an address that is none
                log.info("%s: %s; its actors are called by way of the controller", address, error)
                with self._changed:
                    self._avoid[address] = time.monotonic() + AVOID_S
                lane.take_route(self._session, info.incarnation)
                return
            with self._changed:
                closed = self._closed
                if not closed:
                    self._links[address] = link
            link.start(self._lose_link)
            if closed:
                link.close()
                return
        lane.take_route(link, info.incarnation)

    def _lose_link(self, link: WorkerLink) -> None:
        with self._changed:
            if self._links.get(link.address) is link:
                del self._links[link.address]
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.lose_route(link)

    def _acknowledge(self) -> None:
        with self._changed:
            self._wants_ack = False
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.acknowledge()
