"""The runner's heartbeat: says where it stands, and hears that it must stop, while the main thread works."""

from __future__ import annotations

import sys
import threading
import time

import httpx

from workers.runner.client import Cancelled, Portal, Refused

INTERVAL = 2.0


def note(phase: str) -> None:
    """Say in the machine's own log when a phase began. A phase and a time, never more."""
    print(f"{time.time():.3f} {phase}", file=sys.stderr, flush=True)


class Heart:
    """Reports the latest phase at least every INTERVAL seconds, and at once when the phase changes."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._now = ("claimed", 0, 0)
        self._changed = threading.Event()
        self._ended = False
        self.cancelled = threading.Event()
        self.reason = ""
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._changed.set()
        self._thread.join(timeout=10)

    def at(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Set where the run stands. Raises Cancelled once the portal has asked to stop."""
        new_phase = phase != self._now[0]
        self._now = (phase, done, total)
        if new_phase:
            note(phase)
            self._changed.set()
        if self.cancelled.is_set():
            raise Cancelled(self.reason)

    def _beat(self) -> None:
        while not self._ended:
            self._changed.wait(INTERVAL)
            self._changed.clear()
            try:
                self._portal.phase(*self._now)
            except Cancelled as cancelled:
                self.reason = str(cancelled)
                self.cancelled.set()
                return
            except Refused:
                # The attempt is no longer the live one: stop using the data.
                self.reason = "superseded"
                self.cancelled.set()
                return
            except httpx.HTTPError:
                continue  # the portal is away for a while; the main thread decides when that is too long
