"""`numpy-gpt2 explore`: looks inside a model. Each view prints a table, and with `-o` draws a picture."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..decoding.prompts import require
from ..gpt2 import GPT2
from ..inside import tables
from ..inside.recorder import trace
from ..params import Array
from . import experiments
from .arguments import add_model_options, add_sampling_options, sampling_options
from .loading import announce, load_model
from .pictures import drawing
from .tables import SENTENCE, show_table, text_of, token_texts

log = logging.getLogger("numpy_gpt2")


HELP = "look inside a model: tables and pictures"
DESCRIPTION = "Look inside GPT-2. Each view prints a table, and with -o draws a picture."


class View(NamedTuple):
    """One thing to look at.

    `show` gets the options, the model, and the module that draws, or None if no picture is wanted. It prints a table,
    and returns the picture. The picture is drawn first, since one that is too large is refused.
    """

    help: str
    example: str
    show: Callable[[argparse.Namespace, GPT2, Any], Any]
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    takes_text: bool = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the views, with their options."""
    subparsers = parser.add_subparsers(metavar="VIEW", required=True)
    for name, view in VIEWS.items():
        subparser = subparsers.add_parser(
            name,
            help=view.help,
            description=f"{view.help[0].upper()}{view.help[1:]}.",
            epilog=f"examples:\n  numpy-gpt2 explore {view.example}\n",
        )
        subparser.set_defaults(show=view.show)
        if view.takes_text:
            help = f"the text; by default standard input or, at a terminal, the sentence {SENTENCE!r}"
            subparser.add_argument("text", metavar="TEXT", nargs="?", help=help)
        subparser.add_argument("--json", action="store_true", help="print a JSON object per line for each row")
        subparser.add_argument("-o", "--output", metavar="FILE", type=Path, help="draw a picture: .png, .svg or .pdf")
        view.add_options(subparser)
        add_model_options(subparser)


def run(args: argparse.Namespace) -> None:
    """Shows what the options ask for."""
    draw = drawing(args.output, "inside.figures")
    figure = args.show(args, load_model(args), draw)
    if draw:
        draw.save_figure(figure, args.output)
        log.info("the picture is in %s", args.output)


def check_place(args: argparse.Namespace, model: GPT2) -> None:
    """Checks the numbers of a block and of a head, if they are given.

    Raises:
        ValueError: the model has none with this number.
    """
    for name, i, n in (("--layer", args.layer, model.hparams.n_layer), ("--head", args.head, model.hparams.n_head)):
        if i is not None:
            checks.check_whole_number(name, i, at_most=n - 1)


def warn_of_non_finite(means: dict[str, float]) -> None:
    """Names the arrays that hold NaN or infinity: those whose mean is not a finite number."""
    if found := [name for name, mean in means.items() if not math.isfinite(mean)]:
        log.warning("NaN or infinity in %s", ", ".join(found))


def show_params(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """Every parameter."""
    table = tables.parameter_statistics(model.params)
    figure = draw and draw.params_figure(table, model.name)
    warn_of_non_finite({row.name: row.mean for row in table})
    show_table(
        args,
        {"name": "<", "shape": "", "size": ",", "mean": ".4f", "deviation": ".4f"},
        [(row.name, list(row.shape), row.size, row.mean, row.deviation) for row in table],
        total=f"{sum(row.size for row in table):,} parameters in {len(table)} arrays",
    )
    return figure


def show_tokens(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """How a text splits."""
    found = tables.tokens(require(model.tokenizer), text_of(args))
    if not found:
        raise ValueError("there is no text to look at: give one, in quotes")
    figure = draw and draw.tokens_figure([t.piece for t in found], [t.id for t in found], model.name)
    show_table(
        args,
        {"position": "", "id": "", "piece": "<", "bytes": "<", "merges": "<"},
        [
            (
                i,
                t.id,
                *token_texts(args, model, [t.id]),
                t.bytes.hex(" "),
                t.merges if args.json else ", ".join(t.merges) or "-",
            )
            for i, t in enumerate(found)
        ],
    )
    return figure


def show_next(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """The likeliest next tokens."""
    checks.check_whole_number("-n", args.n, at_least=1)
    text, options = text_of(args), sampling_options(args)
    chances = tables.next_tokens(model, text, args.n, **options)
    announce(model, args)
    labels = token_texts(args, model, [c.id for c in chances])
    figure = None
    if draw:
        drawn_with = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in options.items())
        name = f"what follows {draw.ending(text)} ({model.name})"
        figure = draw.next_figure(chances, labels, name, drawn_with)
    show_table(
        args,
        {"rank": "", "id": "", "token": "<", "probability": ".6f", "drawn with": ".6f"},
        [(i + 1, c.id, labels[i], c.probability, c.drawn) for i, c in enumerate(chances)],
    )
    return figure


def add_next_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `next`."""
    parser.add_argument("-n", metavar="N", type=int, default=10, help="how many (default: %(default)s)")
    add_sampling_options(parser, off=True)


def show_attention(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """Which tokens each token looks at: in one head, in one block, or in all."""
    check_place(args, model)
    if args.head is not None and args.layer is None:
        raise ValueError("--head counts the heads of one block: say which with --layer")
    ids = tables.read_ids(model, text_of(args))
    weights = tables.attention_weights(model, ids[0], args.layer)
    announce(model, args)
    labels = token_texts(args, model, ids)
    name = f"attention of {model.name}, "
    if args.layer is None:
        figure = draw and draw.layers_figure(weights, f"{name}all blocks and heads")
        show_habits(args, dict(enumerate(weights)))
    elif args.head is None:
        figure = draw and draw.heads_figure(weights, labels, f"{name}block h{args.layer}")
        show_habits(args, {args.layer: weights})
    else:
        figure = draw and draw.attention_figure(
            weights[args.head], labels, f"{name}block h{args.layer}, head {args.head}"
        )
        show_head(args, weights[args.head], labels)
    return figure


def add_place_options(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """Adds the options that say which block and which head."""
    shown = "all" if default is None else default
    for name, what in (("--layer", "block"), ("--head", "head")):
        help = f"the {what}, counted from 0 (default: {shown})"
        parser.add_argument(name, metavar="N", type=int, default=default, help=help)


def show_head(args: argparse.Namespace, weights: Array, labels: Sequence[str]) -> None:
    """Prints for each token the three tokens that one head gives most weight.

    Shapes: weights `[n_seq, n_seq]`, n_seq labels.
    """
    rows = []
    for label, row in zip(labels, weights, strict=True):
        most = [(labels[j], row[j]) for j in (-row).argsort(kind="stable")[:3] if row[j] > 0]
        rows.append((label, *most, *[None] * (3 - len(most))))
    show_table(args, {"token": "<", "looks most at": "<.3f", "then at": "<.3f", "and at": "<.3f"}, rows)


def show_habits(args: argparse.Namespace, layers: dict[int, Array]) -> None:
    """Prints where each head of these blocks looks on average.

    Shapes: for each block `[n_head, n_seq, n_seq]`.
    """
    columns = {"block": "<", "head": "", "first": ".3f", "itself": ".3f", "before": ".3f", "distance": ".1f"}
    title = "average weight on the first token, on the token itself and on the one before, and how far back"
    rows = [
        (f"h{layer}", head, *(tables.habits(of_head) if len(of_head) > 1 else [None] * 4))
        for layer, weights in layers.items()
        for head, of_head in enumerate(weights)
    ]
    if rows[0][-1] is None:
        title = "a single token can only look at itself: there is nothing to average"
    show_table(args, columns, rows, title)


def show_lens(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """What each layer would predict."""
    ids = tables.read_ids(model, text_of(args))
    lens = tables.logit_lens(model, ids[0])
    announce(model, args)
    labels = token_texts(args, model, ids)
    predicted = [token_texts(args, model, row) for row in lens.ids]
    figure = draw and draw.lens_figure(lens, labels, predicted, f"what each layer of {model.name} would predict next")
    columns = ["token", "emb", *(f"h{i}" for i in range(model.hparams.n_layer))]
    title = "the likeliest next token, if the model ended with the embeddings (emb) or after a block"
    show_table(args, dict.fromkeys(columns, "<"), zip(labels, *predicted, strict=True), title)
    return figure


def show_positions(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """The position embeddings."""
    similarity = checks.check_finite(tables.position_similarity(model.params))
    figure = draw and draw.positions_figure(tables.parameter(model.params, "wpe"), similarity, model.name)
    n = len(similarity)
    steps = [step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if step < n]
    show_table(
        args,
        {"position": "", **{f"+{step}": ".3f" for step in steps}},
        [
            (i, *(similarity[i, i + step] if i + step < n else None for step in steps))
            for i in sorted({0, 1, 2, 3, *range(4, n, max(1, n // 12)), n - 1} & {*range(n)})
        ],
        "how similar the embedding of a position is to those of later positions (cosine)",
    )
    return figure


def show_weights(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """A parameter."""
    array = tables.parameter(model.params, args.name)
    figure = draw and draw.weights_figure(array, f"{args.name} of {model.name}")
    mean = float(array.mean(dtype=np.float64))
    warn_of_non_finite({args.name: mean})
    show_table(
        args,
        {"name": "<", "shape": "", **dict.fromkeys(("mean", "deviation", "least", "median", "most"), ".5f")},
        [
            (
                args.name,
                list(array.shape),
                mean,
                array.std(),
                array.min(),
                np.median(array),
                array.max(),
            )
        ],
    )
    return figure


def add_weights_options(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of `weights`."""
    parser.add_argument("name", metavar="NAME", help="as `params` lists it: 'h1/attn/c_attn/w[:300,:300]'")


def show_trace(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """Every array of a pass."""
    ids = tables.read_ids(model, text_of(args))
    with trace(args.names) as t:
        model.logits(ids)
    if not t:
        raise ValueError(f"no array has a name like {args.names!r}; without --names, all are listed")
    announce(model, args)
    name = f"the residual stream of {model.name}, and what each block adds to it"
    figure = draw and draw.stream_figure(tables.stream_sizes(model, ids[0]), name)
    show_table(
        args,
        dict.fromkeys(("name", "shape", "line", "source"), "<"),
        [(s.name, list(s.shape), f"{Path(s.file).name}:{s.line}", s.source.split("  #")[0]) for s in t.steps],
    )
    return figure


def add_trace_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `trace`."""
    parser.add_argument("--names", metavar="PATTERN", default="*", help="only these, with * for anything: 'h0*'")


def show_mask(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """The same head with the mask and without."""
    layer, head = args.layer, args.head
    check_place(args, model)
    ids = tables.read_ids(model, text_of(args))
    masked = tables.attention_weights(model, ids[0], layer)[head]
    unmasked = tables.unmasked_weights(model, ids[0], layer)[head]
    announce(model, args)
    labels = token_texts(args, model, ids)
    name = f"attention of {model.name}, block h{layer}, head {head}"
    figure = draw and draw.mask_figure(masked, unmasked, labels, name)
    show_table(
        args,
        {"token": "<", "masked": "<", "weight": ".3f", "unmasked": "<", "its weight": ".3f", "on what follows": ".3f"},
        [
            (label, labels[m.argmax()], m.max(), labels[u.argmax()], u.max(), u[i + 1 :].sum())
            for i, (label, m, u) in enumerate(zip(labels, masked, unmasked, strict=True))
        ],
        f"where each token looks most, in block h{layer}, head {head}",
    )
    return figure


VIEWS = {
    "params": View(
        "every parameter: name, shape, size, mean, standard deviation",
        "params -o params.png",
        show_params,
        takes_text=False,
    ),
    "tokens": View(
        "how a text splits: ids, pieces, bytes, and the merges that made each piece",
        'tokens "The princess kissed the frog."',
        show_tokens,
    ),
    "next": View(
        "the likeliest next tokens and their probabilities",
        'next "Once upon a" --temperature 0.8 -o next.png',
        show_next,
        add_next_options,
    ),
    "attention": View(
        "which tokens each token looks at: one head, the heads of one block, or all",
        'attention "The princess kissed the frog." --layer 3 --head 1 -o head.png',
        show_attention,
        add_place_options,
    ),
    "lens": View(
        "what each layer would predict: the logit lens", 'lens "The princess kissed the frog." -o lens.png', show_lens
    ),
    "positions": View(
        "the position embeddings, and how similar they are to each other",
        "positions -o positions.png",
        show_positions,
        takes_text=False,
    ),
    "weights": View(
        "any parameter, or a slice of it",
        'weights "h1/attn/c_attn/w[:300,:300]" -o weights.png',
        show_weights,
        add_weights_options,
        takes_text=False,
    ),
    "trace": View(
        "every array that a pass computes: name, shape, source line (the picture: how large the residual stream grows)",
        "trace \"The princess kissed the frog.\" --names 'h0/attn/*'",
        show_trace,
        add_trace_options,
    ),
    "mask": View(
        "the same head with the mask and without: what a decoder and what an encoder may see",
        'mask "The princess kissed the frog." --layer 2 --head 3',
        show_mask,
        partial(add_place_options, default=0),
    ),
    "ablate": View(
        "what each head and each MLP does for a prediction: they are switched off, one at a time",
        "ablate \"The old woman was so angry that\" --token ' she' --other ' he' -o ablate.png",
        experiments.show_ablate,
        experiments.add_ablate_options,
    ),
    "patch": View(
        "where the information passes that makes the difference between two texts: activation patching",
        'patch "The old woman was so angry that" "The old man was so angry that" -o patch.png',
        experiments.show_patch,
        experiments.add_patch_options,
        takes_text=False,
    ),
    "attribute": View(
        "what each head and each MLP adds to a logit: direct logit attribution",
        "attribute \"The old woman was so angry that\" --token ' she' --other ' he' -o attribute.png",
        experiments.show_attribute,
        experiments.add_question_options,
    ),
    "heads": View(
        "where each head looks in a text that comes twice: at the first token, the one before, what followed a copy",
        'heads "The princess kissed the frog, and the old king gave a golden cup away." -o heads.png',
        experiments.show_heads,
        experiments.add_heads_options,
        takes_text=False,
    ),
}
EXAMPLES = "".join(f"  numpy-gpt2 explore {view.example}\n" for view in VIEWS.values())
