from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream.leads import LEADS
from tests.training.conftest import FS
from tests.training.preprocess.conftest import MIMIC_GAIN, MIMIC_LEADS, made_up, write_record
from training.preprocess.catalogue import Reason
from training.preprocess.reading import Fault, Samples, read_samples


def read(folder: Path, path: str = "r") -> Samples:
    found = read_samples(folder, path)
    assert isinstance(found, Samples), found
    return found


def fault(folder: Path, path: str = "r") -> Fault:
    found = read_samples(folder, path)
    assert isinstance(found, Fault)
    return found


def test_leads_come_in_our_order_and_in_microvolts(tmp_path: Path) -> None:
    signal = made_up(1)
    columns = [LEADS.index(lead) for lead in MIMIC_LEADS]
    write_record(tmp_path / "r", signal[:, columns], leads=MIMIC_LEADS, gain=MIMIC_GAIN)
    found = read(tmp_path)
    assert (found.lsb.dtype, found.lsb.shape, found.fs) == (np.int16, (5000, 12), FS)
    np.testing.assert_array_equal(found.lsb, np.rint(signal * MIMIC_GAIN) * 1000 / MIMIC_GAIN)


def test_spelling_and_further_leads_do_not_matter(tmp_path: Path) -> None:
    signal = made_up(1)
    write_record(tmp_path / "r", signal, leads=[lead.upper() for lead in LEADS])
    more = np.column_stack([signal[:, ::-1], signal[:, :1]])
    write_record(tmp_path / "more", more, leads=[*LEADS[::-1], "VX"])
    first, second = read(tmp_path), read(tmp_path, "more")
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.lsb, second.lsb)


def test_the_digest_tells_rates_and_samples_apart(tmp_path: Path) -> None:
    signal = made_up(1)
    write_record(tmp_path / "r", signal)
    write_record(tmp_path / "slower", signal, fs=400)
    signal[0, 0] += 0.001
    write_record(tmp_path / "other", signal)
    assert len({read(tmp_path, name).digest for name in ("r", "slower", "other")}) == 3


def test_what_int16_cannot_say_is_cut_and_counted(tmp_path: Path) -> None:
    signal = made_up(1)
    signal[100, 3], signal[200, 4] = 40.0, -40.0
    write_record(tmp_path / "r", signal, gain=MIMIC_GAIN)
    found = read(tmp_path)
    assert found.clipped == 2
    assert (found.lsb[100, 3], found.lsb[200, 4]) == (32767, -32767)


def test_a_record_without_one_of_the_leads_is_left_out(tmp_path: Path) -> None:
    write_record(tmp_path / "r", made_up(1)[:, :11], leads=LEADS[:11])
    assert fault(tmp_path) == Fault(Reason.LEADS, "no V6")


def test_a_missing_record_and_a_missing_signal_file_are_told_apart(tmp_path: Path) -> None:
    assert fault(tmp_path, "files/none") == Fault(Reason.MISSING, "there is no files/none.hea")
    write_record(tmp_path / "r", made_up(1))
    tmp_path.joinpath("r.dat").unlink()
    found = fault(tmp_path)
    assert found.reason is Reason.UNREADABLE
    assert found.detail == "r.dat: the signal file that the header names is missing"


def test_a_truncated_file_is_unreadable(tmp_path: Path) -> None:
    write_record(tmp_path / "r", made_up(1))
    file = tmp_path / "r.dat"
    file.write_bytes(file.read_bytes()[:-100])
    found = fault(tmp_path)
    assert found.reason is Reason.UNREADABLE
    assert "truncated" in found.detail
    assert str(tmp_path) not in found.detail


@pytest.mark.parametrize("content", [b"", b"\x00" * 400, b"r 12 500\n", b"r 1 500 5000\nr.dat 99 1000/mV\n"])
def test_a_header_of_any_kind_of_rubbish_is_unreadable(tmp_path: Path, content: bytes) -> None:
    write_record(tmp_path / "r", made_up(1))
    tmp_path.joinpath("r.hea").write_bytes(content)
    assert fault(tmp_path).reason is Reason.UNREADABLE


def test_samples_that_changed_on_the_way_are_found_by_the_checksum(tmp_path: Path) -> None:
    write_record(tmp_path / "r", made_up(1))
    file = tmp_path / "r.dat"
    content = bytearray(file.read_bytes())
    content[24 * 1000 + 2 * LEADS.index("V3")] ^= 0x10
    file.write_bytes(content)
    assert fault(tmp_path) == Fault(Reason.CHECKSUM, "V3")


def test_a_lead_of_nan_is_left_out(tmp_path: Path) -> None:
    signal = made_up(1)
    signal[:, 2] = np.nan
    write_record(tmp_path / "r", signal)
    assert fault(tmp_path) == Fault(Reason.NAN, "10 s in III")


def test_a_header_of_the_first_challenge_release_is_understood(data_dir: Path, tmp_path: Path) -> None:
    # Its record line named the signal file.
    original = data_dir / "georgia" / "E07500"
    for suffix in (".hea", ".mat"):
        tmp_path.joinpath("E07500" + suffix).write_bytes(original.with_suffix(suffix).read_bytes())
    header = tmp_path / "E07500.hea"
    header.write_text(header.read_text().replace("E07500 12", "E07500.mat 12", 1))
    assert read(tmp_path, "E07500").digest == read(data_dir / "georgia", "E07500").digest
    tmp_path.joinpath("E07500.mat").unlink()
    found = fault(tmp_path, "E07500")
    assert found.detail == "E07500.mat: the signal file that the header names is missing"


def test_real_records_keep_their_values(data_dir: Path) -> None:
    import wfdb

    for path in ("ptb-xl/records500/00000/00421_hr", "cpsc2018/A0061", "ptb/S0006"):
        found = read(data_dir, path)
        record = wfdb.rdrecord(str(data_dir / path))
        assert found.fs == record.fs
        assert found.clipped == 0
        names = [name.lower() for name in record.sig_name]
        columns = [names.index(lead.lower()) for lead in LEADS]
        np.testing.assert_allclose(found.lsb / 1000, record.p_signal[:, columns], atol=5.1e-4)
