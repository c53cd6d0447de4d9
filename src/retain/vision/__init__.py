"""The eyes: from what users hand over to feature vectors.

`sources` finds the pictures, `images` decodes them, `preprocess` prepares them, `extractor` turns
them into features, `stream` does so for many at once. Nothing here knows of classes or writes.
"""

from retain.vision.extractor import (
    Extractor,
    OnnxExtractor,
    VectorExtractor,
    load_builtin,
    load_extractor,
)
from retain.vision.images import decode, encode_array, encode_pillow, encode_vector
from retain.vision.preprocess import Preprocess, prepare
from retain.vision.sources import Collected, labelled, unlabelled
from retain.vision.stream import Extracted, extract_many, usable_cores

__all__ = [
    "Collected",
    "Extracted",
    "Extractor",
    "OnnxExtractor",
    "Preprocess",
    "VectorExtractor",
    "decode",
    "encode_array",
    "encode_pillow",
    "encode_vector",
    "extract_many",
    "labelled",
    "load_builtin",
    "load_extractor",
    "prepare",
    "unlabelled",
    "usable_cores",
]
