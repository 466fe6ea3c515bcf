"""What the backends of a cloud share: names and tags, sizes, expiry, and the sweep.

A cloud is asked, never remembered: every call here may follow one whose answer was lost, in another worker. Tags say
whose a machine is; a thing without this installation's tag is never touched, whatever its name.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import ClassVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from apps.attestation.challenges import attempt_lifetime
from apps.core.clock import now
from apps.jobs.models import Run
from apps.jobs.sizes import Size, default_size, sizes_of
from workers.backends.base import MACHINE, BackendError, Sight, Unsettled, checked_name

log = logging.getLogger(__name__)

INSTALLATION = "strongroom-installation"
RUN = "strongroom-run"
STARTED = "strongroom-started"
EXPIRES = "strongroom-expires"
# Seconds to connect and to wait for one answer. The engine's lease is 60 s, and a call that times out is the last one.
TIMEOUT = (5.0, 10.0)
# A machine younger than this is not swept: its row may have been read before it was written.
GRACE = timedelta(minutes=10)
# Beyond an attempt's own lifetime, before a machine is removed although a row still names it.
MARGIN = timedelta(minutes=30)
SWEEP_EVERY_SECONDS = 60.0
# The longest time for which a cloud may ask to be left alone: no answer of its may park the runs of a portal for good.
LONGEST_WAIT_SECONDS = 300.0
_IMAGE = re.compile(r"[a-z0-9][a-z0-9./_:-]*@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Found:
    """Something of ours in the cloud. Times from its tags; None where a tag is missing or unreadable."""

    machine: str
    started: datetime | None
    expires: datetime | None


@dataclass(frozen=True)
class Common:
    """What every cloud backend is told. `lifetime`: from launch to the machine's forced end."""

    installation: str
    portal: str
    image: str
    sizes: Mapping[str, Size]
    lifetime: timedelta
    clock: Callable[[], datetime] = field(default=now, compare=False)

    @classmethod
    def from_settings(cls, backend: str, first_call: timedelta) -> Common:
        """Raises ImproperlyConfigured for an image without a digest, or a backend without sizes."""
        image = settings.RUNNER_IMAGE_REFERENCES.get(backend, "")
        if backend != "azure":  # whose machines boot a disk image
            require_digest(image)
        try:
            sizes = sizes_of(backend)
        except ValueError as error:
            raise ImproperlyConfigured(f"RUN_SIZES[{backend!r}]: {error}.") from None
        if not sizes:
            raise ImproperlyConfigured(f"RUN_SIZES has no size for the backend {backend!r}.")
        return cls(
            installation=installation_id(),
            portal=settings.PORTAL_URL,
            image=image,
            sizes=sizes,
            lifetime=first_call + attempt_lifetime() + MARGIN,
        )


def require_digest(image: str) -> str:
    """The image's reference, if it names one image for good. Raises ImproperlyConfigured for a tag."""
    if not _IMAGE.fullmatch(image):
        raise ImproperlyConfigured(
            f"The runner's image (STRONGROOM_RUNNER_IMAGE) is {image!r}; it must end in @sha256: and 64 hexadecimal digits, so that it names "
            "one image for good. A tag can be moved."
        )
    return image


def installation_id() -> str:
    """This installation's mark on what it makes: 12 hex digits, from its own setting or from the portal's name."""
    given: str = settings.RUN_INSTALLATION
    if not given:
        return hashlib.sha256(settings.PORTAL_ID.encode()).hexdigest()[:12]
    if not re.fullmatch(r"[a-z0-9]{4,20}", given):
        raise ImproperlyConfigured("STRONGROOM_INSTALLATION is 4 to 20 lower-case letters and digits.")
    return given


class CloudBackend:
    """The protocol of engine/machines.py over five questions that a provider answers: see the abstract methods."""

    first_call: ClassVar[timedelta] = timedelta(minutes=15)
    common: Common
    _swept_at: float = float("-inf")
    _quiet_until: float = float("-inf")
    sweep_every: float = SWEEP_EVERY_SECONDS

    def _create(self, run: Run, machine: str, token: str) -> None:
        """Ask for the machine unless it is there. Raises BackendError, Unsettled."""
        raise NotImplementedError

    def _look(self, machine: str) -> Sight:
        """Raises BackendError where the machine was refused after it had been asked for; Unsettled."""
        raise NotImplementedError

    def _remove(self, machine: str) -> bool:
        """Ask for the removal of everything of the machine that is left. True if nothing was."""
        raise NotImplementedError

    def _ours(self) -> Iterable[Found]:
        """Everything that carries this installation's tag, or a name that only this installation makes."""
        raise NotImplementedError

    def _answers(self) -> AbstractContextManager[None]:
        """Turns the provider's exceptions into BackendError and Unsettled."""
        raise NotImplementedError

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """One visit to the provider. While it has asked this process to wait, there is none, and nothing is known."""
        left = self._quiet_until - time.monotonic()
        if left > 0:
            raise Unsettled("cloud_busy", f"The cloud asked for a pause; {left:.0f} seconds of it are left.")
        try:
            with self._answers():
                yield
        except BackendError as error:
            wait = _pause_asked_for(error.__cause__)
            self._quiet_until = time.monotonic() + min(wait, LONGEST_WAIT_SECONDS)
            raise

    def launch(self, run: Run, token: str) -> None:
        """Ask for the machine, unless it is there."""
        machine = checked_name(run.machine)
        with self._asked():
            self._create(run, machine, token)
        log.info("machine %s was asked for", machine)

    def observe(self, run: Run) -> Sight:
        """What the cloud shows under the machine's name."""
        machine = checked_name(run.machine)
        with self._asked():
            return self._look(machine)

    def destroy(self, run: Run) -> None:
        """Returns once nothing is left; until then each call asks for what is left to go, and raises Unsettled."""
        self._destroy(checked_name(run.machine))

    def _destroy(self, machine: str) -> None:
        try:
            with self._asked():
                gone = self._remove(machine)
        except Unsettled:
            raise
        except BackendError as error:
            raise BackendError("destroy_failed", f"{machine}: {error}") from error
        if not gone:
            raise Unsettled("machine_ending", f"{machine} is being removed.")

    def sweep(self, live_names: Collection[str]) -> list[str]:
        """Have everything of this installation removed that no row wants, or that is past its day.

        Returns the names whose removal was asked for or was under way; each is asked again until it is gone.
        """
        if time.monotonic() - self._swept_at < self.sweep_every:
            return []
        with self._asked():
            found = list(self._ours())
        self._swept_at = time.monotonic()
        moment, swept = self.common.clock(), []
        for machine in sorted({thing.machine for thing in found}):
            parts = [thing for thing in found if thing.machine == machine]
            if not self._unwanted(machine, parts, live_names, moment):
                continue
            swept.append(machine)
            try:
                self._destroy(machine)
            except Unsettled:
                log.info("%s: the orphan machine %s is being removed", type(self).__name__, machine)
            except BackendError as error:
                log.warning("%s: the orphan machine %s stays: %s", type(self).__name__, machine, error)
        return swept

    def _unwanted(
        self, machine: str, parts: Collection[Found], live_names: Collection[str], moment: datetime
    ) -> bool:
        if any(part.expires is not None and part.expires <= moment for part in parts):
            return True
        if machine in live_names:
            return False
        # One part that is young keeps the others: it is being made just now.
        return all(part.started is None or moment - part.started >= GRACE for part in parts)

    def _size(self, run: Run) -> Size:
        """The size chosen for the run, else the smallest that fits. Raises BackendError (size_unknown)."""
        chosen = getattr(run, "size", "")
        size = (
            self.common.sizes.get(chosen)
            if chosen
            else default_size(self.common.sizes, run.manifest.get("limits", {}))
        )
        if size is None:
            raise BackendError("size_unknown", f"No size {chosen!r} for {run.machine} is offered.")
        return size

    def _tags(self, run: Run) -> dict[str, str]:
        """Whose it is, for which run, since when, until when (seconds since 1970, so that any cloud can hold them)."""
        moment = self.common.clock()
        return {
            INSTALLATION: self.common.installation,
            RUN: run.pk.hex,
            STARTED: str(int(moment.timestamp())),
            EXPIRES: str(int((moment + self.common.lifetime).timestamp())),
        }

    def _is_ours(self, tags: Mapping[str, str] | None) -> bool:
        return (tags or {}).get(INSTALLATION) == self.common.installation

    def _found(self, name: str, tags: Mapping[str, str] | None) -> Found | None:
        """`name` is a machine's or one of its parts': sr-...-1 or sr-...-1-<part>. None if it is neither."""
        match = re.match(rf"({MACHINE.pattern})(?![0-9a-zA-Z])", name)
        if match is None:
            return None
        tags = tags or {}
        return Found(match.group(1), _moment(tags.get(STARTED)), _moment(tags.get(EXPIRES)))


def _pause_asked_for(error: BaseException | None) -> float:
    """Seconds of an error answer's Retry-After (RFC 9110 section 10.2.3: seconds, or a date); 0 where it has none."""
    answer = getattr(
        error, "response", None
    )  # Azure's and Google's clients; the cluster's has the headers itself
    headers = getattr(answer if answer is not None else error, "headers", None) or {}
    text = str(headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _moment(value: str | None) -> datetime | None:
    if value is None or not re.fullmatch(r"[0-9]{1,11}", value):
        return None
    return datetime.fromtimestamp(int(value), UTC)


def present(found: Iterable[Found | None]) -> Iterator[Found]:
    return (one for one in found if one is not None)
