"""`numpy-gpt2 explore`: looks inside a model. Each view prints a table, and with `-o` draws a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..decoding.prompts import require
from ..gpt2 import GPT2
from ..inside import tables
from ..inside.recorder import trace
from ..params import Array
from .arguments import add_model_options, add_sampling_options, sampling_options
from .loading import announce, load_model
from .process import is_terminal, read_input

SENTENCE = "The king gave his daughter to the poor miller's son, and they lived happily together."

HELP = "look inside a model: tables and pictures"
DESCRIPTION = "Look inside GPT-2. Each view prints a table, and with -o draws a picture."


class View(NamedTuple):
    """One thing to look at.

    `show` gets the options, the model, and the module that draws, or None if no picture is wanted.
    """

    help: str
    example: str
    show: Callable[[argparse.Namespace, GPT2, Any], None]
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
        subparser.add_argument("-o", "--output", metavar="FILE", type=Path, help="draw a picture: .png, .svg or .pdf")
        view.add_options(subparser)
        add_model_options(subparser)


def run(args: argparse.Namespace) -> None:
    """Shows what the options ask for."""
    draw = pictures(args)
    args.show(args, load_model(args), draw)


def pictures(args: argparse.Namespace) -> Any:
    """The module that draws, or None if no picture is wanted.

    Raises:
        FileNotFoundError: the folder of the picture does not exist.
        ImportError: matplotlib is not installed.
        ValueError: pictures are not drawn in this format.
    """
    if args.output is None:
        return None
    if not args.output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {args.output.parent} for the picture")
    try:
        from ..inside import figures
    except ImportError as error:
        raise ImportError(f'a picture needs matplotlib ({error}): pip install "numpy_gpt2[plot]"') from None
    figures.check_format(args.output)
    return figures


def text_of(args: argparse.Namespace) -> str:
    """The text to look at. A terminal is not asked for one."""
    if args.text is None:
        given = "" if is_terminal(sys.stdin) else read_input("-")
        return given.removesuffix("\n") or SENTENCE
    return read_input("-").removesuffix("\n") if args.text == "-" else str(args.text)


def check_number(name: str, i: int, n: int) -> None:
    """Checks the number of a block or a head.

    Raises:
        ValueError: the model has none with this number.
    """
    if not 0 <= i < n:
        raise ValueError(f"--{name} must be 0 to {n - 1} for this model, not {i}")


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], left: Sequence[int] = (0,)) -> None:
    """Prints columns of equal width. The columns in `left` are aligned to the left, the others to the right."""
    lines = [[*head], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        print("  ".join(cells).rstrip())


def show_params(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """Every parameter."""
    table = tables.parameter_statistics(model.params)
    print_table(
        ("name", "shape", "size", "mean", "deviation"),
        [(row.name, list(row.shape), f"{row.size:,}", f"{row.mean:.4f}", f"{row.deviation:.4f}") for row in table],
    )
    print(f"\n{sum(row.size for row in table):,} parameters in {len(table)} arrays")
    if draw:
        draw.save_figure(draw.params_figure(table, model.name), args.output)


def show_tokens(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """How a text splits."""
    found = tables.tokens(require(model.tokenizer), text_of(args))
    if not found:
        raise ValueError("there is no text to look at: give one, in quotes")
    print_table(
        ("position", "id", "piece", "bytes", "merges"),
        [(i, t.id, t.piece, t.bytes.hex(" "), ", ".join(t.merges) or "-") for i, t in enumerate(found)],
        left=(2, 3, 4),
    )
    if draw:
        figure = draw.tokens_figure([t.piece for t in found], [t.id for t in found], model.name)
        draw.save_figure(figure, args.output)


def show_next(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """The likeliest next tokens."""
    checks.check_whole_number("-n", args.n, at_least=1)
    text, options = text_of(args), sampling_options(args)
    chances = tables.next_tokens(model, text, args.n, **options)
    announce(model, args)
    labels = tables.token_labels(model.tokenizer, [c.id for c in chances])
    print_table(
        ("rank", "id", "token", "probability", "drawn with"),
        [
            (rank, c.id, label, f"{c.probability:.6f}", f"{c.drawn:.6f}")
            for rank, (c, label) in enumerate(zip(chances, labels, strict=True), start=1)
        ],
        left=(2,),
    )
    if draw:
        drawn_with = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in options.items())
        name = f"what follows {draw.ending(text)} ({model.name})"
        draw.save_figure(draw.next_figure(chances, labels, name, drawn_with), args.output)


def add_next_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `next`."""
    parser.add_argument("-n", metavar="N", type=int, default=10, help="how many (default: %(default)s)")
    add_sampling_options(parser, off=True)


def show_attention(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """Which tokens each token looks at: in one head, in one block, or in all."""
    if args.layer is not None:
        check_number("layer", args.layer, model.hparams.n_layer)
    if args.head is not None:
        check_number("head", args.head, model.hparams.n_head)
        if args.layer is None:
            raise ValueError("--head counts the heads of one block: say which with --layer")
    ids = tables.read_ids(model, text_of(args))
    weights = tables.attention_weights(model, ids[0], args.layer)
    announce(model, args)
    labels = tables.token_labels(model.tokenizer, ids)
    if args.head is not None:
        print_head(weights[args.head], labels)
    else:
        print_habits({args.layer: weights} if args.layer is not None else dict(enumerate(weights)))
    if not draw:
        return
    if args.layer is None:
        figure = draw.layers_figure(weights, f"attention of {model.name}, all blocks and heads")
    elif args.head is None:
        figure = draw.heads_figure(weights, labels, f"attention of {model.name}, block h{args.layer}")
    else:
        name = f"attention of {model.name}, block h{args.layer}, head {args.head}"
        figure = draw.attention_figure(weights[args.head], labels, name)
    draw.save_figure(figure, args.output)


def add_attention_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `attention`."""
    parser.add_argument("--layer", metavar="N", type=int, help="the block, counted from 0 (default: all)")
    parser.add_argument("--head", metavar="N", type=int, help="the head, counted from 0 (default: all)")


def print_head(weights: Array, labels: Sequence[str]) -> None:
    """Prints for each token the three tokens that one head gives most weight.

    Shapes: weights `[n_seq, n_seq]`, n_seq labels.
    """
    rows = []
    for label, row in zip(labels, weights, strict=True):
        most = [f"{labels[j]} {row[j]:.3f}" for j in (-row).argsort(kind="stable")[:3] if row[j] > 0]
        rows.append((label, *most, *[""] * (3 - len(most))))
    print_table(("token", "looks most at", "", ""), rows, left=range(4))


def print_habits(layers: dict[int, Array]) -> None:
    """Prints where each head of these blocks looks on average.

    Shapes: for each block `[n_head, n_seq, n_seq]`.
    """
    rows = []
    for layer, weights in layers.items():
        if weights.shape[-1] == 1:
            print("a single token can only look at itself")
            return
        for head, of_head in enumerate(weights):
            first, itself, previous, distance = tables.habits(of_head)
            rows.append((f"h{layer}", head, f"{first:.3f}", f"{itself:.3f}", f"{previous:.3f}", f"{distance:.1f}"))
    print("average weight on the first token, on the token itself and on the one before, and how far back")
    print_table(("block", "head", "first", "itself", "before", "distance"), rows)


def show_lens(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """What each layer would predict."""
    ids = tables.read_ids(model, text_of(args))
    lens = tables.logit_lens(model, ids[0])
    announce(model, args)
    labels = tables.token_labels(model.tokenizer, ids)
    predicted = [tables.token_labels(model.tokenizer, row) for row in lens.ids]
    print("the likeliest next token, if the model ended with the embeddings (emb) or after a block")
    names = ["emb", *(f"h{i}" for i in range(model.hparams.n_layer))]
    print_table(("token", *names), zip(labels, *predicted, strict=True), left=range(len(names) + 1))
    if draw:
        figure = draw.lens_figure(lens, labels, predicted, f"what each layer of {model.name} would predict next")
        draw.save_figure(figure, args.output)


def show_positions(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """The position embeddings."""
    similarity = tables.position_similarity(model.params)
    n = len(similarity)
    steps = [step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if step < n]
    print("how similar the embedding of a position is to those of later positions (cosine)")
    print_table(
        ("position", *(f"+{step}" for step in steps)),
        [
            (i, *(f"{similarity[i, i + step]:.3f}" if i + step < n else "" for step in steps))
            for i in sorted({0, 1, 2, 3, *range(4, n, max(1, n // 12)), n - 1} & {*range(n)})
        ],
        left=(),
    )
    if draw:
        wpe = tables.parameter(model.params, "wpe")
        draw.save_figure(draw.positions_figure(wpe, similarity, model.name), args.output)


def show_weights(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """A parameter."""
    array = tables.parameter(model.params, args.name)
    rows = [
        ("shape", list(array.shape)),
        ("mean", f"{array.mean(dtype=np.float64):.5f}"),
        ("deviation", f"{array.std():.5f}"),
        ("least", f"{array.min():.5f}"),
        ("median", f"{np.median(array):.5f}"),
        ("most", f"{array.max():.5f}"),
    ]
    print_table((args.name, ""), rows)
    if draw:
        draw.save_figure(draw.weights_figure(array, f"{args.name} of {model.name}"), args.output)


def add_weights_options(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of `weights`."""
    parser.add_argument("name", metavar="NAME", help="as `params` lists it: 'h1/attn/c_attn/w[:300,:300]'")


def show_trace(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """Every array of a pass."""
    ids = tables.read_ids(model, text_of(args))
    with trace(args.names) as t:
        model.logits(ids)
    if not t:
        raise ValueError(f"no array has a name like {args.names!r}; without --names, all are listed")
    announce(model, args)
    print_table(
        ("name", "shape", "line", "source"),
        [(s.name, list(s.shape), f"{Path(s.file).name}:{s.line}", s.source.split("  #")[0]) for s in t.steps],
        left=(0, 1, 2, 3),
    )
    if draw:
        name = f"the residual stream of {model.name}, and what each block adds to it"
        draw.save_figure(draw.stream_figure(tables.stream_sizes(model, ids[0]), name), args.output)


def add_trace_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `trace`."""
    parser.add_argument("--names", metavar="PATTERN", default="*", help="only these, with * for anything: 'h0*'")


def show_mask(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """The same head with the mask and without."""
    layer, head = args.layer, args.head
    check_number("layer", layer, model.hparams.n_layer)
    check_number("head", head, model.hparams.n_head)
    ids = tables.read_ids(model, text_of(args))
    masked = tables.attention_weights(model, ids[0], layer)[head]
    unmasked = tables.unmasked_weights(model, ids[0], layer)[head]
    announce(model, args)
    labels = tables.token_labels(model.tokenizer, ids)
    print(f"where each token looks most, in block h{layer}, head {head}")
    print_table(
        ("token", "masked", "", "unmasked", "", "on what follows"),
        [
            (
                label,
                labels[m.argmax()],
                f"{m.max():.3f}",
                labels[u.argmax()],
                f"{u.max():.3f}",
                f"{u[i + 1 :].sum():.3f}",
            )
            for i, (label, m, u) in enumerate(zip(labels, masked, unmasked, strict=True))
        ],
        left=(0, 1, 3),
    )
    if draw:
        name = f"attention of {model.name}, block h{layer}, head {head}"
        draw.save_figure(draw.mask_figure(masked, unmasked, labels, name), args.output)


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `mask`."""
    parser.add_argument("--layer", metavar="N", type=int, default=0, help="the block, counted from 0 (default: 0)")
    parser.add_argument("--head", metavar="N", type=int, default=0, help="the head, counted from 0 (default: 0)")


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
        add_attention_options,
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
        add_mask_options,
    ),
}
EXAMPLES = "".join(f"  numpy-gpt2 explore {view.example}\n" for view in VIEWS.values())
