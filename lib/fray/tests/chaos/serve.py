"""A controller with limits that suit a short run. Says ``ready`` when it serves; ends on SIGTERM.

``python -m chaos.serve PORT STATE STORAGE LIMITS``; the limits are JSON.
"""

from __future__ import annotations

import json
import logging
import signal
import sys

from fray.job.rpc.controller import FrayControllerServer, Limits


def main() -> None:
    """Serve until told to stop."""
    port, state, storage, limits = sys.argv[1:]
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    server = FrayControllerServer(int(port), storage=storage, state=state, limits=Limits(**json.loads(limits)))
    server.start()
    print("ready", flush=True)
    signal.sigwait(stop)
    server.stop()


if __name__ == "__main__":
    main()
