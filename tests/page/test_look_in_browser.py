"""The view "Look inside" in a real browser: a pass line by line, with its numbers, and the address that leads there."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from browsing import BROWSER, SECOND, Served, Watched

import numpy_gpt2
from numpy_gpt2 import layers
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside.explanation import explain
from numpy_gpt2.inside.recorder import Trace
from numpy_gpt2.params import Array

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
expect = playwright.expect
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: its path may be in CHROMIUM")

TEXT = "Once upon a time there was a king who had three daughters."

PIXELS = """(canvas) => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
COLOURS = """async (isSigned) => [...(await import("./palette.js")).palette(isSigned)]"""
NUMBER = r"[−-]?\d+(?:\.\d+)?(?:e[+−-]\d+)?"
WIDTHS = "[document.documentElement.scrollWidth, window.innerWidth]"


@pytest.fixture
def look(page: Any) -> Callable[..., Any]:
    """Goes to the address of a view with this state, and waits until it is shown."""

    def go(**state: object) -> Any:
        page.goto(f"{page.url.partition('#')[0]}#look?{urlencode({'text': TEXT, **state})}")
        settle(page)
        return page

    return go


@pytest.fixture(scope="module")
def whole(tiny: GPT2) -> Trace:
    """A recording of all arrays of a pass over the text."""
    with numpy_gpt2.trace() as t:
        tiny.logits(TEXT)
    return t


def settle(page: Any) -> None:
    """Waits until the statement is shown, and nothing is asked for any more."""
    expect(page.locator(".stepper code")).not_to_have_text("")
    page.wait_for_load_state("networkidle")


def place(page: Any) -> str:
    """The array where one is."""
    return str(page.locator(".stepper code").text_content())


def expect_state(page: Any, **fields: str | None) -> None:
    """Waits until the address has these fields, or does not have those that are None: small moves are written soon."""
    page.wait_for_function(
        """(expected) => {
            const fields = new URLSearchParams(location.hash.split("?")[1]);
            return Object.entries(expected).every(([name, value]) => fields.get(name) === value);
        }""",
        arg=fields,
    )


def number(text: str) -> float:
    """A number, or a truth value, as the page writes it."""
    return float({"True": "1", "False": "0"}.get(text, text.replace("−", "-")))


def tokens(page: Any) -> Any:
    return page.get_by_label("Tokens of the text").get_by_role("option")


def locked(page: Any) -> Any:
    return page.get_by_label("Tokens of the text").get_by_role("option", selected=True)


def large(page: Any) -> Any:
    return page.locator(".large-box canvas")


def cell(page: Any, row: int, column: int) -> dict[str, float]:
    """Where a cell of the large matrix is on the canvas."""
    return dict(page.locator(".large-box .matrix").evaluate(
        """(matrix, [row, column]) => {
            const [canvas, style] = [matrix.querySelector("canvas"), matrix.style];
            const size = (name) => parseFloat(style.getPropertyValue(name));
            return { x: (column + 0.5) * size("--cell-width"), y: (row + 0.5) * size("--cell-height") };
        }""",
        [row, column],
    ))  # fmt: skip


def choose(page: Any, row: int, column: int) -> None:
    large(page).click(position=cell(page, row, column))
    page.wait_for_load_state("networkidle")


def test_steps_go_through_the_lines_of_a_pass_with_the_shapes_of_their_arrays(look: Any, whole: Trace) -> None:
    page = look(name="positions")
    steps = whole.steps
    expect(page.get_by_role("status").filter(has_text="Statement")).to_contain_text(f"1 of {len(steps)}")
    for i, step in enumerate(steps):
        assert place(page) == step.name
        line = page.locator(".source-line.is-current")
        expect(line.locator(".line-number")).to_have_text(str(step.line))
        assert step.source in (line.locator(".code").text_content() or "")
        card = line.locator(".value[aria-current]")
        expect(card.locator("code").first).to_have_text(step.name)
        assert (card.locator(".shape").text_content() or "").startswith(str([*step.shape]))
        numbers = re.findall(NUMBER, card.locator(".value-range").text_content() or "")
        low, high, mean = map(number, numbers[:3])
        finite = whole[step.name][np.isfinite(whole[step.name])]
        np.testing.assert_allclose([low, high], [finite.min(), finite.max()], rtol=1e-3)
        np.testing.assert_allclose(mean, finite.mean(dtype=np.float64), rtol=1e-3, atol=1e-6)
        if i < len(steps) - 1:
            page.get_by_role("button", name="Next").click()
            expect(page.locator(".stepper code")).to_have_text(steps[i + 1].name)
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    expect(page.locator(".stepper code")).to_have_text(steps[-2].name)


def test_the_map_leads_to_each_part_and_says_where_one_is(look: Any) -> None:
    page = look(layer=1, name="h1/attn/weights")
    overview = page.get_by_label("Overview of the model")
    expect(overview.locator("[aria-current='step']")).to_contain_text("attn")
    expect(overview.locator("[aria-current='true']")).to_have_text("h1")
    ways = {
        "Block 3": "h3/attn/weights",
        "mlp: ": "h3/mlp/c_fc",
        "Output head": "logits",
        "Embeddings": "positions",
        "Block 2": "h2/ln_1/centred",
        "ln_f": "ln_f/centred",
    }
    for link, name in ways.items():
        overview.get_by_role("link", name=link).click()
        expect(page.locator(".stepper code")).to_have_text(name)
    expect(overview.get_by_role("link", name="Output head: [1, 13, 4096]")).to_be_visible()


def test_a_function_in_the_source_leads_to_what_it_computed(look: Any) -> None:
    page = look(layer=1, name="h1/x")
    for function, name in [("mlp", "h1/mlp/hidden"), ("linear", "h1/mlp/c_fc")]:
        page.locator(".source").get_by_role("link", name=function, exact=True).first.click()
        expect(page.locator(".stepper code")).to_have_text(name)
    expect(page.locator(".source h2")).to_have_text(re.compile("^linear layers.py"))


def test_the_docstring_is_folded_and_can_be_opened(look: Any) -> None:
    page = look(layer=1, name="h1/attn/weights")
    docstring = page.locator(".docstring")
    expect(docstring.get_by_text("Source: Vaswani 3.2.1")).to_be_hidden()
    docstring.locator("summary").click()
    expect(docstring.get_by_text("Source: Vaswani 3.2.1")).to_be_visible()
    lines = [line for line in page.locator(".source .code").all_text_contents() if line]
    content = Path(layers.__file__).read_text(encoding="utf-8")
    assert "\n".join(lines) in re.sub(r"\n\n+", "\n", content)


def test_token_layer_head_and_cell_are_locked_in_the_address_and_restored(look: Any) -> None:
    page = look(name="h0/attn/weights")
    page.get_by_label("Layer").select_option("2")
    expect(page.locator(".stepper code")).to_have_text("h2/attn/weights")
    page.get_by_role("combobox", name="Head").select_option("3")
    tokens(page).nth(6).click()
    settle(page)
    choose(page, 4, 2)
    expected = {"token": "4", "layer": "2", "head": "3", "name": "h2/attn/weights", "cell": "0,3,4,2", "text": TEXT}
    expect_state(page, **expected)
    page.reload()
    settle(page)
    expect_state(page, **expected, part="lines", model="tiny")
    expect(locked(page)).to_have_attribute("title", "token 4")
    expect(page.get_by_label("Layer")).to_have_value("2")
    expect(page.get_by_role("combobox", name="Head")).to_have_value("3")
    expect(page.locator(".one-value")).to_contain_text("h2/attn/weights[0, 3, 4, 2]")
    expect(page.locator(".matrix-chosen:visible")).to_have_count(1)
    page.go_back()
    expect(locked(page)).to_have_attribute("title", "token 6")
    expect(page.locator(".matrix-chosen:visible")).to_have_count(0)


def test_the_pixels_of_a_matrix_are_the_numbers_of_the_array(look: Any, whole: Trace) -> None:
    shown = ["positions", "h0/mlp/hidden", "h1/attn/mask", "h1/attn/scores", "h1/attn/weights", "h2/attn/k"]
    for name, theme in itertools.product(shown, ("light", "dark")):
        page = look(layer=name[1] if name[0] == "h" else 0, name=name, head=2)
        change = page.get_by_role("button", name=f"Change to the {theme} theme")
        if change.count():
            change.click()
        array = whole[name].astype(np.float64)
        cells = array[0, 2] if array.ndim == 4 else array.reshape(-1, array.shape[-1])
        expect(page.locator(".large-box .matrix")).to_have_attribute("aria-label", re.compile(f"^{name}:"))
        pixels = np.array(large(page).evaluate(PIXELS)).reshape(*cells.shape, 4)
        is_signed = bool((cells[np.isfinite(cells)] < 0).any())
        colours = np.array(page.evaluate(COLOURS, is_signed)).reshape(256, 4)
        assert len({*map(tuple, colours[1:].tolist())}) > 200
        brightness = np.diff(colours[1:, :3] @ [0.2126, 0.7152, 0.0722])  # read in grey, a scale goes one way from 0
        halves = [brightness[:127], -brightness[127:]] if is_signed else [brightness]
        assert {np.sign(half[np.abs(half) > 1e-9]).mean() for half in halves} in ({1.0}, {-1.0})
        np.testing.assert_array_equal(pixels, colours[bytes_of(cells)], name)


def bytes_of(cells: Array) -> Array:
    """What a matrix is in the answers: 0 for minus infinity, else 1 to 255, with 0 in the middle of a signed scale."""
    finite = cells[np.isfinite(cells)]
    largest = np.abs(finite).max()
    low = -largest if (finite < 0).any() else 0.0
    share = (np.where(np.isfinite(cells), cells, 0) - low) / (largest - low)
    return np.where(np.isfinite(cells), 1 + np.rint(254 * share), 0).astype(int)


def test_hovering_shows_the_exact_number_and_asks_once_for_a_row(look: Any, whole: Trace, served: Served) -> None:
    page = look(layer=1, name="h1/attn/scores", head=2)
    readout = page.locator(".readout")
    for row, column in [(7, 3), (7, 5), (7, 9), (2, 1), (7, 4)]:
        large(page).hover(position=cell(page, row, column))
        expect(readout).to_contain_text(f"[0, 2, {row}, {column}] = ")
        value = whole["h1/attn/scores"][0, 2, row, column]
        shown = (readout.locator(".number").text_content() or "").replace("−∞", "-inf")
        np.testing.assert_allclose(number(shown), value, rtol=1e-5)
    asked = [request["row"] for request in served.requests if request["kind"] == "row"]
    assert asked == [7, 2]
    page.locator(".large .readout").hover()
    expect(page.locator(".large .matrix-cursor:visible")).to_have_count(0)


def test_the_arithmetic_of_a_number_is_that_of_explain(look: Any, whole: Trace) -> None:
    places = {
        "h1/attn/scores": (0, 2, 7, 3),
        "h1/attn/weights": (0, 2, 7, 3),
        "h1/ln_1": (0, 5, 17),
        "h2/mlp/hidden": (0, 3, 100),
        "h0/attn/qkv": (0, 7, 4, 3),
        "logits": (0, 12, 300),
    }
    for name, index in places.items():
        page = look(layer=name[1] if name[0] == "h" else 0, name=name, cell=",".join(map(str, index)))
        found = explain(whole, name, index)
        panel = page.get_by_label("One number")
        expect(panel.locator(".one-value")).to_contain_text(f"{name}[{', '.join(map(str, index))}]")
        np.testing.assert_allclose(number(panel.locator("strong").text_content()), found.value, rtol=1e-5)
        expect(panel.get_by_text(found.source, exact=True)).to_be_visible()
        expect(panel.get_by_text(f"{Path(found.file).name}, line {found.line}")).to_be_visible()
        steps = panel.locator(".operands > li")
        expect(steps).to_have_count(len(found.numbers))
        for i, expected in enumerate(found.numbers):
            step = steps.nth(i)
            expect(step.locator(".operand-text")).to_have_text(expected.text)
            shown = number(step.locator("> .number").text_content())
            np.testing.assert_allclose(shown, expected.value, rtol=1e-4, atol=1e-6)
            if expected.terms:
                terms = step.locator("li:not(.faint)").all_text_contents()
                assert len(terms) == min(8, len(expected.terms))
                largest = sorted(expected.terms, key=lambda term: -abs(term.value))
                values = [number(re.findall(NUMBER, text)[0]) for text in terms]
                np.testing.assert_allclose(values, [term.value for term in largest[:8]], rtol=1e-4, atol=1e-6)


def test_an_operand_leads_to_its_own_cell(look: Any, whole: Trace) -> None:
    page = look(layer=1, name="h1/attn/weights", head=0)
    choose(page, 7, 3)
    panel = page.get_by_label("One number")
    panel.get_by_role("link", name="h1/attn/scores[0, 0, 7, 3]").first.click()
    expect(page.locator(".stepper code")).to_have_text("h1/attn/scores")
    expect(panel.locator(".one-value")).to_contain_text("h1/attn/scores[0, 0, 7, 3]")
    panel.get_by_role("link", name="h1/attn/q[").first.click()
    expect(page.locator(".stepper code")).to_have_text("h1/attn/q")
    expect(panel.locator(".one-value")).to_contain_text("h1/attn/q[0, 0, 7, ")
    expect_state(page, token="7")


def test_a_thinned_picture_is_marked_and_its_cell_is_the_farthest_number(look: Any, whole: Trace) -> None:
    page = look(name="logits")
    expect(page.locator(".large")).to_contain_text("Derived: a cell stands for 1 × 4 numbers")
    large(page).hover(position=cell(page, 5, 90))
    group = whole["logits"][0, 5, 360:364]
    column = 360 + int(np.abs(group).argmax())
    expect(page.locator(".readout")).to_contain_text(f"[0, 5, {column}] = ")
    np.testing.assert_allclose(number(page.locator(".readout .number").text_content()), group[column - 360], rtol=1e-5)
    choose(page, 5, 90)
    expect_state(page, cell=f"0,5,{column}")


def test_a_change_in_the_address_changes_the_pass_and_is_said(look: Any, tiny: GPT2) -> None:
    change = {"name": "h1/attn/a", "how": "zero", "head": 2}
    page = look(layer=1, name="h1/attn/a", head=2, changes=json.dumps([change]))
    expect(page.locator("#look-changes")).to_contain_text("h1/attn/a, head 2: zero")
    expect(page.locator(".value").filter(has_text="h1/attn/a").locator(".tag").first).to_have_text("changed")
    large(page).hover(position=cell(page, 3, 3))
    expect(page.locator(".readout")).to_contain_text("= 0 ")
    page.get_by_role("link", name="Look at the pass without").click()
    expect(page.locator("#look-changes")).to_be_hidden()
    expect_state(page, changes=None)


def test_changes_that_the_model_refuses_are_not_announced_as_made(look: Any, page: Any) -> None:
    refused = [{"name": "h9/attn", "how": "zero"}]
    page.goto(f"{page.url.partition('#')[0]}#look?{urlencode({'text': TEXT, 'changes': json.dumps(refused)})}")
    notice = page.locator("#look-changes")
    expect(notice).to_contain_text("There is no pass with 1 change (h9/attn: zero): ")
    expect(page.locator(".lines-columns")).to_be_hidden()
    malformed: list[dict[str, object]] = [
        {"name": "h1/attn", "how": "scale"},
        {"name": "h1/attn", "how": "scale", "factor": 1e9},
        {"name": "h1/attn", "how": "put", "text": 1},
        {"name": "h1/attn", "how": "zero", "head": -1},
        {"name": "h1/attn", "how": "zero", "position": 1.5},
        {"name": "<b>", "how": "zero"},
        {"how": "zero"},
        {"name": "h1/attn", "how": "toString"},
    ]
    for change in malformed:
        look(changes=json.dumps([change]))
        expect(notice).to_be_hidden()


def test_what_is_not_finite_is_named(look: Any, served: Served) -> None:
    answer = served.answers.answer

    def broken(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for line in answer(request):
            yield {**line, "n_infinite": 2, "n_other": 1_000} if line.get("name") == "h1/attn/q" else line

    served.answers.answer = broken  # type: ignore[method-assign]
    page = look(layer=1, name="h1/attn/q")
    expect(page.locator(".value[aria-current] .value-range")).to_contain_text(", 2 × −∞, 1,000 × NaN or ∞")
    program = """async (values) => {
        const { number } = await import("./dom.js");
        return values.map((value) => number(value));
    }"""
    assert page.evaluate(program, [None, "inf", "nan", -0.5]) == ["−∞", "∞", "NaN", "−0.5"]


def test_shapes_are_covered_until_they_are_guessed(look: Any) -> None:
    page = look(layer=1, name="h1/attn/q")
    page.get_by_label("Guess the shapes").check()
    card = page.locator(".value[aria-current]")
    expect(card.locator(".shape")).to_have_text("shape: ?")
    expect(card.locator(".matrix")).to_be_hidden()
    expect(large(page)).to_be_hidden()
    overview = page.get_by_label("Overview of the model")
    expect(overview.get_by_role("link", name="attn: [?]", exact=True)).to_be_visible()
    assert "[1, 4" not in page.locator("#look").inner_text()
    guess = page.get_by_label("What shape does h1/attn/q have?")
    guess.fill("13, 64")
    guess.press("Enter")
    expect(page.locator(".verdict")).to_have_text("It has 4 axes. 13 is wrong ✗, 64 is wrong ✗.")
    guess.fill("1, 4, 13, 256")
    guess.press("Enter")
    expect(page.locator(".verdict")).to_have_text("1 is right ✓, 4 is right ✓, 13 is right ✓, 256 is wrong ✗.")
    expect(large(page)).to_be_hidden()
    guess.fill("1, 4, 13, 64")
    guess.press("Enter")
    expect(card.locator(".shape")).to_have_text("[1, 4, 13, 64] [n_batch, n_head, n_seq, d_head]")
    expect(large(page)).to_be_visible()
    expect(page.locator("#look-score")).to_have_text("1 right guess in 3 tries")
    page.keyboard.press("n")  # the keys go on working
    expect(page.locator(".stepper code")).to_have_text("h1/attn/k")
    expect(large(page)).to_be_hidden()
    page.get_by_label("Layer").select_option("2")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Previous").click()
    expect(page.locator(".stepper code")).to_have_text("h2/attn/q")  # the same in each layer: it was revealed
    expect(large(page)).to_be_visible()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Show it").click()
    expect(page.locator(".value[aria-current] .shape")).to_contain_text("[1, 4, 13, 64]")
    page.get_by_label("Guess the shapes").uncheck()
    expect(overview.get_by_role("link", name="attn: [1, 13, 256]")).to_be_visible()


@pytest.mark.parametrize(
    "address",
    [
        "#look?part=nothing&token=-1&layer=x&head=1.5&name=<b>&cell=a&changes={",
        "#look?token=99999999999&layer=99&head=99&name=h99/nothing&cell=1,2,3,4,5&changes=[1]",
        "#look?token=500&layer=50&head=50&name=h2/attn/q&cell=0,9,9,9&changes=null",
        "#look?%&%E0%A4&text",
        "#look?name=h1/attn/q&layer=1&cell=0,0,3",
        "#nothing",
        "#look",
    ],
)
def test_a_malformed_address_is_as_if_it_said_nothing(page: Any, address: str) -> None:
    page.locator("#text").focus()
    page.keyboard.insert_text(TEXT)
    text = "" if "text" in address or address in ("#look", "#nothing") else f"&{urlencode({'text': TEXT})}"
    page.goto(f"{page.url.partition('#')[0]}{address}{text}")
    if address == "#nothing":
        expect(page.locator("#text")).to_be_visible()
        return
    if "&text" in address and not text:
        expect(page.locator("#look-note")).to_contain_text("There is no text to look at yet")
        return
    settle(page)
    assert tokens(page).count() == 13
    expect(locked(page)).to_have_attribute("title", "token 12")
    expect(page.get_by_label("One number")).to_contain_text("Choose a cell")
    expect(page.locator("#status")).to_have_text("")
    assert place(page) in ("positions", "h1/attn/q", "h3/attn/q")


def test_the_written_text_is_looked_into_and_a_token_leads_to_where_it_came_from(page: Any) -> None:
    page.locator("#text").focus()
    page.keyboard.insert_text(TEXT)
    expect(page.locator("#count")).to_contain_text("token")
    page.get_by_role("link", name="Look inside").click()
    settle(page)
    expect(page).to_have_title("Look inside · numpy_gpt2")
    expect(page.get_by_role("button", name="Suggest")).to_be_hidden()
    expect_state(page, text=TEXT)
    assert tokens(page).count() == 13
    page.get_by_role("link", name="Write").click()
    expect(page.locator("#text")).to_have_value(TEXT)
    page.locator(".token").nth(3).hover(force=True)
    page.get_by_role("option", name="Where does it come from?").click()
    expect(page.get_by_role("link", name="Why this word")).to_have_attribute("aria-current", "page")
    expect_state(page, part="origin", token="3", text="Once upon a time")
    page.go_back()
    expect(page.locator("#text")).to_have_value(TEXT)


def test_another_text_is_looked_into(look: Any) -> None:
    page = look(name="h0/attn/q", token=4)
    page.get_by_role("textbox", name="Text").fill("The dog")
    page.get_by_role("button", name="Look").click()
    expect(tokens(page)).to_have_count(2)
    settle(page)
    expect_state(page, text="The dog")
    expect(page.locator(".value[aria-current] .shape")).to_contain_text("[1, 4, 2, 64]")


def test_an_address_of_another_model_offers_to_load_it(look: Any, served: Served) -> None:
    page = look(model=SECOND, name="h0/attn/q")
    notice = page.locator("#look-model")
    expect(notice).to_contain_text(f"made with the model {SECOND}")
    notice.get_by_role("button", name=f"Load {SECOND}").click()
    expect(page.locator("#model")).to_have_value(SECOND)
    expect(notice).to_be_hidden()
    expect(page.locator(".value[aria-current] .shape")).to_contain_text("[1, 2, ")
    page.locator("#model").select_option("tiny")
    expect(page.locator(".value[aria-current] .shape")).to_contain_text("[1, 4, ")
    expect_state(page, model="tiny")


def test_a_model_that_was_loaded_elsewhere_is_not_shown_under_the_old_name(look: Any, served: Served) -> None:
    page = look(layer=1, name="h1/attn/q")
    assert all(request["model"] == "tiny" for request in served.requests if "changes" in request)
    assert "about" in [*served.answers.answer({"kind": "load", "model": SECOND, "text": ""})][-1]
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#model")).to_have_value(SECOND)
    expect(page.locator(".value[aria-current] .shape")).to_contain_text("[1, 2, 13, 4]")
    expect_state(page, model=SECOND)
    expect(page.locator("#status")).to_have_text("")


def test_while_another_text_is_read_the_numbers_of_the_old_one_are_gone(look: Any, served: Served) -> None:
    page = look(name="h0/attn/q")
    parts = [page.locator(".lines-columns"), page.locator(".stepper"), page.get_by_label("Overview of the model")]
    for text in ("The dog", "The cat sat"):
        may_go = served.hold(kind="lines", text=text)
        page.get_by_role("textbox", name="Text").fill(text)
        page.get_by_role("button", name="Look").click()
        expect(tokens(page)).to_have_count(len(text.split()))
        for part in parts:
            expect(part).to_be_hidden()
        if text == "The cat sat":  # nor do they come back if the answer is stopped
            page.get_by_role("button", name="Stop").click()
            expect(page.locator("#status")).to_have_text("Stopped.")
            expect(parts[0]).to_be_hidden()
            may_go.set()
            tokens(page).first.click()
        may_go.set()
        expect(page.locator(".value[aria-current] .shape")).to_contain_text(f"[1, 4, {len(text.split())}, 64]")


def test_while_an_array_is_awaited_the_old_one_cannot_be_read(look: Any, served: Served, whole: Trace) -> None:
    page = look(layer=1, name="h1/attn/q", head=2)
    choose(page, 4, 2)
    may_go = served.hold(kind="array", name="h1/attn/k", n_most=1024)
    page.get_by_role("button", name="Next").click()
    body = page.locator(".large-body")
    expect(page.locator(".large h2")).to_have_text("h1/attn/k")
    expect(body).to_have_css("opacity", "0")
    large(page).click(position=cell(page, 3, 1))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".readout")).to_have_text("")
    expect_state(page, name="h1/attn/k", cell=None)
    may_go.set()
    expect(body).to_have_css("opacity", "1")
    large(page).hover(position=cell(page, 3, 1))
    expect(page.locator(".readout")).to_contain_text("[0, 2, 3, 1] = ")
    value = number(page.locator(".readout .number").text_content() or "")
    np.testing.assert_allclose(value, whole["h1/attn/k"][0, 2, 3, 1], rtol=1e-5)


def test_a_chosen_cell_that_stands_for_several_numbers_waits_for_them(look: Any, served: Served, whole: Trace) -> None:
    page = look(name="logits")
    farthest = np.abs(whole["logits"][0, 5].reshape(-1, 4)).argmax(axis=-1)
    column = int(np.flatnonzero(farthest[:100])[-1])
    may_go = served.hold(kind="row")
    large(page).click(position=cell(page, 5, column))
    expect(page.locator(".readout")).to_have_text("…")
    expect_state(page, cell=None)
    may_go.set()
    expect_state(page, cell=f"0,5,{4 * column + farthest[column]}")


def test_small_pictures_that_were_stopped_are_drawn_later(look: Any, served: Served) -> None:
    page = look(layer=1, name="h1/ln_2")
    may_go = served.hold(kind="array", n_most=44)
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Stop").click()
    may_go.set()
    expect(page.locator(".value[aria-current] .matrix")).to_be_hidden()
    tokens(page).first.click()
    expect(page.locator(".value[aria-current] .matrix")).to_be_visible()


def test_all_by_keyboard_alone(look: Any, whole: Trace) -> None:
    page = look(layer=1, name="h1/attn/scores", token=5)
    page.get_by_role("textbox", name="Text").focus()

    def tab_to(locator: Any) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if locator.evaluate("(element) => element === document.activeElement"):
                assert locator.evaluate("(element) => getComputedStyle(element).outlineStyle") == "solid"
                return
        raise AssertionError("Tab does not lead there")

    tab_to(page.locator("#look-tokens"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(locked(page)).to_have_attribute("title", "token 11")
    tab_to(page.get_by_role("link", name="mlp: ["))
    page.keyboard.press("Enter")
    expect(page.locator(".stepper code")).to_have_text("h1/mlp/c_fc")
    page.keyboard.press("p")
    expect(page.locator(".stepper code")).to_have_text("h1/ln_2")
    page.keyboard.press("n")
    page.keyboard.press("n")
    expect(page.locator(".stepper code")).to_have_text("h1/mlp/hidden")
    settle(page)
    tab_to(page.locator(".large-box .matrix"))
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    expect(page.locator(".readout")).to_contain_text("[0, 2, 2] = ")
    value = whole["h1/mlp/hidden"][0, 2, 2]
    np.testing.assert_allclose(number(page.locator(".readout .number").text_content()), value, rtol=1e-5)
    page.keyboard.press("Enter")
    expect(page.locator(".one-value")).to_contain_text("h1/mlp/hidden[0, 2, 2]")
    tab_to(page.get_by_label("One number").get_by_role("link").first)
    page.keyboard.press("Enter")
    expect(page.locator(".one-value")).to_contain_text("h1/mlp/c_fc[0, 2, 2]")


@pytest.mark.parametrize("start", [".value[aria-current]", ".one-number a", ".large-box .matrix"])
def test_the_keys_go_on_working_wherever_the_focus_was(look: Any, whole: Trace, start: str) -> None:
    page = look(layer=1, name="h1/attn/q", cell="0,0,3,1")
    page.locator(start).first.focus()
    focus = page.locator(".source .value:focus" if start.startswith(".value") else ".part-lines:focus-within")
    names = [step.name for step in whole.steps]
    first = names.index("h1/attn/q")
    for name in names[first + 1 : first + 10]:
        page.keyboard.press("n")
        expect(page.locator(".stepper code")).to_have_text(name)
        expect(focus).to_have_count(1)


def test_the_link_to_the_view_leads_to_where_one_is(look: Any) -> None:
    page = look(layer=2, name="h2/attn/q", token=3, head=1)
    page.get_by_role("link", name="Look inside").click()
    expect_state(page, layer="2", name="h2/attn/q", token="3", head="1", text=TEXT)
    assert place(page) == "h2/attn/q"


def test_many_tokens_stay_as_they_are_while_the_mouse_moves(look: Any, tiny: GPT2) -> None:
    page = look(text=TEXT * 19, name="h0/attn/weights")
    page.locator("#look").evaluate("""(view) => {
        window.changes = 0;
        const count = (changes) => { window.changes += changes.length; };
        new MutationObserver(count).observe(view, { childList: true, subtree: true, characterData: true });
    }""")
    for i in range(200, 230):
        tokens(page).nth(i).hover()
    assert page.evaluate("window.changes") == 0
    assert tokens(page).count() == min(256, len(tiny.tokenizer.encode(TEXT * 19)))  # type: ignore[union-attr]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_overflow_at_360_pixels(browser: Any, served: Served, scheme: str) -> None:
    window = Watched(browser, served.server.address, 360, 740)
    page = window.open()
    page.emulate_media(color_scheme=scheme)
    text = f"{TEXT} {'W' * 80} " * 3
    for name in ("x", "h1/attn/weights", "h1/attn/qkv", "h1/mlp/hidden", "logits"):
        query = urlencode(
            {"text": text, "layer": 1, "name": name, "cell": "0,1,9,4" if name.startswith("h1/attn") else "0,9,4"}
        )
        page.goto(f"{served.server.address}#look?{query}")
        settle(page)
        expect(page.locator(".one-value")).to_be_visible()
        closed = page.locator("details:not([open]) > summary:visible")
        while closed.count():
            closed.first.click()
        page.get_by_role("button", name="Larger cells").click()
        assert page.evaluate(WIDTHS) == [360, 360]
    page.get_by_label("Guess the shapes").check()
    assert page.evaluate(WIDTHS) == [360, 360]
    window.context.close()
    assert window.wrong == []
