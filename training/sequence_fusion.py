"""Several sequences of one study against one: logits averaged, or the larger one taken.

Sequences are other cases of the same subject in the index, where there are any that overlap; else a sequence
is simulated from the scan: another random curve of brightness, and noise. That one holds no anatomy that the
scan lacks, so it tells what fusion costs where sequences add little, not what it gains where they add much.
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.reading import read_volume
from BoneSAMLib.session import Session
from BoneSAMLib.volume import Volume
from training.annotator import OpensVolumes, timed
from training.cases import Case
from training.measure import LoadedCase
from training.network_studies import engine_of
from training.protocols import SEED, generator, jittered_box
from training.sequence_remap import random_curve
from training.trial import Trial, trial

ONE = "one sequence"
FUSIONS = ("average", "maximum")
NOISE = 0.05  # of the simulated sequence, in parts of the seen range


class Fusion:
    """The 3D box on one sequence and on several, MR only.

    Args:
        cases: all cases of the index, among which other sequences of a subject are looked for.
    """

    name = "fusion"

    def __init__(self, cases: Sequence[Case] = ()) -> None:
        self._cases = cases

    def parts(self, loaded: LoadedCase) -> Sequence[str]:
        """One sequence, then each fusion."""
        is_stack = loaded.volume.modality_guess == "MR" and not loaded.volume.is_projection
        return (ONE, *FUSIONS) if is_stack else ()

    def run(self, loaded: LoadedCase, segmenter: OpensVolumes, part: str) -> Iterator[Trial]:
        """One trial a bone; its level is the number of sequences."""
        others: list[Volume] = []
        condition, fusion = part, FUSIONS[0]
        if part != ONE:
            others, fusion = self._real(loaded), part
            condition = f"{part} of real sequences" if others else f"{part} with a simulated sequence"
            others = others or [simulated(loaded.volume)]
        session = Session(loaded.volume, engine_of(segmenter), others, fusion)
        for bone in loaded.bones:
            box = jittered_box(bone.mask, loaded.volume, generator(loaded.case.id, bone.name, "box"))
            result, seconds = timed(partial(session.segment, box=box))
            yield trial(loaded, bone, condition, 1 + len(others), result.mask, seconds)

    def _real(self, loaded: LoadedCase) -> list[Volume]:
        """Other sequences of the same subject that lie where this one lies."""
        own = loaded.case
        found = []
        for case in self._cases:
            same = (case.subject, case.split, case.modality) == (own.subject, own.split, own.modality)
            if not same or case.id == own.id:
                continue
            try:
                volume = read_volume(case.image, case.modality)
            except BoneSAMError:
                continue
            if volume.shape == loaded.volume.shape and np.allclose(
                volume.ijk_to_ras, loaded.volume.ijk_to_ras, atol=0.01
            ):
                found.append(volume)
        return found


def simulated(volume: Volume) -> Volume:
    """The scan through another curve of brightness, with noise; the same in every run."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"{volume.name}/sequence".encode())])
    seen = normalize(volume.array, intensity_window(volume))
    values = np.interp(seen, np.linspace(0, 1, 256), random_curve(rng)).astype(np.float32)
    values += rng.normal(0, NOISE, values.shape).astype(np.float32)
    return Volume(values, volume.ijk_to_ras, f"{volume.name}, simulated", "MR")
