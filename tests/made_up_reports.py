"""Reports that no audit made, with what an audit could find at worst."""

from __future__ import annotations

from dataclasses import replace

from dropkit.records import Edit, Finding, Measured, Neighbour, Place, Report, Site, SourceEdit

HOSTILE = "\x1b[31m<script>alert('x')</script>\r\n::error::]]>&\u202e\ud800\x00\x85" + "long " * 500
"""What a name, a message or a line may hold: steering, markup, commands, and no end."""

ATTENTION = Site(
    path="h.0.attn",
    owner="Attention",
    kind="attention",
    role="attention",
    rate=0.1,
    place=Place("src/net.py", 212, "forward"),
    operation="scaled_dot_product_attention",
    fired_in_train=True,
    fired_in_eval=True,
    bypassed=False,
    shape=(8, 12, 128, 64),
    calls=1,
    holder="h.0.attn.p",
    measured=Measured(98304, 9830, 10 / 9, 0.0, 1.0),
    fed_by=(Neighbour("softmax", "_softmax", "h.0.attn", 1, (8, 12, 128, 128)),),
)
DROPOUT = replace(
    ATTENTION, path="head.1", owner="Dropout", kind="dropout", role="head", rate=0.9,
    operation="dropout", fired_in_eval=False, place=Place("src/net.py", 41, "forward", 9),
)  # fmt: skip
IDLE = replace(
    DROPOUT, path="pool", kind="mask", rate=None, ran=False, fired_in_train=False, place=None,
    measured=Measured(0, 0, float("nan"), 0.0, float("inf")), fed_by=(),
)  # fmt: skip
LAYERS = tuple(replace(ATTENTION, path=f"h.{number}.attn") for number in range(12))


def always_on(site: Site) -> Finding:
    return Finding(
        "always-on-dropout",
        "DK101",
        "error",
        f"dropout at rate {site.rate} acts in evaluation mode",
        "two outputs differ by up to 0.31",
        site,
        site.path,
        site.place,
        Edit("set", f"{site.path}.p", "0.0", says="pass training=self.training"),
    )


KNOB = Finding("one-knob-for-unlike-roles", "DK305", "note", "One setting feeds 12 sites.")
UNKNOWN = Finding("of-a-later-version", "DK999", "warning", "Something else.", path="head.1")

MODEL = Report(
    target="Net of net.py:Net",
    findings=(*map(always_on, LAYERS), UNKNOWN, KNOB),
    judged=("always-on-dropout", "dropout-twice", "one-knob-for-unlike-roles"),
    not_applicable=(
        ("decay-on-norms-and-biases", "no optimizer was given"),
        ("dropout-without-weight-decay", "no optimizer was given"),
        ("label-smoothing-twice", "no loss was given"),
    ),
    unseen=("pool: the forward pass does not come to it",),
    sites=(*LAYERS, DROPOUT, IDLE),
    allowed=(KNOB,),
)
SOURCE = Report(
    target="src",
    findings=(
        Finding(
            "always-on-dropout",
            "DK101",
            "error",
            "F.dropout(x, 0.5) has no training=: it drops in evaluation too",
            "x = F.dropout(x, 0.5)",
            place=Place("src/net.py", 41, "forward", 13),
            edit=SourceEdit("src/net.py", ((120, 120, ", training=self.training"),)),
        ),
        Finding(
            "keep-probability-as-rate",
            "DK302",
            "warning",
            "80 % are dropped",
            place=Place("src/a b%.py", 7),
        ),
    ),
    judged=("always-on-dropout", "keep-probability-as-rate"),
    not_applicable=(),
    unseen=("src/broken.py: line 3 is no Python",),
)
EMPTY = Report("Net", (), (), ())
CLEAN = Report("Net", (), ("always-on-dropout",), (), sites=(DROPOUT,))
WICKED = Report(
    target=HOSTILE,
    findings=(
        Finding(
            "always-on-dropout",
            "DK101",
            "error",
            HOSTILE,
            HOSTILE,
            replace(ATTENTION, path=HOSTILE, owner=HOSTILE, place=Place(HOSTILE, 0)),
            HOSTILE,
            Place(HOSTILE, -3),
            Edit("set", HOSTILE, HOSTILE, says=HOSTILE),
        ),
        Finding(HOSTILE, HOSTILE, "note", HOSTILE, place=Place(HOSTILE, 1)),
    ),
    judged=("always-on-dropout", HOSTILE),
    not_applicable=((HOSTILE, HOSTILE),),
    unseen=(HOSTILE,),
    sites=(replace(ATTENTION, path=HOSTILE, owner=HOSTILE),),
    allowed=(Finding(HOSTILE, HOSTILE, "note", ""),),
)
REPORTS = {
    "model": MODEL,
    "source": SOURCE,
    "empty": EMPTY,
    "clean": CLEAN,
    "wicked": WICKED,
}
