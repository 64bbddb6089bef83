"""HL7 v2 messages: segments and fields, and the answer to a message.

As little of the standard as waveforms need, written for input that nobody vouches for: every function here
returns or raises `RefusedMessageError`, in time and memory that grow with the length of the message and no
faster.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import count

# The largest data types of the standard have fewer; beyond are samples, or rubbish.
_MOST_COMPONENTS = 32

# What a message is taken for that does not get as far as saying it.
_STANDARD = "|^~\\&"

# MSH-10 of our answers must differ from one to the next within a connection; the number suffices.
_control_ids = count(1)

# As in the data type DTM, and as Mindray monitors write it: milliseconds without the point.
_TIME = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:\.?(\d{1,9}))?)?(?:([+-])(\d\d?)(\d\d))?", re.ASCII
)

# The years that a time in int64 nanoseconds since the epoch holds.
_YEARS = range(1970, 2262)


class RefusedMessageError(ValueError):
    """A message that is not taken.

    Parameters
    ----------
    condition : int
        Why, as table HL7 0357 has it: 101 a required field is missing, 102 a value is not of its type, 103 a
        code is not known, 200 the message is of another type, 207 it is of no use for another reason.
    text : str
        One line for people: what is wrong, what would help.
    where : str
        The place, such as ``"OBX^3^5"`` (third OBX, field 5); empty where there is none.

    Attributes
    ----------
    bed : str, optional
        Whom it is about, where that has been read.
    """

    def __init__(self, condition: int, text: str, where: str = "") -> None:
        super().__init__(text)
        self.condition = condition
        self.where = where
        self.bed: str | None = None


_CONDITIONS = {
    101: "Required field missing",
    102: "Data type error",
    103: "Table value not found",
    200: "Unsupported message type",
    207: "Application internal error",
}


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The characters that a message says divide it, by default the standard ones."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    def unescape(self, text: str) -> str:
        """Return text in which delimiters and characters stand for themselves again."""
        if self.escape not in text:
            return text
        mark = re.escape(self.escape)
        meant = {
            "F": self.field,
            "S": self.component,
            "T": self.subcomponent,
            "R": self.repetition,
            "E": self.escape,
        }
        return re.sub(f"{mark}([FSTRE]){mark}", lambda found: meant[found[1]], text)


@dataclass(frozen=True, slots=True)
class Segment:
    """One line of a message.

    Attributes
    ----------
    name : str
        Three letters.
    fields : list of str
        By the number that the standard gives them; ``fields[0]`` is the name.
    delimiters : Delimiters
    """

    name: str
    fields: list[str]
    delimiters: Delimiters

    def field(self, number: int) -> str:
        """Return a field as it stands; empty where there is none."""
        return self.fields[number] if number < len(self.fields) else ""

    def components(self, number: int) -> list[str]:
        """Return the components of the first repetition of a field, of each the first subcomponent."""
        text = self.field(number)
        if not text:
            return [""]
        marks = self.delimiters
        text = text.split(marks.repetition, 1)[0]
        parts = text.split(marks.component, _MOST_COMPONENTS)[:_MOST_COMPONENTS]
        if marks.subcomponent in text or marks.escape in text:
            parts = [marks.unescape(part.split(marks.subcomponent, 1)[0]) for part in parts]
        return [part.strip() for part in parts]

    def component(self, number: int, part: int = 1) -> str:
        """Return one component of a field, counted from 1; empty where there is none."""
        parts = self.components(number)
        return parts[part - 1] if part <= len(parts) else ""


def read_messages(block: bytes) -> list[list[Segment]]:
    """Read the messages of an MLLP block: one, or several after each other.

    Parameters
    ----------
    block : bytes
        Segments end with CR; LF and CR LF are understood.

    Returns
    -------
    list of list of Segment
        At least one message; the first segment of each is its MSH.

    Raises
    ------
    RefusedMessageError
        If there is none.
    """
    try:
        text = block.decode()
    except UnicodeDecodeError:
        text = block.decode("latin-1")
    messages: list[list[Segment]] = []
    delimiters = Delimiters()
    for line in re.split(r"[\r\n]+", text.strip("\ufeff\x00 \r\n")):
        if line.startswith("MSH"):
            delimiters = _delimiters(line)
            fields = line.split(delimiters.field)
            # MSH-1 is the separator itself: with it in its place the others have their numbers.
            messages.append([Segment("MSH", ["MSH", delimiters.field, *fields[1:]], delimiters)])
        elif not messages:
            raise RefusedMessageError(200, "not an HL7 v2 message: it does not begin with MSH")
        else:
            fields = line.split(delimiters.field)
            messages[-1].append(Segment(fields[0].strip(), fields, delimiters))
    if not messages:
        raise RefusedMessageError(200, "an empty message")
    return messages


def _delimiters(line: str) -> Delimiters:
    marks = line[3:8].ljust(5)
    # A message without subcomponents may leave out their delimiter, and one without escapes that, too.
    used = [
        mark if mark not in (marks[0], " ") else standard
        for mark, standard in zip(marks, _STANDARD, strict=True)
    ]
    used[0] = marks[0]
    if marks[0].isalnum() or marks[0] == " " or len(set(used)) < len(used):
        raise RefusedMessageError(102, "MSH does not say which characters divide the message", "MSH^1^1")
    return Delimiters(*used)


@dataclass(frozen=True, slots=True)
class Stamp:
    """A point in time, and how finely it was told.

    Attributes
    ----------
    t_ns : int
        Since the epoch, UTC.
    resolution_ns : int
        A second, a millisecond …
    """

    t_ns: int
    resolution_ns: int


def offset_of(text: str) -> timezone | None:
    """Return the offset from UTC that a time states; None where it states none."""
    found = _TIME.fullmatch(text)
    if found is None or not found[8]:
        return None
    away = timedelta(hours=int(found[9]), minutes=int(found[10]))
    if away >= timedelta(days=1):
        return None
    return timezone(away if found[8] == "+" else -away)


def read_time(text: str, zone: timezone | None) -> Stamp | None:
    """Read a time.

    Parameters
    ----------
    text : str
        Such as ``"20261129152641.250+0100"``.
    zone : datetime.timezone, optional
        For a time that states no offset from UTC; None: this machine's.

    Returns
    -------
    Stamp or None
        None where the text is no time of day.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute = (int(found[group]) for group in range(1, 6))
    try:
        local = datetime(year, month, day, hour, minute, int(found[6] or 0))
        stated = offset_of(text) if found[8] else zone
        if found[8] and stated is None:
            return None
        moment = local.replace(tzinfo=stated) if stated else local.astimezone()
        # A day's margin for the offset, which must not carry the time over the edge.
        if moment.year not in _YEARS or (moment.year == _YEARS[0] and moment.timetuple().tm_yday == 1):
            return None
        elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    seconds = elapsed.days * 86_400 + elapsed.seconds
    fraction = found[7] or ""
    whole_minutes = 60 if found[6] is None else 1
    return Stamp(seconds * 10**9 + int(fraction.ljust(9, "0")), whole_minutes * 10 ** (9 - len(fraction)))


def answer(header: Segment | None, error: RefusedMessageError | None, now: datetime) -> bytes | None:
    """Return what to answer to a message.

    Parameters
    ----------
    header : Segment, optional
        The message's MSH; None where it has none that could be read.
    error : RefusedMessageError, optional
        Why it was not taken; None: it was.
    now : datetime.datetime

    Returns
    -------
    bytes or None
        A message of type ACK; None where the sender wants none (MSH-15 and MSH-16).
    """
    accept, application = (header.component(number).upper() if header else "" for number in (15, 16))
    # What the sender wants told; in the original mode, with neither field given, always the application's.
    wanted = {"": False, "NE": False, "AL": True, "ER": error is not None, "SU": error is None}
    if not (accept or application) or wanted.get(application, True):
        kind = "A"
    elif wanted.get(accept, True):
        kind = "C"
    else:
        return None
    code = kind + ("A" if error is None else "R" if error.condition == 200 else "E")
    field = header.field if header else lambda number: ""
    trigger = header.component(9, 2) if header else ""
    message_type = f"ACK^{_escaped(trigger)}^ACK" if trigger else "ACK"
    control_id = _escaped(header.delimiters.unescape(field(10))) if header else ""
    stamp = now.strftime("%Y%m%d%H%M%S.%f%z")
    text = "" if error is None else _escaped(str(error))
    to = f"{_forwarded(header, 3)}|{_forwarded(header, 4)}"
    processing, version = _forwarded(header, 11) or "P", _forwarded(header, 12) or "2.6"
    lines = [
        f"MSH|{_STANDARD[1:]}|BEDSIDE||{to}|{stamp}||{message_type}|{next(_control_ids)}|{processing}|{version}",
        f"MSA|{code}|{control_id}|{text}",
    ]
    if error is not None:
        condition = f"{error.condition}^{_CONDITIONS[error.condition]}^HL70357"
        lines.append(f"ERR||{error.where}|{condition}|E||||{text}")
    return "".join(f"{line}\r" for line in lines).encode()


def _escaped(text: str) -> str:
    # In the standard delimiters, for the answer is written with them whatever the message has.
    for character, code in zip("\\|^~&", "EFSRT", strict=True):
        text = text.replace(character, f"\\{code}\\")
    return "".join(character for character in text if character.isprintable())[:200]


def _forwarded(header: Segment | None, number: int) -> str:
    # A field of components, with their own delimiters put back.
    return "^".join(_escaped(part) for part in header.components(number)) if header else ""
