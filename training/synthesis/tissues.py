"""Tissues of structures: the values that mean one, and what a structure's name tells about it."""

import re
from typing import TypeAlias

from BoneSAMLib.errors import BoneSAMError

AIR, FAT, FIRST_STRUCTURE = 0, 1, 2
HARD = ("bone", "tooth")
# Name and tissue of each value of a label volume.
StructureTable: TypeAlias = dict[int, tuple[str, str]]
# Corrections to the tissue that the mesh file guesses from names. Bones and teeth were checked by name and
# are right; the first rule that matches the name decides the rest, and without a match the guess stands.
MESH_TISSUE_RULES: tuple[tuple[str, str], ...] = (
    ("disc", r"intervertebral dis[ck]"),
    ("vessel", r"arter(y|ies)|\bveins?\b|venous|cavity of (left|right) (atrium|ventricle)"),
    ("cartilage", r"cartilage|epiglottis"),
    (
        "ligament",
        r"ligament|\btend(on|inous)|retinaculum|interosseous membrane|thyrohyoid membrane|iliotibial tract"
        r"|linea alba|raphe|tarsal plate|conus elasticus|trochlea of",
    ),
    (
        "neural",
        r"\bnerve\b|ganglion|amygdala|globus pallidus|putamen|geniculate body|commissure|colliculus"
        r"|stria terminalis|lamina terminalis|mammillary body|interpeduncular"
        r"|interventricular foramen|optic (chiasm|tract)|septum of telencephalon|tentorium",
    ),
    (
        "muscle",
        r"trapezius|levatores costarum|interossei|interosseous of|lumbrical|intertransversari|interspinal"
        r"|\bwall of (left|right)? ?(atrium|ventricle)",
    ),
    ("organ", r"\bear\b|gingiva|deferent duct|epididymis|seminal vesicle|\blip\b|tongue"),
)
# Tissues of the label maps, by name; the first match decides. What has no name here is treated as fat.
LABEL_TISSUE_RULES: tuple[tuple[str, str], ...] = (
    ("disc", r"intervertebral"),
    ("fat", r"fat_body|^\d+$"),
    ("cartilage", r"cartilage|meniscus"),
    ("ligament", r"ligament|tendon|iliotibial_tract"),
    ("neural", r"nerve|spinal_cord"),
    ("muscle", r"muscle|gluteus|iliopsoas|autochthon"),
    ("vessel", r"artery|vein|vena|aorta|trunk|carotid|atrial_appendage"),
    ("lung_airway", r"lung|trachea"),
    (
        "organ",
        r"gland|liver|spleen|pancreas|colon|bowel|gallbladder|stomach|duodenum|kidney|ureter|renal_pelvis|esophagus"
        r"|heart|prostate|bladder",
    ),
    (
        "bone",
        r"femur|tibia|fibula|patella|hyoid|skull|atlas|axis|cervical|thoracic|lumbar|mandible|clavic|sternum|\brib|rib_"
        r"|pelvis|sacrum|hip_|humerus|scapula|vertebrae",
    ),
)


def mesh_tissue(name: str, guess: str) -> str:
    """Tissue of a mesh from its name and the mesh file's guess."""
    if guess in HARD:
        return guess
    for tissue, pattern in MESH_TISSUE_RULES:
        if re.search(pattern, name, re.IGNORECASE):
            return tissue
    return guess


def label_tissue(name: str) -> str:
    """Tissue of a label map's structure, from its name.

    Raises BoneSAMError for a name that no rule knows: a bone must not pass for fat.
    """
    for tissue, pattern in LABEL_TISSUE_RULES:
        if re.search(pattern, name, re.IGNORECASE):
            return tissue
    raise BoneSAMError(f"The label map's structure {name!r} has no tissue. Add a rule for it to tissues.py.")
