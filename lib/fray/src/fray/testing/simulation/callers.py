"""How a client of a simulation reaches actors: the real lanes, with a hub that needs no threads and no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fray.errors import ActorDied, FrayError
from fray.job.rpc.actors.lane import ActorLane
from fray.job.rpc.proto import fray_pb as pb
from fray.testing.simulation.desks import Desk
from fray.testing.simulation.exchange import NO_ACTOR
from fray.testing.simulation.lines import Line
from fray.testing.simulation.world import Plant, World
from fray.types import SessionId, TaskId

AVOID_S = 4.0
"""A worker that could not be reached is called by way of the controller for so long."""
ACK_DELAY_S = 0.5
"""As in the real hub."""
ASK_AGAIN_S = 0.3
"""Before a question that was lost is asked again."""


class Client(Protocol):
    """What a hub needs of its client."""

    world: World
    session: SessionId

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later, in this life of the client only."""

    def mine(self, what: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a callback that belongs to this life."""

    def send_calls(self, calls: pb.ActorCalls) -> None:
        """Send calls through the controller."""

    def locate(self, actor: TaskId, done: Callable[[pb.ActorInfo], None], failed: Callable[[str], None]) -> None:
        """Ask the controller where an actor is."""

    def find_desk(self, address: str) -> Desk | None:
        """Return who takes calls at an address, if somebody can be reached there."""


class Hub:
    """One for each client; the real lanes take it for theirs."""

    def __init__(self, client: Client) -> None:
        self._client, self._world = client, client.world
        self.session_id = client.session
        self._lanes: dict[str, ActorLane] = {}
        self._links: dict[str, Line] = {}
        self._avoid: dict[str, float] = {}
        self._early: dict[str, pb.ActorInfo] = {}
        """News that overtook the answer by which an actor is opened, and the ends of actors, which may do so too."""
        self._latest: dict[str, int] = {}
        self.period = 0
        """Grows whenever news may have been lost."""
        self._wants_ack = self._closed = False

    @property
    def delivers_once(self) -> bool:
        """Requests to the controller are repeated."""
        return False

    @property
    def is_broken(self) -> bool:
        """Whether this way leads nowhere: it always leads to the controller."""
        return False

    def send(self, calls: pb.ActorCalls) -> None:
        """Send calls by way of the controller: the route of lanes whose worker cannot be reached."""
        self._client.send_calls(calls)

    def open(self, info: pb.ActorInfo, asked_in: int) -> ActorLane:
        """Return the lane to an actor that the controller has told of, in answer to what was asked in a period."""
        lane = self._lanes.get(info.actor_id)
        if lane is None:
            hub: Any = self
            lane = ActorLane(hub, info.actor_id, info.class_name)
            if self._closed:
                lane.fail(ActorDied("the client has gone"))
            else:
                self._lanes[info.actor_id] = lane
        self._take_info(lane, info)
        early = self._early.get(info.actor_id)
        if early is not None:
            self._take_info(lane, early)
        if asked_in != self.period:  # what was told meanwhile may be lost
            self.locate_later(lane, 0.0)
        return lane

    def take_answers(self, answers: pb.ActorAnswers) -> None:
        """Take answers, whichever way they came; now and then they come again, late."""
        if self._world.happens(0.3, "answers repeated"):
            self._client.later(self._world.rng.uniform(0.0, 8.0), lambda: self._take_answers(answers))
        self._take_answers(answers)

    def take_info(self, info: pb.ActorInfo) -> None:
        """Take news of an actor."""
        lane = self._lanes.get(info.actor_id)
        if lane is not None:
            self._take_info(lane, info)
        if lane is None or info.state == pb.ActorState.DEAD:
            self._remember(info)

    def resync(self) -> None:
        """Ask for all actors again: news and answers may have been lost on their way."""
        self.period += Plant.EARLY_NEWS not in self._world.plants
        for lane in list(self._lanes.values()):
            self.locate_later(lane, 0.0)

    def fail(self, error: FrayError) -> None:
        """Give up all actors: the session is over."""
        lanes, links = list(self._lanes.values()), list(self._links.values())
        self._lanes, self._links, self._closed = {}, {}, True
        for lane in lanes:
            lane.fail(error)
        for link in links:
            link.cut()

    # --- what lanes ask for

    def connect(self, lane: ActorLane, info: pb.ActorInfo) -> None:
        """Find a way to the worker of an actor, and give it to the lane."""
        address = info.lane_address
        link = self._links.get(address)
        if address and link is None and self._avoid.get(address, 0.0) <= self._world.now:
            self._client.later(self._world.delay(), lambda: self._connect(lane, info))
        else:
            lane.take_route(link or self, info.incarnation)

    def locate_later(self, lane: ActorLane, delay_s: float) -> None:
        """Ask the controller where an actor is."""
        self._client.later(delay_s, lambda: self._locate(lane))

    def pump_soon(self, lane: ActorLane) -> None:
        """Send what has gathered in a lane."""
        self._client.later(0.0, lane.pump)

    def forget(self, lane: ActorLane) -> None:
        """Drop a lane whose actor has ended."""
        if self._lanes.get(lane.actor_id) is lane:
            del self._lanes[lane.actor_id]

    def may_block(self) -> bool:
        """Whether callers may wait here: never."""
        return False

    # --- steps

    def _take_answers(self, answers: pb.ActorAnswers) -> None:
        lane = self._lanes.get(answers.actor_id)
        if not self._wants_ack and not self._closed:
            self._wants_ack = True
            self._client.later(ACK_DELAY_S, self._acknowledge)
        if lane is not None:
            if Plant.STALE_ANSWERS in self._world.plants:
                answers.incarnation = self._latest.get(answers.actor_id, answers.incarnation)
            lane.take_answers(answers)

    def _remember(self, info: pb.ActorInfo) -> None:
        if Plant.EARLY_NEWS not in self._world.plants:
            self._early[info.actor_id] = info

    def _take_info(self, lane: ActorLane, info: pb.ActorInfo) -> None:
        self._latest[info.actor_id] = max(info.incarnation, self._latest.get(info.actor_id, 0))
        lane.take_info(info)

    def _connect(self, lane: ActorLane, info: pb.ActorInfo) -> None:
        if self._closed:
            return
        address = info.lane_address
        link = self._links.get(address)
        desk = self._client.find_desk(address)
        if link is None and desk is None:
            self._avoid[address] = self._world.now + AVOID_S
        elif link is None and desk is not None:
            on_answers, on_break = self._client.mine(self.take_answers), self._client.mine(self._lose_link)
            link = self._links[address] = Line(self._world, address, desk.receive, on_answers, on_break)
            desk.lines.append(link)
        lane.take_route(link or self, info.incarnation)

    def _lose_link(self, link: Line) -> None:
        if self._links.get(link.address) is link:
            del self._links[link.address]
        for lane in list(self._lanes.values()):
            lane.lose_route(link)

    def _locate(self, lane: ActorLane) -> None:
        if not self._closed:
            self._client.locate(
                TaskId(lane.actor_id),
                lambda info: self._take_info(lane, info),
                lambda why: self._not_located(lane, why),
            )

    def _not_located(self, lane: ActorLane, why: str) -> None:
        if why == NO_ACTOR:
            lane.fail(ActorDied("the controller does not know it any more"))
            self.forget(lane)
        else:
            self.locate_later(lane, ASK_AGAIN_S)

    def _acknowledge(self) -> None:
        self._wants_ack = False
        for lane in list(self._lanes.values()):
            lane.acknowledge()
