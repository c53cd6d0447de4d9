"""The eyes: from what users hand over to feature vectors.

`sources` finds the pictures, `images` decodes them, `preprocess` prepares them, `extractor` turns
them into features, `stream` does so for many at once. `adopt` makes such an extractor, and the
weights that go with it, of a classifier trained elsewhere; `export` writes a feature graph and a
head as one file; `evidence` shows where in a picture a score comes from. Nothing here knows the
store.
"""

from retain.vision.adopt import Adopted, adopt, shipped_pictures
from retain.vision.class_names import read_labels
from retain.vision.evidence import (
    Evidence,
    evidence_map,
    network_view,
    occlusion_map,
    overlay,
)
from retain.vision.export import (
    Exported,
    Parity,
    compared,
    export_onnx,
    parity,
    read_exported,
    write_export,
)
from retain.vision.extractor import (
    Decoder,
    Extractor,
    OnnxExtractor,
    VectorExtractor,
    load_builtin,
    load_extractor,
)
from retain.vision.graphs import convolutions
from retain.vision.headgraph import ExportExceptions, ExportHead, ExportStart
from retain.vision.images import decode, encode_array, encode_pillow, encode_vector
from retain.vision.modelfile import read_model
from retain.vision.preprocess import Preprocess, prepare
from retain.vision.preset_trial import PresetTrial, check_presets
from retain.vision.presets import PRESETS, preset, read_rule
from retain.vision.quality import blur
from retain.vision.sources import Collected, labelled, unlabelled
from retain.vision.splitting import Split, split
from retain.vision.stream import Extracted, by_itself, extract_many, usable_cores

__all__ = [
    "PRESETS",
    "Adopted",
    "Collected",
    "Decoder",
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
    "PresetTrial",
    "Split",
    "VectorExtractor",
    "adopt",
    "blur",
    "by_itself",
    "check_presets",
    "compared",
    "convolutions",
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
    "preset",
    "read_exported",
    "read_labels",
    "read_model",
    "read_rule",
    "shipped_pictures",
    "split",
    "unlabelled",
    "usable_cores",
    "write_export",
]
