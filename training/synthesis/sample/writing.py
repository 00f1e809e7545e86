"""Files of a sample: the scan, its bones and its entry in samples.json."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from PIL import Image

from BoneSAMLib.writing import write_mask
from training.itk_image import itk_image
from training.synthesis.sample.scans import Sample

BOX_MARGIN_MM, BOX_MARGIN_PIXELS = 2.0, 4


def write_sample(sample: Sample, prompt: str, out: Path) -> dict[str, Any]:
    """Write scan and truth into the folder `out`; returns the sample's entry of samples.json."""
    volume = sample.volume
    ending = "png" if volume.is_projection else "nii.gz"
    image, truth = f"{volume.name}.{ending}", f"{volume.name}_bones.{ending}"
    number = next(number for number, name in sample.bones.items() if name == prompt)
    found = np.argwhere(sample.truth == number)[:, ::-1]
    if volume.is_projection:
        Image.fromarray(volume.array[0]).save(out / image, optimize=True)
        Image.fromarray(sample.truth[0]).save(out / truth, optimize=True)
        last = np.array(volume.size) - 1
        low = np.clip(found.min(axis=0) - BOX_MARGIN_PIXELS, 0, last)
        high = np.clip(found.max(axis=0) + BOX_MARGIN_PIXELS, 0, last)
        box = {"box_ijk": [*low.tolist(), *high.tolist()]}
    else:
        scan = itk_image(volume.array, volume.ijk_to_ras, volume.name)
        sitk.WriteImage(scan, str(out / image), useCompression=True, compressionLevel=9)
        write_mask(sample.truth, volume, out / truth)
        ras = found @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3]
        low, high = np.floor(ras.min(axis=0) - BOX_MARGIN_MM), np.ceil(ras.max(axis=0) + BOX_MARGIN_MM)
        box = {"box_ras": [*low.astype(int).tolist(), *high.astype(int).tolist()]}
    bones = {str(number): name for number, name in sample.bones.items()}
    return {
        "image": image,
        "truth": truth,
        "modality": volume.modality,
        "bones": bones,
        "prompt": {"bone": prompt, "value": number, **box},
    }
