"""Where an adapter listens, and who may come in: this machine, unless told otherwise; then with a token."""

from __future__ import annotations

import hmac
import ipaddress
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click

from ingest.source import IngestError

_file = click.Path(dir_okay=False, path_type=Path)
_SHORTEST_TOKEN = 16

MAX_CONNECTIONS = 256
"""Of one adapter: a ward has fewer devices, and what one may leave unread is small enough for so many."""

MAX_MESSAGE = 512 * 1024
"""Bytes: ten seconds of 12 leads at 500 Hz as JSON. With `MAX_CONNECTIONS`, 256 MB at the very most."""

MOST_BAD = 10
"""So many messages in a row that cannot be read are another protocol."""

IDLE_S = 60.0
"""A live device sends several times a second: one that has sent no whole message for so long is gone."""


def listening_options(port: int) -> tuple[click.Option, ...]:
    """Return the options of an adapter that listens; their values are what `Listening.of` takes."""
    return (
        click.Option(["--port"], type=click.IntRange(0, 65535), default=port, show_default=True),
        click.Option(
            ["--host"],
            metavar="ADDRESS",
            default="127.0.0.1",
            show_default=True,
            help="Listen there; 0.0.0.0 for all addresses of this machine.",
        ),
        click.Option(
            ["--tls-cert"], type=_file, metavar="FILE", help="Listen with TLS and this certificate."
        ),
        click.Option(["--tls-key"], type=_file, metavar="FILE", help="Its key."),
        click.Option(
            ["--tls-client-ca"],
            type=_file,
            metavar="FILE",
            help="Let in only devices whose certificate this authority has signed.",
        ),
    )


token_option = click.Option(
    ["--token-file"],
    type=_file,
    metavar="FILE",
    help="Let in only devices that send what is in this file. Needed off loopback.",
)


@dataclass(frozen=True, slots=True)
class Listening:
    """An address to listen at.

    Attributes
    ----------
    host : str
    port : int
        0: any that is free.
    context : ssl.SSLContext, optional
        With TLS.
    """

    host: str
    port: int
    context: ssl.SSLContext | None

    @classmethod
    def of(
        cls,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        tls_client_ca: Path | None = None,
    ) -> Self:
        """Return the address that options name.

        Raises
        ------
        ValueError
            If they do not go together.
        IngestError
            If a file cannot be read.
        """
        if (tls_cert is None) != (tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together")
        if tls_cert is None and tls_client_ca is not None:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key")
        context = None
        if tls_cert is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            try:
                context.load_cert_chain(tls_cert, tls_key)
                if tls_client_ca is not None:
                    context.verify_mode = ssl.CERT_REQUIRED
                    context.load_verify_locations(tls_client_ca)
            except OSError as error:
                files = f"{tls_cert} and {tls_key}" if tls_client_ca is None else f"{tls_client_ca}"
                raise IngestError(files, f"cannot be used for TLS: {error.strerror or error}") from error
        return cls(host, port, context)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine comes in."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Token:
    """What devices have to know.

    Parameters
    ----------
    file : pathlib.Path, optional
        Its first line is the token; None: nothing has to be known.
    address : Listening

    Raises
    ------
    ValueError
        If there is no file although others than this machine come in.
    IngestError
        If the file cannot be read, or its token could be guessed.
    """

    def __init__(self, file: Path | None, address: Listening) -> None:
        self._token = b""
        if file is None:
            if not address.is_loopback:
                raise ValueError(f"--host {address.host} lets in other machines: --token-file is needed")
            return
        try:
            self._token = file.read_bytes().partition(b"\n")[0].strip()
        except OSError as error:
            raise IngestError(file, f"cannot be read: {error.strerror}") from error
        if len(self._token) < _SHORTEST_TOKEN:
            raise IngestError(file, f"a token needs {_SHORTEST_TOKEN} characters or more")

    @property
    def needed(self) -> bool:
        """Whether devices have to know anything."""
        return bool(self._token)

    def is_known(self, said: Any) -> bool:
        """Say whether a device that says this may come in."""
        return not self._token or (isinstance(said, str) and hmac.compare_digest(said.encode(), self._token))


def token_in(words: str | bytes) -> Any:
    """Return what a device says in ``{"token": …}``; None if it says something else."""
    try:
        said = json.loads(words)
    except (ValueError, RecursionError):
        return None
    return said.get("token") if isinstance(said, dict) else None


def address_of(peer: Any) -> str:
    """Return the host of a connection's other end, in words."""
    return str(peer[0]) if isinstance(peer, tuple) and peer else "this machine"
