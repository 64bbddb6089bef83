from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.uploads.files import DeskError, check_header, recording_of


@pytest.mark.parametrize(
    ("files", "recording"),
    [
        (["100.hea", "100.dat", "100.atr"], "100.hea"),
        (["E07507.mat", "E07507.hea"], "E07507.hea"),
        (["day_001.hea", "day.hea", "day_001.dat"], "day.hea"),
        (["ecg.npy"], "ecg.npy"),
        (["ECG.DCM"], "ECG.DCM"),
        (["ecg (1) [12 leads], Tuesday.npy"], "ecg (1) [12 leads], Tuesday.npy"),
        (["Müller – 心電図.dcm"], "Müller – 心電図.dcm"),
    ],
)
def test_the_file_that_stands_for_a_recording(files: list[str], recording: str) -> None:
    assert str(recording_of(files)) == recording


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([], "no file"),
        (["100.dat"], "without its header 100.hea"),
        (["a.npy", "b.npy"], "one recording at a time"),
        (["holiday.jpg"], "an ECG that can be read"),
        (["../../etc/passwd.hea"], "names of files"),
        ([".hea"], "names of files"),
        (["a..hea"], "names of files"),
        (["my record.hea", "my record.dat"], "use letters, digits"),
        (["../a.npy"], "use none of"),
        ([".npy"], "use none of"),
        (["-o.npy"], "use none of"),
        (["<img src=x>.npy"], "use none of"),
        (["a\nb.npy"], "use none of"),
        (["\ud800.npy"], "use none of"),
        (["心" * 80 + ".npy"], "use none of"),
        (["100.hea", "100.hea"], "of another name"),
        ([f"{number}.dat" for number in range(65)], "at most 64 files"),
    ],
)
def test_what_is_no_recording_is_refused_in_words(files: list[str], why: str) -> None:
    with pytest.raises(DeskError, match=why):
        recording_of(files)


@given(st.lists(st.text(max_size=12), max_size=4), st.sampled_from([".hea", ".npy"]))
def test_whatever_the_names_none_leads_out_of_the_folder(names: list[str], suffix: str) -> None:
    try:
        recording_of([f"{name}{suffix}" for name in names])
    except DeskError:
        return
    folder = Path("/some/folder")
    for name in names:
        assert (folder / f"{name}{suffix}").resolve().parent == folder
        assert "\0" not in name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x 1 500 5000\n/etc/passwd 16 1000/mV 16 0 0 0 0 II\n", "names a file that is not beside it"),
        ("x 1 500 5000\n../x.dat 16 1000/mV 16 0 0 0 0 II\n", "names a file that is not beside it"),
        ("x 1 500 5000\n~ 16 1000/mV 16 0 0 0 0 II\n", "names a file that is not beside it"),
        ("x 1 500 5000\ny.dat 16 1000/mV 16 0 0 0 0 II\n", "needs y.dat: drop both together"),
        ("x/2 1 500 5000\nx_1 2500\n~ 100\nx_2 2500\n", "needs x_2.hea: drop both together"),
    ],
)
def test_a_header_that_names_other_files_is_refused(tmp_path: Path, text: str, why: str) -> None:
    header = tmp_path / "x.hea"
    header.write_text(text)
    with pytest.raises(DeskError, match=why):
        check_header(header, ["x.hea", "x.dat", "x_1.hea"])


def test_a_header_with_its_files_passes(tmp_path: Path) -> None:
    header = tmp_path / "x.hea"
    header.write_text(
        "# a comment\nx 2 500 5000\nx.dat 16 1000/mV 16 0 0 0 0 II\nx.dat 16 1000/mV 16 0 0 0 0 V1\n"
    )
    check_header(header, ["x.hea", "x.dat"])
