"""Fixtures for the tests of the stream package."""

from __future__ import annotations

import itertools

import pytest

from models.backends import open_session
from models.bundle import load_bundle
from models.session import Session

_numbers = itertools.count()


@pytest.fixture(scope="session")
def shipped() -> Session:
    """Open the model that comes with the package."""
    return open_session(load_bundle("cae-100hz"))


@pytest.fixture
def prefix() -> str:
    """Give a deployment of its own on a server that tests share."""
    return f"test-{next(_numbers)}:"
