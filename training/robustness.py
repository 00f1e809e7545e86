"""What worse scans do to the result: nine corruptions in five severities each, made with TorchIO.

Values are corrupted in units of the range that the network sees (`BoneSAMLib.intensity`), so that a severity
means the same in CT, MR and X-ray. Ghosting and spikes come from reading k-space and are made on MR only, the
bias field on MR and X-ray; a radiograph has no slices to be thick.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torchio
from numpy.typing import NDArray

from BoneSAMLib.intensity import intensity_window
from BoneSAMLib.volume import Volume
from training.annotator import OpensVolumes, timed
from training.masks import Mask, bounding_slices
from training.measure import LoadedCase
from training.protocols import SEED, generator, jittered_box
from training.summary import statistics_of
from training.trial import Trial, scored

CLEAN = "clean"
SEVERITIES = (1, 2, 3, 4, 5)
# The drop of the mean Dice at severity 3 that is aimed at, relative to the clean scans.
MOST_DROP = 0.10

NOISE = (0.03, 0.06, 0.10, 0.15, 0.20)  # standard deviation, in parts of the seen range
BLUR = (0.5, 1.0, 1.5, 2.0, 3.0)  # standard deviation, in pixels of a slice
GAMMA = (0.15, 0.3, 0.45, 0.6, 0.8)  # logarithm of the exponent; up or down by case
BIAS = (0.2, 0.4, 0.6, 0.8, 1.0)  # largest coefficient of the polynomial in the exponent
GHOSTING = (0.2, 0.4, 0.6, 0.8, 1.0)  # strength of the ghosts
SPIKE = (0.1, 0.2, 0.3, 0.5, 0.8)  # height of the spike, in parts of k-space's largest value
THICKNESS = (1.5, 2.0, 3.0, 4.0, 6.0)  # times the distance of the slices
ROTATION = (5.0, 10.0, 20.0, 30.0, 45.0)  # degrees in the plane of the slices; left or right by case
CROP = (0.5, 0.25, 0.1, 0.0, -0.15)  # room around the bones, in parts of their extent; below 0 it cuts them

_GHOSTS = 4
_BIAS_ORDER = 3
_BIAS_COEFFICIENTS = 20


@dataclass(frozen=True)
class Corrupted:
    """A worse scan, and the measured bones on its grid, by name; a bone that is no longer seen is empty."""

    volume: Volume
    truths: dict[str, Mask]


class Robustness:
    """The 3D box on corrupted scans.

    Args:
        severities: which of 1 to 5.
    """

    name = "robustness"

    def __init__(self, severities: Sequence[int] = SEVERITIES) -> None:
        self.severities = severities

    def parts(self, loaded: LoadedCase) -> Sequence[str]:
        """The clean scan, and every severity of every corruption that the modality has."""
        names = [name for name in CORRUPTIONS if _applies(name, loaded.volume)]
        return [CLEAN, *(f"{name} {severity}" for name in names for severity in self.severities)]

    def run(self, loaded: LoadedCase, segmenter: OpensVolumes, part: str) -> Iterator[Trial]:
        """One trial a bone."""
        name, _, severity = part.rpartition(" ")
        if name:
            corrupted = corrupt(loaded, name, int(severity))
        else:
            name, severity = CLEAN, "0"
            corrupted = Corrupted(loaded.volume, {bone.name: bone.mask for bone in loaded.bones})
        session = segmenter.open(corrupted.volume)
        for bone in loaded.bones:
            truth = corrupted.truths[bone.name]
            if not _can_be_boxed(truth):
                continue
            rng = generator(loaded.case.id, bone.name, "box")
            box = jittered_box(truth, corrupted.volume, rng)
            result, seconds = timed(partial(session.segment, box=box))
            yield scored(loaded, bone, name, int(severity), result.mask, truth, seconds)


def corrupt(loaded: LoadedCase, name: str, severity: int) -> Corrupted:
    """A case with one of `CORRUPTIONS` at a severity of 1 to 5; the same in every run."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"{loaded.case.id}/{name}".encode())])
    return CORRUPTIONS[name](loaded, severity - 1, rng)


def _applies(name: str, volume: Volume) -> bool:
    if name in ("ghosting", "spike"):
        return volume.modality_guess == "MR"
    if name == "bias field":
        return volume.modality_guess != "CT"
    return not (name == "slice thickness" and volume.is_projection)


def _can_be_boxed(truth: Mask) -> bool:
    return bool(truth.any()) and sum(extent.stop - extent.start > 1 for extent in bounding_slices(truth)) >= 2


# Corruptions of the values.


def _transformed(loaded: LoadedCase, transform: torchio.Transform) -> Corrupted:
    volume = loaded.volume
    image = torchio.ScalarImage(tensor=_tensor(_seen(volume)), affine=_affine(volume))
    values = _array(transform(image).data)
    return Corrupted(_with_seen(volume, values), {bone.name: bone.mask for bone in loaded.bones})


def _noise(loaded: LoadedCase, level: int, rng: np.random.Generator) -> Corrupted:
    return _transformed(loaded, torchio.Noise(mean=0.0, std=NOISE[level], seed=int(rng.integers(2**31))))


def _blur(loaded: LoadedCase, level: int, rng: np.random.Generator) -> Corrupted:
    volume = loaded.volume
    width = BLUR[level] * min(_in_plane(volume))
    return _transformed(loaded, _blurring([0.0 if count == 1 else width for count in volume.size]))


def _blurring(deviations: Sequence[float]) -> torchio.Transform:
    """Standard deviations in mm along i, j and k."""
    i, j, k = deviations
    return torchio.Blur(std=(i, j, k))


def _gamma(loaded: LoadedCase, level: int, rng: np.random.Generator) -> Corrupted:
    return _transformed(loaded, torchio.Gamma(gamma=float(np.exp(_sign(rng) * GAMMA[level]))))


def _bias(loaded: LoadedCase, level: int, rng: np.random.Generator) -> Corrupted:
    coefficients = (rng.uniform(-1, 1, _BIAS_COEFFICIENTS) * BIAS[level]).tolist()
    return _transformed(loaded, torchio.BiasField(coefficients=coefficients, order=_BIAS_ORDER))


def _ghosting(loaded: LoadedCase, level: int, rng: np.random.Generator) -> Corrupted:
    axes = [axis for axis in range(3) if axis != loaded.volume.through_plane_axis]
    axis = axes[int(rng.integers(2))]
    transform = torchio.Ghosting(num_ghosts=_GHOSTS, axis=axis, intensity=GHOSTING[level], restore=0.02)
    return _transformed(loaded, transform)


def _spike(loaded: LoadedCase, level: int, rng: np.random.Generator) -> Corrupted:
    # Near the middle of k-space, where a spike makes broad stripes; positions are parts of its size.
    places = 0.5 + rng.uniform(0.02, 0.1, (1, 3)) * rng.choice([-1, 1], (1, 3))
    places[0, loaded.volume.through_plane_axis] = 0.5
    return _transformed(loaded, torchio.Spike(spikes_positions=places, intensity=SPIKE[level]))


def _thickness(loaded: LoadedCase, level: int, rng: np.random.Generator) -> Corrupted:
    volume, factor = loaded.volume, THICKNESS[level]
    axis = volume.through_plane_axis
    # A thick slice is a mean over its thickness: blurred before slices are left out.
    deviations = [0.0, 0.0, 0.0]
    deviations[axis] = 0.35 * factor * volume.spacing[axis]
    thinned = torchio.RandomAnisotropy(axes=(axis,), downsampling=(factor, factor))
    return _transformed(loaded, torchio.Compose([_blurring(deviations), thinned]))


# Corruptions of the geometry.


def _rotation(loaded: LoadedCase, level: int, rng: np.random.Generator) -> Corrupted:
    volume = loaded.volume
    degrees = [0.0, 0.0, 0.0]
    degrees[volume.through_plane_axis] = _sign(rng) * ROTATION[level]
    numbered = np.zeros(volume.shape, np.int16)
    for number, bone in enumerate(loaded.bones, start=1):
        numbered[bone.mask] = number
    about = degrees[0], degrees[1], degrees[2]
    transform = torchio.Affine(scales=(1, 1, 1), degrees=about, translation=(0, 0, 0))
    turned: Any = transform(
        torchio.Subject(
            image=torchio.ScalarImage(tensor=_tensor(_seen(volume)), affine=_affine(volume)),
            bones=torchio.LabelMap(tensor=_tensor(numbered), affine=_affine(volume)),
        )
    )
    labels = _array(turned["bones"].data)
    truths = {bone.name: labels == number for number, bone in enumerate(loaded.bones, start=1)}
    return Corrupted(_with_seen(volume, _array(turned["image"].data)), truths)


def _crop(loaded: LoadedCase, level: int, rng: np.random.Generator) -> Corrupted:
    volume = loaded.volume
    every = np.logical_or.reduce([bone.mask for bone in loaded.bones])
    extents = bounding_slices(every)
    region = []
    for array_axis, extent in enumerate(extents):
        if 2 - array_axis == volume.through_plane_axis:
            region.append(slice(0, volume.shape[array_axis]))
            continue
        room = round(CROP[level] * (extent.stop - extent.start))
        region.append(slice(max(0, extent.start - room), min(volume.shape[array_axis], extent.stop + room)))
    window = tuple(region)
    affine = volume.ijk_to_ras.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in reversed(window)]
    cut = Volume(
        volume.array[window].astype(np.float32) + np.float32(volume.intensity_offset),
        affine,
        volume.name,
        volume.modality_guess,
    )
    return Corrupted(cut, {bone.name: bone.mask[window] for bone in loaded.bones})


CORRUPTIONS: dict[str, Callable[[LoadedCase, int, np.random.Generator], Corrupted]] = {
    "noise": _noise,
    "blur": _blur,
    "gamma": _gamma,
    "bias field": _bias,
    "ghosting": _ghosting,
    "spike": _spike,
    "slice thickness": _thickness,
    "rotation": _rotation,
    "crop": _crop,
}


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _in_plane(volume: Volume) -> list[float]:
    return [volume.spacing[axis] for axis in range(3) if axis != volume.through_plane_axis]


def _seen(volume: Volume) -> NDArray[np.float32]:
    """The values [k, j, i] in units of the range that the network sees, not clipped."""
    low, high = intensity_window(volume)
    return (volume.array.astype(np.float32) - np.float32(low)) / np.float32(high - low)


def _with_seen(volume: Volume, seen: NDArray[np.float32]) -> Volume:
    """The volume with other values, given in these units; a CT's are Hounsfield units from now on."""
    low, high = (value + volume.intensity_offset for value in intensity_window(volume))
    values = seen * np.float32(high - low) + np.float32(low)
    return dataclasses.replace(volume, array=values, modality=volume.modality_guess)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """[k, j, i] to TorchIO's [1, i, j, k]."""
    return torch.from_numpy(np.ascontiguousarray(array.T)[None])


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor[0].numpy().T)


def _affine(volume: Volume) -> NDArray[np.float64]:
    return np.diag([*volume.spacing, 1.0])


# Tables.


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """By corruption and severity: the mean Dice, and its relative drop against the same bones when clean.

    A corruption's drop at severity 3 meets the aim when it is at most 10 %.
    """
    clean = {(one.case, one.object): one for one in trials if one.condition == CLEAN}
    table: dict[str, Any] = {}
    for name in CORRUPTIONS:
        levels = {}
        for severity in SEVERITIES:
            chosen = [
                one
                for one in trials
                if (one.condition, one.level) == (name, severity) and (one.case, one.object) in clean
            ]
            if chosen:
                levels[str(severity)] = _drop(chosen, clean)
        if levels:
            aim = levels["3"]["relative_drop"] <= MOST_DROP if "3" in levels else None
            table[name] = {"severities": levels, "aim_met": aim}
    return {"clean": statistics_of((one.case, one.dice) for one in clean.values()), "corruptions": table}


def _drop(chosen: Sequence[Trial], clean: dict[tuple[str, str], Trial]) -> dict[str, Any]:
    def relative(of: Sequence[Trial]) -> float:
        before = float(np.mean([clean[one.case, one.object].dice for one in of]))
        after = float(np.mean([one.dice for one in of]))
        return 1 - after / before if before > 0 else 0.0

    sources = list(dict.fromkeys(one.source for one in chosen))
    return {
        "dice": statistics_of((one.case, one.dice) for one in chosen),
        "relative_drop": relative(chosen),
        "relative_drop_by_source": {
            source: relative([one for one in chosen if one.source == source]) for source in sources
        },
    }
