"""Sessions: what a browser that has signed in brings with every request, as a signed cookie."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, replace

from monitor.login.users import Role, User, UsersFile
from stream.clock import Clock

_S = 1_000_000_000

LASTS_S = {Role.OPERATOR: 12 * 3600, Role.VIEWER: 30 * 24 * 3600}
"""How long a session lasts at most. An operator's: a shift, for what is done under a name must be done by
that person, and the next shift is somebody else. A viewer changes nothing, and a screen on the wall must
not go dark because nobody came to sign in."""

IDLE_S = 3600
"""Without a request in so long it ends earlier. An open page sends one every few minutes: what ends is a
session whose page was closed on a computer that others use, too."""

# Often enough for the hour, seldom enough not to send a cookie with every answer.
_RENEWED_S = 300


@dataclass(frozen=True, slots=True)
class Session:
    """One that was begun by signing in.

    Attributes
    ----------
    id, user : str
    mark : str
        Of the user, as it was then; see `monitor.login.users.User.mark`.
    begun_ns, seen_ns : int
        When it was begun, and when the last request came, to within a few minutes.
    secure : bool
        It was begun over TLS: its cookie travels in no other way.
    """

    id: str
    user: str
    mark: str
    begun_ns: int
    seen_ns: int
    secure: bool


class Sessions:
    """Begins sessions and knows them again.

    They are not kept: the cookie says everything, signed with the secret of the users file. Only what was
    ended by signing out is remembered, until it would have ended by itself.

    Parameters
    ----------
    file : UsersFile
    clock : Clock
    """

    def __init__(self, file: UsersFile, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._ended: dict[str, int] = {}

    def begin(self, name: str, user: User, *, secure: bool) -> Session:
        """Return a new session."""
        now_ns = self._clock.now_ns()
        return Session(secrets.token_hex(16), name, user.mark, now_ns, now_ns, secure)

    def cookie(self, session: Session) -> str:
        """Return what a browser is to bring."""
        fields = [getattr(session, name) for name in Session.__slots__]
        payload = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
        return f"{payload}.{self._signature(payload)}"

    def read(self, cookie: str, *, watched: bool = False) -> tuple[Session, User, int] | None:
        """Return the session of a cookie, its user, and when it ends at the latest; None if it is over.

        Parameters
        ----------
        cookie : str
        watched : bool
            The connection that it opened is still in use: it is not idle, whatever the cookie says.
        """
        session = self._opened(cookie)
        if session is None or session.id in self._ended:
            return None
        user = self._file.users.users.get(session.user)
        if user is None or not hmac.compare_digest(user.mark, session.mark):
            return None
        until_ns, now_ns = session.begun_ns + LASTS_S[user.role] * _S, self._clock.now_ns()
        if now_ns >= until_ns or (not watched and now_ns >= session.seen_ns + IDLE_S * _S):
            return None
        return session, user, until_ns

    def renewed(self, session: Session) -> Session | None:
        """Return a session as it is after one more request, if it is time for a new cookie."""
        now_ns = self._clock.now_ns()
        if now_ns - session.seen_ns < _RENEWED_S * _S:
            return None
        return replace(session, seen_ns=now_ns)

    def end(self, session: Session) -> None:
        """End a session: copies of its cookie are worth nothing any more."""
        now_ns, longest_ns = self._clock.now_ns(), max(LASTS_S.values()) * _S
        self._ended = {one: at for one, at in self._ended.items() if now_ns - at < longest_ns}
        self._ended[session.id] = now_ns

    def _opened(self, cookie: str) -> Session | None:
        payload, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            return None
        try:
            return Session(*json.loads(base64.urlsafe_b64decode(payload)))
        except (ValueError, TypeError, binascii.Error):
            return None

    def _signature(self, payload: str) -> str:
        secret = bytes.fromhex(self._file.users.secret)
        return hmac.new(secret, b"session " + payload.encode(), hashlib.sha256).hexdigest()
