"""The only training loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from retain.errors import BadOption, Refused
from retain.train.averages import Average, recount
from retain.train.checkpoints import (
    Checkpoint,
    digest,
    flatten,
    glimpse,
    prefixed,
    unflatten,
    unprefixed,
)
from retain.train.data import Data
from retain.train.growing import Growing
from retain.train.history import Board, Epoch, epochs_from_json, epochs_to_json
from retain.train.inference import Judged, evaluate
from retain.train.laid import Laid
from retain.train.memory import laid_out, quick
from retain.train.needs import Later
from retain.train.plan import Plan, Row
from retain.train.processes import accelerator, agree, drawn_from, own_randomness, summed
from retain.train.recipe import Recipe, optimiser
from retain.train.sampling import batches, order, parts
from retain.train.terms import CrossEntropy, Step, Term, settings, titles
from retain.values import Progress

__all__ = ["Fitted", "fit"]

torch: Final = Later("torch", "training a network")

SAVE_EVERY: Final = 30.0
"""Seconds of work that a kill may cost."""

_RECOUNTING: Final = 1 << 40
"""A place in the sequence of random numbers that no step has."""


@final
@dataclass(frozen=True, eq=False, slots=True)
class Fitted:
    """A trained network, and how it came about.

    Attributes:
        model: in evaluation mode, on the CPU; the network that was given is as it was.
        rows: the table of layers.
        history: the epochs; fewer than asked for where it stopped early.
        best: the epoch, from 1 on, whose weights these are; None where they are the last or an
            average.
    """

    model: Growing
    rows: tuple[Row, ...]
    history: tuple[Epoch, ...]
    best: int | None


def fit(
    model: Growing,
    data: Data,
    recipe: Recipe,
    *,
    plan: Plan | None = None,
    terms: Sequence[Term] | None = None,
    validation: Data | None = None,
    folder: str | os.PathLike[str] | None = None,
    save_every: float = SAVE_EVERY,
    before_saving: Callable[[], None] | None = None,
    board: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Trains a copy of a network.

    The same arguments give the same weights, to the bit on one CPU with the same number of threads,
    however often the run was killed and begun again. Started by ``accelerate launch`` or
    ``torchrun``, all processes call it alike, share each batch, and return the same.

    Args:
        model: what to begin with; its classes include all labels.
        data: to learn from.
        recipe: how.
        plan: which layers learn; None for all.
        terms: of the loss; None for cross-entropy, smoothed as the recipe says.
        validation: pictures held out, judged after each epoch.
        folder: keeps the state of the run; where there is one of the same run, it goes on from
            there. Several processes need a folder that all of them see.
        save_every: seconds between two states that are kept.
        before_saving: called before each; what it raises ends the run, and nothing is kept.
        board: a folder for TensorBoard files.
        progress: called with the pictures that are done, and their number, as often as steps.

    Raises:
        BadLabel: if a label is none of the network's classes.
        BadOption: if there is nothing to learn from, the loss has no gradient, something does not
            fit the network, or `folder` belongs to another run.
        Refused: if the loss is not a finite number.
        MissingExtra: if PyTorch, accelerate, peft or TensorBoard is needed and not installed.
    """
    if not len(data):
        raise BadOption("there are no pictures to learn from; give some")
    if recipe.patience is not None and validation is None:
        raise BadOption(
            "patience needs validation= pictures that tell when it no longer gets better; give "
            "some of each class, that are not learned from, or a recipe with patience None"
        )
    with own_randomness():
        run = _Run(model, data, recipe, plan or Plan(), terms, validation)
        if folder is not None:
            run.keep(Checkpoint(folder, save_every, before_saving), model)
        return run.go(board, progress)


@final
class _Run:
    """The state of a run, between one step and the next."""

    def __init__(
        self,
        model: Growing,
        data: Data,
        recipe: Recipe,
        plan: Plan,
        terms: Sequence[Term] | None,
        validation: Data | None,
    ) -> None:
        self.data, self.recipe, self.plan, self.validation = data, recipe, plan, validation
        plain = [CrossEntropy(smoothing=recipe.smoothing)]
        self.terms: list[Term] = [*plain] if terms is None else list(terms)
        self.names = titles(self.terms)
        self.targets = model.positions(data.labels)
        self.helper = accelerator(recipe.precision, recipe.device)
        twin = model.copy()
        quick()
        # Convolutions are two to three times as fast so, on the CPU too.
        twin.module.to(self.helper.device, memory_format=torch.channels_last)
        self.laid = Laid(plan, twin, seed=recipe.seed, epochs=recipe.epochs)
        self.model = twin
        groups = self.laid.groups(recipe.weight_decay)
        self.learning = [each for group in groups for each in group["params"]]
        self.optimiser = self.helper.prepare_optimizer(optimiser(recipe, groups))
        self.average = Average(recipe.averaging, recipe.epochs) if recipe.averaging else None
        self.length = len(order(data.labels, recipe.sampling, recipe.seed, 0))
        self.steps = len(batches(np.arange(self.length), recipe.batch))
        self.step = 0
        self.sums = np.zeros(len(self.terms) + 1)
        self.spent = 0.0
        self.history: list[Epoch] = []
        self.best: dict[str, Any] = {}
        self.best_epoch: int | None = None
        self.over = False
        self.checkpoint: Checkpoint | None = None

    # -- the run ------------------------------------------------------------------------------

    def go(self, board: str | os.PathLike[str] | None, progress: Progress | None) -> Fitted:
        """Takes the steps that are left."""
        main = self.helper.is_main_process
        shown = Board(board) if board is not None and main else None
        if shown is not None:
            for each in self.history:
                shown.write(each)
        with ThreadPoolExecutor(1) as reader:
            while not self.over:
                self._epoch(reader, progress if main else None)
                if shown is not None:
                    shown.write(self.history[-1])
        if shown is not None:
            shown.close()
        finished = self.laid.finish()
        finished.module.to("cpu", memory_format=torch.contiguous_format)
        return Fitted(finished, self.laid.rows, tuple(self.history), self.best_epoch)

    def _epoch(self, reader: ThreadPoolExecutor, progress: Progress | None) -> None:
        recipe, epoch = self.recipe, self.step // self.steps
        began = time.monotonic()
        self.laid.learn(epoch)
        numbers = order(self.data.labels, recipe.sampling, recipe.seed, epoch)
        left = batches(numbers, recipe.batch)[self.step % self.steps :]
        ahead: Future[Any] = reader.submit(self._read, left[0])
        for place, batch in enumerate(left):
            read = ahead.result()
            if place + 1 < len(left):
                ahead = reader.submit(self._read, left[place + 1])
            due = self._take(epoch, batch, read)
            if progress is not None:
                seen = (epoch + 1) * self.length - sum(map(len, left[place + 1 :]))
                progress(seen, recipe.epochs * self.length)
            if due and self.step % self.steps:
                self._save(began)
        self._close_epoch(epoch, began)
        self._save(began)

    def _read(self, batch: NDArray[np.int64]) -> list[tuple[Any, Any]]:
        here, all_ = self.helper.process_index, self.helper.num_processes
        own = [torch.from_numpy(each) for each in parts(batch, here, all_, self.recipe.accumulate)]
        return [(each, self.data.pictures[each]) for each in own]

    def _take(self, epoch: int, batch: NDArray[np.int64], read: list[tuple[Any, Any]]) -> bool:
        """One step of all processes; whether it is time to save."""
        recipe, helper = self.recipe, self.helper
        sums = torch.zeros(len(self.terms) + 1, dtype=torch.float64, device=helper.device)
        for place, (numbers, pictures) in enumerate(read):
            drawn_from(recipe.seed, self.step, helper.process_index, place)
            values, hits = self._part(epoch, numbers, pictures)
            share = len(numbers) / len(batch)
            loss = torch.stack(values).sum()
            if not loss.requires_grad:
                raise BadOption(
                    f"the loss ({' + '.join(self.names)}) has no gradient: nothing of it depends "
                    f"on what learns"
                )
            helper.backward(loss * share)
            sums[:-1] += len(numbers) * torch.stack([each.detach().double() for each in values])
            sums[-1] += hits
        due = self.checkpoint is not None and helper.is_main_process and self.checkpoint.due()
        told = torch.cat([sums, torch.tensor([float(due)], device=sums.device)])
        told = summed(helper, self.learning, told)
        if not bool(torch.isfinite(told).all()):
            raise Refused(
                f"the loss became {float(told[:-2].sum()) / len(batch)} in epoch {epoch + 1}; "
                f"lower the rate ({recipe.rate:g}), clip the gradient, or warm up"
            )
        self.sums += told[:-1].cpu().numpy()
        scale = float(helper.scaler.get_scale()) if helper.scaler else 1.0
        for term in self.terms:
            term.before_step(self.model, scale)
        if recipe.clip is not None:
            helper.clip_grad_norm_(self.learning, recipe.clip)
        factor = recipe.schedule.at(self.step / self.steps, recipe.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * factor * group["factor"]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        for term in self.terms:
            term.after_step(self.model)
        agree(helper, self.laid.moving())
        if self.average is not None:
            self.average.after_step(self.model.module)
        self.step += 1
        return bool(told[-1] > 0)

    def _part(self, epoch: int, numbers: Any, pictures: Any) -> tuple[list[Any], Any]:
        recipe, device = self.recipe, self.helper.device
        views = recipe.augment.change(pictures.to(device), recipe.views)
        targets = self.targets[numbers].to(device)
        views, soft = recipe.augment.mix(views, targets, len(self.model.classes))
        with self.helper.autocast():
            output = self.model(views)
            step = Step(self.model, output, views, targets, soft, numbers, epoch)
            values = [term.loss(step).float() for term in self.terms]
        hits = (output.logits.argmax(1) == targets).sum() if output.logits.shape[1] else 0
        return values, hits

    def _close_epoch(self, epoch: int, began: float) -> None:
        recipe, module = self.recipe, self.model.module
        if self.average is not None:
            self.average.after_epoch(module, epoch)
        judged = None if self.validation is None else self._judge(self.validation)
        means = self.sums / self.length
        losses = dict(zip(self.names, map(float, means[:-1]), strict=True))
        rate = recipe.rate * recipe.schedule.at(epoch + 1, recipe.epochs)
        spent = self.spent + time.monotonic() - began
        self.history.append(
            Epoch(epoch + 1, sum(losses.values()), losses, float(means[-1]), rate, spent, judged)
        )
        self.sums, self.spent = np.zeros_like(self.sums), 0.0
        self.over = epoch + 1 == recipe.epochs
        if recipe.patience is not None:
            self._watch(epoch)
        if self.over:
            self._settle()

    def _judge(self, validation: Data) -> Judged:
        views, batch = self.recipe.views, 2 * self.recipe.batch
        if self.average is None:
            return evaluate(self.model, validation, views, batch)
        with self.average.lent(self.model.module):
            return evaluate(self.model, validation, views, batch)

    def _watch(self, epoch: int) -> None:
        """Keeps the best weights, and decides whether to go on."""

        def goodness(each: Epoch) -> float:
            assert each.validation is not None
            loss, accuracy = each.validation.loss, each.validation.accuracy
            return accuracy if self.recipe.watch == "accuracy" else -loss

        best = max(self.history, key=goodness)  # the first of equals
        if best.number == epoch + 1:
            if self.average is not None and not self.average.recounts:
                self.best = {name: each.clone() for name, each in self.average.tensors.items()}
            else:
                now = self.model.module.state_dict()
                self.best = {name: each.clone() for name, each in now.items()}
            self.best_epoch = epoch + 1
        assert self.recipe.patience is not None
        self.over = self.over or epoch + 1 - best.number >= self.recipe.patience

    def _settle(self) -> None:
        """Gives the network the weights that are the result."""
        module = self.model.module
        if self.average is not None and self.average.recounts and self.average.count:
            self.average.put(module)
            self.best_epoch = None
            if moving := self.laid.moving():
                recount(moving, self._walk)
        elif self.best:
            module.load_state_dict(self.best)
        elif self.average is not None:
            self.average.put(module)
        self.best = {}

    def _walk(self) -> None:
        """Shows the network its pictures once more, as an epoch does."""
        recipe = self.recipe
        numbers = order(self.data.labels, recipe.sampling, recipe.seed, recipe.epochs)
        for place, batch in enumerate(batches(numbers, recipe.batch)):
            drawn_from(recipe.seed, _RECOUNTING + place)
            pictures = self.data.pictures[torch.from_numpy(batch)].to(self.helper.device)
            self.model(recipe.augment.change(pictures, recipe.views))

    # -- its state on disk --------------------------------------------------------------------

    def keep(self, checkpoint: Checkpoint, start: Growing) -> None:
        """Goes on from the state in a folder, if there is one, and keeps it there."""
        held = self.validation
        told = [
            *(start.classes, start.head, start.kind, digest(start.module.state_dict())),
            *(self.recipe, self.plan, self.names, [settings(each) for each in self.terms]),
            *(glimpse(self.data), held and glimpse(held), self.helper.num_processes),
        ]
        self.checkpoint = checkpoint
        found = checkpoint.load(told)
        self.helper.wait_for_everyone()
        if found is not None:
            self._restore(*found)

    def _save(self, began: float) -> None:
        if self.checkpoint is None or not self.helper.is_main_process:
            return
        if not self.over and not self.step % self.steps and not self.checkpoint.due():
            return
        tensors, numbers = flatten("optimiser.", self.optimiser.state_dict())
        tensors |= prefixed("model.", self.model.module.state_dict())
        tensors |= prefixed("best.", self.best)
        if self.average is not None:
            tensors |= prefixed("average.", self.average.tensors)
        for place, term in enumerate(self.terms):
            tensors |= prefixed(f"term {place}.", term.state())
        middle = bool(self.step % self.steps)
        state = {
            "step": self.step,
            "over": self.over,
            "sums": self.sums.tolist(),
            "spent": self.spent + (time.monotonic() - began if middle else 0.0),
            "history": epochs_to_json(self.history),
            "best_epoch": self.best_epoch,
            "averaged": self.average.count if self.average is not None else 0,
            "optimiser": numbers,
            "scaler": self.helper.scaler.state_dict() if self.helper.scaler else None,
        }
        self.checkpoint.save(tensors, state)

    def _restore(self, tensors: dict[str, Any], state: dict[str, Any]) -> None:
        # Laid out as before, or sums over elements round otherwise.
        tensors = {name: laid_out(each) for name, each in tensors.items()}
        self.model.module.load_state_dict(unprefixed(tensors, "model."))
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict(unflatten("optimiser.", tensors, state["optimiser"], groups))
        self.best = {
            name: each.to(self.helper.device) for name, each in unprefixed(tensors, "best.").items()
        }
        if self.average is not None:
            averaged = unprefixed(tensors, "average.")
            self.average.restore(averaged, state["averaged"], self.helper.device)
        for place, term in enumerate(self.terms):
            term.restore(unprefixed(tensors, f"term {place}."), self.helper.device)
        if self.helper.scaler and state["scaler"]:
            self.helper.scaler.load_state_dict(state["scaler"])
        self.step, self.over = state["step"], state["over"]
        self.sums, self.spent = np.array(state["sums"]), state["spent"]
        self.history = epochs_from_json(state["history"])
        self.best_epoch = state["best_epoch"]
