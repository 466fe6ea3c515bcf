"""What the backends of a cloud share: names and tags, sizes, expiry, and the sweep.

A cloud is asked, never remembered: every call here may follow one whose answer was lost, in another worker. Tags say
whose a machine is; a thing without this installation's tag is never touched, whatever its name.

An answer is believed only where it has the form that the cloud describes. Anything else (a proxy's page, half an
answer, a member that is missing) leaves it unknown what is so: `cloud_unreadable`, and the next look asks again.
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
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from apps.attestation.challenges import attempt_lifetime
from apps.core.clock import now
from apps.jobs.models import Run
from apps.jobs.sizes import Size, default_size, sizes_of
from workers.backends.base import MACHINE, BackendError, Sight, Unsettled, checked_name, unreadable

T = TypeVar("T")
ConfigT = TypeVar("ConfigT")
ClientsT = TypeVar("ClientsT")
log = logging.getLogger(__name__)

INSTALLATION = "strongroom-installation"
RUN = "strongroom-run"
STARTED = "strongroom-started"
EXPIRES = "strongroom-expires"
# Seconds to connect and to wait for one answer. The engine's lease is 60 s, and a call that times out is the last one.
TIMEOUT = (5.0, 10.0)
# A machine younger than this is not swept: its row may have been read before it was written. A start that lies further
# ahead than this was written by a clock that was wrong, and keeps nothing.
GRACE = timedelta(minutes=10)
# Beyond an attempt's own lifetime, before a machine is removed although a row still names it.
MARGIN = timedelta(minutes=30)
SWEEP_EVERY_SECONDS = 60.0
# The longest time for which a cloud may ask to be left alone: no answer of its may park the runs of a portal for good.
LONGEST_WAIT_SECONDS = 900.0
# How long a cloud is left alone that says "too many requests" and names no time.
UNNAMED_WAIT_SECONDS = 30.0
# What was asked to go and is still there after this is asked again at every look, and said.
LINGERS_SECONDS = 3600.0
# Of one list. A next page that never ends must not hold a worker for good.
MOST_PAGES = 1000
# What clients and this package raise on an answer of another form than described.
_MISREAD = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
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


class CloudBackend(Generic[ConfigT, ClientsT]):
    """The protocol of engine/machines.py over five questions that a provider answers: see the abstract methods.

    `config`: what this backend alone is told. `clients`: the provider's, those of the worker's own identity unless given.
    """

    first_call: ClassVar[timedelta] = timedelta(minutes=15)
    _swept_at: float = float("-inf")
    _quiet_until: float = float("-inf")
    sweep_every: float = SWEEP_EVERY_SECONDS
    # Seconds that only ever go on, for waits of this process: the clock of `common` may be set.
    ticks: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, common: Common, config: ConfigT, clients: ClientsT | None = None) -> None:
        self.common, self.config, self._given = common, config, clients
        self._leaving: dict[str, float] = {}  # machines that this process has asked to go -> since when

    @cached_property
    def clients(self) -> ClientsT:
        """Made at the first visit: a backend that is not used needs no credentials."""
        return self._connect() if self._given is None else self._given

    def _connect(self) -> ClientsT:
        """The provider's clients for the worker's own identity. Raises what `_answers` knows."""
        raise NotImplementedError

    def _create(self, run: Run, machine: str, token: str) -> None:
        """Ask for the machine unless it is there. Raises BackendError, Unsettled."""
        raise NotImplementedError

    def _look(self, machine: str) -> Sight:
        """Raises BackendError where the machine was refused after it had been asked for; Unsettled."""
        raise NotImplementedError

    def _remove(self, machine: str, again: bool) -> bool:
        """Ask for the removal of everything of the machine that is left. True if nothing was.

        again: ask even where the cloud says that it is at it.
        """
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
        left = self._quiet_until - self.ticks()
        if left > 0:
            raise Unsettled(
                "cloud_throttled", f"The cloud asked for a pause; {left:.0f} seconds of it are left."
            )
        try:
            with self._answers():
                yield
        except BackendError as error:
            wait = _pause_asked_for(error.__cause__)
            if error.code == "cloud_throttled":
                wait = wait or UNNAMED_WAIT_SECONDS
            until = self.ticks() + min(wait, LONGEST_WAIT_SECONDS)
            self._quiet_until = max(self._quiet_until, until)  # another thread may have been told more
            raise
        except _MISREAD as error:
            log.exception("an answer of the cloud could not be read")
            raise unreadable(f"{type(error).__name__}: {error}") from error

    def launch(self, run: Run, token: str) -> None:
        """Ask for the machine, unless it is there."""
        machine = checked_name(run.machine)
        with self._asked():
            self._create(run, machine, token)
        log.info("machine %s was asked for", machine)

    def observe(self, run: Run) -> Sight:
        """What the cloud shows under the machine's name."""
        machine = checked_name(run.machine)
        try:
            with self._asked():
                return self._look(machine)
        except Unsettled:
            raise
        except BackendError as error:
            if error.__cause__ is None:
                raise  # read from the machine's own state
            # The look was refused, by an error answer. Of the machine that says nothing: it may be at work.
            raise Unsettled("look_refused", f"{machine}: {error}") from error

    def destroy(self, run: Run) -> None:
        """Returns once nothing is left; until then each call asks for what is left to go, and raises Unsettled.

        Raises BackendError (destroy_failed) for what the cloud refuses to remove, or still has after an hour.
        """
        self._destroy(checked_name(run.machine))

    def _destroy(self, machine: str) -> None:
        moment = self.ticks()
        lingers = moment - self._leaving.get(machine, moment) >= LINGERS_SECONDS
        try:
            with self._asked():
                gone = self._remove(machine, lingers)
        except Unsettled:
            raise
        except BackendError as error:
            raise BackendError("destroy_failed", f"{machine}: {error}") from error
        if gone:
            self._leaving.pop(machine, None)
            return
        self._leaving.setdefault(machine, moment)
        if lingers:
            raise BackendError(
                "destroy_failed", f"{machine} was asked to go an hour ago and is there; it was asked again."
            )
        raise Unsettled("machine_ending", f"{machine} is being removed.")

    def sweep(self, live_names: Collection[str]) -> list[str]:
        """Have everything of this installation removed that no row wants, or that is past its day.

        Returns the names whose removal was asked for or was under way; each is asked again until it is gone.
        """
        if self.ticks() - self._swept_at < self.sweep_every:
            return []
        with self._asked():
            found = list(self._ours())
        self._swept_at = self.ticks()
        names, moment, swept = {thing.machine for thing in found}, self.common.clock(), []
        self._leaving = {name: since for name, since in self._leaving.items() if name in names}
        for machine in sorted(names):
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
        return all(part.started is None or abs(moment - part.started) >= GRACE for part in parts)

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

    def _require_ours(self, machine: str, tags: Mapping[str, str] | None) -> None:
        """Raises BackendError (name_taken) for what somebody else made under the machine's name."""
        if not self._is_ours(tags):
            raise BackendError("name_taken", f"{machine} is there without this portal's mark.")

    def _removable(self, machine: str, tags: Mapping[str, str] | None) -> bool:
        """Whether it is ours. What somebody else made under a machine's name is left, and the log says so."""
        if self._is_ours(tags):
            return True
        log.warning("%s is there without this portal's mark: it is left alone", machine)
        return False

    def _found(self, name: str, tags: Mapping[str, str] | None) -> Found | None:
        """`name` is a machine's or one of its parts': sr-...-1 or sr-...-1-<part>. None if it is neither."""
        match = re.match(rf"({MACHINE.pattern})(?![0-9a-zA-Z])", name)
        if match is None:
            return None
        tags = tags or {}
        return Found(match.group(1), _moment(tags.get(STARTED)), _moment(tags.get(EXPIRES)))


def _pause_asked_for(error: BaseException | None) -> float:
    """Seconds of an error answer's Retry-After (RFC 9110 section 10.2.3: seconds, or a date); 0 where it has none."""
    # Azure's and Google's exceptions carry the answer, the cluster's its headers.
    answer = getattr(error, "response", None)
    headers = getattr(answer if answer is not None else error, "headers", None) or {}
    text = str(headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    until = _date(text)
    if until is None:
        return 0.0
    # From the cloud's clock where it says the time: ours may be another.
    return max(0.0, (until - (_date(str(headers.get("Date") or "")) or now())).total_seconds())


def _date(text: str) -> datetime | None:
    """An HTTP date (RFC 9110 section 5.6.7); None for anything else."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _moment(value: str | None) -> datetime | None:
    if value is None or not re.fullmatch(r"[0-9]{1,11}", value):
        return None
    return datetime.fromtimestamp(int(value), UTC)


def present(found: Iterable[Found | None]) -> Iterator[Found]:
    return (one for one in found if one is not None)


def bounded(pages: Iterable[T]) -> Iterator[T]:
    """The pages of a list. Raises Unsettled where there are more than any list of ours can have."""
    for number, page in enumerate(pages):
        if number >= MOST_PAGES:
            raise unreadable(f"A list has no end after {MOST_PAGES} pages.")
        yield page
