"""What folders and files of recordings are called.

A bed may have any printable name; its folder spells it with letters, digits, ``_`` and ``-``, and every other
byte of its UTF-8 as ``%XX``, as addresses of the web do. A name too long for a folder goes on in a folder
inside; all but the last end with ``+``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from stream.contract import is_name
from stream.settings import Settings

# File systems take 255 bytes; 64 characters of a name may become 768.
_PIECE = 200
_GOES_ON = "+"


def default_folder() -> Path:
    """Return where recordings lie unless told otherwise.

    ``BEDSIDE_RECORDINGS``, else ``bedside/recordings`` in ``$XDG_DATA_HOME`` (``~/.local/share``).
    """
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Settings().recordings or Path(data) / "bedside" / "recordings"


def folder_of(bed: str) -> Path:
    """Return where the recordings of a bed lie, relative to the folder of all."""
    # Neither "." nor "~": a folder must not be hidden, nor mean another one.
    text = quote(bed, safe="").replace(".", "%2E").replace("~", "%7E")
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    return Path(*(piece + _GOES_ON for piece in pieces[:-1]), pieces[-1])


def bed_of(folder: Path) -> str | None:
    """Return whose recordings lie in a folder (relative to that of all); None if it is no bed's."""
    *before, last = folder.parts or ("",)
    if not all(piece.endswith(_GOES_ON) for piece in before):
        return None
    try:
        bed = unquote("".join(piece[:-1] for piece in before) + last, errors="strict")
    except UnicodeDecodeError:
        return None
    # Only what `folder_of` makes: two folders must never be one bed's.
    return bed if is_name(bed) and folder_of(bed) == folder else None


def bed_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the beds that have a folder, with it, by name."""
    pending = [root]
    found: list[tuple[str, Path]] = []
    while pending:
        for entry in os.scandir(pending.pop()):
            if not entry.is_dir(follow_symlinks=False):
                continue
            path = Path(entry.path)
            if entry.name.endswith(_GOES_ON):
                pending.append(path)
            elif (bed := bed_of(path.relative_to(root))) is not None:
                found.append((bed, path))
    yield from sorted(found)


def segment_name(t0: int) -> str:
    """Return what a segment is called that begins at a device time, ns: a name that WFDB takes."""
    at = datetime.fromtimestamp(t0 // 1_000_000_000, UTC)
    return f"{at:%Y%m%dT%H%M%S}_{t0 // 1_000_000 % 1000:03d}"
