"""Declared pre- and post-processing, as data: never code.

A model with processing has two signatures. Clients send and get the *outer* one (an encoded
image, a sentence; a label); the engine has the *inner* one (matrices of numbers). The manifest
lists the steps between the two, complete in every detail, so that nothing is guessed when the
model is served::

    {"inputs": [{"kind": "image", …}], "outputs": [{"kind": "labels", …}], "signature": inner, …}

In a declaration, before it is fitted to a model, fields that the model itself tells (sizes,
element types, names) may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modelport.core.errors import InputError, ModelportError
from modelport.core.signature import Signature
from modelport.core.step_reader import as_list, as_object, as_type, check_keys, read_step
from modelport.core.steps import INPUT_STEPS, OUTPUT_STEPS, InputStep, LabelsStep, Step

#: Where files of steps stand in a package.
PROCESSING_FOLDER: Final = "processing"


@dataclass(frozen=True)
class Processing:
    """All steps of a model.

    Parameters
    ----------
    inputs : tuple of InputStep
        Model inputs that no step makes are sent by clients as they are.
    outputs : tuple of LabelsStep
    signature : Signature or None
        The model's own, inside; None in a declaration.
    proven : bool
        Whether the golden records are what clients send, so that replaying them proves the
        steps as well; False: they are the model's own tensors.
    """

    inputs: tuple[InputStep, ...] = ()
    outputs: tuple[LabelsStep, ...] = ()
    signature: Signature | None = None
    proven: bool = False

    @property
    def steps(self) -> tuple[Step, ...]:
        """Inputs, then outputs."""
        return (*self.inputs, *self.outputs)

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the package that the steps need."""
        named = (getattr(step, "file", "") for step in self.inputs)
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def steady(self) -> bool:
        """Whether one row costs about as much as another."""
        return all(step.steady for step in self.steps)

    def describe(self) -> list[str]:
        """One line per step, for people."""
        return [step.describe() for step in self.steps]

    def to_json(self) -> dict[str, Any]:
        """The plain form that the manifest stores."""
        plain: dict[str, Any] = {
            "inputs": [step.to_json() for step in self.inputs],
            "outputs": [step.to_json() for step in self.outputs],
        }
        if self.signature is not None:
            plain["signature"] = self.signature.to_json()
            plain["proven"] = self.proven
        return plain

    @classmethod
    def from_json(cls, plain: Any) -> Processing:
        """The inverse of `to_json`.

        Raises
        ------
        InputError
            For anything that is not exactly what the steps know, with its place.
        """
        document = as_object(plain, "processing")
        check_keys(document, ("inputs", "outputs", "signature", "proven"), "processing")
        signature = document.get("signature")
        proven = as_type(document.get("proven", False), bool, "proven")
        if proven and signature is None:
            raise InputError("only a packed processing can be proven", where="proven")
        return cls(
            inputs=_steps(document.get("inputs", []), INPUT_STEPS, "inputs"),
            outputs=_steps(document.get("outputs", []), OUTPUT_STEPS, "outputs"),
            signature=None if signature is None else _signature(signature),
            proven=proven,
        )


@dataclass(frozen=True)
class Declaration:
    """Processing that a user wants, with the files that it names.

    Parameters
    ----------
    processing : Processing
    files : mapping of str to bytes
        By the names that they will have in the package.
    """

    processing: Processing
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def _steps(plain: Any, kinds: Mapping[str, Any], where: str) -> tuple[Any, ...]:
    steps = []
    for position, item in enumerate(as_list(plain, where)):
        place = f"{where}[{position}]"
        document = dict(as_object(item, place))
        kind = document.pop("kind", None)
        if not isinstance(kind, str) or kind not in kinds:
            raise InputError(f"not a kind of step: {kind!r}; there is: {', '.join(kinds)}",
                             where=f"{place}.kind")  # fmt: skip
        steps.append(read_step(kinds[kind], document, place))
    return tuple(steps)


def _signature(value: Any) -> Signature:
    try:
        return Signature.from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not a signature: {error!r}", where="signature") from error
    except ModelportError as error:
        raise InputError(f"not a signature: {error.line}", where="signature") from error
