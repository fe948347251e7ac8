"""Answers for the view "Look inside": what is in a pass over a text, and what a change does to it, as plain data."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from .. import checks, layers, model, sampling
from ..cache import Past
from ..decoding import prefill, prompts
from ..gpt2 import GPT2
from ..inside import experiments, tables
from ..inside.explanation import Explanation, explain
from ..inside.operands import Number
from ..inside.recorder import Step, Trace, trace
from ..inside.source import Code, functions_in
from ..inside.watcher import Observer, Pass, Seen, matches, observed_by
from ..machine.backend import to_host
from ..params import Array
from ..tokenizer import Tokenizer
from . import changes as edits
from . import reading
from .arrays import Head, axes, of_head, picture, relative_distance, statistics
from .changes import Edit
from .reading import Line

T = TypeVar("T")

N_KEPT = 2  # recordings, that of a block and that of what is outside: other arrays of the block need no new pass
BYTES_AT_ONCE = 2**29  # of recorded arrays, where all arrays of two passes are compared

OUTSIDE = ["x", "ln_f", "ln_f/*", "logits"]  # arrays outside of the blocks


class Looking:
    """Answers what is inside a model, in passes that are computed when they are asked for.

    A text is read from the first of its newest tokens that fit into the context. Each method is a kind of request; its
    arguments are the fields, as `fields` says. `changes` are made to the pass, as by `numpy_gpt2.patch`.

    Args:
        gpt2: a model with a vocabulary.
        in_turns: takes the steps of a computation, each of them in a turn of its own.

    Attributes:
        name: that of the model.
    """

    def __init__(self, gpt2: GPT2, in_turns: Callable[[Iterator[Any]], Iterator[Any]]) -> None:
        self.name = gpt2.name
        self._model, self._in_turns = gpt2, in_turns
        self._tokenizer: Tokenizer = prompts.require(gpt2.tokenizer)
        self._n_head, self._n_layer = gpt2.hparams.n_head, gpt2.hparams.n_layer
        self._recordings: dict[object, Trace] = {}  # the newest is the last

    def look(self, text: str) -> Iterator[Line]:
        """A line with the sizes of the model, and the tokens of the text with their places in it."""
        ids = self._tokenizer.encode(text)
        n_unseen = self._n_unseen(text)
        tokens = [*reading.placed(ids, self._tokenizer)][n_unseen:]
        sizes = self._model.hparams._asdict()
        d_head = sizes["n_embd"] // self._n_head
        yield {"model": self.name, **sizes, "d_head": d_head, "n_unseen": n_unseen, "tokens": tokens}

    def lines(self, text: str, layer: int, changes: Sequence[Edit]) -> Iterator[Line]:
        """The functions of a pass, and each array that they compute: of the embeddings, one block, and the head.

        Returns:
            For each function its `file`, the number of its `first` line, its `lines`, and the range of its `docstring`.
            Then for each array, in the order of computation, its `name` and its second one (`also`), the `function` and
            the `line` that computed it, `source`, the `variable` that holds it (none if it is returned), its `shape`
            with the names of its `axes`, the length of its axis of heads, what `arrays.statistics` finds, and whether
            one of the changes `is_patched` into it.
        """
        ids = self._ids(text)
        block, outside = (self._recorded(ids, each, changes) for each in (layer, None))
        begin = [step for step in outside.steps if step.name in ("positions", "x")]
        inside = [step for step in block.steps if layer_of(step.name) == layer]
        end = [step for step in outside.steps if step.name not in ("positions", "x", *self._before(None))]
        steps = [*begin, *inside, *end]
        functions = code_of_pass(steps)
        for file, code in functions:
            line = {"file": Path(file).name, "first": code.first, "lines": code.lines, "docstring": code.docstring}
            yield {"function": code.name, **line}
        patched = {edit.name for edit in changes}
        for step in steps:
            t = outside if layer_of(step.name) is None else block
            names = [step.name, *t.second_names(step.name)]
            yield {
                "name": step.name,
                "also": names[1] if len(names) > 1 else None,
                "function": function_at(functions, step),
                "line": step.line,
                "source": step.source,
                "variable": variable(step),
                "shape": step.shape,
                "axes": axes(step.name, step.shape),
                "n_heads": step.shape[1] if len(step.shape) == 4 else None,
                **statistics(t[step.name]),
                "is_patched": not patched.isdisjoint(names),
            }

    def array(self, text: str, name: str, head: Head, changes: Sequence[Edit], n_most: int) -> Iterator[Line]:
        """A line with a picture of an array, as `arrays.picture` makes it. Rows are positions, if it has any.

        Args:
            head: one head of an array that has an axis of heads, or their `"mean"` or `"max"`.
            n_most: how many rows and columns the picture may have.
        """
        array = self._recorded_with(text, name, changes)[name]
        of_axes = axes(name, array.shape)
        cells = of_head(name, array, head)
        labels = {
            "row_labels": "tokens" if "n_seq" in of_axes and array.ndim > 1 else "",
            "column_labels": "tokens" if "n_key" in of_axes or of_axes == "[n_seq]" else "",
        }
        made = picture(cells, n_most)
        is_derived = isinstance(head, str) or made["step"] != [1, 1]
        yield {"name": name, "shape": [*array.shape], **made, **labels, "is_derived": is_derived}

    def row(self, text: str, name: str, head: int | None, row: int, changes: Sequence[Edit]) -> Iterator[Line]:
        """A line with the exact `values` of a row of that picture, as `json_number` has them."""
        cells = of_head(name, self._recorded_with(text, name, changes)[name], head)
        checks.check_whole_number("row", row, at_most=len(cells) - 1)
        yield {"values": [json_number(float(x)) for x in cells[row].tolist()]}

    def explain(
        self, text: str, name: str, index: Sequence[int], changes: Sequence[Edit], n_terms: int
    ) -> Iterator[Line]:
        """A line with the arithmetic of one entry, as `inside.explain` finds it; of a sum, its n_terms largest terms.

        Raises:
            ValueError: there is no such array or entry, or the array is a learner's own.
        """
        try:
            found = explain(self._recorded_with(text, name, changes), name, index)
        except (KeyError, IndexError) as error:
            raise ValueError(error.args[0]) from None
        yield explanation_line(found, n_terms)

    def heads(self, text: str, changes: Sequence[Edit], size: int) -> Iterator[Line]:
        """A line for each layer: of each of its `heads`, a small picture, and its `habits` as `tables` finds them."""
        shown = Digest("h*/attn/weights", functools.partial(small_pictures, size=size))
        self._step(self._pass, self._ids(text), changes, observed_by(shown))
        for name, heads in shown.found.items():
            yield {"layer": layer_of(name), "heads": heads}

    def unmasked(self, text: str, layer: int, head: int, changes: Sequence[Edit]) -> Iterator[Line]:
        """A line with a picture of the weights that a head would have without the mask: `tables.unmasked_weights`."""
        checks.check_whole_number("head", head, at_most=self._n_head - 1)
        find = functools.partial(tables.unmasked_weights, self._model, self._ids(text), layer)
        weights = self._step(self._changed, changes, find)
        yield {**picture(weights[head], len(weights[head])), "is_derived": True}

    def lens(self, text: str, changes: Sequence[Edit]) -> Iterator[Line]:
        """A line for the embeddings and for each block: what the model would predict if it ended there.

        Returns:
            For each position the likeliest token and its probability, as `tables.logit_lens` finds them, and the root
            mean square of the residual stream (`norms`).
        """
        streams = ["x", *(f"h{i}" for i in range(self._n_layer))]
        ids = self._ids(text)
        t = self._step(self._pass, ids, changes, trace(streams))
        for layer, name in enumerate(streams, start=-1):
            x = t[name][0]  # [n_seq, n_embd]
            likeliest, probabilities = self._step(self._lens_row, x)
            yield {
                "layer": layer,
                "name": name,
                "tokens": [reading.named(id, self._tokenizer) for id in likeliest.tolist()],
                "probabilities": probabilities.tolist(),
                "norms": np.sqrt(np.mean(x * x, axis=-1)).tolist(),
            }

    def attribution(self, text: str, position: int, token: int | None, changes: Sequence[Edit]) -> Iterator[Line]:
        """A line with the terms of which a logit is the sum, as `experiments.attribution` finds them.

        Args:
            position: after which the token would follow.
            token: its id; by default, that of the likeliest.

        Raises:
            ValueError: the terms do not sum to the logit, since a change makes something else of the parts.
        """
        ids = self._ids_to(text, position)
        find = functools.partial(experiments.attribution, self._model, ids, token, position=position)
        found = self._step(self._changed, changes, find)
        read = functools.partial(experiments.last_logits, self._model, np.array([ids]), position)
        (logits,) = self._step(self._changed, changes, read)
        chosen = found.question.token
        _, *terms = found._asdict().items()
        yield {
            "token": reading.named(chosen, self._tokenizer),
            "position": position,
            "logit": float(logits[chosen]),
            **reading.judged(chosen, logits, 0, self._tokenizer),
            "terms": {name: term.tolist() if isinstance(term, np.ndarray) else term for name, term in terms},
            "total": found.total,
        }

    def experiment(self, text: str, position: int, changes: Sequence[Edit], n: int) -> Iterator[Line]:
        """What changes do: to the prediction after a position, and to the arrays from the first changed block on.

        Returns:
            First the lines of `python` that do the same. Then the likeliest `tokens`, with their probabilities `before`
            and `after`. Then for each array how far it `moved`: the length of the difference as a share of its length;
            null if it was 0.
        """
        ids = self._ids_to(text, position)
        yield {"python": edits.python(changes, self.name, text, position, self._n_unseen)}
        before = self._step(self._prediction, ids, position, [])
        after = self._step(self._prediction, ids, position, changes) if changes else before
        listed = sorted({*reading.likeliest(before, n), *reading.likeliest(after, n)}, key=lambda token: -before[token])
        yield {
            "tokens": [
                {**reading.named(id, self._tokenizer), "before": float(before[id]), "after": float(after[id])}
                for id in listed
            ]
        }
        groups = self._groups(len(ids), min(layer_of(edit.name) or 0 for edit in changes) if changes else self._n_layer)
        for i, names in enumerate(groups):
            moved = self._step(self._moved, ids, names, changes)
            for name, distance in moved.items():
                yield {"name": name, "moved": distance, "progress": (i + 1) / len(groups)}

    def write(self, text: str, max_new_tokens: int, seed: int, options: dict[str, Any]) -> Iterator[Line]:
        """The continuation of a text, token by token: the one that `GPT2.generate` finds with this seed.

        Returns:
            For each step how many positions are read from the past (`n_past`) and how many are computed (`n_read`), the
            token, its probability for the model and in the draw (`drawn`), the likeliest tokens, and the size of the
            past in bytes.
        """
        n_ctx = self._model.hparams.n_ctx
        ids = self._ids(text)
        ids = ids[-max(n_ctx + 1 - max_new_tokens, n_ctx - n_ctx // 2) :]
        n_steps = min(max_new_tokens, n_ctx + 1 - len(ids))
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
        for k, line in enumerate(self._in_turns(self._written(ids, n_steps, rng, options))):
            yield {"step": k, "n_steps": n_steps, **line}

    def _written(
        self, ids: list[int], n_steps: int, rng: np.random.Generator, options: dict[str, Any]
    ) -> Iterator[Line]:
        """The steps of a generation with a past: each reads only what is new."""
        params = self._model.params
        past = Past(params, self._n_head, capacity=len(ids) + n_steps)
        new = ids
        for _ in range(n_steps):
            n_past = len(ids) - len(new)
            x = prefill.read(np.array([new]), params, self._n_head, past)[:, -1]
            logits = to_host(checks.check_finite(model.output_head(x, params)))[0]
            chances = layers.softmax(sampling.final_logits(logits, ids, **options).astype(np.float64))
            token = sampling.next_token(logits, rng, ids, **options)
            yield {
                "n_past": n_past,
                "n_read": len(new),
                "token": reading.named(token, self._tokenizer),
                "drawn": float(chances[token]),
                **reading.judged(token, logits, 5, self._tokenizer),
                "n_bytes": 2 * self._n_layer * len(ids) * params.wte.shape[1] * params.wte.itemsize,
            }
            new = [token]
            ids = [*ids, token]

    def _ids(self, text: str) -> list[int]:
        """The newest ids of a text, as many as fit into the context.

        Raises:
            ValueError: there are none.
        """
        ids = self._tokenizer.encode(text)
        if not ids:
            raise ValueError("there is no text to look at: write a few words first")
        return ids[-self._model.hparams.n_ctx :]

    def _n_unseen(self, text: str) -> int:
        """How many tokens at the beginning of a text have no place in the context."""
        return max(0, len(self._tokenizer.encode(text)) - self._model.hparams.n_ctx)

    def _ids_to(self, text: str, position: int) -> list[int]:
        """The newest ids of a text, in which there is a position.

        Raises:
            ValueError: there is no such position.
        """
        ids = self._ids(text)
        checks.check_whole_number("position", position, at_most=len(ids) - 1)
        return ids

    def _step(self, compute: Callable[..., T], *given: object) -> T:
        """The result of a computation, which is made in one turn."""
        (result,) = self._in_turns(compute(*given) for _ in range(1))
        return cast(T, result)

    def _changed(self, changes: Sequence[Edit], compute: Callable[[], T]) -> T:
        """The result of a computation whose passes are computed with changes."""
        with edits.patched(changes, self._value):
            return compute()

    def _pass(
        self, ids: list[int], changes: Sequence[Edit], watching: AbstractContextManager[T], with_logits: bool = False
    ) -> T:
        """Computes a pass with changes, while it is watched."""
        params = self._model.params
        batch = np.asarray([ids], like=params.wte)
        with edits.patched(changes, self._value), watching as watched:
            x = model.transformer(model.embed(batch, params), params, self._n_head)
            if with_logits:
                model.output_head(x, params)
        return watched

    def _value(self, name: str, text: str) -> Array:
        """What an array is in a pass over a text.

        Raises:
            ValueError: there is no such array.
        """
        t = self._pass(self._ids(text), [], trace(name), with_logits=name == "logits")
        if name not in t:
            raise ValueError(f"there is no array {name!r} in a pass of this model")
        return t[name]

    def _recorded(self, ids: list[int], layer: int | None, changes: Sequence[Edit]) -> Trace:
        """The recording of a block or, without one, of what is outside of the blocks, and of what this reads."""
        if layer is not None:
            checks.check_whole_number("layer", layer, at_most=self._n_layer - 1)
        key = (tuple(ids), layer, tuple(changes))
        names = ["positions", *self._before(layer), *([*OUTSIDE] if layer is None else [f"h{layer}", f"h{layer}/*"])]

        def compute() -> Trace:
            t = self._recordings.pop(key, None)
            if t is None:
                t = self._pass(ids, changes, trace(names), with_logits=layer is None)
            self._recordings[key] = t
            while len(self._recordings) > N_KEPT:
                del self._recordings[next(iter(self._recordings))]
            return t

        return self._step(compute)

    def _before(self, layer: int | None) -> list[str]:
        """The name of the residual stream that a block reads or, without one, the last layer norm."""
        n_before = self._n_layer if layer is None else layer
        return [f"h{n_before - 1}" if n_before else "x"]

    def _recorded_with(self, text: str, name: str, changes: Sequence[Edit]) -> Trace:
        """The recording in which an array is.

        Raises:
            ValueError: there is no such array.
        """
        t = self._recorded(self._ids(text), layer_of(name), changes)
        if name not in t:
            raise ValueError(f"there is no array {name!r} in a pass of this model")
        return t

    def _lens_row(self, x: Array) -> tuple[Array, Array]:
        """The likeliest tokens if the model ended with this residual stream, `[n_seq, n_embd]`; their probabilities."""
        params = self._model.params
        return tables.likeliest(layers.layer_norm(np.asarray(x, like=params.wte), params.ln_f), params)

    def _prediction(self, ids: list[int], position: int, changes: Sequence[Edit]) -> Array:
        """The probabilities of what follows a position, `[n_vocab]`, in a pass with changes."""
        t = self._pass(ids, changes, trace("logits"), with_logits=True)
        return layers.softmax(t["logits"][0, position].astype(np.float64))

    def _groups(self, n_seq: int, first: int) -> list[list[str]]:
        """Names of all arrays from a block on, so many at a time as memory can hold twice."""
        sizes = self._model.hparams
        n_bytes = 4 * n_seq * (25 * sizes.n_embd + 3 * sizes.n_head * n_seq)  # of a block, about
        n_blocks = max(1, BYTES_AT_ONCE // n_bytes)
        blocks = [*range(first, self._n_layer)]
        groups = [blocks[i : i + n_blocks] for i in range(0, len(blocks), n_blocks)]
        names = [[name for i in group for name in (f"h{i}", f"h{i}/*")] for group in groups]
        return [*([["x"]] if first == 0 else []), *names, ["ln_f*", "logits"]]

    def _moved(self, ids: list[int], names: list[str], changes: Sequence[Edit]) -> dict[str, float | None]:
        """How far arrays are from what they would be without the changes, as a share of their length."""
        before, after = (self._pass(ids, made, trace(names), "logits" in names) for made in ([], changes))
        return {name: relative_distance(before[name], after[name]) for name in after if name in before}


class Digest(Observer):
    """Keeps of each array whose name matches a pattern only what a function makes of it, which may be much smaller."""

    def __init__(self, pattern: str, function: Callable[[Array], Any]) -> None:
        self.found: dict[str, Any] = {}
        self._pattern, self._function = pattern, function

    def begin_pass(self, begun: Pass) -> None:
        """Nothing is to be done."""

    def see(self, seen: Seen) -> None:
        """Keeps what there is to keep."""
        if matches(seen.name, self._pattern):
            self.found[seen.name] = self._function(to_host(seen.array))


def layer_of(name: str) -> int | None:
    """The number of the block to which an array belongs.

    >>> layer_of("h11/attn/q"), layer_of("logits")
    (11, None)
    """
    found = re.match(r"h(\d+)", name)
    return int(found[1]) if found else None


def code_of_pass(steps: Iterable[Step]) -> list[tuple[str, Code]]:
    """The functions of the model, and others that have computed something: each with its file."""
    own = [file for file in (model.__file__, layers.__file__) if file]
    found = [(file, code) for file in own for code in functions_in(file)]
    others = {step.file for step in steps}.difference(own)
    computed = {(step.file, step.line) for step in steps}
    return found + [
        (file, code)
        for file in sorted(others)
        for code in functions_in(file)
        if any((file, line) in computed for line in range(code.first, code.last + 1))
    ]


def function_at(functions: Iterable[tuple[str, Code]], step: Step) -> str | None:
    """The name of the function that computed an array; None for a function whose code is not known."""
    return next((c.name for file, c in functions if file == step.file and c.first <= step.line <= c.last), None)


def variable(step: Step) -> str:
    """The variable that gets an array; empty if it is returned at once.

    >>> variable(Step("h0/attn/k", (), __file__, 0))
    ''
    """
    names = re.match(r"([\w, ]+?) [-+*/@]?= ", step.source)
    variables = names[1].split(", ") if names else []
    last = step.name.rpartition("/")[2]
    return last if last in variables else variables[0] if len(variables) == 1 else ""


def small_pictures(weights: Array, size: int) -> list[Line]:
    """A small picture of the weights of each head, and where the head looks (`habits`); null for a single token.

    Shapes: weights `[1, n_head, n_seq, n_seq]`.
    """
    has_habits = weights.shape[-1] > 1
    return [
        {**picture(each, size), "habits": tables.habits(each)._asdict() if has_habits else None} for each in weights[0]
    ]


def explanation_line(found: Explanation, n_terms: int) -> Line:
    """An explanation as a line: of each sum, the largest terms, and the sum of the others."""
    line = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    values = {"value": json_number(found.value), "computed": json_number(found.computed)}
    numbers = [number_line(number, n_terms) for number in found.numbers]
    return {**line, **values, "file": Path(found.file).name, "numbers": numbers}


def number_line(number: Number, n_terms: int) -> Line:
    """A number of an explanation as a line."""
    largest = sorted(number.terms, key=lambda term: -abs(term.value))
    shown = [
        {
            "value": json_number(term.value),
            "factors": [{**dataclasses.asdict(f), "value": json_number(f.value)} for f in term.factors],
        }
        for term in largest
    ]
    return {
        "text": number.text,
        "value": json_number(number.value),
        "name": number.name,
        "index": [*number.index],
        "n_terms": len(largest),
        "terms": shown[:n_terms],
        "rest": json_number(sum(term.value for term in largest[n_terms:])),
    }


def json_number(value: float) -> float | str | None:
    """A number as JSON can have it: None for minus infinity, that of a masked score; "inf" and "nan" by name."""
    return value if np.isfinite(value) else None if value == -np.inf else str(value)
