"""How a Kafka cluster is reached: the servers, TLS and credentials that its URL names.

``kafka://HOST:PORT;HOST:PORT``, or ``kafkas://`` for TLS; ``USER:PASSWORD@`` before the first host for SASL;
options after a ``?``, as a Redis URL has them:

``ssl_ca_certs``
    File of the authorities that the cluster's certificates are checked against; default the system's.
``ssl_certfile``, ``ssl_keyfile``
    Our own certificate and its key, where the cluster asks for one.
``sasl_mechanism``
    ``SCRAM-SHA-512`` (default), ``SCRAM-SHA-256``, or ``PLAIN``, with TLS only.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from faust.auth import SASLCredentials, SSLCredentials

from stream.masking import without_credentials
from stream.settings import BrokerError

_SCHEMES = {"kafka": False, "kafkas": True}
# Usual ones; the protocol has none of its own.
_PORTS = {False: 9092, True: 9093}
_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, slots=True)
class Access:
    """What a client of a cluster needs.

    Attributes
    ----------
    servers : tuple of str
        ``HOST:PORT`` of each.
    tls : ssl.SSLContext, optional
        None without TLS.
    user, password : str, optional
        None without SASL.
    mechanism : str
        Of SASL.
    """

    servers: tuple[str, ...]
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    mechanism: str = _MECHANISMS[0]

    @property
    def faust_url(self) -> str:
        """What Faust takes as a broker, without credentials."""
        return ";".join(f"kafka://{server}" for server in self.servers)

    @property
    def faust_credentials(self) -> SASLCredentials | SSLCredentials | None:
        """What Faust takes as broker credentials."""
        if self.user is not None:
            return SASLCredentials(
                username=self.user,
                password=self.password,
                ssl_context=self.tls,
                mechanism=self.mechanism,
            )
        return None if self.tls is None else SSLCredentials(self.tls)

    @property
    def client_options(self) -> dict[str, Any]:
        """Arguments of every client of aiokafka."""
        options: dict[str, Any] = {"bootstrap_servers": list(self.servers), "ssl_context": self.tls}
        if self.user is None:
            return options | {"security_protocol": "PLAINTEXT" if self.tls is None else "SSL"}
        return options | {
            "security_protocol": "SASL_PLAINTEXT" if self.tls is None else "SASL_SSL",
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.user,
            "sasl_plain_password": self.password,
        }


def access_of(url: str) -> Access:
    """Return how the cluster of a URL is reached.

    Raises
    ------
    BrokerError
        If the URL is of another kind, or asks for what makes no sense; the text has no password.
    """
    shown = without_credentials(url)
    scheme, _, rest = url.partition("://")
    named, _, query = rest.partition("?")
    credentials, _, hosts = named.rpartition("@")
    servers = [host.removeprefix(f"{scheme}://") for host in hosts.split(";")]
    if scheme not in _SCHEMES or not all(servers) or any("/" in server for server in servers):
        raise BrokerError(
            f"broker {shown}: kafka://HOST:PORT, or several with ; between them; kafkas:// with TLS"
        )
    secure = _SCHEMES[scheme]
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := options.keys() - {*_TLS_OPTIONS, "sasl_mechanism"}:
        raise BrokerError(f"broker {shown}: no option {min(unknown)}")
    if not secure and (tls := options.keys() & set(_TLS_OPTIONS)):
        raise BrokerError(f"broker {shown}: {min(tls)} needs TLS: kafkas://")
    user, colon, password = credentials.partition(":")
    mechanism = options.get("sasl_mechanism", _MECHANISMS[0])
    if mechanism not in _MECHANISMS:
        raise BrokerError(f"broker {shown}: sasl_mechanism is one of {', '.join(_MECHANISMS)}")
    if bool(user) != bool(colon and password) or ("sasl_mechanism" in options and not user):
        raise BrokerError(f"broker {shown}: SASL needs USER:PASSWORD@ before the first host")
    if mechanism == "PLAIN" and not secure:
        raise BrokerError(f"broker {shown}: PLAIN would send the password in the clear: kafkas://")
    return Access(
        tuple(server if ":" in server else f"{server}:{_PORTS[secure]}" for server in servers),
        _context(options, shown) if secure else None,
        unquote(user) or None,
        unquote(password) or None,
        mechanism,
    )


def _context(options: Mapping[str, str], shown: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if "ssl_certfile" in options:
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    except (OSError, ssl.SSLError) as error:
        raise BrokerError(f"broker {shown}: cannot read its certificates: {error}") from error
    return context
