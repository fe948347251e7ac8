"""The changes of an experiment: from a request to patches, and to the lines of Python that do the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..inside.patches import Change, Patcher, put, scale, zero
from ..inside.watcher import observed_by
from ..params import Array

How = Literal["zero", "scale", "put"]


class Edit(NamedTuple):
    """A change of one array, as a request has it."""

    name: str  # of the array, as in a trace
    how: How
    factor: float = 0.0  # of `scale`
    text: str = ""  # of `put`: the text whose value is put there
    head: int | None = None  # None for all
    position: int | None = None  # in the pass; None for all

    def change(self, value_of: Callable[[str, str], Array]) -> Change:
        """The change for `patch`.

        Args:
            value_of: the array of a name, in a pass over a text.
        """
        places = {"head": self.head, "position": self.position}
        if self.how == "put":
            return put(value_of(self.name, self.text), **places)
        return scale(self.factor, **places) if self.how == "scale" else zero(**places)

    def python(self, values: str) -> str:
        """The change in Python.

        Args:
            values: the variable that has the value of another text.
        """
        places = {"head": self.head, "position": self.position}
        given = [f"{name}={place}" for name, place in places.items() if place is not None]
        first = {"put": [f"{values}[{self.name!r}]"], "scale": [repr(self.factor)], "zero": []}[self.how]
        arguments = ", ".join([*first, *given])
        return f"{self.how}({arguments})" if arguments else self.how


@contextlib.contextmanager
def patched(edits: Sequence[Edit], value_of: Callable[[str, str], Array]) -> Iterator[None]:
    """Within this context, passes are computed with the changes. One that makes no difference is not worth a word.

    Raises:
        ValueError: there is no such array, it has no such head or position, or a value of another text does not fit.
    """
    patchers = [Patcher({edit.name: edit.change(value_of)}) for edit in edits]
    with contextlib.ExitStack() as stack:
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))  # what overflows is shown
        for patcher in patchers:
            stack.enter_context(observed_by(patcher))
        yield
    for patcher in patchers:
        patcher.check_used()


def python(edits: Sequence[Edit], model: str, text: str, position: int, n_unseen: Callable[[str], int]) -> str:
    """A program that makes the changes and prints what is likeliest to come after a position.

    Args:
        edits: the changes.
        model: the name of the model.
        text: what is read.
        position: that of a token in the pass.
        n_unseen: how many tokens at the beginning of a text are not read.
    """

    def ids(text: str) -> str:
        n = n_unseen(text)
        return f"model.tokenizer.encode({text!r})" + (f"[{n}:]" if n else "")

    lines = ["import numpy_gpt2", "from numpy_gpt2 import layers"]
    if edits:
        lines.append(f"from numpy_gpt2.inside import {', '.join(sorted({edit.how for edit in edits}))}")
    lines += ["", f"model = numpy_gpt2.load({model!r})", f"ids = {ids(text)}"]
    patches = []
    for i, edit in enumerate(edits):
        if edit.how == "put":
            lines += [f"with numpy_gpt2.trace({edit.name!r}) as other_{i}:", f"    model.logits({ids(edit.text)})"]
        patches.append(f"numpy_gpt2.patch({{{edit.name!r}: {edit.python(f'other_{i}')}}})")
    logits = f"logits = model.logits(ids)[{position}]  # scores of what follows token {position}"
    lines += [f"with {', '.join(patches)}:", f"    {logits}"] if patches else [logits]
    return "\n".join([*lines, *PRINT, ""])


PRINT = [
    "probabilities = layers.softmax(logits)",
    "for id in (-probabilities).argsort()[:10].tolist():",
    "    print(repr(model.tokenizer.decode([id])), round(float(probabilities[id]), 4))",
]
