"""Uploads over HTTP: say what comes, send the files, ask how far it is, fetch the results."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import IO

from tornado.web import stream_request_body

from models.bundle import list_bundles
from monitor.api.access import Access, ApiHandler, RefusedError
from monitor.login.gate import Login
from monitor.login.users import Role
from monitor.uploads.desk import RESULTS, UPLOAD_BYTES, Desk, Job
from monitor.uploads.files import DeskError

_BODY_BYTES = 16_384
_TYPES = {
    "report.html": "text/html; charset=utf-8",
    "picture.png": "image/png",
    "result.json": "application/json",
    "arrays.npz": "application/octet-stream",
    "record.zip": "application/zip",
}
_BLOCK = 1 << 18


class _AtDesk(ApiHandler):
    def initialize(self, access: Access, desk: Desk) -> None:  # type: ignore[override]
        super().initialize(access)
        self.desk = desk

    @property
    def login(self) -> Login | None:
        return self.access.gate.login_of(self.request)

    def sees(self, job: Job) -> bool:
        """Whether who asks may know of a job: recordings are of patients, and viewers see their own."""
        if self.access.gate.users is None:
            return True
        login = self.login
        return login is not None and (login.role is Role.OPERATOR or login.user == job.who)

    def job(self, name: str) -> Job:
        try:
            job = self.desk.job(name)
        except KeyError:
            job = None
        # Nobody learns that there is one which is not theirs.
        if job is None or not self.sees(job):
            raise RefusedError(
                HTTPStatus.NOT_FOUND, "no such analysis, or no longer: the oldest ones make room for new ones"
            )
        return job


class AnalysisList(_AtDesk):
    """``GET``: what is on the desk. ``POST {"files": [...], "model": "", "fs": 500}``: begin an upload.

    ``leads``, names with commas between, may be told of a file that does not state them.
    """

    def get(self) -> None:
        """Answer."""
        self.answer(
            {
                "analyses": [job.told() for job in self.desk.jobs() if self.sees(job)],
                "models": list_bundles(),
                "upload_bytes": UPLOAD_BYTES,
            }
        )

    def post(self) -> None:
        """Answer with the job, whose files are to be sent next."""
        if len(self.request.body) > _BODY_BYTES:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {_BODY_BYTES} bytes")
        # A form of a foreign page cannot send JSON without asking us first.
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        try:
            body = json.loads(self.request.body)
            files = [str(name) for name in body["files"]]
            model = str(body.get("model") or "")
            fs = float(body["fs"]) if body.get("fs") else None
            leads = str(body.get("leads") or "").strip()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RefusedError(HTTPStatus.BAD_REQUEST, 'send {"files": ["a.hea", "a.dat"]}') from None
        if model and model not in list_bundles():
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, f"model {model[:60]!r}: choose from {', '.join(list_bundles())}"
            )
        try:
            login = self.login
            job = self.desk.take(files, model, fs, leads, login.user if login else None)
        except DeskError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        self.answer(job.told(), HTTPStatus.CREATED)


class OneAnalysis(_AtDesk):
    """``GET``: how far it is, and what came out. ``DELETE``: take it off the desk."""

    def get(self, name: str) -> None:
        """Answer."""
        self.answer(self.job(name).told())

    def delete(self, name: str) -> None:
        """Stop it, if it runs, and delete what there is of it."""
        job = self.job(name)
        self.desk.drop(job)
        self.answer({"id": job.id, "deleted": True})


@stream_request_body
class Upload(_AtDesk):
    """``PUT``: one file of a recording, as it is."""

    _file: IO[bytes] | None = None
    _job: Job | None = None

    def prepare(self) -> None:
        """Make room, before the body comes."""
        super().prepare()
        if self.request.method != "PUT":
            return
        job, name = self.job(self.path_args[0]), self.path_args[1]
        if job.state != "uploading" or name not in job.files:
            raise RefusedError(HTTPStatus.CONFLICT, f"{name}: not a file that this upload waits for")
        there = sum(path.stat().st_size for path in job.inbox.iterdir())
        length = int(self.request.headers.get("Content-Length") or 0)
        if there + length > UPLOAD_BYTES:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{name}: {-(-(there + length) // 2**20)} MiB are too much,"
                f" {UPLOAD_BYTES // 2**20} MiB at most; use `bedside analyze` for it",
            )
        self.request.connection.set_max_body_size(UPLOAD_BYTES - there)  # type: ignore[union-attr]
        self._job = job
        self._file = (job.inbox / f"{name}.part").open("wb")

    def data_received(self, chunk: bytes) -> None:
        """Write what has come."""
        if self._file is not None:
            self._file.write(chunk)

    def put(self, name: str, file: str) -> None:
        """Take the file; with the last one the analysis waits for its turn."""
        assert self._file is not None
        assert self._job is not None
        self._file.close()
        part = self._job.inbox / f"{file}.part"
        part.rename(self._job.inbox / file)
        self.desk.came(self._job)
        self.answer(self._job.told())

    def on_connection_close(self) -> None:
        """Forget half a file."""
        super().on_connection_close()
        if self._file is not None and not self._file.closed:
            self._file.close()


class Result(_AtDesk):
    """``GET``: one of the results."""

    async def get(self, name: str, result: str) -> None:
        """Send it."""
        assert result in RESULTS
        job = self.job(name)
        path = job.outbox / result
        if not path.is_file():
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{result}: not there {job.error or 'yet'}")
        self.set_header("Content-Type", _TYPES[result])
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        if result == "report.html":
            # Its scripts draw; they have nothing to do with this server's cookies and pages.
            self.set_header("Content-Security-Policy", "sandbox allow-scripts allow-downloads")
        if self.get_query_argument("download", None) is not None:
            self.attach(f"{job.name}.{result.partition('.')[2]}")
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                self.write(block)
                await self.flush()
