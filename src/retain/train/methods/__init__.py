"""Class-incremental methods, one small file each: phases of loss terms over the one loop.

`retain.train.lessons` says what a method is given and runs it.
"""

from retain.train.methods.ewc import EWC
from retain.train.methods.finetuning import FineTuning
from retain.train.methods.freezing import Freezing
from retain.train.methods.ft_exemplars import FineTuningExemplars
from retain.train.methods.joint import Joint
from retain.train.methods.lwf import LwF

__all__ = ["EWC", "FineTuning", "FineTuningExemplars", "Freezing", "Joint", "LwF"]
