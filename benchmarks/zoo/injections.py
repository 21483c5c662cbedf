"""For each rule on models: ways to put its bug into a model that has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from benchmarks.zoo import bugs
from benchmarks.zoo.hosts import Host
from torch import Tensor, nn


class NoPlace(Exception):
    """A model has no place for a bug; the message says which."""


@dataclass(slots=True)
class Mutant:
    """A model with a bug in it, and what an audit of it is told."""

    model: nn.Module
    within: str | None
    """The path in which the rule has to find it; None: the finding is of the model as a whole."""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Injection:
    """A way to put a rule's bug into models."""

    rule: str
    name: str
    into: Callable[[Host], Mutant]


# ---- how something is put into a model, of which weights, paths and classes stay what they are


def _become(module: nn.Module, methods: dict[str, Any]) -> None:
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})


def behind(model: nn.Module, path: str, bug: nn.Module) -> str:
    """What a module gives goes through another; its path."""
    module = model.get_submodule(path)
    kind = type(module)
    module.bug = bug

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        gave = kind.forward(self, *args, **kwargs)
        if isinstance(gave, Tensor):
            return self.bug(gave).contiguous()  # as it was: some models only view it
        return type(gave)((self.bug(gave[0]), *gave[1:]))

    _become(module, {"forward": forward})
    return f"{path}.bug"


def before(model: nn.Module, path: str, bug: nn.Module) -> str:
    """What comes into a module goes through another first; its path."""
    module = model.get_submodule(path)
    kind = type(module)
    module.bug = bug

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return kind.forward(self, self.bug(x), *args, **kwargs)

    _become(module, {"forward": forward})
    return f"{path}.bug"


Make = Callable[[int], nn.Module]


def _at(place: str, make: Make, how: Any = behind, **settings: Any) -> Callable[[Host], Mutant]:
    """A module, made for a number of features, at a place of each model."""

    def into(host: Host) -> Mutant:
        path = getattr(host, place)
        if not path:
            raise NoPlace(place)
        model = deepcopy(host.model)
        return Mutant(model, how(model, path, make(host.sizes.get(path, 0))), settings)

    return into


def _everywhere(rule: str, **makes: Make) -> Iterator[Injection]:
    """Behind a linear map, and behind a norm."""
    for name, make in makes.items():
        said = name.replace("_", " ")
        yield Injection(rule, f"{said}, behind a linear map", _at("middle", make))
        yield Injection(rule, f"{said}, behind a norm", _at("norm", make))


def dropping(host: Host) -> tuple[nn.Module, str]:
    """A copy that drops as it is, or else by a right dropout; and where."""
    model = deepcopy(host.model)
    acting = [site for site in host.sites if (site.rate or 0.0) > 0]
    if acting:
        return model, acting[-1].path
    return model, behind(model, host.middle, nn.Dropout(bugs.LOW))


def _layers(host: Host) -> list[str]:
    """Paths of layers that do nothing but drop, and do."""
    return [s.path for s in host.sites if s.owner == "Dropout" and (s.rate or 0.0) > 0]


def _replaced(make: Callable[[nn.Dropout], nn.Module]) -> Callable[[Host], Mutant]:
    """Something else in the place of one of a model's own dropouts."""

    def into(host: Host) -> Mutant:
        layers = _layers(host)
        if not layers:
            raise NoPlace("dropout layer of its own")
        model, path = deepcopy(host.model), layers[len(layers) // 2]
        drop = model.get_submodule(path)
        model.set_submodule(path, make(drop))  # type: ignore[arg-type]
        return Mutant(model, path)

    return into


def _set(rate: float, roles: tuple[str, ...]) -> Callable[[Host], Mutant]:
    """Another rate at one of a model's own places."""

    def into(host: Host) -> Mutant:
        places = [s for s in host.sites if s.role in roles and s.holder and s.rate]
        if not places:
            raise NoPlace(f"{' or '.join(roles)} dropout of its own")
        site, model = places[len(places) // 2], deepcopy(host.model)
        path, _, name = site.holder.rpartition(".")
        setattr(model.get_submodule(path), name, rate)
        return Mutant(model, site.path)

    return into


# ---- mode


def _left_on(part: bool, **settings: Any) -> Callable[[Host], Mutant]:
    def into(host: Host) -> Mutant:
        model, path = dropping(host)
        top = path.partition(".")[0] if part else ""
        model.eval().get_submodule(top).train()
        alone = top in {site.path for site in host.sites}  # nothing is on but what drops
        return Mutant(model, None if alone else top, settings)

    return into


def _left_off(part: bool, **settings: Any) -> Callable[[Host], Mutant]:
    def into(host: Host) -> Mutant:
        model, path = dropping(host)
        top = path.partition(".")[0] if part else ""
        model.train().get_submodule(top).eval()
        return Mutant(model, top, settings)

    return into


def _fused(size: int) -> nn.Module:
    return nn.TransformerEncoderLayer(size, 4, 32, bugs.LOW, batch_first=True)


def _bypassed(place: str) -> Callable[[Host], Mutant]:
    def into(host: Host) -> Mutant:
        mutant = _at(place, _fused)(host)
        mutant.model.eval()
        for module in mutant.model.get_submodule(mutant.within or "").modules():
            if isinstance(module, nn.Dropout):
                module.train()
        return mutant

    return into


def _forgetful(method: str) -> Callable[[Host], Mutant]:
    """The model's own eval() or train(False) sets the rate of a layer to 0."""

    def into(host: Host) -> Mutant:
        model, layers = deepcopy(host.model), _layers(host)
        path = layers[0] if layers else behind(model, host.middle, nn.Dropout(bugs.LOW))
        kind = type(model)

        def evaluated(self: Any) -> Any:
            self.get_submodule(path).p = 0.0
            return kind.eval(self)

        def switched(self: Any, mode: bool = True) -> Any:
            if not mode:
                self.get_submodule(path).p = 0.0
            return kind.train(self, mode)

        _become(model, {"eval": evaluated} if method == "eval" else {"train": switched})
        return Mutant(model, path)

    return into


def _mode() -> Iterator[Injection]:
    rule = "always-on-dropout"
    yield from _everywhere(
        rule,
        a_function_without_its_mode=lambda size: bugs.NoMode(),
        a_layer_that_stays_on=lambda size: bugs.StaysOn(bugs.LOW),
        a_mask_in_both_modes=lambda size: bugs.OwnMask(),
    )
    yield Injection(rule, "its own layer stays on", _replaced(lambda drop: bugs.StaysOn(drop.p)))
    rule = "dropout-built-in-forward"
    yield from _everywhere(
        rule,
        built_in_forward=lambda size: bugs.Builds(),
        kept_in_a_list=lambda size: bugs.Lists(),
    )
    yield from _everywhere(
        "ungated-attention-dropout",
        of_all_features=lambda size: bugs.Ungated(),
        with_heads=lambda size: bugs.Ungated(4),
    )
    rule = "left-in-train-mode"
    yield Injection(rule, "all of it, to predict", _left_on(False, purpose="inference"))
    yield Injection(rule, "a part, to predict", _left_on(True, purpose="inference"))
    yield Injection(rule, "a part, and nothing is said", _left_on(True))
    rule = "trained-in-eval-mode"
    yield Injection(rule, "all of it, to train", _left_off(False, purpose="train"))
    yield Injection(rule, "a part, to train", _left_off(True, purpose="train"))
    yield Injection(rule, "a part, and nothing is said", _left_off(True))
    rule = "bypassed-dropout"
    yield Injection(rule, "behind a linear map", _bypassed("middle"))
    yield Injection(rule, "behind a norm", _bypassed("norm"))
    rule = "rate-overwritten-by-eval"
    yield Injection(rule, "by eval()", _forgetful("eval"))
    yield Injection(rule, "by train(False)", _forgetful("train"))
    yield from _everywhere(rule, by_forward=lambda size: bugs.ZeroedByForward())


# ---- placement


def _dropped_trunk(host: Host) -> Mutant:
    config = getattr(host.model, "config", None)
    if getattr(config, "use_parallel_residual", False) or getattr(config, "parallel_attn", False):
        raise NoPlace("sum within its trunk: there are two, where it starts and where it ends")
    if not host.blocks:
        raise NoPlace("blocks")
    model = deepcopy(host.model)
    paths = [behind(model, path, nn.Dropout(bugs.LOW)) for path in host.blocks]
    return Mutant(model, paths[0].rpartition(".")[0].rpartition(".")[0])


def _placement() -> Iterator[Injection]:
    yield from _everywhere(
        "dropout-before-batch-norm",
        directly=lambda size: bugs.BeforeNorm(size),
        through_a_linear_map=lambda size: bugs.BeforeNorm(size, far=True),
    )
    rule = "dropout-on-output"
    drop = _at("head", lambda size: nn.Dropout(bugs.LOW))
    yield Injection(rule, "a layer behind the last linear map", drop)
    channels = _at("head", lambda size: nn.AlphaDropout(bugs.LOW))
    yield Injection(rule, "alpha dropout behind the last linear map", channels)
    rule = "dropout-before-activation"
    yield from _everywhere(rule, sigmoid=lambda size: bugs.Gate())
    own = _at("activation", lambda size: nn.Dropout(bugs.LOW), before)
    yield Injection(rule, "before an activation of its own", own)
    yield from _everywhere(
        "elementwise-dropout-on-convolution",
        maps_of_a_convolution=lambda size: bugs.Maps(size, nn.Dropout(bugs.LOW)),
    )
    yield from _everywhere(
        "redrawn-at-each-step",
        gru=lambda size: bugs.Steps(size, "gru"),
        lstm=lambda size: bugs.Steps(size, "lstm"),
        rnn=lambda size: bugs.Steps(size, "rnn"),
    )
    yield from _everywhere(
        "channel-dropout-over-wrong-axis",
        Dropout1d=lambda size: nn.Dropout1d(bugs.LOW),
        dropout2d=lambda size: bugs.WholeSteps(),
    )
    yield from _everywhere(
        "dropout-before-softmax",
        plain_scores=lambda size: bugs.Scores(size, "none"),
        masked_scores=lambda size: bugs.Scores(size, "filled"),
        scores_and_an_own_mask=lambda size: bugs.Scores(size, "own"),
    )
    rule = "dropout-twice"
    yield from _everywhere(rule, a_function_and_a_layer=lambda size: bugs.TwiceApart())
    twice = _replaced(lambda drop: nn.Sequential(drop, nn.Dropout(0.05)))
    yield Injection(rule, "another behind its own", twice)
    yield Injection("dropout-on-residual-trunk", "what each block gives", _dropped_trunk)


# ---- rate


def _never_called(host: Host) -> Mutant:
    model = deepcopy(host.model)
    model.get_submodule(host.middle).bug = nn.Dropout(bugs.LOW)
    return Mutant(model, f"{host.middle}.bug")


def _rate() -> Iterator[Injection]:
    rule = "rate-outside-range"
    for role in ("attention", "residual", "hidden"):
        yield Injection(rule, f"0.6 at {role} dropout of its own", _set(0.6, (role,)))
    rule = "keep-probability-as-rate"
    own = ("embedding", "attention", "residual", "hidden", "head", "recurrent")
    yield Injection(rule, "0.9 at one of its own", _set(0.9, own))
    yield from _everywhere(rule, by_its_name=lambda size: bugs.KeepProb())
    rule = "rate-that-silences-a-layer"
    for units, rate in ((3, 0.5), (12, 0.5), (16, 1.0)):
        make = lambda size, units=units, rate=rate: bugs.Bottleneck(size, units, rate)  # noqa: E731
        yield Injection(rule, f"{rate} of {units} units", _at("entry", make, before))
    rule = "rate-that-never-acts"
    yield from _everywhere(
        rule,
        one_layer_of_LSTM=lambda size: bugs.OneLayer(size),
        one_layer_of_GRU=lambda size: bugs.OneLayer(size, nn.GRU),
        told_not_to_drop=lambda size: bugs.ToldNot(),
    )
    yield Injection(rule, "never called", _never_called)
    knob = _at("entry", lambda size: bugs.OneKnob(size), before)
    yield Injection("one-knob-for-unlike-roles", "attention and a head", knob)


# ---- scaling


def _destroyed(in_place: bool) -> Callable[[Host], Mutant]:
    def into(host: Host) -> Mutant:
        model = deepcopy(host.model)
        module = model.get_submodule(host.middle)
        kind = type(module)

        def assigned(self: Any, x: Tensor) -> Tensor:
            self.weight.data = nn.functional.dropout(self.weight.data, bugs.LOW, self.training)
            return kind.forward(self, x)

        def written(self: Any, x: Tensor) -> Tensor:
            if self.training:
                with torch.no_grad():
                    mask = torch.rand_like(self.weight) >= bugs.LOW
                    self.weight.mul_(mask).div_(1 - bugs.LOW)
            return kind.forward(self, x)

        _become(module, {"forward": written if in_place else assigned})
        return Mutant(model, host.middle)

    return into


def _scaling() -> Iterator[Injection]:
    yield from _everywhere(
        "dropout-without-scaling",
        uniform=lambda size: bugs.Unscaled("uniform"),
        bernoulli=lambda size: bugs.Unscaled("bernoulli"),
        masked_fill=lambda size: bugs.Unscaled("filled"),
    )
    yield from _everywhere(
        "dropout-scaled-twice",
        an_own_mask=lambda size: bugs.ScaledTwice("mask"),
        a_function=lambda size: bugs.ScaledTwice("function"),
    )
    yield from _everywhere(
        "wrong-fraction-dropped",
        a_turned_comparison=lambda size: bugs.WrongFraction("turned"),
        a_normal_draw=lambda size: bugs.WrongFraction("normal"),
    )
    rule = "weights-destroyed-by-dropout"
    yield Injection(rule, "assigned", _destroyed(in_place=False))
    yield Injection(rule, "written in place", _destroyed(in_place=True))


# ---- combination


def _trained(kind: Any, **settings: Any) -> Callable[[Host], Mutant]:
    """With an optimizer."""

    def into(host: Host) -> Mutant:
        model, _ = dropping(host)
        return Mutant(model, None, {"optimizer": kind(model.parameters(), lr=1e-3, **settings)})

    return into


def _smoothed(host: Host) -> Mutant:
    model, _ = dropping(host)
    return Mutant(model, None, {"loss": bugs.Smoothed()})


def _decayed(host: Host) -> Mutant:
    if not host.norm and not any("bias" in name for name, _ in host.model.named_parameters()):
        raise NoPlace("norm with parameters, nor a bias")
    return _trained(torch.optim.AdamW, weight_decay=0.05)(host)


def _tuned(host: Host) -> Mutant:
    if not any(site.role == "attention" for site in host.report.sites):
        raise NoPlace("attention")
    model = deepcopy(host.model)
    head = max((site.rate or 0.0 for site in host.sites if site.role == "head"), default=0.0)
    behind(model, host.middle, nn.Dropout(max(bugs.LOW, head)))
    return Mutant(model, None, {"pretrained": True, "rows": 2_000})


def _massive(host: Host) -> Mutant:
    model = deepcopy(host.model)
    path = behind(model, host.middle, nn.Dropout(0.15))
    return Mutant(model, path if not host.sites else None, {"rows": 2_000_000_000})


def _combination() -> Iterator[Injection]:
    rule = "dropout-without-weight-decay"
    yield Injection(rule, "Adam", _trained(torch.optim.Adam))
    yield Injection(rule, "SGD", _trained(torch.optim.SGD))
    yield Injection("decay-on-norms-and-biases", "AdamW of all parameters", _decayed)
    rule = "dropout-between-softmax-and-loss"
    for name, log, loss in (
        ("softmax", False, nn.CrossEntropyLoss()),
        ("log-softmax", True, nn.NLLLoss()),
    ):
        make = lambda size, log=log: bugs.Dropped(log=log)  # noqa: E731
        yield Injection(rule, name, _at("head", make, loss=loss))
    yield Injection("label-smoothing-twice", "labels, and then a loss", _smoothed)
    yield from _everywhere(
        "heavy-dropout-beside-batch-norm",
        half_of_the_channels=lambda size: bugs.Maps(size, nn.Dropout1d(0.5), norm=True),
    )
    yield Injection("fine-tuning-rates", "on 2,000 rows", _tuned)
    yield Injection("dropout-in-massive-pretraining", "on two billion rows", _massive)


INJECTIONS = (*_mode(), *_placement(), *_rate(), *_scaling(), *_combination())
