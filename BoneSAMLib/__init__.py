"""BoneSAM: segment any bone in CT, MR and X-ray, from a box, points, or nothing at all.

>>> from BoneSAMLib import Box, Segmenter, read_volume
>>> volume = read_volume("scan.nii.gz")
>>> result = Segmenter().open(volume).segment(box=Box.from_ras((20, -40, -90), (70, 10, 30)))
>>> result.mask.shape == volume.shape
True
"""

from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.reading import read_volume
from BoneSAMLib.session import AllBones, Result, Segmenter, Session
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, write_mask

__all__ = [
    "AllBones",
    "BoneSAMError",
    "Box",
    "Cancelled",
    "Point",
    "Result",
    "SegmentInfo",
    "Segmenter",
    "Session",
    "Volume",
    "read_volume",
    "write_mask",
]
