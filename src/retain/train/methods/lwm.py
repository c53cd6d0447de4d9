"""Learning without memorising: the new network must look where the old one looked.

Dhar 2019 (1811.08051); Grad-CAM: Selvaraju 2017 (1610.02391), equations 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, final

from retain.errors import BadOption
from retain.train.growing import Growing
from retain.train.lessons import Lesson, Phase, Phases
from retain.train.methods.rehearsing import Rehearsing
from retain.train.needs import Later
from retain.train.terms import CrossEntropy, Distillation, Step, Term
from retain.typed import ABOVE_0, FROM_0, checked

__all__ = ["Attention", "LwM", "last_maps", "watched"]

torch: Final = Later("torch", "training a network")


@final
@dataclass(frozen=True, eq=False, slots=True)
class Attention(Term):
    """The distance of attention maps from those of an older network (§4).

    A map is Grad-CAM of the old class that the old network finds likeliest, for both networks,
    brought to Euclidean length 1; the distance is the sum of absolute differences, a mean over the
    batch. Both what a map is weighted with and what is weighted have a gradient.

    Attributes:
        old: the older network, frozen, and `watched` with a cut.
        layer: that gives the maps; the network that learns is `watched` there too.
        strength: γ.
    """

    old: Growing
    layer: str
    strength: float = 1.0

    def loss(self, step: Step) -> Any:
        """See `Term`."""
        with torch.enable_grad():
            if self.old.device != step.pictures.device:
                self.old.module.to(step.pictures.device)
            said = self.old(step.pictures).logits.float()
            likeliest = said.argmax(1)
            before = _map(self.old, self.layer, said, likeliest, learns=False).detach()
        places = step.model.positions(self.old.classes).to(likeliest.device)
        with torch.enable_grad():
            logits = step.output.logits.float()
            now = _map(step.model, self.layer, logits, places[likeliest], learns=True)
        return self.strength * (now - before).abs().sum(1).mean()


def _map(model: Growing, name: str, logits: Any, classes: Any, *, learns: bool) -> Any:
    """Grad-CAM of one class for each picture, of length 1: float32 [n, places]."""
    layer = model.module.get_submodule(name)
    maps, layer.seen_maps = layer.seen_maps, None
    scores = logits.gather(1, classes[:, None]).sum()
    (slopes,) = torch.autograd.grad(scores, maps, create_graph=learns, retain_graph=learns)
    weights = slopes.float().mean((2, 3), keepdim=True)
    attention = (weights * maps.float()).sum(1).relu().flatten(1)
    return torch.nn.functional.normalize(attention)


def _remember(module: Any, inputs: Any, output: Any) -> Any:
    if not torch.is_grad_enabled():  # somebody only asks for answers
        module.seen_maps = None
        return output
    if not output.requires_grad:  # what comes before does not learn, what follows may
        return _begin(module, inputs, output)
    module.seen_maps = output
    return output


def _begin(module: Any, inputs: Any, output: Any) -> Any:
    if not torch.is_grad_enabled():
        return output
    module.seen_maps = output.detach().requires_grad_()
    # Whatever comes next may change what it is given in place.
    return module.seen_maps.clone()


def watched(model: Growing, layer: str, *, cut: bool = False) -> Growing:
    """A copy whose layer remembers the maps that it gave last.

    Args:
        model: left as it is.
        layer: its name.
        cut: gradients end at these maps, and have them even in a frozen network.
    """
    twin = model.copy()
    part = twin.module.get_submodule(layer)
    part.seen_maps = None
    part.register_forward_hook(_begin if cut else _remember)
    return twin


def _unwatched(model: Growing, layer: str) -> Growing:
    part = model.module.get_submodule(layer)
    for key, hook in list(part._forward_hooks.items()):
        if hook is _remember:
            del part._forward_hooks[key]
    del part.seen_maps
    return model


def last_maps(model: Growing, pictures: Any, named: str | None = None) -> str:
    """The name of the layer that gives the last maps, of more than one place, before the head.

    Maps have the sides of the picture, made smaller alike. Where layers that learn make something
    else of many places after the last of them, as transformers do of tokens, there are none that a
    prediction rests on.

    Args:
        model: left as it is.
        pictures: float [n, channels, height, width], to try with.
        named: the layer that is wanted; None to look for it.

    Raises:
        BadOption: if no layer gives maps, or not that one.
    """
    found: list[str] = []
    later: list[str] = []
    hooks = []
    high, wide = pictures.shape[-2:]
    for name, part in model.module.named_modules():

        def look(module: Any, inputs: Any, output: Any, name: str = name) -> None:
            if not torch.is_tensor(output) or output.ndim < 3:
                return
            sides = output.shape[2:]
            alike = len(sides) == 2 and abs(sides[0] * wide - sides[1] * high) < max(high, wide)
            if alike and sides.numel() > 1:
                found.append(name)
                later.clear()
            elif sides.numel() > 1 and next(module.parameters(), None) is not None:
                later.append(name)

        if name:
            hooks.append(part.register_forward_hook(look))
    mode = model.module.training
    try:
        with torch.no_grad():
            model.module.eval()(pictures)
        model.layer.seen = None
    finally:
        model.module.train(mode)
        for hook in hooks:
            hook.remove()
    if named is not None and named in found:
        return named
    if named is not None:
        known = f"; give one that does, such as {found[-1]}" if found else ""
        raise BadOption(
            f"layer is {named!r}, which gives no maps of [channels, height, width]{known}"
        )
    if not found or later:
        begins = f", or name one of those before: layer={found[-1]}" if found else ""
        raise BadOption(
            f"the network has no layer whose maps of [channels, height, width] its answers rest "
            f"on, and attention needs one; choose a method that holds answers, such as lwf{begins}"
        )
    return found[-1]


@final
@dataclass(frozen=True, slots=True)
class LwM(Rehearsing):
    """Cross-entropy over what arrives, β·distillation, γ·attention (§4); nothing is kept.

    The paper gives neither β nor γ. Masana 2020's toolbox has 1 and 1, but its attention has no
    gradient; with one, γ = 0.1 was better than 1 on pictures kept out of the training
    (docs/log.md). Deviations: one head grows, and only the classes that arrive compete; without
    exemplars the rows of older classes stay as they are, where LwF's go on learning by what is
    distilled (γ was chosen so, and all figures measured).

    Attributes:
        beta: β.
        gamma: γ.
        temperature: of the distillation, as in LwF, which §3.2 refers to.
        layer: that gives the maps; None for the last one with maps, as §5.4 has it.
        exemplars: see `Rehearsing`.
    """

    beta: float = 1.0
    gamma: float = 0.1
    temperature: float = 2.0
    layer: str | None = None
    exemplars: bool = False

    def __post_init__(self) -> None:
        checked(self, beta=FROM_0, gamma=FROM_0, temperature=ABOVE_0)

    def phases(self, lesson: Lesson) -> Phases:
        """One phase."""
        data, among, plan = self.material(lesson)
        one = lesson.fresh.pictures[torch.arange(min(2, len(lesson.fresh)))]
        views = lesson.recipe.views(one.to(lesson.model.device))
        layer = last_maps(lesson.model, views, self.layer)
        if not lesson.learned:
            yield Phase("train", data, [CrossEntropy(among)], plan)
            return None
        old = watched(lesson.before, layer, cut=True)
        terms: list[Term] = [
            CrossEntropy(among),
            Distillation(lesson.before, self.temperature, self.beta),
            Attention(old, layer, self.gamma),
        ]
        model = yield Phase("train", data, terms, plan, start=watched(lesson.model, layer))
        return _unwatched(model, layer)
