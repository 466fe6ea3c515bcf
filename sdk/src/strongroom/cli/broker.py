"""A custodian's own key broker: make it, serve it, stop it, look at it."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from strongroom.broker import config as configuration
from strongroom.broker.config import Config
from strongroom.broker.service import Broker
from strongroom.broker.state import State
from strongroom.broker.web import serve as serve_http
from strongroom.seal.keys import SUITES

CONFIG = click.option(
    "--config",
    "path",
    required=True,
    envvar="STRONGROOM_BROKER_CONFIG",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The broker's TOML file.",
)


def _load(path: Path) -> Config:
    return configuration.load(path)


@click.group()
def broker() -> None:
    """Your own key broker: it holds the keys of your data, and the portal cannot open them."""


@broker.command()
@CONFIG
def init(path: Path) -> None:
    """Make the key store and the state file that the configuration names."""
    config = _load(path)
    store = config.create_store()
    State(config.state)
    click.echo(f"Made {store.path} with the keys {', '.join(key.id for key in store.public_keys())}.")
    click.echo("Keep a copy of it in a safe: without it nothing that was sealed to these keys can be opened.")


@broker.command()
@CONFIG
def serve(path: Path) -> None:
    """Answer the portal until the process is told to end."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    config = _load(path)
    ready = Broker(config)
    ready.store.check()

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    if ready.state.stopped() is not None:
        click.echo(
            "This broker is stopped and refuses everything: `strongroom broker start` takes that back."
        )
    serve_http(
        ready,
        host=config.host,
        port=config.port,
        ready=lambda address: click.echo(f"{config.id} answers at {address}"),
    )


@broker.command()
@CONFIG
def keys(path: Path) -> None:
    """Print the public keys to which your data are to be sealed, as JSON for the portal."""
    config = _load(path)
    found = [key.to_json() for key in config.open_store().public_keys()]
    click.echo(json.dumps({"id": config.id, "keys": found}, indent=2))


@broker.command()
@CONFIG
@click.argument("suite", type=click.Choice(SUITES))
def rotate(path: Path, suite: str) -> None:
    """Make a new key of SUITE. The one before still opens what was sealed to it."""
    made = _load(path).open_store().rotate(suite)
    click.echo(f"New key {made.id}. Give the portal the new public keys (strongroom broker keys).")


@broker.command()
@CONFIG
@click.argument("key")
@click.confirmation_option(prompt="Nothing that was sealed to this key can ever be opened again. Retire it?")
def retire(path: Path, key: str) -> None:
    """Throw the private half of an old KEY away, for good."""
    _load(path).open_store().retire(key)
    click.echo(f"The key {key} is retired.")


@broker.command()
@CONFIG
@click.option("--reason", default="", help="Told to everybody who is refused.")
def stop(path: Path, reason: str) -> None:
    """Refuse every request from this moment on, whoever asks."""
    config = _load(path)
    Broker(config, store=config.store_unopened()).stop(reason[:500])
    click.echo(
        "Stopped: no key is released any more. The portal ends runs that have their keys already, once it has asked this broker."
    )


@broker.command()
@CONFIG
def start(path: Path) -> None:
    """Take a stop back."""
    config = _load(path)
    Broker(config, store=config.store_unopened()).start()
    click.echo("Started: keys are released again where evidence and policy allow it.")


@broker.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(path: Path, as_json: bool) -> None:
    """Whether it is stopped, which keys it has, and how many decisions stand in its log."""
    config = _load(path)
    state = State(config.state)
    stopped, head = state.stopped(), state.head()
    counts: dict[str, int] = {}
    for _, entry in state.entries():
        event = str(json.loads(entry)["event"])
        counts[event] = counts.get(event, 0) + 1
    stored = config.store_unopened().list_keys()
    if as_json:
        found = {
            "id": config.id,
            "stopped": None if stopped is None else {"since": stopped[0], "reason": stopped[1]},
            "keys": [key.public_json() for key in stored],
            "datasets": sorted(config.datasets),
            "log": None if head is None else head.to_json(),
            "events": counts,
        }
        click.echo(json.dumps(found))
        return
    click.echo(f"{config.id}: {'STOPPED since ' + stopped[0] if stopped else 'releases keys'}")
    if stopped and stopped[1]:
        click.echo(f"Reason: {stopped[1]}")
    for key in stored:
        click.echo(f"Key {key.public.id}  {key.public.suite}  {key.state}  made {key.created}")
    click.echo(f"Datasets: {', '.join(sorted(config.datasets)) or 'none'}")
    click.echo("Log: " + (", ".join(f"{n} {event}" for event, n in sorted(counts.items())) or "empty"))


@broker.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="One entry a line.")
def log(path: Path, as_json: bool) -> None:
    """Show every decision, and check that none was changed, removed or added in between."""
    state = State(_load(path).state)
    for place, raw in state.entries():
        entry = json.loads(raw)
        if as_json:
            click.echo(json.dumps({"index": place.index, "hash": place.hash, "entry": entry}))
        else:
            failing = f"  failing: {', '.join(entry['failing'])}" if entry.get("failing") else ""
            code = f"  {entry['code']}" if "code" in entry else ""
            click.echo(
                f"{place.index:6d}  {entry['at']}  {entry['event']}{code}  {entry.get('run', '')}{failing}"
            )
    count = state.verify()
    if not as_json:
        click.echo(f"The {count} entries form one unbroken chain.")


COMMANDS = (broker,)
