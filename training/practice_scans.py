"""A folder of made-up patients to practice training on: `python -m training.practice_scans FOLDER`.

Each is the sample knee MR, bent and shown in other grays, with its bones; half of the masks are label images
and half are segmentations as the extension saves them. Every other patient has a second sequence without a
mask. It shows how training is done, and is of no use to learn from: all of them are one knee.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk
import typer
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, distinct_color, write_mask
from training.itk_image import itk_image

__all__ = ["make_patients"]

SAMPLES = Path(__file__).resolve().parents[1] / "Resources" / "samples"
SAMPLE = "knee_mr"
# A bend's typical size, and the distance over which it changes.
BEND_MM, BEND_NODES_MM = 4.0, 60.0
# How far the patient moved between two sequences.
MOVED_MM = 3.0
NOISE = 0.03  # of the gray range


def make_patients(folder: Path, count: int, seed: int = 0) -> None:
    """Write ``count`` patients into ``folder``, each in a folder of its own, and the bones' names.

    Raises:
        BoneSAMError: it cannot be written, or the samples are missing.
    """
    facts = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))[SAMPLE]
    volume = read_volume(SAMPLES / facts["image"], "MR")
    labels = read_volume(SAMPLES / facts["truth"]).array.astype(np.uint8)
    bones = {int(value): name for value, name in facts["bones"].items()}
    segments = [SegmentInfo(value, name, distinct_color(value)) for value, name in bones.items()]
    rng = np.random.default_rng(seed)
    gray = volume.array / np.percentile(volume.array, 99.5)
    for number in range(1, count + 1):
        patient = folder / f"patient_{number:02}"
        patient.mkdir(parents=True, exist_ok=True)
        place = _bent(volume, rng, BEND_MM)
        scan = _seen(_taken(gray, place, 1), rng.uniform(0.8, 1.25), rng)
        _write_scan(scan, volume, patient / "t1.nii.gz")
        ending = "t1.seg.nrrd" if number % 2 else "t1_mask.nii.gz"
        write_mask(_taken(labels, place, 0), volume, patient / ending, segments)
        if number % 2:
            again = place + rng.uniform(-MOVED_MM, MOVED_MM, (3, 1, 1, 1)) / _spacing(volume)
            # Another sequence: what was dark is bright, and bone marrow is between.
            other = _seen(_taken(1.1 - 0.9 * gray, again, 1) * (_taken(gray, again, 1) > 0.05), 1.0, rng)
            _write_scan(other, volume, patient / "t2.nii.gz")
    (folder / "names.json").write_text(json.dumps(bones, indent=1), encoding="utf-8")


def _spacing(volume: Volume) -> NDArray[np.float64]:
    return np.array(volume.spacing[::-1]).reshape(3, 1, 1, 1)


def _bent(volume: Volume, rng: np.random.Generator, size_mm: float) -> NDArray[np.float64]:
    """Where each voxel of a patient comes from, [3, k, j, i] in voxels."""
    place = np.indices(volume.shape).astype(float)
    nodes = [
        int(n * mm / BEND_NODES_MM) + 3 for n, mm in zip(volume.shape, volume.spacing[::-1], strict=True)
    ]
    coarse = [index * (n - 1) / max(m - 1, 1) for index, n, m in zip(place, nodes, volume.shape, strict=True)]
    for axis in range(3):
        bend = ndimage.map_coordinates(rng.normal(0, size_mm, nodes), coarse, order=3, mode="nearest")
        place[axis] += bend / volume.spacing[2 - axis]
    return place


def _taken(array: NDArray[Any], place: NDArray[np.float64], order: int) -> NDArray[Any]:
    return np.asarray(ndimage.map_coordinates(array, place, order=order, mode="nearest"))


def _seen(gray: NDArray[np.floating], gamma: float, rng: np.random.Generator) -> NDArray[np.int16]:
    noisy = np.clip(gray, 0, 1.5) ** gamma + rng.normal(0, NOISE, gray.shape)
    return np.rint(np.abs(noisy) * 1000).astype(np.int16)


def _write_scan(array: NDArray[np.int16], volume: Volume, path: Path) -> None:
    try:
        sitk.WriteImage(itk_image(array, volume.ijk_to_ras, path.name), str(path))
    except RuntimeError as error:
        raise BoneSAMError(f"Cannot write '{path}': is the disk full, or the folder read-only?") from error


def main(
    folder: Annotated[Path, typer.Argument(help="Folder to write the patients into.")],
    count: Annotated[int, typer.Option(help="How many patients.", min=2)] = 8,
    seed: Annotated[int, typer.Option(help="Other seeds make other patients.")] = 0,
) -> None:
    """Make up patients to practice training on, from the sample knee MR."""
    try:
        make_patients(folder, count, seed)
    except (BoneSAMError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    print(f"{count} patients are in {folder}.")


if __name__ == "__main__":
    typer.run(main)
