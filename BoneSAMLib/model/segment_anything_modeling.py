"""Segment Anything's `modeling` subpackage, without the rest of its package.

`import segment_anything` also imports torchvision, for its automatic mask generator and image resizing.
BoneSAM needs neither, so the parent package is registered bare and only `modeling` is executed.
"""

import importlib.util
import sys
import types

if "segment_anything" not in sys.modules:
    _spec = importlib.util.find_spec("segment_anything")
    if _spec is None or _spec.submodule_search_locations is None:
        raise ImportError("segment-anything is not installed: pip install --editable '.[train]'")
    _package = types.ModuleType("segment_anything")
    _package.__path__ = list(_spec.submodule_search_locations)
    _package.__spec__ = _spec
    sys.modules["segment_anything"] = _package

from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MaskDecoder
from segment_anything.modeling.prompt_encoder import PromptEncoder
from segment_anything.modeling.transformer import TwoWayTransformer

__all__ = ["LayerNorm2d", "MaskDecoder", "PromptEncoder", "TwoWayTransformer"]
