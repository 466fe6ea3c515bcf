"""Signing in and out, and who is signed in."""

from __future__ import annotations

import json
import os
import socket

import click

from strongroom.client import Client, Credentials, config_file

SCOPES = ("read", "research", "custody", "review")


@click.command()
@click.argument("portal")
@click.option("--email", prompt="E-mail address", help="Your e-mail address.")
@click.option(
    "--password",
    envvar="STRONGROOM_PASSWORD",
    prompt=True,
    hide_input=True,
    help="Or the variable STRONGROOM_PASSWORD.",
)
@click.option(
    "--days", default=30, show_default=True, type=click.IntRange(1, 365), help="How long the token is valid."
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="What the token may do (several times). All of these if left out.",
)
def login(portal: str, email: str, password: str, days: int, scopes: tuple[str, ...]) -> None:
    """Sign in to PORTAL (https://...) and keep a token and the portal's public keys."""
    if "://" not in portal:
        portal = f"https://{portal}"
    client = Client(portal)
    body = {
        "email": email,
        "password": password,
        "name": f"strongroom on {socket.gethostname()}"[:90],
        "scopes": list(scopes or SCOPES),
        "days": days,
    }
    token = client.post("/login/token", body)["token"]
    path = Credentials(client.portal, token, email, client.portal_keys()).save()
    click.echo(f"Signed in to {client.portal} as {email}. The token is in {path} and expires in {days} days.")


@click.command()
def logout() -> None:
    """Forget the token on this machine. (Revoke it on your account page.)"""
    try:
        os.unlink(config_file())
        click.echo(
            "Signed out on this machine. The token stays valid until it expires or you revoke it on your account page."
        )
    except FileNotFoundError:
        click.echo("You were not signed in.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def whoami(as_json: bool) -> None:
    """Show who is signed in, and with which roles."""
    me = Client.signed_in().get("/whoami")
    if as_json:
        click.echo(json.dumps(me))
        return
    click.echo(f"{me['name']} <{me['email']}> at {Credentials.load().portal}")
    for role in me.get("roles", []):
        click.echo(f"  {role.get('label') or role['role']}, {role['organisation']['name']}")


COMMANDS = (login, logout, whoami)
