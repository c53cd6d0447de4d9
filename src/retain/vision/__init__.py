"""The eyes: from what users hand over to feature vectors.

`sources` finds the pictures, `images` decodes them, `preprocess` prepares them, `extractor` turns
them into features, `stream` does so for many at once. `export` writes a feature graph and a head
as one file; `evidence` shows where in a picture a score comes from. Nothing here knows the store.
"""

from retain.vision.evidence import (
    Evidence,
    evidence_map,
    network_view,
    occlusion_map,
    overlay,
)
from retain.vision.export import Exported, Parity, export_onnx, parity, read_exported
from retain.vision.extractor import (
    Extractor,
    OnnxExtractor,
    VectorExtractor,
    load_builtin,
    load_extractor,
)
from retain.vision.headgraph import ExportExceptions, ExportHead, ExportStart
from retain.vision.images import decode, encode_array, encode_pillow, encode_vector
from retain.vision.preprocess import Preprocess, prepare
from retain.vision.sources import Collected, labelled, unlabelled
from retain.vision.stream import Extracted, extract_many, usable_cores

__all__ = [
    "Collected",
    "Evidence",
    "ExportExceptions",
    "ExportHead",
    "ExportStart",
    "Exported",
    "Extracted",
    "Extractor",
    "OnnxExtractor",
    "Parity",
    "Preprocess",
    "VectorExtractor",
    "decode",
    "encode_array",
    "encode_pillow",
    "encode_vector",
    "evidence_map",
    "export_onnx",
    "extract_many",
    "labelled",
    "load_builtin",
    "load_extractor",
    "network_view",
    "occlusion_map",
    "overlay",
    "parity",
    "prepare",
    "read_exported",
    "unlabelled",
    "usable_cores",
]
