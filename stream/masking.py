"""Passwords in text that people or logs see."""

from __future__ import annotations

import re

# Greedy: a password may hold an @, the host cannot.
_CREDENTIALS = re.compile(r"(?<=://)[^\s/]*@")
# As redis-py takes them from a URL's query.
_IN_QUERY = re.compile(r"([?&][\w.-]*(?:password|secret|token)[\w.-]*=)[^&\s]*", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """Return a URL, or text with URLs in it, as it may be shown and logged.

    Examples
    --------
    >>> without_credentials("cannot use rediss://worker:secret@host:6379/0?ssl_password=x")
    'cannot use rediss://host:6379/0?ssl_password=***'
    """
    return _IN_QUERY.sub(r"\1***", _CREDENTIALS.sub("", text))
