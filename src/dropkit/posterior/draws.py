"""What came of many passes: their mean, how far they differ, and how certain either is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior import montecarlo, pictures, quantities, tables
from dropkit.posterior.entropies import Outputs, log_probabilities, wide
from dropkit.posterior.leaves import (
    Kept,
    Leaf,
    Streamed,
    check_classes,
    check_probabilities,
    form_of,
)
from dropkit.posterior.soundness import (
    check_counts,
    check_outputs,
    refuse_ragged,
    warn_of_unsound,
)
from dropkit.posterior.trees import Flat, child, flatten, stacked

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Draws:
    """The draws of a prediction, or their moments.

    A quantity has the structure of the outputs: of a tensor it is a tensor, in float64; of a
    mapping it is a mapping. `draws["logits"]` are the draws of a part. What is no tensor stays as
    it was.
    """

    __slots__ = ("_class_axis", "_flat", "_key", "_noise", "_outputs", "_ragged", "_sites")

    def __init__(
        self,
        flat: Flat,
        outputs: str,
        class_axis: int,
        key: int,
        sites: Sequence[Any],
        noise: Tensor | None = None,
        ragged: Sequence[Any] | None = None,
    ) -> None:
        """Of leaves that are made; a user calls `of`."""
        self._flat, self._outputs, self._class_axis = flat, outputs, class_axis
        self._key, self._sites, self._noise = key, tuple(sites), noise
        self._ragged = None if ragged is None else tuple(ragged)

    @classmethod
    def of(
        cls,
        samples: Any,
        *,
        outputs: Outputs = "values",
        class_axis: int = -1,
        key: int = 0,
        sites: Sequence[Any] = (),
    ) -> Draws:
        """The draws that tensors hold along their first axis.

        Args:
            samples: a tensor of shape (T, ...), or a mapping, sequence or dataclass of such.
            outputs: what the numbers are: "values", as in regression; "logits" or "probabilities"
                of classes. Never guessed.
            class_axis: the axis of the classes in one draw, without T.
            key: the key that the draws are named by.
            sites: the sites that were sampled.

        Raises:
            SettingError: no tensor, no draw, different numbers of draws, or probabilities that are
                none.

        Warns:
            DropkitWarning: NaN or infinity in some draws.

        >>> draws = Draws.of(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        >>> draws.mean, draws.std
        (tensor([1., 1.], dtype=torch.float64), tensor([1.4142, 0.0000], dtype=torch.float64))
        """
        check_outputs(outputs)
        flat = flatten(samples)
        check_counts(flat)
        leaves = []
        for name, leaf in zip(flat.names, flat.leaves, strict=True):
            if isinstance(leaf, Tensor):
                form = form_of(leaf, outputs, class_axis, name)
                warn_of_unsound(leaf, form)
                check_probabilities(leaf, form)
                leaf = Kept(leaf, form)
            leaves.append(leaf)
        return cls(Flat(tuple(leaves), flat.names, flat.refill), outputs, class_axis, key, sites)

    @classmethod
    def gather(cls, draws: Sequence[Any], **options: Any) -> Draws:
        """Draws that were made one by one, stacked if their shapes agree.

        Where they do not, as with texts of different lengths, `samples` is the list of them, and
        no quantity is computed; a part whose shapes agree has its own.

        Args:
            draws: T outputs, each a tensor or a tree of tensors.
            options: as in `of`.

        Raises:
            SettingError: no draw, or outputs of different structures.

        >>> Draws.gather([torch.zeros(3), torch.ones(3)]).mean
        tensor([0.5000, 0.5000, 0.5000], dtype=torch.float64)
        """
        flat, fits = stacked(draws)
        if fits:
            return cls.of(flat.refill(flat.leaves), **options)
        outputs = options.get("outputs", "values")
        check_outputs(outputs)
        return cls(
            flat, outputs, options.get("class_axis", -1), options.get("key", 0),
            options.get("sites", ()), ragged=draws,
        )  # fmt: skip

    # ---- what there is

    @property
    def count(self) -> int:
        """How many draws there are, T."""
        return len(self._ragged) if self._ragged is not None else self._leaves()[0].count

    @property
    def outputs(self) -> str:
        """What the numbers are: "values", "logits" or "probabilities"."""
        return self._outputs

    @property
    def class_axis(self) -> int:
        """The axis of the classes in one draw."""
        return self._class_axis

    @property
    def key(self) -> int:
        """The key that the draws are named by."""
        return self._key

    @property
    def sites(self) -> tuple[Any, ...]:
        """The sites that were sampled."""
        return self._sites

    @property
    def noise(self) -> Tensor | None:
        """The variance of what the outputs do not explain, if it was given."""
        return self._noise

    @property
    def samples(self) -> Any:
        """The draws as they were given, along the first axis.

        Raises:
            SettingError: only their moments were kept.
        """
        if self._ragged is not None:
            return list(self._ragged)
        return self._each(lambda leaf: leaf.kept)

    def __getitem__(self, at: int | str) -> Draws:
        """The draws of one part of the outputs, by its key, field or place.

        >>> Draws.of({"logits": torch.zeros(5, 2)}, outputs="logits")["logits"].count
        5
        """
        options: dict[str, Any] = {"class_axis": self._class_axis, "key": self._key}
        if self._ragged is not None:
            parts = [child(one, at) for one in self._ragged]
            options |= {"outputs": self._outputs, "sites": self._sites}
            return Draws.gather(parts, **options)
        part = flatten(child(self._flat.refill(range(len(self._flat.leaves))), at))
        leaves = tuple(self._flat.leaves[number] for number in part.leaves)
        if not any(isinstance(leaf, Kept | Streamed) for leaf in leaves):
            raise SettingError(f"draws[{at!r}]: expected a part with tensors; got one without")
        flat = Flat(leaves, part.names, part.refill)
        return Draws(flat, self._outputs, sites=self._sites, **options)

    def __repr__(self) -> str:
        if self._ragged is not None:
            return f"Draws({self.count} draws of different shapes)"
        parts = ", ".join(
            f"{leaf.form.name.strip('[].') or 'shape'} {leaf.form.shape}" for leaf in self._leaves()
        )
        left = "" if isinstance(self._leaves()[0], Kept) else ", moments only"
        return f"Draws({self.count} draws of {self._outputs}: {parts}{left})"

    # ---- of any outputs

    @property
    def mean(self) -> Any:
        """Mean over draws."""
        return self._estimate("mean")

    @property
    def var(self) -> Any:
        """Unbiased variance over draws."""
        return self._estimate("var")

    @property
    def std(self) -> Any:
        """Square root of the unbiased variance over draws."""
        return self._estimate("std")

    def quantile(self, q: float) -> Any:
        """The quantile of the draws, linear between the two nearest; the draws must be kept.

        >>> Draws.of(torch.arange(5.0).view(5, 1)).quantile(0.5)
        tensor([2.], dtype=torch.float64)
        """
        quantities.check_share(q)
        return self._estimate("quantile", q)

    def interval(self, level: float = 0.9) -> tuple[Any, Any]:
        """The quantiles between which a share of the draws lies.

        It holds draws of the model's output, and need not hold the target in as many cases: for
        that, see `dropkit.posterior.conformal`.
        """
        low, high = montecarlo.ends(level)
        return self.quantile(low), self.quantile(high)

    # ---- of classes

    @property
    def probabilities(self) -> Any:
        """Mean over draws of the probabilities; those of logits are their softmax."""
        return self._estimate("probabilities")

    @property
    def entropy(self) -> Any:
        r"""Predictive entropy in nats, all uncertainty: :math:`H(\frac1T \sum_t p_t)`."""
        return self._estimate("entropy")

    @property
    def expected_entropy(self) -> Any:
        r"""What is uncertain within a draw, in nats: :math:`\frac1T \sum_t H(p_t)`."""
        return self._estimate("expected_entropy")

    @property
    def mutual_information(self) -> Any:
        """What the draws disagree on, in nats: the entropy less the expected one (BALD)."""
        return self._estimate("mutual_information")

    @property
    def variation_ratio(self) -> Any:
        """The share of draws whose class, or token, is not the most frequent one."""
        return self._estimate("variation_ratio")

    # ---- where it comes from

    @property
    def epistemic(self) -> Any:
        """What the draws disagree on: of values the variance, of classes the mutual information."""
        return self._estimate("epistemic")

    @property
    def aleatoric(self) -> Any:
        """What is uncertain within a draw: of values the noise, of classes the expected entropy.

        Raises:
            SettingError: values whose noise was not given.
        """
        if self._outputs != "values":
            return self.expected_entropy
        if self._noise is None:
            raise SettingError(
                "aleatoric: expected the variance of the noise, which draws of values do not "
                "hold; got none. Try draws.with_noise(variance), with a variance that the model "
                "predicts, or dropkit.posterior.calibration.noise_variance(draws, targets)"
            )
        return self._noise

    def with_noise(self, variance: float | Tensor) -> Draws:
        """The same draws of values, and the variance of what they do not explain.

        Args:
            variance: 0 or more; a number, or a tensor that broadcasts to one draw, as the mean
                over draws of the variance that a model predicts.

        Raises:
            SettingError: classes, several parts, a negative variance or one of another shape.

        >>> Draws.of(torch.zeros(4, 2)).with_noise(0.25).aleatoric
        tensor([0.2500, 0.2500], dtype=torch.float64)
        """
        form = self.single.form
        if form.outputs != "values":
            raise SettingError(f"with_noise: expected draws of values; got {form.outputs}")
        given = wide(torch.as_tensor(variance, dtype=torch.float64))
        if not bool((given >= 0).all()):
            raise SettingError(f"variance: expected 0 or more; got {float(given.min())}")
        try:
            noise = given.broadcast_to(form.shape)
        except RuntimeError as error:
            raise SettingError(
                f"variance: expected a shape that broadcasts to one draw's, {form.shape}; got "
                f"{tuple(given.shape)}"
            ) from error
        return Draws(
            self._flat, self._outputs, self._class_axis, self._key, self._sites, noise
        )  # fmt: skip

    def tempered(self, temperature: float) -> Draws:
        """The draws with logits divided by a temperature; of probabilities the like of it.

        Args:
            temperature: above 0; above 1 softens. `dropkit.posterior.calibration.temperature`
                finds it.

        Raises:
            SettingError: values, or draws that were not kept; a temperature that is not above 0.

        >>> draws = Draws.of(torch.tensor([[0.0, 4.0]]), outputs="logits")
        >>> draws.tempered(2.0).samples
        tensor([[0., 2.]])
        """
        if not 0 < temperature < float("inf"):
            raise SettingError(f"temperature: expected a number above 0; got {temperature}")

        def soften(leaf: Leaf) -> Tensor:
            check_classes(leaf.form)
            if leaf.form.outputs == "logits":
                return leaf.kept / temperature
            logs = log_probabilities(leaf.kept, "probabilities", leaf.form.axis)
            return (logs / temperature).softmax(-1).movedim(-1, leaf.form.axis)

        return Draws.of(
            self._each(soften), outputs=self._outputs, class_axis=self._class_axis,  # type: ignore[arg-type]
            key=self._key, sites=self._sites,
        )  # fmt: skip

    # ---- how certain it is

    def error(self, name: str, *args: float) -> Any:
        """The Monte Carlo standard error of a quantity: how far more draws might move it.

        Args:
            name: "mean", "var", "std", "quantile", "interval", "probabilities", "entropy",
                "expected_entropy", "mutual_information", "variation_ratio", "epistemic" or
                "aleatoric".
            args: what the quantity is asked with: `error("quantile", 0.9)`.

        Raises:
            SettingError: another name, too few draws, or a quantity that these draws lack.

        >>> Draws.of(torch.tensor([[1.0], [3.0]])).error("mean")
        tensor([1.], dtype=torch.float64)
        """
        if name == "interval":
            low, high = montecarlo.ends(*args or (0.9,))
            return self.error("quantile", low), self.error("quantile", high)
        if name == "quantile":
            quantities.check_share(*args)
        found = quantities.error(name, self._outputs)
        return self._each(lambda leaf: found(leaf, *args))

    # ---- to look at

    def to_frame(self) -> DataFrame:
        """A pandas table with a row for each row of the batch, the first axis of one draw.

        Of values: mean, std, low and high (the 90 % interval, where draws were kept). Of classes:
        prediction, the probability of each, entropy, mutual_information and variation_ratio. Where
        there are several outputs, each column has its name or place behind it.

        Raises:
            MissingExtraError: pandas is not installed.

        >>> list(Draws.of(torch.zeros(4, 2)).to_frame().columns)
        ['mean', 'std', 'low', 'high']
        """
        self._refuse_ragged()
        return tables.frame(self._leaves())

    def plot(self, kind: str, targets: Tensor, **options: Any) -> Figure:
        """A picture of the draws beside what was true.

        Args:
            kind: "reliability" of classes; "intervals" of values; "risk_coverage" or
                "sparsification" of either.
            targets: true values of the shape of one draw, or true classes without the class axis.
            options: as the functions of that name in `dropkit.posterior.pictures` take them.

        Raises:
            SettingError: another kind, or one that does not fit the outputs.
            MissingExtraError: matplotlib is not installed.
        """
        return pictures.draw(kind, self, targets, **options)

    # ---- within

    @property
    def single(self) -> Leaf:
        """The draws of the one tensor that there is.

        Raises:
            SettingError: the outputs have several.
        """
        self._refuse_ragged()
        leaves = self._leaves()
        if len(leaves) > 1:
            names = ", ".join(f"draws{leaf.form.name}" for leaf in leaves)
            raise SettingError(f"draws: expected those of one tensor; got several. Try {names}")
        return leaves[0]

    def _leaves(self) -> list[Leaf]:
        return [leaf for leaf in self._flat.leaves if isinstance(leaf, Kept | Streamed)]

    def _estimate(self, name: str, *args: float) -> Any:
        found = quantities.estimate(name, self._outputs)
        return self._each(lambda leaf: found(leaf, *args))

    def _each(self, ask: Callable[[Leaf], Tensor]) -> Any:
        self._refuse_ragged()
        return self._flat.refill(
            [ask(leaf) if isinstance(leaf, Kept | Streamed) else leaf for leaf in self._flat.leaves]
        )

    def _refuse_ragged(self) -> None:
        if self._ragged is not None:
            refuse_ragged(self._ragged)
