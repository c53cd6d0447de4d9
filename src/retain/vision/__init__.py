"""The eyes: from what users hand over to feature vectors.

`sources` finds the pictures, `images` decodes them, `preprocess` prepares them, `extractor` turns
them into features, `stream` does so for many at once. `adopt` makes such an extractor, and the
weights that go with it, of a classifier trained elsewhere. Nothing here knows the store or writes.
"""

from retain.vision.adopt import Adopted, adopt
from retain.vision.class_names import read_labels
from retain.vision.extractor import (
    Extractor,
    OnnxExtractor,
    VectorExtractor,
    load_builtin,
    load_extractor,
)
from retain.vision.images import decode, encode_array, encode_pillow, encode_vector
from retain.vision.modelfile import read_model
from retain.vision.preprocess import Preprocess, prepare
from retain.vision.preset_trial import PresetTrial, check_presets
from retain.vision.presets import PRESETS, preset, read_rule
from retain.vision.sources import Collected, labelled, unlabelled
from retain.vision.splitting import Split, split
from retain.vision.stream import Extracted, extract_many, usable_cores

__all__ = [
    "PRESETS",
    "Adopted",
    "Collected",
    "Extracted",
    "Extractor",
    "OnnxExtractor",
    "Preprocess",
    "PresetTrial",
    "Split",
    "VectorExtractor",
    "adopt",
    "check_presets",
    "decode",
    "encode_array",
    "encode_pillow",
    "encode_vector",
    "extract_many",
    "labelled",
    "load_builtin",
    "load_extractor",
    "prepare",
    "preset",
    "read_labels",
    "read_model",
    "read_rule",
    "split",
    "unlabelled",
    "usable_cores",
]
