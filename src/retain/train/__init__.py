"""The gradient: PyTorch in, ONNX out; nothing here opens the store.

`weights` reads files of weights without running them, `matching` finds where each tensor belongs,
`backbones` builds networks by name, `huggingface` reads folders in the hub's layout, `exporting`
writes the whole classifier as one ONNX file, `keeping` remembers how a network is built, `retained`
gives a taught classifier back as a PyTorch module. PyTorch is imported when one of them is called.

`growing` gives a network a head that grows; `plan` says which of its layers learn; `recipe` how;
`terms` what is minimised; `loop` does it, and goes on after a kill. `lessons` runs the
class-incremental methods of `methods`; `rehearsal` chooses what they remember. `sizes` is for
pictures of another size, `cifar` for the residual networks of 32 pixels.
"""

from retain.train.augment import Augment, Views
from retain.train.backbones import Network, build, loaded
from retain.train.cifar import cifar_resnet
from retain.train.data import Data
from retain.train.exporting import Exported, export, export_module, to_onnx
from retain.train.growing import Growing, growing
from retain.train.huggingface import build_folder, read_folder
from retain.train.keeping import FILE, folded, kept_again
from retain.train.lessons import Method, Taught, teach
from retain.train.loop import Fitted, fit
from retain.train.plan import PRESETS, Plan, Rule
from retain.train.processes import at_work
from retain.train.recipe import Averaging, Recipe, transfer
from retain.train.rehearsal import Budget, Memory
from retain.train.retained import (
    load_exported,
    rebuilt,
    rebuilt_network,
    runner,
    torch_file,
)
from retain.train.sizes import resized
from retain.train.terms import CrossEntropy
from retain.train.weights import State, read_state

__all__ = [
    "FILE",
    "PRESETS",
    "Augment",
    "Averaging",
    "Budget",
    "CrossEntropy",
    "Data",
    "Exported",
    "Fitted",
    "Growing",
    "Memory",
    "Method",
    "Network",
    "Plan",
    "Recipe",
    "Rule",
    "State",
    "Taught",
    "Views",
    "at_work",
    "build",
    "build_folder",
    "cifar_resnet",
    "export",
    "export_module",
    "fit",
    "folded",
    "growing",
    "kept_again",
    "load_exported",
    "loaded",
    "read_folder",
    "read_state",
    "rebuilt",
    "rebuilt_network",
    "resized",
    "runner",
    "teach",
    "to_onnx",
    "torch_file",
    "transfer",
]
