"""A model on disk: a folder with a manifest, weights, ONNX files and golden outputs. Never a pickle.

The hashes in the manifest show damage and mix-ups, not forgery: whoever can change a file can change its
hash. Bundles are data all the same; nothing in them is executed but the ONNX graph.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from models.manifest import Manifest

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"

_ZOO = Path(__file__).parent / "zoo"
# A plain file name: no separator, no drive, no parent folder, not hidden.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")

FloatArray = npt.NDArray[np.float32]


class BundleError(Exception):
    """A model bundle that cannot be used; the text is one line: which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class GoldenData:
    """A stored input with the outputs of the network that was trained.

    Attributes
    ----------
    x : numpy.ndarray of float32, shape (windows, leads, samples)
        Synthetic, never a recording.
    mask : numpy.ndarray of float32, shape (windows, leads)
    outputs : dict of str to numpy.ndarray of float32
        By output name; ``"recon_mean"`` has the shape of `x`.
    scores : numpy.ndarray of float64, shape (windows,)
    """

    x: FloatArray
    mask: FloatArray
    outputs: dict[str, FloatArray]
    scores: npt.NDArray[np.float64]

    def to_bytes(self) -> bytes:
        """Return the bytes of a ``.npz`` file; equal data give equal bytes."""
        buffer = io.BytesIO()
        named = {f"output.{name}": array for name, array in self.outputs.items()}
        np.savez(buffer, allow_pickle=False, x=self.x, mask=self.mask, scores=self.scores, **named)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> GoldenData:
        """Read what `to_bytes` wrote.

        Raises
        ------
        ValueError, KeyError, OSError
            If the bytes are no such file.
        """
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            outputs = {
                name.removeprefix("output."): arrays[name]
                for name in arrays.files
                if name.startswith("output.")
            }
            golden = cls(arrays["x"], arrays["mask"], outputs, arrays["scores"])
        if golden.x.ndim != 3 or golden.mask.shape != golden.x.shape[:2] or not len(golden.x):
            raise ValueError(f"x {golden.x.shape} and mask {golden.mask.shape} do not fit")
        if "recon_mean" not in outputs or outputs["recon_mean"].shape != golden.x.shape:
            raise ValueError("no recon_mean of the shape of x")
        return golden


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified model bundle, as `load_bundle` returns it."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    def read(self, file: str) -> bytes:
        """Return the content of one of the bundle's files, checked against its hash.

        Raises
        ------
        BundleError
            If the manifest does not list the file, or it is missing or altered.
        """
        if file not in self.manifest.sha256:
            raise _refused(self.name, f"its manifest lists no {file}")
        if not _FILE_NAME.fullmatch(file):
            raise _refused(self.name, f"its manifest lists {file!r}, which is not a plain file name")
        target = self.path / file
        # A link may lead out of the folder; the name alone cannot.
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise _refused(self.name, f"{file} is a link that leads out of {self.path}")
        try:
            data = target.read_bytes()
        except OSError as error:
            raise _refused(self.name, f"cannot read {target} ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != self.manifest.sha256[file]:
            raise _refused(
                self.name, f"{target} is not the file that its manifest describes (sha256 differs)"
            )
        return data

    def onnx(self, precision: str) -> bytes:
        """Return the ONNX file of a precision.

        Raises
        ------
        BundleError
            If the bundle has no such precision, or its file is missing or altered.
        """
        self.check_precision(precision)
        return self.read(onnx_file(precision))

    def golden(self, precision: str) -> GoldenData:
        """Return the golden input and outputs of a precision.

        Raises
        ------
        BundleError
            If the bundle has no such precision, or its file is missing, altered or unreadable.
        """
        self.check_precision(precision)
        file = self.manifest.golden[precision].file
        data = self.read(file)
        try:
            return GoldenData.from_bytes(data)
        except (ValueError, KeyError, OSError) as error:
            raise _refused(self.name, f"{self.path / file} is no golden file ({error})") from error

    def weights(self) -> dict[str, FloatArray]:
        """Return the parameters by name.

        Raises
        ------
        BundleError
            If their file is missing, altered or unreadable.
        """
        data = self.read(WEIGHTS)
        try:
            return load_safetensors(data)
        except SafetensorError as error:
            raise _refused(self.name, f"{self.path / WEIGHTS} is no safetensors file ({error})") from error

    def check_precision(self, precision: str) -> None:
        """Refuse a precision that the bundle does not have.

        Raises
        ------
        BundleError
        """
        known = self.manifest.thresholds
        if precision not in known:
            raise BundleError(
                f"model {self.name!r} has no precision {precision!r}: choose from "
                f"{', '.join(sorted(known))}, or add it with `bedside export`"
            )


def onnx_file(precision: str) -> str:
    """Return the name of a precision's ONNX file."""
    return f"model-{precision}.onnx"


def golden_file(precision: str) -> str:
    """Return the name of a precision's golden file."""
    return f"golden-{precision}.npz"


def list_bundles() -> list[str]:
    """Return the names of the bundles that come with this package, sorted."""
    return sorted(path.parent.name for path in _ZOO.glob(f"*/{MANIFEST}"))


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Find a model bundle and verify every file of it.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        The name of a shipped bundle (see `list_bundles`), or the path of a bundle's folder. A name goes
        first; write ``./name`` for a folder of the same name.

    Returns
    -------
    Bundle

    Raises
    ------
    BundleError
        If there is none, or it is not complete and unaltered.
    """
    shipped = list_bundles()
    path = _ZOO / name_or_path if str(name_or_path) in shipped else Path(name_or_path)
    if not (path / MANIFEST).is_file():
        raise BundleError(
            f"no model {str(name_or_path)!r}: name one that is shipped ({', '.join(shipped) or 'none'}) "
            f"or give the path of a folder with a {MANIFEST}"
        )
    bundle = Bundle(path, _read_manifest(path))
    needed = {WEIGHTS}
    for precision, golden in bundle.manifest.golden.items():
        needed |= {onnx_file(precision), golden.file}
    for file in sorted(needed | bundle.manifest.sha256.keys()):
        bundle.read(file)
    return bundle


def shipped_manifests() -> list[Manifest]:
    """Return the manifests of the bundles that come with the package; their files are not looked at.

    Raises
    ------
    BundleError
        If one cannot be read.
    """
    return [_read_manifest(_ZOO / name) for name in list_bundles()]


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a model bundle and load it again.

    Parameters
    ----------
    path : pathlib.Path
        Folder; made if it does not exist. Files of the same names are overwritten.
    manifest : Manifest
        Its hashes are replaced by those of `files`.
    files : mapping of str to bytes
        Content by file name.

    Returns
    -------
    Bundle

    Raises
    ------
    BundleError
        If what was written is not a complete bundle.
    """
    path.mkdir(parents=True, exist_ok=True)
    hashes = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    complete = manifest.model_copy(update={"sha256": hashes})
    for name, data in files.items():
        (path / name).write_bytes(data)
    # Last: without it the folder is no bundle, so that an interrupted writing leaves none.
    (path / MANIFEST).write_text(complete.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return load_bundle(path.resolve())


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise _refused(path.name, f"cannot read {file} ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["loc"] == ("format",):
            raise BundleError(
                f"model {path.name!r}: {file} has a format that this version of Bedside does not read: "
                "update Bedside or export the model again"
            ) from error
        raise _refused(path.name, f"{file} is not valid ({where}: {first['msg']})") from error


def _refused(name: str, why: str) -> BundleError:
    return BundleError(f"model {name!r} refused: {why}; install or export it again")
