"""The command ``preprocess``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.console import RefusalError, check_writable, json_option, progress_bar, write_json

if TYPE_CHECKING:
    from training.preprocess.catalogue import Catalogue, Selection

_source = click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
_normals = click.option(
    "--normals",
    type=click.Choice(["strict", "thesis"]),
    default="strict",
    show_default=True,
    help="What counts as normal: nothing but normal is said of it, or the rule of the thesis.",
)


def _common(command: Callable[..., None]) -> Callable[..., None]:
    # From the last to the first, as they are shown.
    for option in (
        json_option,
        click.option(
            "--jobs",
            type=click.IntRange(1),
            default=lambda: os.cpu_count() or 1,
            show_default="number of CPUs",
            help="Processes that read.",
        ),
        click.option("--limit", type=click.IntRange(1), help="Stop after so many records, to try it out."),
        click.option("--only-normals", is_flag=True, help="Leave abnormal records out."),
        click.option(
            "--out",
            type=click.Path(file_okay=False, path_type=Path),
            required=True,
            help="Folder for signals.npy, index.csv, report.json and left-out.csv.",
        ),
    ):
        command = option(command)
    return command


@click.group("preprocess")
def preprocess() -> None:
    """Turn a data set into one array and an index to train on and evaluate with.

    Recordings that cannot be used are left out, counted and named. A run that was interrupted goes on when
    the same command is started again. Exit code 1 if more than 1 % of the records are damaged.

    \b
    bedside preprocess ptbxl    ptb-xl-1.0.3        --out packs/ptbxl
    bedside preprocess mimic    mimic-iv-ecg-1.0    --out packs/mimic --only-normals
    bedside preprocess cinc2020 challenge/georgia   --out packs/georgia
    bedside train --index packs/ptbxl/index.csv     --out runs/mine
    """


@preprocess.command("ptbxl")
@_source
@_common
@_normals
def _ptbxl(source: Path, normals: str, **common: Any) -> None:
    """Read PTB-XL 1.0.3.

    SOURCE is the folder with ptbxl_database.csv, scp_statements.csv and records500.

    \b
    bedside preprocess ptbxl ptb-xl-1.0.3 --out packs/ptbxl
    bedside preprocess ptbxl ptb-xl-1.0.3 --out packs/thesis --normals thesis --only-normals
    """
    from training.preprocess.catalogue import Normals
    from training.preprocess.ptbxl import ptbxl_catalogue

    _run(lambda: ptbxl_catalogue(source, Normals(normals)), source, {"normals": normals}, **common)


@preprocess.command("mimic")
@_source
@_common
@click.option(
    "--max-per-patient",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="At most so many normal, and as many abnormal, records of a patient.",
)
@_normals
def _mimic(source: Path, normals: str, max_per_patient: int, **common: Any) -> None:
    """Read MIMIC-IV-ECG 1.0.

    SOURCE is the folder with machine_measurements.csv, record_list.csv and files.

    \b
    bedside preprocess mimic mimic-iv-ecg-1.0 --out packs/mimic --only-normals
    bedside preprocess mimic mimic-iv-ecg-1.0 --out /tmp/try --limit 1000
    """
    from training.preprocess.catalogue import Normals
    from training.preprocess.mimic import mimic_catalogue

    _run(
        lambda: mimic_catalogue(source, Normals(normals)),
        source,
        {"normals": normals},
        max_per_patient=max_per_patient,
        **common,
    )


@preprocess.command("cinc2020")
@_source
@_common
def _cinc2020(source: Path, **common: Any) -> None:
    """Read records with #Dx in their headers: CPSC 2018, Georgia, Chapman-Shaoxing and others.

    SOURCE is a folder; .hea files may lie in it at any depth. Normal is what has sinus rhythm (SNOMED CT
    426783006), or Normal, as its only diagnosis.

    \b
    bedside preprocess cinc2020 challenge-2020/training/cpsc_2018 --out packs/cpsc2018
    bedside preprocess cinc2020 ecg-arrhythmia-1.0.0/WFDBRecords  --out packs/chapman
    """
    from training.preprocess.cinc2020 import cinc2020_catalogue

    _run(lambda: cinc2020_catalogue(source), source, {}, **common)


def _run(
    catalogue_of: Callable[[], Catalogue],
    source: Path,
    settings: dict[str, Any],
    *,
    out: Path,
    only_normals: bool,
    limit: int | None,
    jobs: int,
    json_path: str | None,
    max_per_patient: int | None = None,
) -> None:
    from training.pack import SIGNALS
    from training.preprocess.build import InterruptedRunError, NothingKeptError, build
    from training.preprocess.catalogue import Selection
    from training.preprocess.store import INDEX, LEFT_OUT, REPORT, StoreError
    from training.preprocess.tables import SourceError
    from training.preprocess.tally import UNREADABLE_LIMIT, described

    if json_path and json_path != "-":
        check_writable(json_path)
    complete = (out / INDEX).exists()
    selection = Selection(only_normals=only_normals, max_per_patient=max_per_patient, limit=limit)
    try:
        catalogue = catalogue_of()
        with progress_bar(f"reading {source.name}", _shown_total(catalogue, selection)) as done:
            report = build(catalogue, source, out, selection, settings=settings, jobs=jobs, on_record=done)
    except (SourceError, StoreError, InterruptedRunError, NothingKeptError) as error:
        raise RefusalError(str(error)) from error
    if json_path:
        write_json(report, json_path)
    if json_path != "-":
        click.echo(described(report))
        names = ", ".join(str(out / name) for name in (SIGNALS, INDEX, REPORT, LEFT_OUT))
        click.echo(f"  {'complete already' if complete else 'written'}: {names}")
    if report["unreadable_share"] > UNREADABLE_LIMIT:
        share = f"{report['unreadable_share']:.1%} of the records ({report['unreadable']})"
        raise RefusalError(
            f"{share} are damaged or missing: {out / LEFT_OUT} names them."
            " The pack is complete without them, but get a better copy"
        )


def _shown_total(catalogue: Catalogue, selection: Selection) -> int | None:
    # How far a limit lies is known only when it is reached.
    return catalogue.total if selection.limit is None else None
