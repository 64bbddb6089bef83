"""Records of public data sets: downloaded from PhysioNet once, and kept; a download that stopped goes on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.source import IngestError
from ingest.wfdb_segments import read_header
from stream.settings import Settings

# A request brings so much: few of them for a record of a megabyte, and not much to repeat.
_PIECE = 256 * 1024
# Behind the name of a file that is not complete.
_PART = ".part"

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set of PhysioNet.

    Attributes
    ----------
    name : str
        What it is called on the command line.
    folder : str
        Its folder there, with its version.
    first : str
        The record that is taken unless one is named.
    path_of : callable
        Returns the path of a record in the folder, for what people call it; None if that cannot be.
    example : str
        What records are called.
    """

    name: str
    folder: str
    first: str
    path_of: Callable[[str], str | None]
    example: str


def _mitdb(record: str) -> str | None:
    return record if re.fullmatch(r"\d{3}", record) else None


def _ptbxl(record: str) -> str | None:
    # By number, name, or path; of a number the record of 500 Hz.
    found = re.fullmatch(r"(?:records\d00/\d{5}/)?(\d{1,5})(_hr|_lr)?", record)
    if found is None:
        return None
    number, kind = int(found[1]), found[2] or "_hr"
    rate = 500 if kind == "_hr" else 100
    return f"records{rate}/{number // 1000 * 1000:05d}/{number:05d}{kind}"


DATASETS = {
    one.name: one
    for one in (
        Dataset("mitdb", "mitdb/1.0.0", "100", _mitdb, "100 to 234"),
        Dataset("ptbxl", "ptb-xl/1.0.3", "00001_hr", _ptbxl, "00001_hr (500 Hz), 00001_lr (100 Hz)"),
    )
}
"""By name."""


def fetch(name: str, record: str | None, progress: Progress | None = None) -> Path:
    """Return a record of a data set, having downloaded what is not there yet.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    record : str, optional
    progress : callable, optional
        Called with the share that is there, 0 to 1.

    Returns
    -------
    pathlib.Path
        Of the record, without extension.

    Raises
    ------
    IngestError
        If there is no such record, the server cannot be reached, or the files cannot be kept.
    """
    dataset = DATASETS[name]
    path = dataset.path_of(record or dataset.first)
    if path is None:
        raise IngestError(f"{name} record '{record}'", f"they are called {dataset.example}")
    settings = Settings()
    kept = (settings.datasets or _cache()) / dataset.folder / path
    there = f"{settings.physionet_url.rstrip('/')}/{dataset.folder}/{path}"
    tell = progress or (lambda share: None)
    _fetch_file(f"{there}.hea", kept.with_name(f"{kept.name}.hea"), lambda share: None)
    files = list(dict.fromkeys(read_header(kept).file_name))
    for number, file in enumerate(files):
        if Path(file).name != file:
            raise IngestError(kept, f"the header names a file in another folder: {file}")

        def of_all(share: float, before: int = number) -> None:
            tell((before + share) / len(files))

        _fetch_file(f"{there.rpartition('/')[0]}/{file}", kept.with_name(file), of_all)
    return kept


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedside" / "datasets"


def _fetch_file(url: str, path: Path, progress: Progress) -> None:
    if path.exists():
        return
    # Imported when needed: wfdb's way to a file over the network, which resumes, and follows PhysioNet's
    # redirections; a private name, as it has no public one for files that are not read as a record.
    import requests
    from wfdb.io._url import NetFileError, NetFileNotFoundError, openurl

    part = path.with_name(path.name + _PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with openurl(url, "rb") as there:
            _append(there, part, progress)
        part.replace(path)
    except NetFileNotFoundError as error:
        raise IngestError(url, "there is no such file") from error
    except (NetFileError, requests.RequestException) as error:
        later = "what has come is kept, and the next attempt goes on from there"
        raise IngestError(url, f"cannot be downloaded ({_why(error)}); {later}") from error
    except OSError as error:
        raise IngestError(part, error.strerror or error) from error


def _append(there: Any, part: Path, progress: Progress) -> None:
    size = there.seek(0, os.SEEK_END)
    with part.open("ab") as kept:
        if kept.tell() > size:
            # Of another file than is there now.
            kept.truncate(0)
        while kept.tell() < size:
            there.seek(kept.tell())
            data = there.read(_PIECE)
            if not data:
                raise OSError(f"ends after {kept.tell()} of {size} bytes")
            kept.write(data)
            progress(kept.tell() / size)


def _why(error: Exception) -> str:
    # The cause that a person knows stands last in a row of wrapped ones.
    reason: BaseException = error
    while reason.__cause__ or reason.__context__:
        reason = reason.__cause__ or reason.__context__ or reason
    return str(reason).rpartition("] ")[2] or type(reason).__name__
