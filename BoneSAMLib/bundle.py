"""A bundle of weights: a folder with ONNX graphs, one weights file and a manifest.

The graphs hold no weights; each names tensors by their place in `weights.safetensors`, which is stored as
float16 and shared with the torch backend. The manifest gives every file's SHA-256.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from BoneSAMLib.errors import BoneSAMError

BUNDLED_WEIGHTS = Path(__file__).resolve().parents[1] / "Resources" / "weights"
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
GRAPHS = ("encoder", "depth_attention", "decoder")
FORMAT = 2
_ADVICE = "install BoneSAM again, or name a folder made by training.export."


@dataclass(frozen=True)
class Bundle:
    """A checked bundle."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        """Identifies the weights: the SHA-256 of the weights file."""
        return str(self.manifest["files"][WEIGHTS])

    @property
    def name(self) -> str:
        """What its maker called it."""
        return str(self.manifest["name"])

    def graph(self, part: str) -> Path:
        """The ONNX file of a part, such as "encoder"."""
        return self.folder / f"{part}.onnx"

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS


def open_bundle(folder: str | Path | None = None, graphs: Sequence[str] = GRAPHS) -> Bundle:
    """Check a bundle's files against its manifest. None opens the bundled weights.

    `graphs`: those that it must have.

    Raises:
        BoneSAMError: a file is missing, damaged, or of another format version.
    """
    folder = BUNDLED_WEIGHTS if folder is None else Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise BoneSAMError(f"There are no weights in '{folder}' ({MANIFEST} is missing): {_ADVICE}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        version = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BoneSAMError(f"The weights' manifest '{path}' cannot be read: {_ADVICE}") from error
    if version != FORMAT:
        raise BoneSAMError(
            f"The weights in '{folder}' have format {version}, this version reads format {FORMAT}: "
            "export them again."
        )
    for name in (*(f"{part}.onnx" for part in graphs), WEIGHTS):
        file = folder / name
        if name not in files or not file.is_file():
            raise BoneSAMError(f"The weights file '{file}' is missing: {_ADVICE}")
        if file_digest(file) != files[name]:
            raise BoneSAMError(f"The weights file '{file}' is damaged (its SHA-256 differs): {_ADVICE}")
    return Bundle(folder, manifest)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
