"""The command as a person meets it."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import command_line
from tests.training.preprocess.conftest import made_up, ptbxl_row, write_mimic, write_ptbxl, write_record

COMMAND = [sys.executable, "-m", "bedside", "preprocess"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return command_line.run("preprocess", *arguments)


def started(*arguments: str | Path, limit_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("bedside: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def large_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 records, 12 MB: several times what reaches the disk at once."""
    folder = tmp_path_factory.mktemp("large") / "ptb-xl"
    return write_ptbxl(folder, [ptbxl_row(number) for number in range(1, 101)])


@pytest.fixture(scope="module")
def large_pack(large_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("large-pack") / "pack"
    assert run("ptbxl", large_tree, "--out", folder, "--jobs", "1").returncode == 0
    return contents(folder)


def test_a_run_says_what_it_kept_and_where(ptbxl_tree: Path, tmp_path: Path) -> None:
    result = started("ptbxl", ptbxl_tree, "--out", tmp_path / "pack", "--jobs", "2")
    assert (result.returncode, result.stderr) == (0, "")
    assert "ptb-xl: 12 of 12 records kept" in result.stdout
    assert "left out: nothing" in result.stdout
    assert str(tmp_path / "pack" / "index.csv") in result.stdout
    again = run("ptbxl", ptbxl_tree, "--out", tmp_path / "pack")
    assert (again.returncode, again.stderr) == (0, "")
    assert "complete already" in again.stdout


def test_the_report_goes_to_standard_output_as_json(ptbxl_tree: Path, tmp_path: Path) -> None:
    result = run("ptbxl", ptbxl_tree, "--out", tmp_path / "pack", "--jobs", "1", "--json", "-")
    assert json.loads(result.stdout)["splits"]["train"]["normal"] == 10


def test_a_damaged_copy_is_loud_and_the_pack_is_there(ptbxl_tree: Path, tmp_path: Path) -> None:
    ptbxl_tree.joinpath("records500/00000/00003_hr.dat").unlink()
    result = run("ptbxl", ptbxl_tree, "--out", tmp_path / "pack", "--jobs", "1")
    assert "8.3% of the records (1) are damaged or missing" in refusal(result)
    assert "11 of 12 records kept" in result.stdout
    assert "records500/00000/00003_hr: 00003_hr.dat" in result.stdout
    assert (tmp_path / "pack" / "index.csv").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ptbxl", "scp_statements.csv: not found"),
        ("mimic", "record_list.csv: not found"),
        ("cinc2020", "no .hea files"),
    ],
)
def test_a_wrong_folder_is_one_line(tmp_path: Path, command: str, said: str) -> None:
    (tmp_path / "source").mkdir()
    assert said in refusal(run(command, tmp_path / "source", "--out", tmp_path / "pack"))
    assert not (tmp_path / "pack").exists()
    assert run(command, tmp_path / "none", "--out", tmp_path / "pack").returncode == 2


def test_a_folder_that_cannot_be_written_is_one_line(ptbxl_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot write" in refusal(started("ptbxl", ptbxl_tree, "--out", tmp_path / "file" / "pack"))


def test_options_decide_what_a_folder_is(ptbxl_tree: Path, tmp_path: Path) -> None:
    assert run("ptbxl", ptbxl_tree, "--out", tmp_path / "pack", "--jobs", "1").returncode == 0
    said = refusal(run("ptbxl", ptbxl_tree, "--out", tmp_path / "pack", "--normals", "thesis"))
    assert "other settings (normals)" in said


def test_mimic_takes_one_record_of_a_kind_from_each_patient(tmp_path: Path) -> None:
    normal = ("Sinus rhythm", "Normal ECG")
    tree = write_mimic(tmp_path / "mimic", {(10000032, 40000000 + number): normal for number in range(3)})
    result = run("mimic", tree, "--out", tmp_path / "one", "--jobs", "1")
    assert "1 of 3 records kept" in result.stdout
    assert "a further record of the same patient" in result.stdout
    result = run("mimic", tree, "--out", tmp_path / "two", "--jobs", "1", "--max-per-patient", "2")
    assert "2 of 3 records kept" in result.stdout


def test_cinc2020_reads_a_tree(tmp_path: Path) -> None:
    for number, dx in enumerate(("426783006", "426177001", "164889003")):
        write_record(tmp_path / "tree" / "g1" / f"E{number:05d}", made_up(number), comments=[f"Dx: {dx}"])
    result = run("cinc2020", tmp_path / "tree", "--out", tmp_path / "pack", "--jobs", "1", "--json", "-")
    assert json.loads(result.stdout)["datasets"] == {
        "georgia": {"normal": 1, "abnormal": 1, "rhythm_only": 1}
    }


def stopped_midway(tree: Path, out: Path, how: signal.Signals) -> tuple[int, str]:
    """Start two readers, stop when something has reached the disk; return exit code and standard error."""
    with subprocess.Popen(
        [*COMMAND, "ptbxl", tree, "--out", out, "--jobs", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Where the suite runs in the background of a shell, children would ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        journal = out / "journal.jsonl"
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.stat().st_size > 5000):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        said = process.stderr.read() if process.stderr else ""
        code = process.wait(30)
    assert not psutil.wait_procs(children, timeout=10)[1], "readers outlived the run"
    assert not (out / "index.csv").exists()
    return code, said


@pytest.mark.slow
def test_a_killed_run_goes_on_and_leaves_no_readers(
    large_tree: Path, large_pack: dict[str, bytes], tmp_path: Path
) -> None:
    code, _ = stopped_midway(large_tree, tmp_path / "pack", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert run("ptbxl", large_tree, "--out", tmp_path / "pack", "--jobs", "2").returncode == 0
    assert contents(tmp_path / "pack") == large_pack


@pytest.mark.slow
def test_an_interrupted_run_says_so_in_a_line_and_goes_on(
    large_tree: Path, large_pack: dict[str, bytes], tmp_path: Path
) -> None:
    code, said = stopped_midway(large_tree, tmp_path / "pack", signal.SIGINT)
    assert code == 1
    assert said.count("\n") == 1
    assert "of 100 records; the same command goes on from there" in said
    assert run("ptbxl", large_tree, "--out", tmp_path / "pack", "--jobs", "1").returncode == 0
    assert contents(tmp_path / "pack") == large_pack


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_one_line_and_the_run_goes_on(
    large_tree: Path, large_pack: dict[str, bytes], tmp_path: Path
) -> None:
    # A limit on the size of a file fails a write as a full disk does: in the middle, with a part written.
    result = started("ptbxl", large_tree, "--out", tmp_path / "pack", "--jobs", "2", limit_bytes=6_000_000)
    assert "cannot write" in refusal(result)
    assert "records are settled, and the same command goes on from there" in result.stderr
    assert run("ptbxl", large_tree, "--out", tmp_path / "pack", "--jobs", "1").returncode == 0
    assert contents(tmp_path / "pack") == large_pack


def test_a_terminal_sees_a_bar(ptbxl_tree: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "ptbxl", ptbxl_tree, "--out", tmp_path / "pack", "--jobs", "1"],
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env=os.environ | {"TERM": "xterm"},
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the other end was closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait(30) == 0
    os.close(leader)
    assert b"reading ptb-xl" in shown
