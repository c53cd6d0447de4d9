"""The gradient: PyTorch in, ONNX out; nothing here opens the store.

`weights` reads files of weights without running them, `matching` finds where each tensor belongs,
`backbones` builds networks by name, `huggingface` reads folders in the hub's layout, `exporting`
writes the whole classifier as one ONNX file, `keeping` remembers how a network is built, `retained`
gives a taught classifier back as a PyTorch module. PyTorch is imported when one of them is called.
"""

from retain.train.backbones import Network, build, loaded
from retain.train.exporting import Exported, export, export_module, to_onnx
from retain.train.huggingface import build_folder, read_folder
from retain.train.keeping import FILE, folded
from retain.train.retained import load_exported, rebuilt, runner, torch_file
from retain.train.weights import State, read_state

__all__ = [
    "FILE",
    "Exported",
    "Network",
    "State",
    "build",
    "build_folder",
    "export",
    "export_module",
    "folded",
    "load_exported",
    "loaded",
    "read_folder",
    "read_state",
    "rebuilt",
    "runner",
    "to_onnx",
    "torch_file",
]
