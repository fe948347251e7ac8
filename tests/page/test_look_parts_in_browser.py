"""Attention, Layers and Why this word, parts of the view "Look inside", in a real browser: against `inside`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode

import numpy as np
import numpy.typing as npt
import pytest
from browsing import BROWSER, Served, Watched

import numpy_gpt2
from numpy_gpt2 import layers
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside import experiments, tables, zero
from numpy_gpt2.inside.recorder import Trace
from numpy_gpt2.params import Array
from numpy_gpt2.tokenizer import Tokenizer

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
expect = playwright.expect
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: its path may be in CHROMIUM")

TEXT = "Once upon a time there was a king who had three daughters."
LONG = f"{TEXT} " * 16  # more than 200 tokens
NO_MLP = [{"name": "h0/mlp", "how": "zero"}]
WIDTHS = "[document.documentElement.scrollWidth, window.innerWidth]"
SHOWN = {  # in each part, what is there when it is complete
    "attention": [".head-picture[aria-pressed=true]", ".best-heads li", ".words .word[aria-selected=true]"],
    "layers": [".lens-cell.is-locked", ".sum strong", "[aria-label='The next token'] button[aria-pressed=true]"],
    "origin": [".origin .one-value:visible, .part-origin > p.card:visible"],
}
HABITS = {"previous": "the token before", "first": "the first token", "itself": "itself"}


@pytest.fixture
def look(page: Any) -> Callable[..., Any]:
    """Goes to the address of a part with this state, and waits until it is shown."""

    def shown(part: str, **state: object) -> Any:
        go(page, part, **state)
        settle(page)
        return page

    return shown


def go(page: Any, part: str, **state: object) -> None:
    """Goes to the address of a part with this state."""
    fields = urlencode({"part": part, "model": "tiny", "text": TEXT, **state})
    page.goto(f"{page.url.partition('#')[0]}#look?{fields}")


@pytest.fixture(scope="module")
def weights(tiny: GPT2) -> Array:
    """`[n_layer, n_head, n_seq, n_seq]`"""
    return tables.attention_weights(tiny, TEXT)


@pytest.fixture(scope="module")
def whole(tiny: GPT2) -> Trace:
    """A recording of all arrays of a pass over the text."""
    with numpy_gpt2.trace() as t:
        tiny.logits(TEXT)
    return t


@pytest.fixture(scope="module")
def ids(tiny: GPT2) -> list[int]:
    return vocabulary(tiny).encode(TEXT)


def vocabulary(model: GPT2) -> Tokenizer:
    assert model.tokenizer
    return model.tokenizer


def settle(page: Any) -> None:
    """Waits until all that a part asks for is shown."""
    for shown in SHOWN[state(page)["part"]]:
        expect(page.locator(shown).first).to_be_visible()
    expect(page.locator("#work")).to_be_hidden()


def state(page: Any) -> dict[str, str]:
    """The fields of the address, to which small moves are written after a moment, or when the page is left."""
    link = page.evaluate("() => { dispatchEvent(new Event('pagehide')); return location.hash; }")
    return {name: values[0] for name, values in parse_qs(link.partition("?")[2]).items()}


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("−", "-"))


def share(text: str) -> float:
    """A probability as the page writes it: `12 %`."""
    found = re.search(r"([\d.]+) %", text)
    assert found
    return float(found[1]) / 100


def head(page: Any, layer: int, head: int) -> Any:
    return page.get_by_role("button", name=f"Layer {layer}, head {head},")


def pixels(canvas: Any) -> list[int]:
    program = 'canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]'
    return [*canvas.evaluate(program)]


def painted(page: Any, array: npt.NDArray[Any], is_signed: bool = False) -> list[int]:
    """The pixels that an array should have: none of them is minus infinity."""
    colours = page.evaluate(f'async () => [...(await import("./palette.js")).palette({str(is_signed).lower()})]')
    high = np.abs(array).max()
    low = -high if is_signed else 0
    shades = 1 + np.rint((array.astype(np.float64) - low) / (high - low) * 254).astype(int)
    return [int(x) for x in np.reshape(colours, (256, 4))[shades].ravel()]


def shading(page: Any) -> Array:
    """How strongly each word is shaded; 1 is the most."""
    program = 'words => words.map((word) => Number(word.style.getPropertyValue("--weight")))'
    return np.array(page.locator(".part:visible .word").evaluate_all(program))


def assert_shaded(page: Any, numbers: Array) -> None:
    """Half a shade of the picture, and half of the last digit."""
    np.testing.assert_allclose(shading(page), numbers / numbers.max(), atol=0.5 / 254 / numbers.max() + 6e-4)


class TestAttention:
    def test_a_head_is_locked_in_the_small_pictures_and_stays_locked(self, look: Any) -> None:
        page = look("attention", token=7)
        expect(page.locator(".head-picture")).to_have_count(16)
        head(page, 2, 3).click()
        for _ in range(2):
            expect(head(page, 2, 3)).to_have_attribute("aria-pressed", "true")
            expect(page.locator(".head-picture[aria-pressed=true]")).to_have_count(1)
            expect(page.get_by_role("heading", name="Layer 2, head 3")).to_be_visible()
            expect(page.locator("#look-layer")).to_have_value("2")
            expect(page.locator("#look-head")).to_have_value("3")
            assert {**state(page), "text": ""} == {
                "part": "attention", "model": "tiny", "token": "7", "layer": "2", "head": "3", "text": ""
            }  # fmt: skip
            page.reload()
            settle(page)

    def test_pixels_are_the_weights(self, look: Any, weights: Array) -> None:
        page = look("attention", layer=1, head=2)
        for i, j in np.ndindex(weights.shape[:2]):
            assert pixels(head(page, i, j).locator("canvas")) == painted(page, weights[i, j])
        large = page.get_by_role("region", name="One head").locator("canvas").first
        assert pixels(large) == painted(page, weights[1, 2])

    def test_habits_are_those_of_tables_and_the_strongest_are_found(self, look: Any, weights: Array) -> None:
        page = look("attention")
        habits = {(i, j): tables.habits(weights[i, j]) for i, j in np.ndindex(weights.shape[:2])}
        for (i, j), found in habits.items():
            label = str(head(page, i, j).get_attribute("aria-label"))
            previous, first, itself = (share(part) for part in label.split(", ")[2:5])
            np.testing.assert_allclose([first, itself, previous], found[:3], atol=0.0051)
            assert f"{found.distance:.1f} tokens back" in label
            strongest = max(HABITS, key=lambda habit: getattr(found, habit))
            shown = {"previous": "before", "first": "first", "itself": "itself"}[strongest]
            expect(head(page, i, j).locator(".head-habit")).to_have_text(re.compile(f"^{shown} "))
        for habit, words in HABITS.items():
            layer, j = max(habits, key=lambda each: getattr(habits[each], habit))
            line = page.get_by_role("listitem").filter(has_text=f"Looks most at {words}:")
            expect(line.get_by_role("button")).to_have_text(f"layer {layer}, head {j}")
            page.get_by_label("Order").select_option(habit)
            expect(page.locator(".head-picture").first).to_have_accessible_name(
                re.compile(f"^Layer {layer}, head {j},")
            )
            line.get_by_role("button").click()
            expect(head(page, layer, j)).to_have_attribute("aria-pressed", "true")

    def test_words_are_shaded_by_the_weights_of_a_row_or_turned_around_of_a_column(
        self, look: Any, weights: Array
    ) -> None:
        page = look("attention", layer=1, head=0, token=7)
        assert_shaded(page, weights[1, 0, 7])
        said = page.locator(".part:visible .readout").first
        expect(said).not_to_contain_text("≈")
        assert share(str(said.text_content())) == pytest.approx(weights[1, 0, 7].max(), abs=0.0051)
        page.locator(".part:visible .word").nth(10).hover()
        assert_shaded(page, weights[1, 0, 10])
        page.locator(".part:visible .word").nth(10).click()
        assert state(page)["token"] == "10"
        page.get_by_role("combobox", name="Shade").select_option("who looks at a word")
        page.locator(".part:visible .word").nth(5).hover()
        assert_shaded(page, weights[1, 0, :, 5])
        expect(said).to_contain_text("is looked at by")

    def test_all_heads_of_a_layer_as_one_are_marked_as_derived(self, look: Any, weights: Array) -> None:
        page = look("attention", layer=2)
        card = page.get_by_role("region", name="One head")
        expect(card.locator("figcaption").first).not_to_contain_text("Derived")
        for how, array in {"average": weights[2].mean(axis=0), "maximum": weights[2].max(axis=0)}.items():
            page.get_by_role("combobox", name="Show").select_option(f"{how} of all heads of the layer (derived)")
            expect(card).to_contain_text(f"Derived: {how}")
            assert pixels(card.locator("canvas").first) == painted(page, array)
            assert_shaded(page, array[-1])

    def test_masked_and_unmasked_are_side_by_side(self, look: Any, tiny: GPT2) -> None:
        page = look("attention", layer=3, head=1)
        page.get_by_label("Beside it, the same without the mask").check()
        card = page.get_by_role("region", name="One head")
        expect(card.get_by_text("Derived: without the mask")).to_be_visible()
        expected = tables.unmasked_weights(tiny, TEXT, 3)[1]
        assert pixels(card.locator("canvas").nth(1)) == painted(page, expected)

    def test_without_the_mask_has_the_changes_of_the_pass(self, look: Any, tiny: GPT2) -> None:
        page = look("attention", layer=3, head=1, changes=json.dumps(NO_MLP))
        page.get_by_label("Beside it, the same without the mask").check()
        card = page.get_by_role("region", name="One head")
        expect(card.get_by_text("Derived: without the mask")).to_be_visible()
        with numpy_gpt2.patch({"h0/mlp": zero}):
            expected = tables.unmasked_weights(tiny, TEXT, 3)[1]
        assert pixels(card.locator("canvas").nth(1)) == painted(page, expected)

    def test_a_weight_leads_to_its_arithmetic(self, look: Any, weights: Array) -> None:
        page = look("attention", layer=1, head=0)
        matrix = page.get_by_role("application", name="Layer 1, head 0: weights")
        matrix.focus()
        for key in ["ArrowDown", "ArrowDown", "ArrowRight", "Enter"]:
            page.keyboard.press(key)
        assert (state(page)["name"], state(page)["cell"], state(page)["token"]) == ("h1/attn/weights", "0,0,2,1", "2")
        settle(page)
        value = page.locator(".part:visible .one-value strong")
        assert number(str(value.text_content())) == pytest.approx(weights[1, 0, 2, 1], rel=1e-5)

    def test_many_weights_are_computed_when_somebody_asks(self, look: Any) -> None:
        page = look("attention")
        page.evaluate("""async () => {
            const { Heads } = await import("./heads.js");
            const root = document.createElement("div");
            document.body.append(root);
            const tokens = Array(1000);
            const heads = new Heads({ root, address: null, work: null });
            heads.show({ text: "", changes: [] }, { n_layer: 12, n_head: 12, tokens, model: "large" });
        }""")
        expect(page.get_by_role("button", name="Draw all 144 heads")).to_be_visible()


class TestLayers:
    def test_the_lens_says_what_each_layer_predicts(self, look: Any, tiny: GPT2, ids: list[int]) -> None:
        page = look("layers", token=7)
        lens = tables.logit_lens(tiny, TEXT)
        for r, i in np.ndindex(lens.ids.shape):
            cell = page.locator(f"#lens-{r}-{i}")
            name = ["x", "h0", "h1", "h2", "h3"][r]
            text = vocabulary(tiny).decode([int(lens.ids[r, i])])
            label = str(cell.get_attribute("aria-label"))
            assert label.startswith(f"{name}, token {i}: {text}, ")
            assert share(label.removeprefix(f"{name}, token {i}: {text}, ")) == pytest.approx(
                lens.probabilities[r, i], abs=0.0051
            )
            assert label.endswith("the token that follows") == (i + 1 < len(ids) and lens.ids[r, i] == ids[i + 1])

    def test_a_cell_locks_token_and_layer_and_only_what_is_seen_is_drawn(self, look: Any, tiny: GPT2) -> None:
        page = look("layers", text=LONG, token=150)
        assert len(vocabulary(tiny).encode(LONG)) > 200
        grid = page.get_by_role("grid")
        expect(page.locator("#lens-0-150")).to_be_in_viewport()
        assert grid.get_by_role("gridcell").count() <= 5 * 30
        page.locator("#lens-3-152").click()
        assert (state(page)["token"], state(page)["layer"]) == ("152", "2")
        expect(page.locator("#lens-3-152")).to_have_attribute("aria-selected", "true")
        grid.evaluate("grid => { grid.scrollLeft = 0; }")
        expect(page.locator("#lens-0-0")).to_be_in_viewport()
        expect(page.locator("#lens-0-152")).to_have_count(0)

    def test_a_mark_can_be_seen_in_the_darkest_cell(self, look: Any) -> None:
        page = look("layers", token=7)
        page.locator("#theme").click()
        cell = page.locator(".lens-cell").filter(has=page.locator(".mark")).first
        cell.evaluate("(cell) => cell.style.setProperty('--weight', 1)")
        program = """(cell) => {
            const context = document.createElement("canvas").getContext("2d");
            const light = (element, property) => {
                context.globalAlpha = getComputedStyle(element).opacity;
                context.fillStyle = getComputedStyle(element)[property];
                context.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((x) => x / 255)
                    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
            };
            const paper = light(cell, "backgroundColor");
            return light(cell.querySelector(".mark"), "color") / paper;
        }"""
        assert cell.evaluate(program) >= 4.5

    def test_norms_and_the_next_token_are_those_of_the_locked_one(self, look: Any, tiny: GPT2, whole: Trace) -> None:
        page = look("layers", token=5)
        logits = tiny.logits(TEXT)[5].astype(np.float64)
        best = np.argsort(-logits, kind="stable")[:10].tolist()
        card = page.get_by_role("region", name="The next token")
        assert card.get_by_role("button").evaluate_all("all => all.slice(0, 10).map((b) => Number(b.value))") == best
        shown = [share(text) for text in card.locator("td.number").all_text_contents()[:10]]
        np.testing.assert_allclose(shown, layers.softmax(logits)[best], atol=0.0051)
        norms = page.get_by_role("region", name="The residual stream").locator("td.number").all_text_contents()
        expected = [np.sqrt(np.mean(x * x)) for x in (whole[name][0, 5] for name in ("x", "h0", "h1", "h2", "h3"))]
        np.testing.assert_allclose([number(text) for text in norms], expected, rtol=1e-4)

    def test_terms_sum_to_the_logit_of_a_chosen_token(self, look: Any, tiny: GPT2, ids: list[int]) -> None:
        page = look("layers", token=7, layer=2, head=1)
        card = page.get_by_role("region", name="Direct logit attribution")
        choice = page.get_by_role("region", name="The next token").get_by_role("button").nth(3)
        choice.press("Enter")
        settle(page)
        expect(choice).to_have_attribute("aria-pressed", "true")
        expect(choice).to_be_focused()
        chosen = int(np.argsort(-tiny.logits(TEXT)[7], kind="stable")[3])
        assert state(page)["cell"] == f"0,7,{chosen}"
        page.reload()
        settle(page)
        found = experiments.attribution(tiny, ids[:8], chosen)
        assert pixels(card.locator("canvas")) == painted(page, found.heads, is_signed=True)
        *terms, total = (number(text) for text in card.locator(".sum strong").all_text_contents())
        logit = tiny.logits(ids[:8])[-1, chosen]
        assert total == pytest.approx(logit, rel=1e-4)
        assert sum(terms) == pytest.approx(total, abs=1e-3)
        of_layers = [
            [number(text) for text in row.locator("td").all_text_contents()] for row in card.locator("tbody tr").all()
        ]
        expected = np.stack([found.heads.sum(axis=1), found.biases, found.mlps], axis=1)
        np.testing.assert_allclose(of_layers, expected, atol=1e-3)
        said = card.locator(".readout")
        expect(said).to_have_text(re.compile("^Layer 2, head 1: "))
        page.get_by_role("application", name="What each head adds").focus()
        page.keyboard.press("ArrowRight")
        expect(said).to_have_text(re.compile("^Layer 2, head 2: "))
        value = str(said.text_content()).rpartition(" ")[2]
        assert number(value) == pytest.approx(found.heads[2, 2], rel=1e-4)


class TestOrigin:
    def test_from_a_token_down_to_its_lines(self, look: Any, tiny: GPT2, ids: list[int], weights: Array) -> None:
        page = look("origin", token=8)
        logits = tiny.logits(TEXT)[7].astype(np.float64)
        said = page.get_by_role("region", name="The prediction")
        rank = 1 + np.count_nonzero(logits > logits[ids[8]])
        expect(said).to_contain_text(f"rank {rank} of 4,096")
        assert share(str(said.text_content())) == pytest.approx(layers.softmax(logits)[ids[8]], abs=0.0051)
        found = experiments.attribution(tiny, ids[:8], ids[8])
        rows = page.get_by_role("region", name="What added to the logit").locator("tbody tr")
        values = [number(text) for text in rows.locator("td.number").all_text_contents()]
        assert sum(values) == pytest.approx(logits[ids[8]], abs=5e-3)
        assert [abs(value) for value in values[:-1]] == sorted((abs(value) for value in values[:-1]), reverse=True)
        layer, head = np.unravel_index(np.argmax(found.heads), found.heads.shape)
        expect(page.get_by_role("heading", name=f"layer {layer}, head {head}")).to_be_visible()
        assert_shaded(page, weights[layer, head, 7])
        arithmetic = page.locator(".part:visible .one-value")
        expect(arithmetic).to_contain_text(f"logits[0, 7, {ids[8]}]")
        page.get_by_role("link", name="The line that computed these weights").click()
        most = int(np.argmax(weights[layer, head, 7]))
        assert {name: state(page)[name] for name in ("part", "name", "layer", "head", "cell")} == {
            "part": "lines", "name": f"h{layer}/attn/weights", "layer": str(layer), "head": str(head),
            "cell": f"0,{head},7,{most}",
        }  # fmt: skip
        page.go_back()
        settle(page)
        assert state(page)["token"] == "8"
        page.get_by_role("link", name="the line that computed it").click()
        assert (state(page)["name"], state(page)["cell"]) == ("logits", f"0,7,{ids[8]}")

    def test_all_is_of_the_pass_with_its_changes(self, look: Any, tiny: GPT2, ids: list[int]) -> None:
        page = look("origin", token=8, changes=json.dumps(NO_MLP))
        with numpy_gpt2.patch({"h0/mlp": zero}):
            logit = tiny.logits(TEXT)[7, ids[8]]
            weights = tables.attention_weights(tiny, TEXT)
            found = experiments.attribution(tiny, ids[:8], ids[8])
        said = page.get_by_role("region", name="The prediction").locator("strong")
        arithmetic = page.locator(".part:visible .one-value strong")
        for shown in (said, arithmetic):
            assert number(str(shown.text_content())) == pytest.approx(logit, rel=1e-5)
        layer, head = np.unravel_index(np.argmax(found.heads), found.heads.shape)
        expect(page.get_by_role("heading", name=f"layer {layer}, head {head}")).to_be_visible()
        assert_shaded(page, weights[layer, head, 7])

    @pytest.mark.parametrize("part", ["layers", "origin"])
    def test_changes_that_leave_no_such_terms_are_a_sentence_in_the_part(self, look: Any, part: str) -> None:
        page = look("attention", changes=json.dumps([{"name": "h1/attn", "how": "zero"}]))
        page.evaluate("(part) => (location.hash = location.hash.replace('attention', part))", part)
        expect(page.locator(f".part-{part} .refused")).to_contain_text("but the model's value is")
        page.get_by_role("link", name="without it").click()
        settle(page)
        expect(page.locator(f".part-{part} .refused")).to_have_text("")

    def test_each_part_leads_to_its_array(self, look: Any, whole: Trace) -> None:
        page = look("origin", token=8)
        links = page.get_by_role("region", name="What added to the logit").get_by_role("link")
        for link in links.all():
            fields = parse_qs(str(link.get_attribute("href")).partition("?")[2])
            assert fields["name"][0] in whole
            assert fields["token"] == ["7"]
            found = re.match(r"layer (\d+)(?:, head (\d+))?", str(link.text_content()))
            if found:
                assert fields["name"][0].startswith(f"h{found[1]}/")
                assert fields["layer"] == [found[1]]
                assert found[2] is None or fields["head"] == [found[2]]

    def test_the_first_token_has_no_origin(self, look: Any) -> None:
        page = look("origin", token=0)
        expect(page.get_by_text("is the first token of the text: nothing comes before it")).to_be_visible()
        expect(page.get_by_role("heading", name="1. The prediction")).to_be_hidden()
        page.locator("#look-tokens").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("heading", name="1. The prediction")).to_be_visible()


class TestGuessing:
    @pytest.fixture(autouse=True)
    def _on(self, page: Any) -> None:
        page.evaluate("localStorage['numpy-gpt2/guess'] = 'true'")
        page.reload()

    def test_a_prediction_is_covered_until_one_has_guessed_it(self, page: Any, tiny: GPT2) -> None:
        go(page, "layers", token=7)
        card = page.get_by_role("region", name="The next token")
        field = card.get_by_label("Which token is the likeliest after ␣king?")
        expect(field).to_be_visible()
        expect(page.locator("#lens-4-7")).to_have_text("?")
        expect(page.get_by_role("region", name="Direct logit attribution")).to_be_hidden()
        expect(card.locator("tbody")).to_be_hidden()
        likeliest = vocabulary(tiny).decode([int(np.argmax(tiny.logits(TEXT)[7]))])
        for guess, score in {"xyz": "0 right guesses in 1 try", likeliest: "1 right guess in 2 tries"}.items():
            field.fill(guess)
            field.press("Enter")
            expect(page.locator("#look-score")).to_have_text(score)
        settle(page)
        expect(card).to_be_focused()
        expect(page.locator("#lens-4-7")).to_contain_text("%")
        expect(page.locator("#lens-4-6")).to_have_text("?")
        page.locator("#look-token-6").click()
        expect(card.get_by_label("Which token is the likeliest after ␣a?")).to_be_visible()

    def test_a_prediction_that_was_shown_is_shown_in_other_parts(self, page: Any) -> None:
        go(page, "origin", token=8)
        expect(page.get_by_text("Which token is the likeliest after ␣king?")).to_be_visible()
        expect(page.locator(".origin")).to_be_hidden()
        page.get_by_role("button", name="Show it").click()
        settle(page)
        expect(page.locator(".part-origin")).to_be_focused()
        page.get_by_role("link", name="Layers").click()
        page.locator("#look-token-7").click()
        settle(page)
        expect(page.get_by_text("Which token").filter(visible=True)).to_have_count(0)


class TestAllParts:
    def test_attention_by_keyboard_alone(self, look: Any) -> None:
        page = look("attention", layer=1, head=1, token=4)
        head(page, 1, 1).focus()
        for key in ["ArrowDown", "ArrowRight", "Enter"]:
            page.keyboard.press(key)
        assert (state(page)["layer"], state(page)["head"]) == ("2", "2")
        page.get_by_role("listbox", name="The words of the text").focus()
        for key in ["ArrowRight", "ArrowRight", "Enter"]:
            page.keyboard.press(key)
        assert state(page)["token"] == "6"

    def test_layers_by_keyboard_alone(self, look: Any) -> None:
        page = look("layers", layer=1, token=4)
        page.get_by_role("grid").focus()
        for key in ["ArrowDown", "ArrowLeft", "Enter"]:
            page.keyboard.press(key)
        assert (state(page)["layer"], state(page)["token"]) == ("2", "3")

    def test_origin_by_keyboard_alone(self, look: Any) -> None:
        page = look("origin", token=4)
        page.get_by_role("link", name="the line that computed it").focus()
        page.keyboard.press("Enter")
        assert state(page)["part"] == "lines"

    @pytest.mark.parametrize("part", SHOWN)
    def test_all_can_be_reached_and_is_named(self, look: Any, part: str) -> None:
        page = look(part, token=7)
        page.locator("#look-tokens").focus()
        root, focused = page.locator(f".part-{part}"), page.locator("*:focus")
        reached = []
        for _ in range(80):
            page.keyboard.press("Tab")
            if focused.count() == 0:
                continue  # in the browser's own bars
            if focused.get_attribute("id") == "look-text":
                break
            if root.locator("*:focus").count():
                expect(focused).to_have_accessible_name(re.compile("."))
                assert focused.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
                reached.append(focused.evaluate_handle("element => element"))
        program = """(reached) => [...document.querySelectorAll("a, button, input, select, [tabindex]")]
            .filter((element) => element.closest(".part"))
            .filter((element) => element.checkVisibility() && element.tabIndex >= 0)
            .filter((element) => !reached.includes(element)).map((element) => element.outerHTML)"""
        assert page.evaluate(program, reached) == []

    @pytest.mark.parametrize("text", [TEXT, LONG])
    @pytest.mark.parametrize("part", SHOWN)
    def test_no_overflow_at_360_pixels(self, browser: Any, served: Served, part: str, text: str) -> None:
        window = Watched(browser, served.server.address, 360, 740)
        page = window.open()
        page.goto(f"{served.server.address}#look?{urlencode({'part': part, 'text': text, 'token': 9})}")
        settle(page)
        if part == "attention":
            page.get_by_label("Beside it, the same without the mask").check()
            settle(page)
        assert page.evaluate(WIDTHS) == [360, 360]
        window.context.close()
        assert window.wrong == []

    @pytest.mark.parametrize("part", SHOWN)
    def test_another_state_stops_what_was_asked_for_the_last_one(self, look: Any, served: Served, part: str) -> None:
        page = look(part, token=7)
        page.clock.install(time=0)
        page.clock.pause_at(10)  # so that a wait for the next key does not end
        may_go = served.hold()
        kinds: list[str] = []
        page.on("request", lambda request: kinds.extend(re.findall(r'"kind":"(\w+)"', request.post_data or "")))
        page.locator("#look-tokens").focus()
        for _ in range(6):
            page.keyboard.press("ArrowLeft")
        page.clock.run_for(1000)
        assert 1 <= max(map(kinds.count, kinds)) <= 2  # the first of them, and the last
        page.clock.resume()
        may_go.set()
        settle(page)
        expect(page.get_by_role("status")).to_have_text("")
