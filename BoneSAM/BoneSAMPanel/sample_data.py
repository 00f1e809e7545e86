"""BoneSAM's own synthetic scans in the Sample Data module. They are installed with it: no network needed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

__all__ = ["CATEGORY", "SAMPLES", "registerSampleData", "samplesFolder"]

CATEGORY = "BoneSAM"
_PANEL = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Sample:
    """A scan in the Sample Data module.

    Attributes:
        name: what scripts call it, as in `SampleData.downloadSample(name)`.
        scan: its name in `samples.json`.
        file: in `samplesFolder()`.
    """

    name: str
    scan: str
    file: str


SAMPLES = (
    Sample("BoneSAMHipCT", "hip_ct", "hip_ct.nii.gz"),
    Sample("BoneSAMKneeMR", "knee_mr", "knee_mr.nii.gz"),
    Sample("BoneSAMHandXray", "hand_xray", "hand_xray.png"),
)


def samplesFolder() -> Path:
    """Where the scans lie, in an installed extension or in a source checkout."""
    installed = _PANEL.parent / "Resources" / "samples"
    return installed if installed.is_dir() else _PANEL.parents[1] / "Resources" / "samples"


def registerSampleData() -> None:
    """Offer the samples. To be called once 3D Slicer has started; again does no harm."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # 3D Slicer 5.12
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("BoneSAM (synthetic)"))
    for sample in SAMPLES:
        path = samplesFolder() / sample.file
        if not path.is_file():
            continue  # a checkout without large files
        logic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=sample.name,
            thumbnailFileName=str(_PANEL.parent / "Resources" / "Icons" / f"{sample.name}.png"),
            uris=path.as_uri(),
            # The cache is shared with other extensions, and outlives an update of this one.
            fileNames=f"BoneSAM_{sample.file}",
            checksums=f"SHA256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
            nodeNames=sample.name,
            loadFileTypes="VolumeFile",
            # Else a picture is taken for the first one of a stack.
            loadFileProperties={"singleFile": True},
        )
