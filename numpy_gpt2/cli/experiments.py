"""The views of `numpy-gpt2 explore` that change something inside the model, or take a prediction apart."""

from __future__ import annotations

import argparse
from typing import Any, get_args

import numpy as np

from ..gpt2 import GPT2
from ..inside import experiments
from ..inside.experiments import Part, Question
from ..inside.patches import mean, zero
from ..inside.tables import read_ids, token_labels
from .loading import announce
from .process import argument_text, progress_bar
from .tables import show_table, text_of, token_texts


def add_question_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which prediction is measured."""
    help = "the token that follows, such as ' she', with its space (default: the likeliest)"
    parser.add_argument("--token", metavar="TOKEN", help=help)
    help = "a token to compare it with: the difference of their logits is measured, and not a log-probability"
    parser.add_argument("--other", metavar="TOKEN", help=help)


def answer(args: argparse.Namespace, model: GPT2, question: Question, **values: float) -> dict[str, Any]:
    """Which prediction was measured, and some of its values, for `show_table`."""
    return {**dict(zip(("token", "other"), token_texts(args, model, question.ids), strict=False)), **values}


def measured(model: GPT2, question: Question) -> str:
    """What is measured, for the title of a picture."""
    token, *other = token_labels(model.tokenizer, question.ids)
    return f"logit of {token!r} - logit of {other[0]!r}" if other else f"log-probability of {token!r}"


def add_ablate_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `ablate`."""
    add_question_options(parser)
    parser.add_argument("--mean", action="store_true", help="put the mean over the text in place of 0")


def show_ablate(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """What each head and each MLP does for a prediction."""
    ids = read_ids(model, text_of(args))
    n_layer, n_head = model.hparams.n_layer, model.hparams.n_head
    with progress_bar(n_layer * (n_head + 1), "pass") as bar:
        change = mean if args.mean else zero
        found = experiments.ablation(model, ids[0], args.token, args.other, change, bar.update)
    announce(model, args)
    effects = np.column_stack([found.heads, found.mlps])
    columns = [*(f"head {i}" for i in range(n_head)), "mlp"]
    blocks = [f"h{i}" for i in range(n_layer)]
    what = measured(model, found.question)
    off = "with the mean in place of one part" if args.mean else "without one part"
    name = f"{what}, and how it changes {off} ({model.name})"
    figure = draw and draw.effects_figure(effects, blocks, columns, name, f"change from {found.whole:.2f}")
    common = answer(args, model, found.question, prediction=found.whole)
    title = f"how the prediction changes {off}: a head, or an MLP"
    columns_of = {"block": "<", **dict.fromkeys(columns, ".3f")}
    show_table(args, columns_of, zip(blocks, *effects.T, strict=True), title, common=common)
    return figure


def add_patch_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `patch`."""
    parser.add_argument("clean", metavar="CLEAN", help="the text that activations are taken from")
    parser.add_argument("corrupted", metavar="CORRUPTED", help="a text of as many tokens that they are put into")
    add_question_options(parser)
    help = "what is taken: the residual stream, or what attention or the MLP adds to it (default: %(default)s)"
    parser.add_argument("--part", choices=get_args(Part), default="stream", help=help)


def show_patch(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """Where the information passes that makes the difference between two texts."""
    clean, corrupted = (read_ids(model, argument_text(text)) for text in (args.clean, args.corrupted))
    n_patches = corrupted.shape[1] * len(experiments.part_names(args.part, model.hparams.n_layer))
    with progress_bar(n_patches, "patch") as bar:
        question = args.token, args.other
        found = experiments.activation_patching(model, clean[0], corrupted[0], *question, args.part, bar.update)
    announce(model, args)
    before, after = (token_texts(args, model, ids) for ids in (clean, corrupted))
    figure = None
    if draw:
        labels = [a if a == b else f"{a} → {b}" for a, b in zip(after, before, strict=True)]
        name = f"{measured(model, found.question)}: {found.corrupted:.2f}, and {found.clean:.2f} after the clean text"
        figure = draw.effects_figure(found.restored, found.names, labels, f"{name} ({model.name})", "share restored")
    common = answer(args, model, found.question, after_clean=found.clean, after_corrupted=found.corrupted)
    title = "the share of the difference that comes back with what the clean text has at one place"
    columns = {"position": "", "clean": "<", "corrupted": "<", **dict.fromkeys(found.names, ".3f")}
    show_table(args, columns, zip(range(len(after)), before, after, *found.restored, strict=True), title, common=common)
    return figure


def show_attribute(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """What each part adds to a logit."""
    ids = read_ids(model, text_of(args))
    found = experiments.attribution(model, ids[0], args.token, args.other)
    announce(model, args)
    terms = np.column_stack([found.heads, found.biases, found.mlps])
    columns = [*(f"head {i}" for i in range(model.hparams.n_head)), "bias", "mlp"]
    blocks = [f"h{i}" for i in range(model.hparams.n_layer)]
    rest = {name: getattr(found, name) for name in ("token_embedding", "position_embedding", "last_bias")}
    figure = None
    if draw:
        what = measured(model, found.question).replace("log-probability", "logit")
        name = f"{what}: {found.total:.2f} is the sum of these terms ({model.name})"
        note = "besides: " + ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in rest.items())
        figure = draw.effects_figure(terms, blocks, columns, name, "term of the sum", note)
    common = answer(args, model, found.question, logit=found.total, **rest)
    title = "what each head, the bias of attention and the MLP add to the logit"
    columns_of = {"block": "<", **dict.fromkeys(columns, ".3f")}
    show_table(args, columns_of, zip(blocks, *terms.T, strict=True), title, common=common)
    return figure


def add_heads_options(parser: argparse.ArgumentParser) -> None:
    """Adds the argument of `heads`."""
    parser.add_argument("text", metavar="TEXT", nargs="?", help="the text that is read twice (default: random ids)")


def show_heads(args: argparse.Namespace, model: GPT2, draw: Any) -> Any:
    """Where each head looks in a text that comes twice."""
    scores = experiments.head_scores(model, None if args.text is None else argument_text(args.text))
    announce(model, args)
    text = "random ids" if args.text is None else "the text"
    name = f"where the heads of {model.name} look, in {text} read twice"
    figure = draw and draw.scores_figure(scores._asdict(), name)
    n_layer, n_head = scores.first.shape
    rows = [(f"h{i}", j, *(score[i, j] for score in scores)) for i in range(n_layer) for j in range(n_head)]
    title = f"average weight on the first token, on the token itself and on the one before, in {text} read twice;\n"
    title += "in the second copy, on the same token in the first (duplicate) and on the one after that (induction)"
    show_table(args, {"block": "<", "head": "", **dict.fromkeys(scores._fields, ".3f")}, rows, title)
    return figure
