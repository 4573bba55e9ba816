"""In what form a network is handed out, and what the file says of itself."""

import json
from typing import Any, Literal, NamedTuple, get_args

from tutelage.data.photographs import Rule
from tutelage.errors import CheckpointError, SettingError, one_of
from tutelage.types import InputSpec

__all__ = ["MOST_AT_ONCE", "About", "Form", "Precision", "Target"]

Target = Literal["onnx", "executorch", "torch"]
Precision = Literal["fp32", "fp16", "int8"]

MOST_AT_ONCE = 4096
"""Pictures in a batch of any size."""

_MOST_PIXELS = 1 << 16
"""Of a picture's side."""

_SUFFIX: dict[Target, str] = {"onnx": ".onnx", "executorch": ".pte", "torch": ".pt2"}


class Form(NamedTuple):
    """What is asked for.

    Attributes:
        target: the runtime.
        precision: of weights and of what is computed; what goes in and comes out is float32.
        batch: pictures at a time; None: any number up to `MOST_AT_ONCE`, but for ExecuTorch, which
            plans its memory when the file is written, one.
        normalized: pictures come normalized, because whoever calls the file does that; else they
            are pixels in [0, 1], and the file normalizes them itself.
    """

    target: Target = "onnx"
    precision: Precision = "fp32"
    batch: int | None = None
    normalized: bool = False

    @property
    def name(self) -> str:
        """What tells it from others.

        >>> Form("onnx", "int8", batch=1).name
        'onnx-int8-batch1'
        """
        parts: list[str] = [self.target, self.precision]
        usual = 1 if self.target == "executorch" else None
        parts += [] if self.batch in (None, usual) else [f"batch{self.batch}"]
        parts += ["normalized"] if self.normalized else []
        return "-".join(parts)

    @property
    def file(self) -> str:
        """The file's name."""
        return f"model{_SUFFIX[self.target]}"

    def check(self) -> "Form":
        """Itself, or what is meant by it.

        Raises:
            SettingError: there is no such form.
        """
        one_of("target", self.target, get_args(Target), SettingError)
        one_of("precision", self.precision, get_args(Precision), SettingError)
        if self.batch is not None and not 1 <= self.batch <= MOST_AT_ONCE:
            raise SettingError(
                f"A batch is of 1 to {MOST_AT_ONCE:,} pictures, but {self.batch} are asked for. "
                "Leave it out to take any number."
            )
        if self.target == "torch" and self.precision == "int8":
            raise SettingError(
                "int8 is for onnx and executorch, whose runtimes compute with whole numbers. Name "
                "one of them, or another precision."
            )
        if self.target == "executorch" and self.batch is None:
            return self._replace(batch=1)
        return self


class About(NamedTuple):
    """What a file says of the network in it, so that it can be asked without its run.

    Attributes:
        name: of the network.
        subnet: of one with sub-nets, which of them this is.
        classes: their names; none if they are not known.
        spec: what the network wants to be shown.
        rule: how a file becomes a picture.
        form: of the file.
        weights: digest of the network's weights.
        made_by: version of this package.
    """

    name: str
    subnet: str | None
    classes: tuple[str, ...]
    spec: InputSpec
    rule: Rule
    form: Form
    weights: str
    made_by: str

    @property
    def shown(self) -> InputSpec:
        """What the file wants to be shown: the network's, unless it normalizes by itself."""
        return self.spec if self.form.normalized else self.spec.plain()

    def to_json(self) -> str:
        """For the file."""
        parts = {"spec": self.spec, "form": self.form, "rule": self.rule}
        values = self._asdict() | {name: part._asdict() for name, part in parts.items()}
        return json.dumps(values)

    def checked(self) -> "About":
        """Itself, if it can be: a file may say anything.

        Raises:
            ValueError: it says what cannot be.
        """
        spec, rule = self.spec, self.rule
        counts = [spec.height, spec.width, spec.channels, rule.size, rule.side]
        texts = [self.name, self.weights, self.made_by, *self.classes]
        numbers = [*spec.mean, *spec.std]
        sound = (
            all(type(count) is int and 1 <= count <= _MOST_PIXELS for count in counts)
            and all(isinstance(text, str) for text in texts)
            and isinstance(self.subnet, str | None)
            and all(isinstance(number, int | float) for number in numbers)
            and len(spec.mean) == len(spec.std) == spec.channels
            and all(std > 0 for std in spec.std)
            and rule.size <= rule.side
            and rule.channels in (1, 3)
            and type(self.form.batch) in (int, type(None))
            and isinstance(self.form.normalized, bool)
        )
        if not sound:
            raise ValueError("no network can be like that")
        return self

    @classmethod
    def from_json(cls, text: str, where: str) -> "About":
        """Of a file.

        Args:
            where: for the error.

        Raises:
            CheckpointError: this is no such text.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            spec = values["spec"]
            known = {key: tuple(spec[key]) for key in ("mean", "std")}
            return cls(
                **values
                | {
                    "classes": tuple(values["classes"]),
                    "spec": InputSpec(**spec | known),
                    "rule": Rule(**values["rule"]),
                    "form": Form(**values["form"]).check(),
                }
            ).checked()
        except (KeyError, TypeError, ValueError, SettingError):
            raise CheckpointError(
                f"{where} does not say what network it holds, so it was not written by this "
                "version of `tutelage export`. Export it anew."
            ) from None
