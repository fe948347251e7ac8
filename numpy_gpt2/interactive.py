"""For sessions and notebooks: objects in a few lines or in a table, and an answer to names of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np


def html_table(caption: str, rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> str:
    """A table for a notebook, which asks an object for its `_repr_html_`.

    >>> html_table("a < b", [("wte", 5)])
    '<table><caption>a &lt; b</caption><tr><td>wte</td><td>5</td></tr></table>'
    """
    import html  # not needed, and so not imported, by the command

    def line(kind: str, cells: Sequence[object]) -> str:
        return f"<tr>{''.join(f'<{kind}>{html.escape(str(cell))}</{kind}>' for cell in cells)}</tr>"

    lines = [line("th", head)] if head else []
    lines += [line("td", row) for row in rows]
    return f"<table><caption>{html.escape(caption)}</caption>{''.join(lines)}</table>"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about a name that does not exist: the nearest one that does, if one is near.

    >>> did_you_mean("h3/attn/weigths", ["h3/attn/scores", "h3/attn/weights"])
    "; did you mean 'h3/attn/weights'?"
    """
    import difflib  # not needed, and so not imported, when nothing is wrong

    return "".join(f"; did you mean {near!r}?" for near in difflib.get_close_matches(name, [*names], n=1))


def describe(array: object) -> str:
    """Dtype and shape, in place of all the numbers; and the library, where that is not NumPy.

    >>> describe(np.zeros((2, 6), np.float32))
    'float32[2, 6]'
    """
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        return f"of type {type(array).__name__}"
    library = "" if isinstance(array, (np.ndarray, np.generic)) else f"{type(array).__module__.partition('.')[0]} "
    return f"{library}{array.dtype}{[*array.shape]}"


def equip(parts: Iterable[type], named_arrays: Callable[[Any], Iterable[tuple[str, Any]]]) -> None:
    """Gives the classes of a parameter tree a short `repr`, a table for notebooks, and an answer to assignments.

    Methods in the classes themselves would hide what a tree consists of.
    """

    def table(part: Any) -> str:
        several = next((name for name, child in zip(part._fields, part, strict=True) if is_several(child)), None)
        shown = part._replace(**{several: getattr(part, several)[:1]}) if several else part
        rows = [(name, [*array.shape], array.dtype) for name, array in named_arrays(shown)]
        caption = type(part).__name__
        if several:
            caption += f" with {len(getattr(part, several))} blocks, of which the first is shown"
        return html_table(caption, rows, head=("name", "shape", "dtype"))

    for part in parts:
        for name, method in {"__repr__": shape_tree, "_repr_html_": table, "__setattr__": refuse_assignment}.items():
            setattr(part, name, method)


def is_several(child: object) -> bool:
    """Whether this is a row of parts, such as the blocks, and not a part with named fields."""
    return isinstance(child, tuple) and bool(child) and not hasattr(child, "_fields")


def shape_tree(part: Any) -> str:
    """A part of a parameter tree, with what `describe` says in place of each array, and one block in place of all."""

    def shown(child: Any) -> str:
        if is_several(child):
            return f"{len(child)} x {child[0]!r}"
        return repr(child) if isinstance(child, tuple) else describe(child)

    fields = [f"{name}={shown(child)}" for name, child in zip(part._fields, part, strict=True)]
    line = f"{type(part).__name__}({', '.join(fields)})"
    if len(line) <= 120:
        return line
    inside = ",\n".join(fields).replace("\n", "\n  ")
    return f"{type(part).__name__}(\n  {inside}\n)"


def refuse_assignment(part: Any, name: str, value: object) -> None:
    """Says how to change a parameter. The assignment that is part of `c_attn.w *= 2` changes nothing, and is accepted.

    Raises:
        AttributeError: any other assignment.
    """
    if name not in part._fields:
        raise AttributeError(f"{type(part).__name__} has no parameter {name!r}, only {', '.join(part._fields)}")
    if value is not getattr(part, name):
        raise AttributeError(
            "parameters are not assigned to: write into an array, as by `c_attn.w[:] = array`, or make another tree, "
            "as by `model.params = numpy_gpt2.params.replace(model.params, {'h0/attn/c_attn/w': array})`"
        )


class Hinting:
    """An object that answers a name of transformers' with the name here. Type checkers do not see that.

    What is half like an object of transformers would mislead. So nothing works under two names.
    """

    _hints: ClassVar[Mapping[str, str]]  # by the name in transformers; `__call__` for a call

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in type(self)._hints:
                raise AttributeError(type(self)._hints[name])
            return object.__getattribute__(self, name)  # the error as it was

        def __call__(self, *args: object, **keywords: object) -> None:
            """Not for use.

            Raises:
                TypeError: always; the message names the methods to call.
            """
            raise TypeError(type(self)._hints["__call__"])


MODEL_HINTS = {
    "__call__": "a model is not called: model.logits(ids) gives the logits, model.hidden_states(ids) the hidden "
    "states, model.loss(ids) the loss, and model.generate(prompt) continues a text",
    "config": "`model.config` is `model.hparams` here",
    "generation_config": "a model has no `generation_config` here: the options are arguments of `model.generate`",
    "device": "`model.device` is `model.backend` here",
    "dtype": "`model.dtype` is `model.params.wte.dtype` here",
    "cuda": '`model.cuda()` is `model.to("cupy")` here',
    "eval": "there is no `model.eval()`, and no need for it: nothing is dropped out here",
    "forward": "`model.forward(ids)` is `model.logits(ids)` here",
    "parameters": "the parameters are `model.params`, and `numpy_gpt2.params.named_arrays(model.params)` lists them",
    "save_pretrained": "`model.save_pretrained(folder)` is `numpy_gpt2.save(model, folder)` here",
}
MODEL_HINTS["named_parameters"] = MODEL_HINTS["state_dict"] = MODEL_HINTS["parameters"]

LENS_HINTS = {  # of a model in TransformerLens or nnsight
    "run_with_cache": "`numpy_gpt2.trace` records what a pass computes, here: with numpy_gpt2.trace() as t: "
    "model.logits(text)",
    "run_with_hooks": "`numpy_gpt2.patch` changes what a pass computes, here: with numpy_gpt2.patch({name: function}): "
    "model.logits(text)",
    "trace": "`numpy_gpt2.trace` records what a pass computes, and `numpy_gpt2.patch` changes it, here",
    "cfg": "`model.cfg` is `model.hparams` here",
    "to_tokens": "`model.to_tokens(text)` is `model.tokenizer.encode(text)` here",
    "to_str_tokens": "`numpy_gpt2.inside.tables.token_labels(model.tokenizer, ids)` gives the texts of tokens, here",
    "to_single_token": "`numpy_gpt2.inside.experiments.token_id(model, token)` gives the id of a token, here",
    "blocks": "the parameters of the blocks are `model.params.h` here",
    "transformer": "the parameters of the blocks are `model.params.h` here",
    "W_E": "the token embeddings are `model.params.wte` here, and transposed they are the output head",
}
LENS_HINTS["W_U"] = LENS_HINTS["W_E"]

TOKENIZER_HINTS = {
    "__call__": "a tokenizer is not called: tokenizer.encode(text) gives the ids of a text, "
    "tokenizer.encode_batch(texts) those of several, and tokenizer.decode(ids) the text",
    "vocab_size": "`tokenizer.vocab_size` is `tokenizer.n_vocab` here",
    "get_vocab": "`tokenizer.get_vocab()` is `tokenizer.encoder` here",
    "eos_token_id": "the id of <|endoftext|> is `tokenizer.end_of_text`; what ends a text is in `model.special_ids`",
    "pad_token": "no token is needed for padding: `tokenizer.encode_batch` returns the lengths as well",
    "tokenize": "`tokenizer.tokenize(text)` is `[tokenizer.decoder[id] for id in tokenizer.encode(text)]` here",
    "batch_decode": "`tokenizer.batch_decode(rows)` is `[tokenizer.decode(ids) for ids in rows]` here",
    "convert_tokens_to_ids": "`tokenizer.convert_tokens_to_ids(token)` is `tokenizer.encoder[token]` here",
    "convert_ids_to_tokens": "`tokenizer.convert_ids_to_tokens(id)` is `tokenizer.decoder[id]` here",
    "save_pretrained": "`tokenizer.save_pretrained(folder)` is `tokenizer.save(folder)` here",
}
TOKENIZER_HINTS["eos_token"] = TOKENIZER_HINTS["eos_token_id"]
TOKENIZER_HINTS["pad_token_id"] = TOKENIZER_HINTS["pad_token"]
