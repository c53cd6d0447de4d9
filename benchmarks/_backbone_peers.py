"""Which method of which toolbox stands beside each of ours, and with which settings.

Every setting that a toolbox lets one choose is ours: epochs, batch, rate, momentum, decay, when the
rate falls, mirrored pictures, how many exemplars of a class and how they are chosen: at random, but
herded where the method says so (iCaRL) or the toolbox knows nothing else (PyCIL). What is the
method's own is the toolbox's default, but for EEIL, whose balanced training is as long as ours.

What is not the same: the toolboxes' weight decay counts for norms and biases too, which ours
spares; their last batch of an epoch is what remains, ours are of nearly one size; PyCIL's new rows
of the head are longer, with biases of zero; and what a network begins with, unless ``--network
resnet32b-he`` says FACIL's (its convolutions are drawn by what comes out, ours by what goes in).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retain.bench import Pool, Result, Stream, read_result, result_name
from retain.bench.peers import PEERS, Request, run_peer


@dataclass(frozen=True)
class Beside:
    """A strategy of a toolbox; `more` are words for FACIL's command line."""

    peer: str
    strategy: str
    exemplars: bool = False
    more: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As its results call it."""
        return f"{self.peer}:{self.strategy}"

    def options(self, epochs: int, batch: int, rate: float, exemplars: int) -> dict[str, Any]:
        """The toolbox's options for these settings."""
        given: dict[str, Any] = {"epochs": epochs, "batch": batch, "rate": rate}
        given["weight_decay"] = 2e-4
        if self.peer == "facil":
            given |= {"momentum": 0.9, "schedule": "steps"}
            given |= {
                key: value.format(balanced=round(0.75 * epochs)) for key, value in self.more.items()
            }
        if self.exemplars:
            given["exemplars"] = exemplars
            if self.peer == "facil" and self.strategy in HERDED:
                given["selection"] = "herding"
        return given


HERDED = ("icarl", "wa")
"""Methods whose exemplars are herded; those of the others are chosen at random."""

AUXILIARY = {"auxiliary": "cifar10_small", "auxiliary_pictures": 500}
"""DMC's pictures without labels: as many as a lesson has."""

WITH = "+exemplars"
"""Behind the name of a method that needs none."""

BESIDE: dict[str, Beside] = {
    "network-finetuning": Beside("facil", "finetuning"),
    "ft-exemplars": Beside("facil", "finetuning", exemplars=True),
    "freezing": Beside("facil", "freezing"),
    "network-joint": Beside("facil", "joint"),
    "ewc": Beside("facil", "ewc"),
    "si": Beside("facil", "path_integral"),
    "mas": Beside("facil", "mas"),
    "rwalk": Beside("facil", "r_walk"),
    "lwf": Beside("facil", "lwf"),
    "lwm": Beside("facil", "lwm"),
    "online-ewc": Beside("avalanche-network", "online-ewc"),
    "dmc": Beside("facil", "dmc", more={k: str(each) for k, each in AUXILIARY.items()}),
    "icarl": Beside("facil", "icarl", exemplars=True),
    "eeil": Beside(
        "facil",
        "eeil",
        exemplars=True,
        more={"more": "--nepochs-finetuning {balanced} --lr-finetuning-factor 0.1"},
    ),
    "bic": Beside("facil", "bic", exemplars=True),
    "lucir": Beside("facil", "lucir", exemplars=True),
    "il2m": Beside("facil", "il2m", exemplars=True),
    "wa": Beside("pycil", "wa", exemplars=True),
    "er": Beside("avalanche-network", "replay", exemplars=True),
    "der++": Beside("avalanche-network", "der", exemplars=True),
    "gdumb": Beside("avalanche-network", "gdumb", exemplars=True),
    "ewc" + WITH: Beside("facil", "ewc", exemplars=True),
    "mas" + WITH: Beside("facil", "mas", exemplars=True),
    "si" + WITH: Beside("facil", "path_integral", exemplars=True),
    "rwalk" + WITH: Beside("facil", "r_walk", exemplars=True),
    "lwf" + WITH: Beside("facil", "lwf", exemplars=True),
    "lwm" + WITH: Beside("facil", "lwm", exemplars=True),
}


def run_beside(
    stream: Stream,
    pool: Pool,
    beside: Beside,
    options: dict[str, Any],
    python: Path,
    clone: Path | None,
    folder: Path,
    *,
    again: bool = False,
) -> Result:
    """The result of a toolbox on a stream; one that is there, done, is not computed again."""
    path = folder / f"{result_name(stream, beside.name, options, stream.seed)}.json"
    if path.exists() and not again:
        found = read_result(path)
        if found["status"] == "done" and found["stream"]["digest"] == stream.digest:
            return found
    request = Request(beside.strategy, stream.seed, python, clone, options, limit_s=4 * 3600.0)
    return run_peer(PEERS[beside.peer], stream, pool, request, folder=folder)
