"""What a consumer and a provider of ISO/IEEE 11073 SDC share: certificates, and the names of codes."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sdc11073.certloader import SSLContextContainer

MDC_SYSTEM = "urn:oid:1.2.840.10004.1.1.1.0.0.1"
"""Coding system of the nomenclature of ISO/IEEE 11073-10101."""

# Each attempt is in vain only if yet another consumer unsubscribes within the same microseconds.
_STOPS = 10


def sdc_options(others: str) -> tuple[click.Option, ...]:
    """Return the options that say where, and with which certificates: what `Network` is made of.

    Parameters
    ----------
    others : str
        Who is at the other end, such as ``devices``.
    """
    return (
        click.Option(
            ["--adapter"],
            default="127.0.0.1",
            show_default=True,
            metavar="ADDRESS",
            help=f"Of this machine, on the network of the {others}.",
        ),
        click.Option(["--tls-cert"], metavar="FILE", help="Our certificate: connections are TLS."),
        click.Option(["--tls-key"], metavar="FILE", help="Its key."),
        click.Option(
            ["--tls-ca"],
            metavar="FILE",
            help=f"{others.capitalize()} must show a certificate that these sign.",
        ),
    )


@dataclass(frozen=True, slots=True)
class Network:
    """Where SDC is spoken.

    Attributes
    ----------
    adapter : str
        Address of this machine.
    tls_cert, tls_key, tls_ca : str, optional
        Files with our certificate, its key, and the certificates that sign those of the others.

    Raises
    ------
    ValueError
        If the address is none, or a file is not named.
    """

    adapter: str = "127.0.0.1"
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together")
        if self.tls_cert is None and self.tls_ca is not None:
            raise ValueError("--tls-ca needs --tls-cert and --tls-key")
        # Raises a ValueError that says what is wrong with it.
        object.__setattr__(self, "adapter", str(ipaddress.ip_address(self.adapter)))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine takes part."""
        return ipaddress.ip_address(self.adapter).is_loopback

    @property
    def files(self) -> str:
        """Names of the files of TLS, for a message."""
        return ", ".join(file for file in (self.tls_cert, self.tls_key, self.tls_ca) if file)

    def contexts(self) -> SSLContextContainer | None:
        """Return the contexts of TLS, None without.

        Raises
        ------
        OSError
            If a file cannot be used.
        """
        from sdc11073.certloader import mk_ssl_contexts

        if self.tls_cert is None or self.tls_key is None:
            return None
        ca = Path(self.tls_ca) if self.tls_ca else None
        return mk_ssl_contexts(Path(self.tls_key), Path(self.tls_cert), ca)


def keep_library_quiet() -> None:
    """Keep sdc11073 from telling of each connection that is lost, with tracebacks: we say so in a line."""
    logging.getLogger("sdc").setLevel(logging.CRITICAL)


def stop_provider(provider: Any, *, tell: bool = True) -> None:
    """Stop an ``SdcProvider`` of sdc11073, also while its consumers unsubscribe.

    It walks through its subscriptions without the lock under which one is taken away; where that fails it has
    stopped half of itself, and may be stopped again.

    Parameters
    ----------
    provider : sdc11073.provider.SdcProvider
    tell : bool
        Whether consumers are told that their subscriptions end.

    Raises
    ------
    RuntimeError
        If it does not stop.
    """
    for attempt in range(1, _STOPS + 1):
        try:
            provider.stop_all(send_subscription_end=tell)
        except RuntimeError:
            if attempt == _STOPS:
                raise
        else:
            return
