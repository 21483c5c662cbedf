"""Models of Transformers, made from their configuration alone, without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkit.apps.targets.inputs import sized, values
from dropkit.apps.targets.target import Inputs, Target
from dropkit.apps.targets.telling import last_line
from dropkit.errors import InputError, MissingExtraError
from dropkit.inspection.showing import printable

if TYPE_CHECKING:
    from torch import nn

BATCH, LENGTH = 2, 16
"""Of guessed inputs: more than one of each, so that what is shared along an axis can be seen."""
REAL = 50_000_000
"""Parameters up to which `auto` makes real weights, so that masks can be counted."""


def transformers_target(path: Path, *, device: str) -> Target:
    """The model of a config.json, or of a folder with one; no weights are read, no code of others.

    Raises:
        InputError: it is no configuration of Transformers, or no model can be made from it.
        MissingExtraError: the package transformers is not installed.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"expected JSON in {printable(file)}; {printable(error)}") from error
    if not isinstance(content, dict) or "model_type" not in content:
        raise InputError(
            f"expected a configuration of Transformers in {printable(file)}, which names its "
            "model_type; it has none"
        )
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "a config.json needs the package transformers, which is not installed; "
            "try: pip install transformers"
        ) from error
    config, kind, notes = _understood(transformers, content, file)
    model, is_meta = _built(config, kind, device)
    where = "on meta tensors" if is_meta else "with random weights"
    return Target(
        f"{type(model).__name__} of {printable(path, 120)}, {where}",
        model,
        _inputs(model, config),
        notes,
        str(file),
    )


def _understood(
    transformers: Any, content: dict[str, Any], file: Path
) -> tuple[Any, Any, tuple[str, ...]]:
    """The configuration, the class of its model, and what a person should know."""
    notes: tuple[str, ...] = ()
    if "auto_map" in content:
        notes = (
            f"code that comes with {printable(file, 80)}: it is not run; the model of that "
            "model_type in Transformers is judged instead",
        )
    kept = {
        name: value for name, value in content.items() if name not in ("auto_map", "model_type")
    }
    try:
        config = transformers.AutoConfig.for_model(str(content["model_type"]), **kept)
    except Exception as error:  # a configuration may be wrong in any way
        raise InputError(
            f"Transformers {transformers.__version__} makes no configuration of "
            f"{printable(file)}: {last_line(error)}"
        ) from error
    return config, _class(transformers, content.get("architectures")), notes


def _class(transformers: Any, names: Any) -> Any:
    """The class that the configuration names; the plain model where it names none of these."""
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    try:
        kind = getattr(transformers, name) if name.isidentifier() else None
    except AttributeError:
        kind = None
    except ImportError as error:  # what the class is made of is not there
        raise InputError(
            f"Transformers cannot give {printable(name)}: {last_line(error)}"
        ) from error
    known = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    return kind if known else transformers.AutoModel


def _built(config: Any, kind: Any, device: str) -> tuple[nn.Module, bool]:
    import torch

    make = kind.from_config if hasattr(kind, "from_config") else kind._from_config
    try:
        if device != "real":
            with torch.device("meta"):
                model = make(config)
            size = sum(parameter.numel() for parameter in model.parameters())
            if device == "meta" or size > REAL:
                return model, True
        return make(config), False
    except Exception as error:  # a configuration may contradict itself in any way
        raise InputError(f"the model cannot be made: {last_line(error)}") from error


def _inputs(model: Any, config: Any) -> Inputs | None:
    """What its main input looks like, as its configuration has it."""
    import torch

    device = next((p.device.type for p in model.parameters()), "cpu")
    text = config.get_text_config()
    size = int(getattr(text, "vocab_size", 0) or 0)
    name = str(getattr(model, "main_input_name", "input_ids"))
    shape, is_ids = _main_shape(name, config, text)
    if shape is None:
        return None
    bound = max(size, 2)
    dtype = torch.int64 if is_ids else torch.float32
    given = {name: values(shape, dtype, bound, device)}
    if getattr(config, "is_encoder_decoder", False) and hasattr(model, "get_decoder"):
        given["decoder_input_ids"] = values((BATCH, LENGTH), torch.int64, bound, device)
    said = ", ".join(f"{key}={sized(value.shape)}" for key, value in given.items())
    return Inputs((), given, said)


def _main_shape(name: str, config: Any, text: Any) -> tuple[tuple[int, ...] | None, bool]:
    """(shape, whether it is of token ids) of the main input; None where it is not known."""
    if name == "input_ids":
        most = getattr(text, "max_position_embeddings", None) or LENGTH
        return (BATCH, min(LENGTH, int(most))), True
    if name == "pixel_values":
        vision = getattr(config, "vision_config", config)
        side = getattr(vision, "image_size", 224) or 224
        height, width = side if isinstance(side, list | tuple) else (side, side)
        return (BATCH, int(getattr(vision, "num_channels", 3) or 3), int(height), int(width)), False
    if name == "input_values":
        return (BATCH, 16_000), False
    if name == "input_features":
        bins = int(getattr(config, "num_mel_bins", 80) or 80)
        steps = 2 * int(getattr(config, "max_source_positions", 0) or 100)
        return (BATCH, bins, steps), False
    return None, False
