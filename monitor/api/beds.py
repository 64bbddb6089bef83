"""What is in force for a bed, and changing it: model, threshold, limits, baseline, admission, discharge.

Each change becomes a command to the worker of the bed, and its answer, an audit entry, is the response.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from redis.exceptions import RedisError

from models.bundle import BundleError, shipped_manifests
from monitor.api.access import ApiHandler, RefusedError
from monitor.api.requests import ANSWER_S, Request
from stream import asking
from stream.bed_settings import read_settings
from stream.contract import MalformedMessageError


class Bed(ApiHandler):
    """``GET /api/beds/BED``: see `stream.bed_settings.BedSettings`."""

    async def get(self, bed: str) -> None:
        """Answer with what is in force."""
        try:
            settings = await read_settings(self.access.bus, bed)
        except (RedisError, OSError) as error:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        except MalformedMessageError as error:
            text = f"bed {bed} is held by a worker of another version: {error}"
            raise RefusedError(HTTPStatus.BAD_GATEWAY, text) from error
        if settings is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"bed {bed} has not been heard by any worker")
        self.answer(settings.model_dump(mode="json"))


class Models(ApiHandler):
    """``GET /api/models``: the models that a bed can choose."""

    def get(self) -> None:
        """Answer with what the manifests say."""
        try:
            manifests = shipped_manifests()
        except BundleError as error:
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from error
        self.answer(
            [
                {
                    "name": manifest.name,
                    "description": manifest.description,
                    "architecture": manifest.architecture,
                    "parameters": manifest.parameters,
                    "leads": manifest.leads,
                    "thresholds": {
                        precision: thresholds.window for precision, thresholds in manifest.thresholds.items()
                    },
                    "alarm": manifest.alarm.model_dump(),
                }
                for manifest in manifests
            ]
        )


class SetModel(Request):
    """``POST /api/beds/BED/model`` with ``{"who": NAME, "value": NAME}``; null: the worker's own."""

    async def post(self, bed: str) -> None:
        """Ask, and answer with the audit entry."""
        access, model = self.access, self.value
        if model is not None and not isinstance(model, str):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "value: give the name of a model, or null")
        await self.respond(
            asking.set_model(access.bus, bed, model, who=self.who, clock=access.clock, timeout_s=ANSWER_S)
        )


class SetThreshold(Request):
    """``POST /api/beds/BED/threshold`` with ``{"who": NAME, "value": NUMBER}``; null: the model's."""

    async def post(self, bed: str) -> None:
        """Ask, and answer with the audit entry."""
        access, threshold = self.access, self.value
        if threshold is not None and not _is_number(threshold):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "value: give a number, or null")
        await self.respond(
            asking.set_threshold(
                access.bus, bed, threshold, who=self.who, clock=access.clock, timeout_s=ANSWER_S
            )
        )


class SetLimits(Request):
    """``POST /api/beds/BED/limits`` with ``{"who": NAME, "value": {NAME: NUMBER}}``; null: as by default."""

    async def post(self, bed: str) -> None:
        """Ask, and answer with the audit entry."""
        access, limits = self.access, self.value
        numbers = limits.values() if isinstance(limits, dict) else ()
        if limits is not None and not (
            isinstance(limits, dict) and all(value is None or _is_number(value) for value in numbers)
        ):
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, 'value: give limits, as {"tachycardia_bpm": 150}, or null'
            )
        await self.respond(
            asking.set_limits(access.bus, bed, limits, who=self.who, clock=access.clock, timeout_s=ANSWER_S)
        )


class ConfirmBaseline(Request):
    """``POST /api/beds/BED/baseline`` with ``{"who": NAME}``."""

    async def post(self, bed: str) -> None:
        """Ask, and answer with the audit entry."""
        access = self.access
        await self.respond(
            asking.confirm_baseline(access.bus, bed, who=self.who, clock=access.clock, timeout_s=ANSWER_S)
        )


class Admit(Request):
    """``POST /api/beds/BED/admit`` with ``{"who": NAME}``; value ``"same"``: it is the patient of before."""

    async def post(self, bed: str) -> None:
        """Ask, and answer with the audit entry."""
        access, value = self.access, self._body.get("value")
        if value not in (None, "same"):
            raise RefusedError(HTTPStatus.BAD_REQUEST, 'value: "same" for the patient of before, or nothing')
        await self.respond(
            asking.admit(
                access.bus,
                bed,
                same=value == "same",
                who=self.who,
                clock=access.clock,
                timeout_s=ANSWER_S,
            )
        )


class Discharge(Request):
    """``POST /api/beds/BED/discharge`` with ``{"who": NAME}``."""

    async def post(self, bed: str) -> None:
        """Ask, and answer with the audit entry."""
        access = self.access
        await self.respond(
            asking.discharge(access.bus, bed, who=self.who, clock=access.clock, timeout_s=ANSWER_S)
        )


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
