"""What others reported, to print beside our numbers; means over the splits and standard errors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    mean: float
    error: float
    """Standard error over the splits."""


@dataclass(frozen=True, slots=True)
class Published:
    title: str
    paper: tuple[str, str]
    """RMSE and log-likelihood of the paper, in its digits."""
    rmse: Score
    log_likelihood: Score


PUBLISHED = {
    "bostonHousing": Published(
        "Boston",
        ("2.97 ± 0.19", "-2.46 ± 0.06"),
        Score(2.903623, 0.176840),
        Score(-2.401936, 0.041702),
    ),
    "concrete": Published(
        "Concrete",
        ("5.23 ± 0.12", "-3.04 ± 0.02"),
        Score(4.826460, 0.160534),
        Score(-2.936656, 0.024828),
    ),
    "energy": Published(
        "Energy",
        ("1.66 ± 0.04", "-1.99 ± 0.02"),
        Score(0.538867, 0.013524),
        Score(-1.211517, 0.005319),
    ),
    "kin8nm": Published(
        "Kin8nm",
        ("0.10 ± 0.00", "0.95 ± 0.01"),
        Score(0.078899, 0.000595),
        Score(1.136426, 0.006625),
    ),
    "naval-propulsion-plant": Published(
        "Naval",
        ("0.01 ± 0.00", "3.80 ± 0.01"),
        Score(0.000743, 0.000046),
        Score(4.449543, 0.002160),
    ),
    "power-plant": Published(
        "Power",
        ("4.02 ± 0.04", "-2.80 ± 0.01"),
        Score(4.014226, 0.036771),
        Score(-2.807789, 0.008626),
    ),
    "protein-tertiary-structure": Published(
        "Protein",
        ("4.36 ± 0.01", "-2.89 ± 0.00"),
        Score(4.274228, 0.020866),
        Score(-2.871297, 0.001492),
    ),
    "wine-quality-red": Published(
        "Wine",
        ("0.62 ± 0.01", "-0.93 ± 0.01"),
        Score(0.621809, 0.007974),
        Score(-0.928090, 0.012738),
    ),
    "yacht": Published(
        "Yacht",
        ("1.11 ± 0.09", "-1.55 ± 0.03"),
        Score(0.666275, 0.048602),
        Score(-1.250148, 0.015297),
    ),
}
"""`paper` is the column "original" of the readme at commit a6259f1 of DropoutUncertaintyExps; the
others are `UCI_Datasets/*/results/log_100_xepochs_1_hidden_layers.txt` at commit 6eb4497."""
