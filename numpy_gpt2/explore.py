"""Look inside a model: `python -m numpy_gpt2.explore SUBCOMMAND [TEXT]`."""

from __future__ import annotations

from . import interrupts  # isort: split

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .commands import ArgumentParser, is_terminal, log_to_standard_error, read_input, run
from .model_options import add_model_options, announce, load_model, set_threads

if TYPE_CHECKING:
    from .gpt2 import GPT2
    from .params import Array

SENTENCE = "The king gave his daughter to the poor miller's son, and they lived happily together."

DESCRIPTION = """\
Look inside GPT-2. Each subcommand prints a table, and with -o draws a picture.

examples:
  python -m numpy_gpt2.explore tokens "The princess kissed the frog."
  python -m numpy_gpt2.explore next "Once upon a" -o next.png
  python -m numpy_gpt2.explore attention "The princess kissed the frog." --layer 3 --head 1 -o head.png
  python -m numpy_gpt2.explore weights "h1/attn/c_attn/w[:300,:300]" -o weights.png
"""


def parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(
        prog="python -m numpy_gpt2.explore",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subcommands = parser.add_subparsers(metavar="SUBCOMMAND", required=True)

    def add(name: str, show: Callable[..., None], help: str, text: bool = True) -> ArgumentParser:
        added: ArgumentParser = subcommands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        added.set_defaults(show=show)
        if text:
            help = f"if there is none, standard input, or from a terminal the sentence {SENTENCE!r}"
            added.add_argument("text", metavar="TEXT", nargs="?", help=help)
        added.add_argument("-o", "--output", metavar="FILE", type=Path, help="draw a picture: FILE.png, .svg or .pdf")
        add_model_options(added)
        return added

    add("params", show_params, "every parameter: name, shape, size, mean, standard deviation", text=False)
    add("tokens", show_tokens, "how a text splits: ids, pieces, bytes, and the merges that made each piece")
    next = add("next", show_next, "the most likely next tokens and their probabilities")
    next.add_argument("-n", metavar="N", type=int, default=10, help="how many (default: 10)")
    next.add_argument("--temperature", metavar="T", type=float, default=1.0, help="(default: 1)")
    next.add_argument("--top-k", metavar="K", type=int, default=0, help="(default: 0, all)")
    next.add_argument("--top-p", metavar="P", type=float, default=1.0, help="(default: 1, all)")
    attention = add("attention", show_attention, "who looks at whom: one head, the heads of one block, or all")
    attention.add_argument("--layer", metavar="N", type=int, help="the block, counted from 0 (default: all)")
    attention.add_argument("--head", metavar="N", type=int, help="the head, counted from 0 (default: all)")
    add("lens", show_lens, "what each layer would predict: the logit lens")
    add("positions", show_positions, "the position embeddings, and how similar they are to each other", text=False)
    weights = add("weights", show_weights, "any parameter, or a slice of it", text=False)
    weights.add_argument("name", metavar="NAME", help="as `params` lists it: 'h1/attn/c_attn/w[:300,:300]'")
    trace = add(
        "trace",
        show_trace,
        "every array that a pass computes: name, shape, source line (the picture: how large the residual stream grows)",
    )
    trace.add_argument("--names", metavar="PATTERN", default="*", help="only these, with * for anything: 'h0*'")
    mask = add("mask", show_mask, "the same text with the mask and without: what a decoder and what an encoder may see")
    mask.add_argument("--layer", metavar="N", type=int, default=0, help="the block, counted from 0 (default: 0)")
    mask.add_argument("--head", metavar="N", type=int, default=0, help="the head, counted from 0 (default: 0)")
    return parser


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], left: Sequence[int] = (0,)) -> None:
    """Prints columns of equal width; those in `left` are aligned to the left, the others to the right."""
    lines = [[*head], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        print("  ".join(cells).rstrip())


def text_of(args: argparse.Namespace) -> str:
    """The text to look at; a terminal is not asked for one."""
    if args.text is None:
        given = "" if is_terminal(sys.stdin) else read_input("-")
        return given.removesuffix("\n") or SENTENCE
    return read_input("-").removesuffix("\n") if args.text == "-" else str(args.text)  # which `echo` adds


def pictures(args: argparse.Namespace) -> Any:
    """The module that draws, or None if no picture is wanted.

    Raises:
        FileNotFoundError: the picture's folder is not there.
        ImportError: matplotlib is not installed.
        ValueError: there is no such format of pictures.
    """
    if args.output is None:
        return None
    if not args.output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {args.output.parent} for the picture")
    try:
        from . import pictures
    except ImportError as error:
        raise ImportError(f'a picture needs matplotlib ({error}): pip install "numpy_gpt2[plot]"') from None
    pictures.check_format(args.output)
    return pictures


def check_number(name: str, i: int, n: int) -> None:
    """Checks the number of a block or head.

    Raises:
        ValueError: there is none with this number.
    """
    if not 0 <= i < n:
        raise ValueError(f"--{name} must be 0 to {n - 1} for this model, not {i}")


def labels_of(model: GPT2, ids: Array) -> list[str]:
    """What to write for each token."""
    from .inspection import token_labels

    return token_labels(model.tokenizer, ids)


# The subcommands. Each gets its options, the model, and the module that draws, or None if no picture is wanted.


def show_params(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """Every parameter."""
    from .inspection import parameter_statistics

    table = parameter_statistics(model.params)
    print_table(
        ("name", "shape", "size", "mean", "deviation"),
        [(row.name, list(row.shape), f"{row.size:,}", f"{row.mean:.4f}", f"{row.deviation:.4f}") for row in table],
    )
    print(f"\n{sum(row.size for row in table):,} parameters in {len(table)} arrays")
    if draw:
        draw.save_figure(draw.params_figure(table, model.name), args.output)


def show_tokens(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """How a text splits."""
    from .inspection import tokens
    from .prompts import require

    found = tokens(require(model.tokenizer), text_of(args))
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
    """The most likely next tokens."""
    from .inspection import next_tokens, token_labels
    from .sampling import check_whole_number

    check_whole_number("-n", args.n, at_least=1)
    text = text_of(args)
    chances = next_tokens(model, text, args.n, args.temperature, args.top_k, args.top_p)
    announce(model, args)
    labels = token_labels(model.tokenizer, [c.id for c in chances])
    print_table(
        ("rank", "id", "token", "probability", "drawn with"),
        [
            (rank, c.id, label, f"{c.probability:.6f}", f"{c.drawn:.6f}")
            for rank, (c, label) in enumerate(zip(chances, labels, strict=True), start=1)
        ],
        left=(2,),
    )
    if draw:
        drawn_with = f"temperature {args.temperature:g}, top-k {args.top_k}, top-p {args.top_p:g}"
        name = f"what follows {draw.ending(text)} ({model.name})"
        draw.save_figure(draw.next_figure(chances, labels, name, drawn_with), args.output)


def show_attention(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """Who looks at whom: in one head, in one block, or in all."""
    from .inspection import attention_weights, read_ids

    if args.layer is not None:
        check_number("layer", args.layer, model.hparams.n_layer)
    if args.head is not None:
        check_number("head", args.head, model.hparams.n_head)
        if args.layer is None:
            raise ValueError("--head counts the heads of one block: say which with --layer")
    ids = read_ids(model, text_of(args))
    weights = attention_weights(model, ids[0], args.layer)
    announce(model, args)
    labels = labels_of(model, ids)
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


def print_head(weights: Array, labels: Sequence[str]) -> None:
    """Prints for each token the three that one head looks at most.

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
    from .inspection import habits

    rows = []
    for layer, weights in layers.items():
        if weights.shape[-1] == 1:
            print("a single token can only look at itself")
            return
        for head, of_head in enumerate(weights):
            first, itself, previous, distance = habits(of_head)
            rows.append((f"h{layer}", head, f"{first:.3f}", f"{itself:.3f}", f"{previous:.3f}", f"{distance:.1f}"))
    print("average weight on the first token, on the token itself and on the one before, and how far back")
    print_table(("block", "head", "first", "itself", "before", "distance"), rows)


def show_lens(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """What each layer would predict."""
    from .inspection import logit_lens, read_ids

    ids = read_ids(model, text_of(args))
    lens = logit_lens(model, ids[0])
    announce(model, args)
    labels = labels_of(model, ids)
    predicted = [labels_of(model, row) for row in lens.ids]
    print("the likeliest next token, if the model ended with the embeddings (emb) or after a block")
    names = ["emb", *(f"h{i}" for i in range(model.hparams.n_layer))]
    print_table(("token", *names), zip(labels, *predicted, strict=True), left=range(len(names) + 1))
    if draw:
        figure = draw.lens_figure(lens, labels, predicted, f"what each layer of {model.name} would predict next")
        draw.save_figure(figure, args.output)


def show_positions(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """The position embeddings."""
    from .inspection import parameter, position_similarity

    similarity = position_similarity(model.params)
    n = len(similarity)
    steps = [step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if step < n]
    print("how similar a position's embedding is to those of later ones (cosine)")
    print_table(
        ("position", *(f"+{step}" for step in steps)),
        [
            (i, *(f"{similarity[i, i + step]:.3f}" if i + step < n else "" for step in steps))
            for i in sorted({0, 1, 2, 3, *range(4, n, max(1, n // 12)), n - 1} & {*range(n)})
        ],
        left=(),
    )
    if draw:
        draw.save_figure(draw.positions_figure(parameter(model.params, "wpe"), similarity, model.name), args.output)


def show_weights(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """A parameter."""
    import numpy as np

    from .inspection import parameter

    array = parameter(model.params, args.name)
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


def show_trace(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """What the recorder records."""
    from .inspection import read_ids, stream_sizes
    from .recorder import trace

    ids = read_ids(model, text_of(args))
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
        draw.save_figure(draw.stream_figure(stream_sizes(model, ids[0]), name), args.output)


def show_mask(args: argparse.Namespace, model: GPT2, draw: Any) -> None:
    """The same head with the mask and without."""
    from .inspection import attention_weights, read_ids, unmasked_weights

    layer, head = args.layer, args.head
    check_number("layer", layer, model.hparams.n_layer)
    check_number("head", head, model.hparams.n_head)
    ids = read_ids(model, text_of(args))
    masked = attention_weights(model, ids[0], layer)[head]
    unmasked = unmasked_weights(model, ids[0], layer)[head]
    announce(model, args)
    labels = labels_of(model, ids)
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


def show(args: argparse.Namespace) -> None:
    """Runs the subcommand."""
    set_threads(args.threads)  # before anything imports NumPy
    import numpy  # noqa: F401

    interrupts.raise_from_now_on()
    draw = pictures(args)
    args.show(args, load_model(args), draw)


def main() -> int:
    """The command line `python -m numpy_gpt2.explore`."""
    args = parser().parse_args()
    log_to_standard_error()
    return run(lambda: show(args))


if __name__ == "__main__":
    sys.exit(main())
