"""Honest load: many tasks, large arguments, many clients."""

from __future__ import annotations

from fray.testing import eventually

from load.cluster import Client, Cluster
from load.figures import KB, MB, Report
from load.memory import (
    DiskWatch,
    count_descriptors,
    measure_directory,
    read_cpu_s,
    read_peak_bytes,
    read_private_bytes,
    read_resident_bytes,
    reset_peak,
)

TASK_BYTES = 1500
"""What a queued task may take of the controller's memory."""
SLACK_BYTES = 12 * MB
"""What the controller may grow for any reason: batches on their way, caches, code that is loaded late."""
LEAK_BYTES = 6 * MB
"""What the controller may grow from one wave of work to the next, besides a tenth: memory is not packed the same way twice."""
FREE_STATE_BYTES = 6 * MB
"""The state file of a controller that has nothing to keep."""
INLINE_BYTES = 250 * KB
"""Arguments that are just small enough to travel inside messages."""
SESSION_BYTES = 50 * KB
"""What an open session with an idle client may take of the controller's memory."""
FEW_DESCRIPTORS = 48
"""Connections that are kept alive for a while, those of the scenario's own calls included."""


def queue_many(tasks: int, waves: int = 2) -> Report:
    """Queue tasks when there is nobody to run them, then run them all; again, to see what is left over."""
    report = Report("tasks queued, then drained", {"tasks": tasks, "waves": waves})
    with Cluster() as cluster:
        idle = read_private_bytes(cluster.pid)
        peaks = [_queue_wave(cluster, tasks, report, wave, idle) for wave in range(1, waves + 1)]
        rest = read_private_bytes(cluster.pid) - idle
        report.add(
            "controller grew from the first to the last wave",
            (peaks[-1] - peaks[0]) / MB,
            "MB",
            (peaks[0] / 10 + LEAK_BYTES) / MB,
        )
        report.add("controller's memory that stays, for the next wave", rest / MB, "MB", (peaks[0] / 2 + SLACK_BYTES) / MB)
        accepted = cluster.status().stats["tasks accepted"]
        report.must_be("tasks accepted", accepted, tasks * waves)
        eventually(lambda: measure_directory(cluster.folder) < FREE_STATE_BYTES, what="the state file is small again")
    return report


def _queue_wave(cluster: Cluster, tasks: int, report: Report, wave: int, idle: int) -> int:
    reset_peak(cluster.pid)
    resident, cpu_s = read_resident_bytes(cluster.pid), read_cpu_s(cluster.pid)
    client = cluster.start_client("count", tasks=tasks)
    assert client.read_line() == "queued\n"
    cluster.wait_tasks("PENDING", tasks)
    queued = read_private_bytes(cluster.pid) - idle
    queued_cpu_s = read_cpu_s(cluster.pid) - cpu_s
    disk = measure_directory(cluster.folder)
    worker = cluster.add_worker()
    client.go_on()
    found = client.finish()
    report.must_be(f"wave {wave}: results that are lost or wrong", found["wrong"], 0)
    report.add(f"wave {wave}: controller's memory for a queued task", queued / tasks, "B", TASK_BYTES)
    report.add(f"wave {wave}: controller's growth at its peak", (read_peak_bytes(cluster.pid) - resident) / MB, "MB")
    report.add(f"wave {wave}: client's memory for a task", found["grown_bytes"] / tasks, "B")
    report.add(f"wave {wave}: state file for a queued task", disk / tasks, "B")
    report.add(f"wave {wave}: queued at", tasks / found["submitted_s"], "tasks/s")
    report.add(f"wave {wave}: drained at", tasks / found["drained_s"], "tasks/s")
    report.add(f"wave {wave}: controller's CPU to queue one", queued_cpu_s / tasks * 1e6, "us")
    report.add(f"wave {wave}: controller's CPU in all for one", (read_cpu_s(cluster.pid) - cpu_s) / tasks * 1e6, "us")
    cluster.wait_empty()
    cluster.workers.remove(worker)
    worker.stop()
    return queued


def feed_large(tasks: int, size_bytes: int, session_bytes: int, task_s: float) -> Report:
    """Submit large arguments faster than the cluster takes them: each task waits a while."""
    sizes = {"tasks": tasks, "argument_bytes": size_bytes, "session_bytes": session_bytes, "seconds_each": task_s}
    report = Report("large arguments from a fast client", sizes)
    is_inline = size_bytes <= INLINE_BYTES
    with Cluster(session_bytes=session_bytes) as cluster, DiskWatch(cluster.folder) as disk:
        worker = cluster.add_worker()
        before = {pid: read_resident_bytes(pid) for pid in (cluster.pid, worker.process.pid)}
        for pid in before:
            reset_peak(pid)
        client = cluster.start_client("feed", tasks=tasks, size_bytes=size_bytes, task_s=task_s)
        assert client.read_line() == "done\n"
        held = session_bytes if is_inline else 0
        names = {cluster.pid: "controller", worker.process.pid: "worker's agent"}
        for pid, name in names.items():
            bound = (1.5 * held if pid == cluster.pid else 0) + 4 * SLACK_BYTES
            report.add(f"{name}'s growth at its peak", (read_peak_bytes(pid) - before[pid]) / MB, "MB", bound / MB)
        kept = measure_directory(cluster.storage)
        report.add("storage when all is done, the session open", kept / MB, "MB")
        client.go_on()
        _add_feed(report, client, tasks, size_bytes, held)
        cluster.wait_empty()
        eventually(lambda: not measure_directory(cluster.storage), 300, 0.1, "the session's storage is deleted")
    report.add("state file and storage at their peak", disk.peak_bytes / MB, "MB")
    return report


def _add_feed(report: Report, client: Client, tasks: int, size_bytes: int, held: int) -> None:
    found = client.finish()
    report.must_be("results that are lost or wrong", found["wrong"], 0)
    bound = 2 * held + 4 * SLACK_BYTES  # what is not done, and what is not saved: a slow disk keeps that for a while
    report.add("client's growth at its peak", found["grown_bytes"] / MB, "MB", bound / MB)
    report.add("tasks that waited when the last was submitted", found["waiting_when_submitted"], "tasks")
    report.add("arguments moved at", tasks * size_bytes / MB / found["spent_s"], "MB/s")


def crowd(clients: int, tasks: int) -> Report:
    """Open many sessions at once, each with some tasks."""
    report = Report("many clients at once", {"clients": clients, "tasks_each": tasks})
    with Cluster() as cluster:
        cluster.add_worker()
        idle, descriptors = read_private_bytes(cluster.pid), count_descriptors(cluster.pid)
        client = cluster.start_client("crowd", clients=clients, tasks=tasks)
        assert client.read_line() == "opened\n"
        report.must_be("sessions", cluster.status().sessions, clients)
        opened = read_private_bytes(cluster.pid) - idle
        report.add(
            "controller's memory for a session", opened / clients / KB, "KB", (SESSION_BYTES + SLACK_BYTES / clients) / KB
        )
        reset_peak(cluster.pid)
        resident = read_resident_bytes(cluster.pid)
        client.go_on()
        found = client.finish()
        report.must_be("results that are lost or wrong", found["wrong"], 0)
        grown = read_peak_bytes(cluster.pid) - resident
        bound = SLACK_BYTES + clients * (SESSION_BYTES + tasks * TASK_BYTES)
        report.add("controller's growth while they worked", grown / MB, "MB", bound / MB)
        report.add("sessions opened at", clients / found["opened_s"], "a second")
        report.add("tasks run at", clients * tasks / found["spent_s"], "tasks/s")
        report.add("memory of the process with all the clients, for one", found["grown_bytes"] / clients / KB, "KB")
        cluster.wait_empty()
        more = count_descriptors(cluster.pid) - descriptors
        report.add("descriptors that stay open", more, at_most=FEW_DESCRIPTORS)
    return report
