"""Class-incremental methods, one small file each: phases of loss terms over the one loop.

`retain.train.lessons` says what a method is given and runs it; `REGISTRY` knows them by name.

>>> make("lwf", temperature=4.0)
LwF(temperature=4.0, strength=1.0, warm_up=0, exemplars=False, groups=True)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final

from retain.errors import BadOption
from retain.train.lessons import Method
from retain.train.methods.bic import BiC
from retain.train.methods.der import DERpp
from retain.train.methods.dmc import DMC
from retain.train.methods.eeil import EEIL
from retain.train.methods.er import ER
from retain.train.methods.ewc import EWC
from retain.train.methods.finetuning import FineTuning
from retain.train.methods.first_session import FirstSession
from retain.train.methods.freezing import Freezing
from retain.train.methods.ft_exemplars import FineTuningExemplars
from retain.train.methods.gdumb import GDumb
from retain.train.methods.icarl import ICaRL
from retain.train.methods.il2m import IL2M
from retain.train.methods.joint import Joint
from retain.train.methods.joint_exact import JointExact
from retain.train.methods.lucir import LUCIR
from retain.train.methods.lwf import LwF
from retain.train.methods.lwm import LwM
from retain.train.methods.mas import MAS
from retain.train.methods.online_ewc import OnlineEWC
from retain.train.methods.rwalk import RWalk
from retain.train.methods.si import SI
from retain.train.methods.wa import WA
from retain.typed import fields_read

__all__ = ["DMC", "EEIL", "ER", "EWC", "IL2M", "LUCIR", "MAS", "REGISTRY", "SI", "WA"]
__all__ += ["BiC", "DERpp", "FineTuning", "FineTuningExemplars", "FirstSession", "Freezing"]
__all__ += ["GDumb", "ICaRL", "Joint", "JointExact", "LwF", "LwM", "OnlineEWC", "RWalk"]
__all__ += ["make", "options_of"]

REGISTRY: Final[Mapping[str, type[Method]]] = MappingProxyType(
    {
        "finetuning": FineTuning,
        "ft-exemplars": FineTuningExemplars,
        "freezing": Freezing,
        "joint": Joint,
        "ewc": EWC,
        "online-ewc": OnlineEWC,
        "si": SI,
        "mas": MAS,
        "rwalk": RWalk,
        "lwf": LwF,
        "lwm": LwM,
        "dmc": DMC,
        "icarl": ICaRL,
        "eeil": EEIL,
        "bic": BiC,
        "lucir": LUCIR,
        "il2m": IL2M,
        "wa": WA,
        "er": ER,
        "der++": DERpp,
        "gdumb": GDumb,
        "first-session": FirstSession,
        "joint-exact": JointExact,
    }
)
"""The methods by name."""


def make(name: str, **options: Any) -> Method:
    """A method by its name.

    Args:
        name: a key of `REGISTRY`.
        **options: its own; text is read as the type of each asks.

    Raises:
        BadOption: if there is no such method, or it has no such option, or not with such a value.

    >>> make("lwf", exemplars="yes", groups="no") == make("lwf", exemplars=True, groups=False)
    True
    """
    known = options_of(name)
    for option in options:
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise BadOption(f"the method {name!r} has no option {option!r}; {has}")
    kind = REGISTRY[name]
    return kind(**fields_read(kind, options))


def options_of(name: str) -> dict[str, Any]:
    """The options of a method and their defaults.

    Raises:
        BadOption: if there is no such method.

    >>> options_of("der++")
    {'alpha': 0.2, 'beta': 0.5}
    """
    if name not in REGISTRY:
        raise BadOption(f"there is no method {name!r}; choose from {', '.join(REGISTRY)}")
    return {each.name: each.default for each in fields(REGISTRY[name])}  # type: ignore[arg-type]
