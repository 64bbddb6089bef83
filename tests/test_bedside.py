"""The command line as a person meets it: what it prints, what it returns, and how it refuses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import wfdb
from pydicom.data import get_testdata_file

import bedside
from stream.embedded import EmbeddedServer
from tests.command_line import assert_refused, run, started

DICOM = str(get_testdata_file("waveform_ecg.dcm", download=False))


def sine(seconds: float = 10.0, fs: float = 500.0, leads: int = 12) -> np.ndarray:
    t = np.arange(round(seconds * fs)) / fs
    beat = np.exp(-(((t % 0.8) - 0.3) ** 2) / 2 / 0.012**2) + 0.2 * np.exp(
        -(((t % 0.8) - 0.55) ** 2) / 2 / 0.04**2
    )
    return np.stack([beat * (0.5 + 0.1 * lead) for lead in range(leads)], axis=1)


def wfdb_record(
    folder: Path, name: str = "rec", leads: tuple[str, ...] = ("MLII", "V5"), fs: float = 360
) -> Path:
    wfdb.wrsamp(
        name,
        fs=fs,
        units=["mV"] * len(leads),
        sig_name=list(leads),
        p_signal=sine(12.0, fs, len(leads)),
        fmt=["16"] * len(leads),
        write_dir=str(folder),
    )
    return folder / name


def test_help_shows_the_commands_and_examples_without_loading_anything_heavy() -> None:
    result = started("--help")
    assert result.returncode == 0
    for command in ("demo", "analyze", "replay", "worker", "dashboard", "alerts", "train"):
        assert command in result.stdout
    assert "bedside alerts --follow --json" in result.stdout
    code = (
        "import sys, bedside; sys.exit(bool({'torch', 'faust', 'bokeh', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "command", ["demo", "analyze", "replay", "worker", "dashboard", "alerts", "models", "train"]
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0
    assert f"bedside {command} " in result.stdout or f"bedside {command}\n" in result.stdout


def test_analyze_speaks_to_people_and_to_programs() -> None:
    spoken = started("analyze", DICOM)
    assert spoken.returncode == 0
    assert "\n  10.0 s, 1000 Hz, I II III aVR aVL aVF V1 V2 V3 V4 V5 V6\n" in spoken.stdout
    assert "\n  No alarm.\n" in spoken.stdout
    result = run("analyze", DICOM, "--json", "-")
    analysis = json.loads(result.stdout)
    assert set(analysis) >= {
        "record", "model", "fs", "leads", "duration_s", "record_score", "threshold", "window_threshold",
        "anomalous", "heart_rate_bpm", "windows", "beats_s", "alarms",
    }  # fmt: skip
    assert [window["start_s"] for window in analysis["windows"]] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert set(analysis["windows"][0]["lead_scores"]) == set(analysis["leads"])


def test_analyze_takes_a_wfdb_record_with_and_without_extension(tmp_path: Path) -> None:
    record = wfdb_record(tmp_path)
    with_extension = run("analyze", f"{record}.hea", "--json", "-")
    without = run("analyze", str(record), "--json", "-")
    assert json.loads(with_extension.stdout) == json.loads(without.stdout)
    assert json.loads(without.stdout)["leads"] == ["II", "V5"]


def test_analyze_takes_an_array_of_either_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", sine())
    np.save(tmp_path / "b.npy", sine().T)
    scores = [
        json.loads(run("analyze", str(tmp_path / name), "--fs", "500", "--json", "-").stdout)["record_score"]
        for name in ("a.npy", "b.npy")
    ]
    assert scores[0] == scores[1]


def test_analyze_is_told_the_leads_of_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "holter.npy", sine()[:, 1:3])
    arguments = ("analyze", str(tmp_path / "holter.npy"), "--fs", "500")
    told = json.loads(run(*arguments, "--leads", "MLII, V5", "--json", "-").stdout)
    assert told["leads"] == ["II", "V5"]
    assert (
        bedside.analyze(tmp_path / "holter.npy", fs=500, leads=["II", "V5"]).record_score
        == told["record_score"]
    )
    assert_refused(run(*arguments), "no axis of 12 leads", "--leads")
    assert_refused(run(*arguments, "--leads", "II"), "no axis of 1 lead")


@pytest.mark.data
def test_analyze_of_real_records_is_sensible(data_dir: Path) -> None:
    # A normal 12-lead record, a 30-minute Holter of an arrhythmia patient, the same one as an array.
    normal = bedside.analyze(data_dir / "ptb-xl/records500/00000/00001_hr")
    assert normal.anomalous is False
    assert normal.alarms == []
    holter = bedside.analyze(data_dir / "mitdb/207")
    assert holter.leads == ("II", "V1")
    assert holter.duration_s == pytest.approx(1805.6, abs=0.1)
    assert holter.anomalous is True
    assert holter.alarms


@pytest.mark.data
def test_analyze_of_the_same_samples_as_an_array_is_the_same(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "ptb-xl/records500/00000/00001_hr"
    samples = wfdb.rdrecord(str(path)).p_signal
    np.save(tmp_path / "x.npy", samples.astype(np.float32))
    from_array = bedside.analyze(tmp_path / "x.npy", fs=500)
    assert from_array.record_score == pytest.approx(bedside.analyze(path).record_score, rel=1e-4)


def test_a_recording_shorter_than_a_window_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", sine(5.0))
    result = run("analyze", str(tmp_path / "short.npy"), "--fs", "500")
    assert result.returncode == 0
    assert "not scored, shorter than one window" in result.stdout


def test_leads_that_the_model_does_not_know_are_named_and_not_scored(tmp_path: Path) -> None:
    record = wfdb_record(tmp_path, leads=("ECG A", "ECG B"))
    result = run("analyze", str(record))
    assert result.returncode == 0
    assert "ECG A" in result.stdout
    assert "not scored: no known lead" in result.stdout


def test_models_are_listed_described_and_verified() -> None:
    assert "cae-100hz" in run("models", "list").stdout
    described = run("models", "info", "cae-100hz").stdout
    assert "AUROC" in described
    assert "an alarm takes 17 of 24 windows" in described
    manifest = json.loads(run("models", "info", "cae-100hz", "--json").stdout)
    assert manifest["thresholds"]["fp32"]["record"] > 0
    assert "golden outputs agree" in run("models", "verify", "cae-100hz").stdout


def test_a_recording_with_a_long_name_is_analysed(tmp_path: Path) -> None:
    # Longer than a bed's name may be.
    name = "x" * 80
    np.save(tmp_path / f"{name}.npy", sine())
    analysis = json.loads(run("analyze", str(tmp_path / f"{name}.npy"), "--fs", "500", "--json", "-").stdout)
    assert analysis["record"] == name
    assert analysis["record_score"] is not None


class TestBadInput:
    """One clear line that says what and where, exit code 1 or 2, no traceback.

    One case of each command in a process of its own, the others in this one.
    """

    def test_no_such_file(self) -> None:
        assert_refused(started("analyze", "nowhere/rec"), "nowhere/rec", "not found")

    def test_a_truncated_signal_file(self, tmp_path: Path) -> None:
        record = wfdb_record(tmp_path)
        signal = record.with_suffix(".dat")
        os.truncate(signal, signal.stat().st_size // 2)
        assert_refused(run("analyze", str(record)), "rec.dat")

    def test_a_header_without_its_signal_file(self, tmp_path: Path) -> None:
        record = wfdb_record(tmp_path)
        record.with_suffix(".dat").unlink()
        assert_refused(run("analyze", str(record)), "rec.dat")

    def test_a_header_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "rec.hea").write_text("hello\n")
        assert_refused(run("analyze", str(tmp_path / "rec")), "rec")

    def test_an_array_of_a_wrong_shape(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((5, 7)))
        assert_refused(run("analyze", str(tmp_path / "x.npy"), "--fs", "500"), "x.npy", "7")

    def test_an_array_of_nothing_but_nan(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.full((5000, 12), np.nan))
        assert_refused(run("analyze", str(tmp_path / "x.npy"), "--fs", "500"), "x.npy")

    @pytest.mark.parametrize("rate", ["0", "-5", "nan"])
    def test_a_rate_that_cannot_be(self, tmp_path: Path, rate: str) -> None:
        np.save(tmp_path / "x.npy", sine())
        assert_refused(run("analyze", str(tmp_path / "x.npy"), "--fs", rate), "x")

    def test_an_array_without_a_rate(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", sine())
        assert_refused(run("analyze", str(tmp_path / "x.npy")), "x.npy", "--fs")

    def test_an_unknown_model(self) -> None:
        assert_refused(run("analyze", DICOM, "--model", "nonesuch"), "nonesuch")
        assert_refused(started("models", "info", "nonesuch"), "nonesuch")

    def test_no_server(self, short_tmp: Path) -> None:
        result = run("alerts", BEDSIDE_RUNTIME_DIR=str(short_tmp / "run"))
        assert_refused(result, "no server runs", "bedside demo")

    @pytest.mark.parametrize(
        "command", [["alerts"], ["dashboard", "--port", "0"], ["replay", DICOM], ["worker"]]
    )
    def test_a_server_that_refuses(self, command: list[str]) -> None:
        result = started(*command, "--redis", "redis://127.0.0.1:1")
        assert_refused(result, "redis://127.0.0.1:1", "Connect call failed")

    @pytest.mark.parametrize(
        "options", [("--start", "-1"), ("--start", "5", "--stop", "2"), ("--stop", "0"), ("--bed", "x" * 70)]
    )
    def test_a_part_or_a_bed_that_cannot_be(
        self, redis_server: EmbeddedServer, options: tuple[str, ...]
    ) -> None:
        result = run("replay", DICOM, *options, "--redis", redis_server.url, "--metrics-port", "0")
        assert_refused(result, "waveform_ecg")

    @pytest.mark.parametrize("url", ["kafka://localhost", "nonsense", "redis://host:port"])
    def test_a_url_that_is_none(self, url: str) -> None:
        assert_refused(run("alerts", "--redis", url), url)

    def test_a_broker_that_is_not_supported(self) -> None:
        assert_refused(run("worker", "--broker", "amqp://localhost"), "amqp://localhost", "redis://")

    @pytest.mark.parametrize("hop", ["0", "0.7"])
    def test_a_hop_that_cannot_be(self, hop: str) -> None:
        assert_refused(run("worker", "--hop", hop), f"a hop of {hop} s", "multiple of the model's 0.5 s")

    def test_a_metrics_port_in_use(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            with tempfile.TemporaryDirectory(prefix="bs-") as folder:
                result = run("worker", "--metrics-port", port, BEDSIDE_RUNTIME_DIR=folder)
        # It had started a server of its own, and said so.
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith("bedside: cannot serve metrics")
        assert port in result.stderr

    def test_a_result_that_cannot_be_written(self) -> None:
        assert_refused(run("analyze", DICOM, "--json", "/nonexistent/x.json"), "/nonexistent/x.json")

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["analyze"],
            ["analyse", DICOM],
            ["replay", DICOM, "--speed", "fast"],
            ["replay", DICOM, "--speed", "0"],
            ["replay", DICOM, "--bed", "a", "--bed", "b"],
            ["alerts", "--since", "yesterday"],
            ["demo", "--beds", "0"],
            ["demo", "--port", "0"],
            ["ingest", "simulate", "--seed", "-1"],
        ],
    )
    def test_bad_usage(self, arguments: list[str]) -> None:
        if not arguments:
            result = started()
            assert result.returncode in (0, 2)
            return
        assert_refused(run(*arguments), "Usage:", code=2)
