"""The tables of a data set, and the dealing of its patients to splits."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path


class SourceError(ValueError):
    """A data set that cannot be used; the text is one line: which file, and what is wrong with it."""


def split_of(key: str) -> str:
    """Return the split of a patient or record: 80 % train, 10 % val, 10 % test, by a hash of its name.

    The same shares as PTB-XL's folds; the same name is in the same split in every run and on every machine.
    """
    tenth = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10
    return "train" if tenth < 8 else "val" if tenth == 8 else "test"


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Read a CSV file row by row.

    Parameters
    ----------
    path : pathlib.Path
    columns : tuple of str
        Those that must be there.

    Yields
    ------
    dict
        Column to text; empty where the row ends early.

    Raises
    ------
    SourceError
        If the file cannot be read or a column is missing.
    """
    try:
        # A strange byte in the free text of one report is no reason to refuse a data set.
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise SourceError(f"{path}: no column {', '.join(missing)}")
            for row in reader:
                yield {key: text.strip() if text else "" for key, text in row.items() if key is not None}
    except FileNotFoundError as error:
        raise SourceError(f"{path}: not found; is {path.parent} the folder that holds it?") from error
    except (OSError, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from error
