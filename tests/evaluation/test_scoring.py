"""Loss, probabilities and ranks against transformers, and windows against the recipe in its documentation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_ids, random_model

from numpy_gpt2 import layers
from numpy_gpt2.evaluation import scoring
from numpy_gpt2.evaluation.scoring import IGNORED, windows
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import HParams


def loss_in_pytorch(peer: Any, ids: Any, labels: Any, **arguments: Any) -> float:
    """The loss of transformers, in float64; transformers itself computes it in float32."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        output = peer(ids, labels=labels, **arguments)
        precise = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert precise.item() == pytest.approx(output.loss.item(), rel=1e-6)
    return precise.item()


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
class TestAgainstHuggingFace:
    @pytest.mark.parametrize("n_batch", [1, 3])
    def test_loss(self, hparams: HParams, n_batch: int) -> None:
        torch = pytest.importorskip("torch")
        model = random_model(hparams)
        ids = random_ids(hparams, n_batch, hparams.n_ctx)
        theirs = loss_in_pytorch(in_pytorch(model), torch.tensor(ids), torch.tensor(ids))
        assert model.loss(ids) == pytest.approx(theirs, rel=1e-10)
        assert model.perplexity(ids[0]) == pytest.approx(math.exp(model.loss(ids[0])), rel=1e-10)

    def test_loss_with_ignored_labels(self, hparams: HParams) -> None:
        torch = pytest.importorskip("torch")
        model = random_model(hparams)
        ids = random_ids(hparams, 3, hparams.n_ctx)
        labels = random_ids(hparams, 3, hparams.n_ctx, seed=1)
        labels[0, 2:] = labels[2, :4] = IGNORED
        theirs = loss_in_pytorch(in_pytorch(model), torch.tensor(ids), torch.tensor(labels))
        assert model.loss(ids, labels) == pytest.approx(theirs, rel=1e-10)
        assert model.loss(ids[0], labels[0]) != pytest.approx(theirs, rel=1e-3)

    def test_a_right_padded_batch(self, hparams: HParams) -> None:
        """The labels of the padding are -100; transformers also gets an attention mask."""
        torch = pytest.importorskip("torch")
        model = random_model(hparams)
        ids = random_ids(hparams, 3, hparams.n_ctx)
        mask = np.arange(hparams.n_ctx) < np.array([[2], [hparams.n_ctx], [hparams.n_ctx // 2]])
        labels = np.where(mask, ids, IGNORED)
        peer, theirs = in_pytorch(model), torch.tensor(ids)
        attention_mask = torch.tensor(mask.astype(int))
        loss = loss_in_pytorch(peer, theirs, torch.tensor(labels), attention_mask=attention_mask)
        assert model.loss(ids, labels) == pytest.approx(loss, rel=1e-10)
        ours = model.logits(ids)[mask]
        expected = peer(theirs, attention_mask=attention_mask).logits.detach().numpy()[mask]
        assert np.abs(ours - expected).max() <= 1e-10 * np.abs(ours).max()

    def test_a_text_longer_than_the_context(self, hparams: HParams) -> None:
        """The recipe of "Perplexity of fixed-length models" in the documentation of transformers."""
        torch = pytest.importorskip("torch")
        model = random_model(hparams)
        peer = in_pytorch(model)
        n_seq = 3 * hparams.n_ctx + 2
        ids = torch.tensor(random_ids(hparams, 1, n_seq))
        for stride in {1, 2, hparams.n_ctx // 2, hparams.n_ctx - 1}:
            total, n_scored, previous_end = 0.0, 0, 0
            for begin in range(0, n_seq, stride):
                end = min(begin + hparams.n_ctx, n_seq)
                target = ids[:, begin:end].clone()
                target[:, : -(end - previous_end)] = -100
                n_valid = int((target[:, 1:] != -100).sum())
                total += loss_in_pytorch(peer, ids[:, begin:end], target) * n_valid
                n_scored += n_valid
                previous_end = end
                if end == n_seq:
                    break
            assert n_scored == n_seq - 1
            assert model.loss(ids[0].numpy(), stride=stride) == pytest.approx(total / n_scored, rel=1e-10)
        half = model.loss(ids[0].numpy(), stride=hparams.n_ctx // 2)
        assert model.loss(ids[0].numpy()) == half != pytest.approx(model.loss(ids[0].numpy(), stride=1), rel=1e-6)

    def test_labels_of_texts_longer_than_the_context(self, hparams: HParams) -> None:
        """The loss is the mean over windows that are read alone, in which only tokens not scored before count."""
        model = random_model(hparams)
        n_ctx, n_seq = hparams.n_ctx, 2 * hparams.n_ctx + 1
        ids, labels = random_ids(hparams, 2, n_seq), random_ids(hparams, 2, n_seq, seed=1)
        labels[0, n_ctx + 1 :] = IGNORED
        losses, counts = [], []
        for begin, first, end in windows(n_seq, n_ctx, n_ctx // 2):
            target = labels[:, begin:end].copy()
            target[:, : first - begin] = IGNORED
            losses.append(model.loss(ids[:, begin:end], target))
            counts.append(int((target[:, 1:] != IGNORED).sum()))
        assert sum(counts) == int((labels[:, 1:] != IGNORED).sum())
        assert model.loss(ids, labels) == pytest.approx(np.average(losses, weights=counts), rel=1e-10)

    def test_each_token(self, hparams: HParams) -> None:
        torch = pytest.importorskip("torch")
        model = random_model(hparams)
        ids = random_ids(hparams, 1, hparams.n_ctx)[0]
        with torch.no_grad():
            theirs = torch.log_softmax(in_pytorch(model)(torch.tensor(ids[None])).logits[0, :-1], dim=-1)
        order = theirs.argsort(dim=-1, descending=True)
        stride = hparams.n_ctx // 2
        for at_once in (1, 3, 1000):
            pieces = list(scoring.score(ids[None], model.params, hparams.n_head, stride, positions_at_once=at_once))
            assert {piece.ranks.shape[1] for piece in pieces[:-1]} <= {at_once}
            log_probabilities, ranks = (np.concatenate(values, axis=-1)[0] for values in zip(*pieces, strict=True))
            np.testing.assert_allclose(
                log_probabilities, theirs[range(len(ids) - 1), ids[1:]].numpy(), rtol=0, atol=1e-10
            )
            assert ranks.tolist() == [order[i].tolist().index(id) + 1 for i, id in enumerate(ids[1:])]
        whole = scoring.join(model.score(ids))
        np.testing.assert_allclose(whole.log_probabilities[0], log_probabilities, rtol=0, atol=1e-12)
        assert whole.ranks[0].tolist() == ranks.tolist()


def test_a_context_of_one_token_scores_each_token_by_the_one_before() -> None:
    model = random_model(SHAPES[1]._replace(n_ctx=1))
    ids = [3, 1, 4, 1, 5]
    scores = scoring.join(model.score(ids))
    expected = [layers.log_softmax(model.logits([ids[i]])[0])[ids[i + 1]] for i in range(4)]
    np.testing.assert_allclose(scores.log_probabilities[0], expected, rtol=0, atol=1e-12)
    assert model.loss(ids) == pytest.approx(-np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("n_seq", [0, 1, 2, 7, 8, 9, 30])
@pytest.mark.parametrize("stride", [1, 3, 7])
def test_every_token_but_the_first_is_scored_once(n_seq: int, stride: int) -> None:
    scored: list[int] = []
    for begin, first, end in windows(n_seq, 8, stride):
        assert begin < first < end <= begin + 8
        assert begin == 0 or first - begin >= 8 - stride
        scored += range(first, end)
    assert scored == list(range(1, n_seq))


def test_perplexity_of_text_is_that_of_its_ids(tiny: GPT2) -> None:
    assert tiny.tokenizer
    ids = tiny.tokenizer.encode("Once upon a time there was a king.")
    assert tiny.perplexity("Once upon a time there was a king.") == tiny.perplexity(ids)
    assert tiny.perplexity(ids) == pytest.approx(math.exp(tiny.loss(ids)))
    assert 1 < tiny.perplexity(ids) < 30


def test_a_perplexity_too_large_for_a_float_is_infinite() -> None:
    assert scoring.perplexity(1e4) == math.inf


def test_the_rank_counts_only_likelier_tokens() -> None:
    logits = np.array([[[1.0, 3.0, 3.0, 2.0]]])
    assert [int(scoring.score_logits(logits, np.array([[id]])).ranks[0, 0]) for id in range(4)] == [4, 1, 1, 3]


@pytest.mark.parametrize(
    ("ids", "options", "complaint"),
    [
        ([1], {}, "there is nothing to score: the first token of a text never is, and there is no other$"),
        ([], {}, "no token ids"),
        ([1, 2], {"labels": [-100, -100]}, "nothing to score: .* no other label than -100"),
        ([1, 2], {"labels": [1, 300]}, "labels holds 300; it must hold numbers from 0 to 299, or -100"),
        ([1, 2], {"labels": [1, -1]}, "labels holds -1"),
        ([1, 2], {"labels": [1, 2, 3]}, r"labels must be whole numbers in the shape \[2\], not int64 in .*\[3\]"),
        (
            [1, 2],
            {"labels": [[1], [2, 3]]},
            "labels must be whole numbers in the shape .2., in rows of the same length",
        ),
        ([1, 2], {"labels": [1.0, 2.0]}, "labels must be whole numbers"),
        ([1, 2], {"stride": 0}, "stride must be a whole number, 1 to 6, not 0"),
        ([1, 2], {"stride": 7}, "stride must be a whole number, 1 to 6, not 7"),
        ([1, 300], {}, "token id 300 is outside"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(ids: list[int], options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        random_model(SHAPES[0]).loss(ids, **options)


def test_a_mean_over_many_tokens_is_taken_in_float64() -> None:
    log_probabilities = np.full(10**7, -0.1, np.float32)
    assert scoring.cross_entropy(log_probabilities, np.zeros(10**7, int)) == pytest.approx(np.float32(0.1), rel=1e-12)


def test_text_without_a_vocabulary() -> None:
    with pytest.raises(ValueError, match="has no vocabulary"):
        random_model(SHAPES[0]).perplexity("text")
