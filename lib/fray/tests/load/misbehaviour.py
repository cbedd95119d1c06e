"""Peers that do not keep to the rules: they may hurt themselves, not the controller, and not the others."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.errors import Refused
from fray.testing import eventually

from load.cluster import Client, Cluster
from load.figures import MB, Report
from load.memory import count_descriptors, read_private_bytes
from load.peers import MuteWorker, Peer, Stream
from load.scenarios import FEW_DESCRIPTORS, SESSION_BYTES, SLACK_BYTES, TASK_BYTES

BATCH = 100
"""Tasks in a request of a client without manners."""
PREFETCHED = 256
"""Short tasks that may be ahead on a slot when their client stops to read."""
TRIPS = 100
"""Round trips by which others are measured."""
THREADS = 32
"""Misbehave at once."""
LOG_BYTES = 4 * 1024 * 1024
"""Output that a controller keeps for a client, as it is documented."""


def ignore_results(tasks: int, result_bytes: int, session_tasks: int) -> Report:
    """Submit without end, watch by a stream that is not read, acknowledge nothing."""
    sizes = {"tasks": tasks, "result_bytes": result_bytes, "session_tasks": session_tasks}
    report = Report("a client that does not read its results", sizes)
    with Cluster(session_tasks=session_tasks, session_results=session_tasks) as cluster:
        cluster.add_worker()
        other = _start_other(cluster)
        idle = read_private_bytes(cluster.pid)
        peer = Peer(cluster, "deaf")
        peer.open()
        stream = peer.watch()
        stream.wait_begun()
        taken = _submit_until_refused(peer, tasks, result_bytes)
        most = 2 * session_tasks + 2 * BATCH  # unended ones, and results that are not acknowledged
        report.add("tasks that were taken from it", taken, at_most=most)
        grown = read_private_bytes(cluster.pid) - idle
        bound = SLACK_BYTES + most * (TASK_BYTES + 1.1 * result_bytes)
        report.add("controller's growth", grown / MB, "MB", bound / MB)
        _add_other(report, other)
        peer.close()
        stream.break_off()
        cluster.wait_empty()
    return report


def read_late(tasks: int, result_bytes: int, session_bytes: int) -> Report:
    """Stop a client that has queued tasks with large results; let it go on when the controller keeps all it is willing to."""
    sizes = {"tasks": tasks, "result_bytes": result_bytes, "session_bytes": session_bytes}
    report = Report("a client that stands still while its tasks end", sizes)
    with Cluster(session_bytes=session_bytes) as cluster:
        cluster.add_worker()
        other = _start_other(cluster)
        idle = read_private_bytes(cluster.pid)
        client = cluster.start_client("fetch", tasks=tasks, size_bytes=result_bytes)
        assert client.read_line() == "queued\n"
        os.kill(client.pid, signal.SIGSTOP)
        cluster.wait_tasks("FINISHED", session_bytes // (2 * result_bytes))
        eventually(lambda: not any(cluster.status().used.values()), 600, 0.1, "nothing runs any more")
        bound = SLACK_BYTES + 2 * (session_bytes + 2 * PREFETCHED * result_bytes)
        report.add("controller's growth", (read_private_bytes(cluster.pid) - idle) / MB, "MB", bound / MB)
        _add_other(report, other)
        os.kill(client.pid, signal.SIGCONT)
        client.go_on()
        report.must_be("results that are lost or wrong", client.finish()["wrong"], 0)
        cluster.wait_empty()
    return report


def _submit_until_refused(peer: Peer, tasks: int, result_bytes: int) -> int:
    """Return how many tasks were taken; each batch waits for the one before."""
    while peer.sent < tasks:
        try:
            peer.submit((number, result_bytes) for number in range(BATCH))
        except Refused:
            break
        peer.cluster.wait_tasks("FINISHED", peer.sent, interval=0.02)
    return peer.sent


def print_to_nobody(tasks: int, lines: int) -> Report:
    """Let tasks print for a client that does not print it."""
    report = Report("a client that prints slowly", {"tasks": tasks, "lines_each": lines})
    with Cluster() as cluster:
        cluster.add_worker()
        other = _start_other(cluster)
        idle = read_private_bytes(cluster.pid)
        client = cluster.start_client("chatter", tasks=tasks, lines=lines)
        cluster.wait_tasks("FINISHED", tasks // 2)
        eventually(lambda: not cluster.status().tasks.get("PENDING"), 600, 0.1, "all tasks have run")
        bound = 2 * LOG_BYTES + tasks * TASK_BYTES + SLACK_BYTES
        report.add("controller's growth", (read_private_bytes(cluster.pid) - idle) / MB, "MB", bound / MB)
        _add_other(report, other)
        found = client.finish()
        report.must_be("results that are lost or wrong", found["wrong"], 0)
        cluster.wait_empty()
    return report


def print_short_lines(messages: int) -> Report:
    """Report many short lines of many tasks, for a client that does not read its stream."""
    report = Report("short lines for a client that does not read", {"messages": messages})
    with Cluster() as cluster:
        peer = Peer(cluster, "deaf")
        peer.open()
        stream = peer.watch()
        stream.wait_begun()
        worker = MuteWorker(cluster, "talker")
        idle = read_private_bytes(cluster.pid)
        for _ in range(100):  # more than the system and the controller keep
            worker.report(logs=[_line(peer.id, "x" * 100_000)])
        for _ in range(messages // 1000):
            worker.report(logs=[_line(peer.id, ".\n")] * 1000)
        grown = read_private_bytes(cluster.pid) - idle
        report.add("controller's growth", grown / MB, "MB", (2 * LOG_BYTES + SLACK_BYTES) / MB)
        peer.close()
        stream.break_off()
    return report


def _line(session: str, text: str) -> pb.LogLines:
    return pb.LogLines(session_id=session, task_id=f"{session}-1", name="talk", worker_id="talker", text=text)


def stay_mute(tasks: int, silence_s: float) -> Report:
    """Have a worker that takes tasks and says nothing any more."""
    report = Report("a worker that never works", {"tasks": tasks, "silence_s": silence_s})
    with Cluster(silence_s=silence_s) as cluster:
        mute = MuteWorker(cluster, "mute")
        mute.attach().wait_begun()
        client = cluster.start_client("count", tasks=tasks)
        assert client.read_line() == "queued\n"
        cluster.wait_tasks("IN_PROGRESS", 1)
        cluster.add_worker(1)
        client.go_on()
        found = client.finish()
        stats = cluster.status().stats
        report.must_be("results that are lost or wrong", found["wrong"], 0)
        report.must_be("workers lost", stats.get("workers lost", 0), 1)
        report.add("tasks that were taken from it", stats.get("attempts requeued", 0), at_least=1)
        report.add("all done after", found["drained_s"], "s")
        mute.vanish()
    return report


def register_again_and_again(tasks: int, lives: int) -> Report:
    """Have a worker that comes, takes what it gets, and goes without a word; again and again, faster than others work."""
    report = Report("a worker that registers again and again", {"tasks": tasks, "lives": lives})
    with Cluster(reattach_grace_s=0.5) as cluster:
        idle = read_private_bytes(cluster.pid)
        client = cluster.start_client("count", tasks=tasks)
        assert client.read_line() == "queued\n"
        cluster.wait_tasks("PENDING", tasks)
        worker: MuteWorker | None = None
        for life in range(lives):
            former, worker = worker, MuteWorker(cluster, "comes-and-goes", life)
            worker.attach().wait_begun()
            if former is not None:
                former.vanish()
        failed = cluster.status().stats.get("tasks failed", 0)
        cluster.add_worker(1)
        if worker is not None:
            worker.vanish()
        report.must_be("tasks that failed though nobody began them", failed, 0)
        client.go_on()
        if not failed:
            report.must_be("results that are lost or wrong", client.finish()["wrong"], 0)
        grown = read_private_bytes(cluster.pid) - idle
        report.add("controller's growth", grown / MB, "MB", (SLACK_BYTES + tasks * TASK_BYTES) / MB)
        eventually(lambda: cluster.status().workers == 1, what="the latest life is given up")
    return report


def reconnect(clients: int, rounds: int, tasks: int, grace_s: float) -> Report:
    """Break hundreds of result streams at once and open them again, each with another introduction; others work meanwhile."""
    report = Report("a storm of reconnects of clients", {"clients": clients, "rounds": rounds, "tasks": tasks})
    with Cluster(session_grace_s=grace_s) as cluster:
        cluster.add_worker()
        idle, descriptors = read_private_bytes(cluster.pid), count_descriptors(cluster.pid)
        peers = [Peer(cluster, f"storm-{number}") for number in range(clients)]
        honest = cluster.start_client("count", tasks=tasks)
        honest.go_on()
        streams: list[Stream] = []
        rounds_s: list[float] = []
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in range(rounds):
                began = time.monotonic()
                for stream in streams:
                    stream.break_off()
                list(pool.map(Peer.open, peers))
                streams = list(pool.map(Peer.watch, peers))
                list(pool.map(Stream.wait_begun, streams))
                rounds_s.append(time.monotonic() - began)
        bound = SLACK_BYTES + clients * SESSION_BYTES + tasks * TASK_BYTES
        report.add("controller's growth", (read_private_bytes(cluster.pid) - idle) / MB, "MB", bound / MB)
        report.add("streams opened at", clients * rounds / sum(rounds_s), "a second")
        report.add("all streams open again after, at most", max(rounds_s), "s")
        report.must_be("results of another client that are lost or wrong", honest.finish()["wrong"], 0)
        report.must_be("sessions", cluster.status().sessions, clients)
        for stream in streams:
            stream.break_off()
        cluster.wait_empty(60.0 + grace_s)  # a stream that was counted and never counted off would keep its session for ever
        report.must_be("sessions that expired", cluster.status().stats.get("sessions expired", 0), clients)
        _wait_descriptors(cluster, descriptors)
        report.add("descriptors that stay open", count_descriptors(cluster.pid) - descriptors, at_most=FEW_DESCRIPTORS)
    return report


def reattach(workers: int, rounds: int, tasks: int) -> Report:
    """Break the order streams of many workers at once and open them again; one more worker does all the work."""
    report = Report("a storm of reconnects of workers", {"workers": workers, "rounds": rounds, "tasks": tasks})
    with Cluster(reattach_grace_s=10.0) as cluster:
        idle = read_private_bytes(cluster.pid)
        mutes = [MuteWorker(cluster, f"storm-{number}") for number in range(workers)]
        client = cluster.start_client("count", tasks=tasks)
        assert client.read_line() == "queued\n"
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in range(rounds):
                for mute in mutes:
                    mute.vanish()
                list(pool.map(lambda mute: mute.attach().wait_begun(), mutes))
            report.must_be("workers lost", cluster.status().stats.get("workers lost", 0), 0)
            known = cluster.client.call("list_workers", pb.Empty()).workers
            report.must_be("workers attached", sum(worker.attached for worker in known), workers)
            bound = SLACK_BYTES + workers * SESSION_BYTES + tasks * TASK_BYTES
            report.add("controller's growth", (read_private_bytes(cluster.pid) - idle) / MB, "MB", bound / MB)
            cluster.add_worker()
            list(pool.map(lambda mute: mute.report(leaving=True), mutes))
        client.go_on()
        report.must_be("results that are lost or wrong", client.finish()["wrong"], 0)
        for mute in mutes:
            mute.vanish()
        eventually(lambda: cluster.status().workers == 1, what="those that said goodbye are gone")
    return report


def _wait_descriptors(cluster: Cluster, before: int) -> None:
    eventually(lambda: count_descriptors(cluster.pid) <= before + FEW_DESCRIPTORS, what="the controller closes broken streams")


def _start_other(cluster: Cluster) -> Client:
    """Start a client that behaves; return when it has measured how it fares."""
    other = cluster.start_client("trip", tasks=TRIPS)
    assert other.read_line() == "calm\n"
    return other


def _add_other(report: Report, other: Client) -> None:
    """Add how it fares now."""
    other.go_on()
    found = other.finish()
    report.must_be("results of another client that are lost or wrong", found["wrong"], 0)
    for name in ("trips", "bursts"):
        report.add(f"speed of another client's {name}, of what it was before", found[name] * 100, "%", at_least=2)
