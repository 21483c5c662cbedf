"""Sites with the passes in which they ran: what a rule follows through a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from dropkit.inspection.events import Event
from dropkit.inspection.flow import after, before, moves, step, weighs
from dropkit.inspection.mapping import grouped
from dropkit.inspection.passes import Passes
from dropkit.intercept.trace import INPUT, NOISE, Node, Trace
from dropkit.records import Site
from dropkit.records.sites import Step

_ARITHMETIC = ("add", "sub", "mul", "div", "pow", "square")
FAR = 24
"""Operations to which a way is followed: two blocks of any model, and no more."""
_TIMES = 32
"""How often a site is judged at its first calls, and how often at its last. Layers that share a
dropout are fewer; what runs more often than both is a loop over time, whose steps are alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """An operation that was reached, and how."""

    node: Node
    step: Step
    between: tuple[Node, ...] = ()
    """Operations that were passed, what only moves elements left out."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """What was passed."""
        return tuple(step(node) for node in self.between)

    @property
    def is_alone(self) -> bool:
        """Whether nothing else of the model comes into it."""
        return len(_values(self.node)) == 1

    @property
    def mixes(self) -> bool:
        """Whether something else of the model was added on the way."""
        return any(len(_values(node)) > 1 for node in self.between)

    def onward(self, *through: Step) -> Iterator[Way]:
        """Operations that its result comes to, over nothing but what is in `through`."""
        return _ways(self.node.users, lambda node: node.users, through)

    def follows(self, what: Step) -> bool:
        """Whether such an operation lies behind it, however far."""
        return any(step(node) == what for node in before(self.node))


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A site, and all times that it ran in the passes.

    What is asked of its x and its result is asked of the first time; `each` gives the others.
    """

    site: Site
    events: tuple[Event, ...]
    trace: Trace
    trained: bool
    """Whether that was in training."""

    @property
    def x(self) -> Node | None:
        """What came in at first."""
        return self.events[0].x

    @property
    def result(self) -> Node | None:
        """What went out at first."""
        return self.events[0].result

    @property
    def acts(self) -> bool:
        """Whether it dropped in training, at a rate above 0."""
        rate = self.site.rate
        return self.site.fired_in_train and (rate is None or rate > 0)

    def each(self) -> Iterator[Run]:
        """Each time that it ran in its pass, as a run of its own: the first and the last times."""
        own = [event for event in self.events if event.is_in(self.trace)] or [self.events[0]]
        own = own if len(own) <= 2 * _TIMES else [*own[:_TIMES], *own[-_TIMES:]]
        return (Run(self.site, (event,), self.trace, self.trained) for event in own)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what came in at first."""
        return self.events[0].shape

    def onward(self, *through: Step) -> Iterator[Way]:
        """Operations that its result comes to, over nothing but what is in `through`."""
        if self.result is not None:
            yield from _ways(self.result.users, lambda node: node.users, through)

    def backward(self, *through: Step) -> Iterator[Way]:
        """Operations that it came from, over nothing but what is in `through`."""
        if self.x is not None:
            yield from _ways([self.x], lambda node: node.inputs, through)

    def computed(self) -> Iterator[Way]:
        """Operations that its result comes to, over arithmetic of it with itself and numbers."""
        own = {id(node) for event in self.events[:1] for node in _given(event)}
        ways = list(self.onward("add", "residual_add", "multiply", "other"))
        rest = [way for way in ways if way.node.name.removesuffix("_") in _ARITHMETIC]
        while ready := [way for way in rest if _hangs_on(way.node, own)]:
            own.update(id(way.node) for way in ready)
            rest = [way for way in rest if way not in ready]
        return (way for way in ways if _hangs_on(way.node, own))

    def given(self) -> Iterator[Node]:
        """What it gave, each time, and what is the same with its elements moved."""
        for event in self.events:
            yield from _given(event)

    def is_given(self, node: Node) -> bool:
        """Whether a value is one that the model gave."""
        return any(node is output for output in self.trace.outputs)

    @property
    def is_output(self) -> bool:
        """Whether what it dropped is what the model gave, only moved."""
        result = self.result
        return result is not None and any(self.is_given(node) for node in _moved(result))

    @property
    def is_bypassed(self) -> bool:
        """Whether something is added to what became of its result, that does not hang on it."""
        if self.result is None:
            return False
        own = {self.result.number}
        for node in sorted(after(self.result), key=lambda node: node.number):
            own.add(node.number)
            others = [source for source in _values(node) if source.number not in own]
            if step(node) == "residual_add" and others:
                return True
        return False

    def is_made_of(self, node: Node) -> bool:
        """Whether a value hangs on what this site gave."""
        return self.result is not None and (
            node is self.result or any(other is self.result for other in before(node))
        )


def runs_of(passes: Passes, sites: Iterable[Site]) -> tuple[Run, ...]:
    """The sites that ran, in their order."""
    return tuple(
        Run(site, tuple(group.events), group.trace, group.trained)
        for site, group in zip(sites, grouped(passes), strict=False)
    )


def _given(event: Event) -> Iterator[Node]:
    if event.result is not None:
        yield from _moved(event.result)


def _hangs_on(node: Node, own: Collection[int]) -> bool:
    """Whether all that comes into it from the model is among some values."""
    return all(id(source) in own for source in _values(node))


def _moved(node: Node) -> Iterator[Node]:
    """A value, and what is the same with its elements moved."""
    ready, seen = [node], {node.number}
    while ready:
        node = ready.pop()
        yield node
        for user in reversed(node.users):
            if user.number not in seen and moves(user) and len(_values(user)) == 1:
                seen.add(user.number)
                ready.append(user)


def _values(node: Node) -> list[Node]:
    return [source for source in node.inputs if source.origin & INPUT]


def _ways(
    start: Iterable[Node], onward: Callable[[Node], Iterable[Node]], through: Collection[Step]
) -> Iterator[Way]:
    queue: deque[tuple[Node, tuple[Node, ...]]] = deque((node, ()) for node in start)
    seen: set[int] = set()
    while queue:
        node, between = queue.popleft()
        if node.number in seen or len(between) > FAR or node.is_noise or not node.origin & ~NOISE:
            continue
        seen.add(node.number)
        if moves(node):
            queue.extend((following, between) for following in onward(node))
            continue
        if weighs(node):
            continue
        here = step(node)
        yield Way(node, here, between)
        if here in through:
            queue.extend((following, (*between, node)) for following in onward(node))
