"""Experiments and step-by-step generation in a real browser, against `patch`, `trace` and `GPT2.generate`."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

import numpy as np
import pytest
from browsing import BROWSER, PATIENCE, Served, Watched

import numpy_gpt2
from numpy_gpt2 import layers
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside import put, scale, zero
from numpy_gpt2.inside.patches import Change

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
expect = playwright.expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: its path may be in CHROMIUM")

WOMAN, MAN = "The old woman was so angry that", "The old man was so angry that"
HEAD = [{"name": "h3/attn/a", "how": "zero", "head": 1}]
LONG = "Once upon a time there was a king who had three daughters. " * 14


def link(part: str, text: str = WOMAN, **fields: Any) -> str:
    given = {name: json.dumps(value) if isinstance(value, list) else value for name, value in fields.items()}
    return "#look?" + urlencode({"part": part, "text": text, **given})


def look(page: Any, part: str, text: str = WOMAN, **fields: Any) -> None:
    """Goes to a part of the view, as somebody does who was sent its address."""
    page.evaluate("(hash) => (location.hash = hash)", link(part, text, **fields))
    expect(page.locator(f".part-{part}")).to_be_visible()


def changes_in_address(page: Any) -> list[dict[str, Any]]:
    (fields,) = parse_qs(page.evaluate("location.hash.slice(6)")).get("changes", ["[]"])
    return list(json.loads(fields))


def settle(page: Any) -> None:
    """Waits until the experiment has been answered to its end."""
    expect(page.locator(".experiment-results")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#work")).to_be_hidden()


def summary(page: Any) -> Any:
    return page.get_by_role("region", name="The next token, before and after").locator("> p")


def before_and_after(page: Any) -> dict[str, tuple[str, str]]:
    """The probabilities in the table, by token."""
    program = "(rows) => rows.map((row) => [...row.children].slice(0, 3).map((cell) => cell.textContent))"
    rows = page.locator(".before-after tbody tr").evaluate_all(program)
    return {token.replace("␣", " "): (before, after) for token, before, after in rows}


def assert_shows(shown: str, probability: float) -> None:
    """Whether `12 %` or `0.41 %` is that probability, rounded."""
    number = float(shown.removesuffix(" %"))
    n_digits = len(shown.removesuffix(" %").partition(".")[2])
    assert number == pytest.approx(100 * probability, abs=0.51 * 10**-n_digits)


def prediction(model: GPT2, changes: Mapping[str, Change]) -> np.ndarray:
    """The probabilities of the tokens that may follow the woman's text."""
    assert model.tokenizer
    with numpy_gpt2.patch(changes):
        return layers.softmax(model.logits(model.tokenizer.encode(WOMAN))[-1].astype(np.float64))


def assert_is_prediction(page: Any, model: GPT2, changes: Mapping[str, Change]) -> None:
    assert model.tokenizer
    before, after = prediction(model, {}), prediction(model, changes)
    table = before_and_after(page)
    likeliest = {model.tokenizer.decode([id]) for each in (before, after) for id in np.argsort(-each)[:10].tolist()}
    assert {*table} == likeliest
    for token, (shown_before, shown_after) in table.items():
        (id,) = model.tokenizer.encode(token)
        assert_shows(shown_before, before[id])
        assert_shows(shown_after, after[id])


def value_for(model: GPT2, name: str, text: str) -> np.ndarray:
    with numpy_gpt2.trace(name) as t:
        model.logits(text)
    return np.asarray(t[name])


def test_a_head_that_is_switched_off_changes_the_prediction_as_patch_does(page: Any, tiny: GPT2) -> None:
    look(page, "experiments")
    expect(summary(page)).to_contain_text("There is no change yet.")
    expect(page.get_by_role("region", name="What moved")).to_be_hidden()
    switch = page.get_by_role("button", name="Switch off head 1 of layer 3")
    switch.click()
    expect(summary(page)).to_have_text("After token 6 ␣that, the likeliest was ␣she (63 %) and becomes ␣he (51 %).")
    expect(switch).to_have_attribute("aria-pressed", "true")
    assert changes_in_address(page) == HEAD
    settle(page)
    assert_is_prediction(page, tiny, {"h3/attn/a": zero(head=1)})
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "false")
    expect(summary(page)).to_contain_text("There is no change yet.")
    assert changes_in_address(page) == []


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("the attention of layer 1", ["h1/attn"]),
        ("the MLP of layer 1", ["h1/mlp"]),
        ("layer 1", ["h1/attn", "h1/mlp"]),
    ],
)
def test_whole_parts_are_switched_off(page: Any, tiny: GPT2, part: str, names: list[str]) -> None:
    look(page, "experiments")
    page.get_by_role("button", name=f"Switch off {part}", exact=True).click()
    expect(page.locator(".changes code")).to_have_text([f"{name}: zero" for name in names])
    settle(page)
    assert_is_prediction(page, tiny, dict.fromkeys(names, zero))


def test_a_value_is_replaced_by_that_of_another_text(page: Any, tiny: GPT2) -> None:
    look(page, "experiments", layer=2, token=2)
    page.get_by_label("Array", exact=True).select_option("h2")
    page.get_by_label("Replace", exact=True).select_option("put")
    expect(page.get_by_label("The other text")).to_have_value(WOMAN)
    page.get_by_label("The other text").fill(MAN)
    page.get_by_label("Positions").select_option("locked")
    expect(page.get_by_label("Heads")).to_be_disabled()
    page.get_by_role("button", name="Replace it").click()
    expect(page.locator(".changes code")).to_have_text(f"h2, position 2: the value from “{MAN}”")
    page.locator(".look-token").last.click()
    expect(summary(page)).to_have_text("After token 6 ␣that, the likeliest was ␣she (63 %) and becomes ␣he (67 %).")
    settle(page)
    assert_is_prediction(page, tiny, {"h2": put(value_for(tiny, "h2", MAN), position=2)})


def test_a_value_is_scaled_for_the_locked_head_and_the_later_change_of_a_place_counts(page: Any, tiny: GPT2) -> None:
    look(page, "experiments", layer=1, head=2)
    page.get_by_label("Array", exact=True).select_option("h1/attn/v")
    page.get_by_label("Replace", exact=True).select_option("scale")
    page.get_by_label("Heads").select_option("locked")
    for factor in ("3", "-2.5"):
        page.get_by_label("Times", exact=True).fill(factor)
        page.get_by_role("button", name="Replace it").click()
        expect(page.locator(".changes code")).to_have_text([f"h1/attn/v, head 2: times {factor}"])
    settle(page)
    assert_is_prediction(page, tiny, {"h1/attn/v": scale(-2.5, head=2)})


def test_the_array_that_was_chosen_in_another_part_is_chosen(page: Any) -> None:
    look(page, "experiments", name="h1/mlp/c_proj", layer=1)
    array = page.get_by_label("Array", exact=True)
    expect(array).to_have_value("h1/mlp/c_proj")
    page.locator("#look-layer").select_option("3")
    expect(array).to_have_value("h3/mlp/c_proj")
    groups = array.locator("optgroup").evaluate_all(
        "(groups) => groups.map(({ label, children }) => [label, ...[...children].map(({ text }) => text)])"
    )
    assert [group[0] for group in groups] == ["Embeddings", "Layer 3", "After the layers"]
    assert [groups[0][-1], groups[1][-1], groups[2][-1]] == ["x", "h3", "logits"]
    assert {"h3/attn", "h3/mlp", "h3/attn/weights"} < {*groups[1]}


def test_the_map_shows_how_far_each_later_array_moved(page: Any, tiny: GPT2) -> None:
    look(page, "experiments", changes=[{"name": "h1/mlp", "how": "scale", "factor": 0.5}])
    expect(page.locator(".moved tr").last).to_contain_text("logits")
    settle(page)
    cells = page.locator(".moved td[title]").evaluate_all("(cells) => cells.map(({ title }) => title)")
    shown = {name: float(value.replace("−", "-")) for name, value in (cell.split(": ") for cell in cells)}
    recordings = []
    for changes in ({}, {"h1/mlp": scale(0.5)}):
        with numpy_gpt2.patch(changes), numpy_gpt2.trace() as t:
            tiny.logits(WOMAN)
        recordings.append(t)
    before, after = recordings
    assert {*shown} == {name for name in before if re.match(r"h[123](/|$)|ln_f|logits", name)}
    for name, moved in shown.items():
        finite = np.isfinite(before[name])
        difference = np.linalg.norm(after[name][finite] * 1.0 - before[name][finite])
        assert moved == pytest.approx(difference / np.linalg.norm(before[name][finite] * 1.0), rel=1e-3, abs=1e-6), name
    assert shown["h1/mlp/c_proj"] == pytest.approx(0.5)
    expect(page.get_by_title("h1/mlp/c_proj: 0.5")).to_have_text("0.5")


def test_another_locked_token_keeps_the_map(page: Any, served: Served) -> None:
    look(page, "experiments", changes=HEAD)
    settle(page)
    served.watch("experiment")
    page.locator(".look-token").nth(3).click()
    expect(summary(page)).to_contain_text("After token 3 ␣was")
    settle(page)
    assert served.ended.wait(PATIENCE / 1000)
    assert [line for line in served.lines if "moved" in line][1:] == []
    expect(page.get_by_title("logits: ")).to_be_visible()


def test_a_map_that_was_stopped_half_way_is_not_shown_nor_taken_for_the_older_one(page: Any, served: Served) -> None:
    half = [{"name": "h1/mlp", "how": "scale", "factor": 0.5}]
    none = [{"name": "h0/mlp", "how": "zero"}]
    look(page, "experiments", changes=half)
    settle(page)
    expect(page.get_by_title("h1/mlp/c_proj: ")).to_have_text("0.5")
    may_go = served.hold(7, kind="experiment", changes=none)
    look(page, "experiments", changes=none)
    expect(page.locator(".moved td[title]")).to_have_count(5)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("region", name="What moved")).to_be_hidden()
    may_go.set()
    page.go_back()
    expect(page.get_by_title("h1/mlp/c_proj: ")).to_have_text("0.5")
    expect(page.get_by_title("h0/mlp/c_proj: ")).to_have_count(0)
    expect(page.get_by_title("logits: ")).to_be_visible()


def test_predictions_are_covered_until_one_has_guessed_or_revealed_them(page: Any) -> None:
    look(page, "experiments")
    page.get_by_label("Guess the shapes and predictions").check()
    part = page.get_by_role("region", name="The next token, before and after")
    for change, token in {"Switch off head 1 of layer 3": "she", "": "he"}.items():
        expect(part.get_by_role("table")).to_be_hidden()
        expect(summary(page)).to_be_hidden()
        part.get_by_label("Which token is the likeliest after ␣that?").fill(token)
        part.get_by_role("button", name="Check").click()
        expect(part.get_by_role("table")).to_be_visible()
        expect(summary(page)).to_contain_text(f"␣{token} (")
        if change:
            page.get_by_role("button", name=change).click()
    look(page, "steps")
    write_steps(page, 3)
    step_to(page, "First step")
    expect(page.locator(".is-drawn")).to_be_hidden()
    expect(page.locator(".step-token:visible")).to_have_count(7)
    page.get_by_role("button", name="Show it").click()
    expect(page.locator(".is-drawn")).to_be_visible()
    expect(page.locator(".step-token:visible")).to_have_count(8)
    step_to(page, "Next step")
    expect(page.locator(".is-drawn")).to_be_hidden()


@pytest.mark.parametrize("token", [6, 3])
def test_the_lines_of_python_give_the_same(page: Any, token: int) -> None:
    changes = [*HEAD, {"name": "h2", "how": "put", "text": MAN, "position": 2}]
    look(page, "experiments", changes=changes, token=token)
    expect(summary(page)).to_contain_text(f"After token {token}")
    settle(page)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(str(page.get_by_label("The lines of Python").text_content()), {})
    table = before_and_after(page)
    rows = [row.rsplit(" ", 1) for row in printed.getvalue().splitlines()]
    assert len(rows) == 10
    for token_text, probability in rows:
        assert_shows(table[eval(token_text)][1], float(probability))


def test_the_lines_of_python_are_copied_or_selected(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    look(page, "experiments", changes=HEAD)
    settle(page)
    lines = page.get_by_label("The lines of Python").text_content()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator(".copyable")).to_contain_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == lines
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator(".copyable")).to_contain_text("does not let the page copy")
    assert page.evaluate("String(getSelection())").strip() == lines.strip()


def test_the_changes_are_in_the_address(page: Any) -> None:
    look(page, "experiments")
    page.get_by_role("button", name="Switch off head 1 of layer 3").click()
    page.get_by_role("button", name="Switch off the MLP of layer 0").click()
    expect(page.locator(".changes code")).to_have_text(["h3/attn/a, head 1: zero", "h0/mlp: zero"])
    settle(page)
    table = before_and_after(page)
    page.reload()
    expect(page.locator(".changes code")).to_have_text(["h3/attn/a, head 1: zero", "h0/mlp: zero"])
    settle(page)
    assert before_and_after(page) == table
    for name in ("head 1 of layer 3", "the MLP of layer 0"):
        expect(page.get_by_role("button", name=f"Switch off {name}")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Remove h0/mlp: zero").click()
    expect(page.locator(".changes code")).to_have_text(["h3/attn/a, head 1: zero"])
    assert changes_in_address(page) == HEAD
    page.go_back()
    expect(page.locator(".changes code")).to_have_count(2)
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator(".changes code")).to_have_count(0)


def test_the_examples_do_what_they_say(page: Any) -> None:
    look(page, "experiments", "The king")
    page.get_by_role("link", name="without head 1 of layer 3").click()
    expect(summary(page)).to_contain_text("the likeliest was ␣she (63 %) and becomes ␣he (51 %)")
    page.get_by_role("link", name="the value of h2").click()
    expect(summary(page)).to_contain_text("the likeliest was ␣she (63 %) and becomes ␣he (67 %)")
    page.get_by_role("link", name="This text without the MLP of layer 0").click()
    expect(page.locator(".changes code")).to_have_text(["h0/mlp: zero"])


def test_a_refused_change_is_a_sentence_and_can_be_removed(page: Any) -> None:
    look(page, "experiments", changes=[{"name": "h1", "how": "put", "text": "The king"}])
    expect(page.locator(".refused")).to_contain_text("must have its shape")
    expect(page.locator("#status")).to_contain_text("must have its shape")
    expect(page.locator(".experiment-results")).to_be_hidden()
    page.get_by_role("button", name="Remove h1").click()
    expect(summary(page)).to_contain_text("There is no change yet.")
    expect(page.locator(".refused")).to_be_hidden()


def write_steps(page: Any, n: int = 6, seed: int = 5, **options: Any) -> None:
    """Fills in the form and presses the button, and waits until the last step has come."""
    for name, value in {"max_new_tokens": n, "seed": seed, **options}.items():
        page.locator(f"#steps-{name}").fill(str(value))
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.get_by_role("slider", name="Step")).to_have_attribute("max", str(n - 1))


def tokens_by_kind(page: Any) -> list[tuple[str, str]]:
    """What is shown of each token: its text and how it came."""
    program = "(chips) => chips.map((chip) => [chip.dataset.kind, chip.textContent.replaceAll('␣', ' ')])"
    return [(kind, text) for kind, text in page.locator(".step-token").evaluate_all(program)]


def text_of_step(page: Any) -> str:
    return "".join(text for kind, text in tokens_by_kind(page) if kind != "later")


def facts(page: Any) -> Any:
    return page.locator(".step-view > p").first


def step_to(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"temperature": 0.8, "top_k": 0, "top_p": 0.9}], ids=str)
def test_the_steps_are_those_of_generate(page: Any, tiny: GPT2, options: dict[str, Any]) -> None:
    look(page, "steps")
    write_steps(page, **options)
    step_to(page, "Last step")
    expect(facts(page)).to_contain_text("Step 6 of 6")
    assert text_of_step(page) == WOMAN + tiny.generate(WOMAN, max_new_tokens=6, seed=5, **{"top_k": 40, **options})


def test_every_step_can_be_visited_again(page: Any, tiny: GPT2, served: Served) -> None:
    assert tiny.tokenizer
    served.watch("write")
    look(page, "steps")
    write_steps(page)
    assert served.ended.wait(PATIENCE / 1000)
    n = len(tiny.tokenizer.encode(WOMAN))
    step_to(page, "First step")
    for k, line in enumerate(served.lines):
        past = (
            f"{n + k - 1} positions read from the past, 1 position" if k else f"nothing in the past yet, {n} positions"
        )
        n_bytes = 2 * 4 * 256 * 4 * (n + k)
        sentence = f"Step {k + 1} of 6: {past} computed. The past then holds {n + k} positions in {n_bytes:,} bytes."
        expect(facts(page)).to_have_text(sentence)
        kinds = [kind for kind, _ in tokens_by_kind(page) if kind != "later"]
        assert kinds == (["past"] * (n + k - 1) + ["computed"] if k else ["computed"] * n) + ["drawn"]
        drawn = page.locator(".is-drawn")
        assert drawn.locator(".number").count() == 1
        assert_shows(drawn.locator(".number").text_content(), line["probability"])
        expect(drawn.locator("th")).to_have_text(f"{line['token']['text'].replace(' ', '␣')} drawn")
        step_to(page, "Next step")
    page.locator(".step-token").nth(n + 2).click()
    expect(facts(page)).to_contain_text("Step 3 of 6")
    for key, step in {"ArrowLeft": 2, "Home": 1, "ArrowRight": 2, "End": 6}.items():
        page.get_by_role("slider", name="Step").press(key)
        expect(facts(page)).to_contain_text(f"Step {step} of 6")


def test_the_strips_show_what_is_read_and_what_is_computed(page: Any) -> None:
    look(page, "steps")
    write_steps(page)
    page.get_by_role("slider", name="Step").fill("3")
    program = """() => {
        const canvas = document.querySelector(".strips canvas");
        const [rows, columns] = [6, 12];
        const context = canvas.getContext("2d");
        const at = (row, column) => [...context.getImageData(column, row, 1, 1).data].slice(0, 3);
        return [...Array(rows).keys()].map((row) => [...Array(columns).keys()].map((column) => at(row, column)));
    }"""
    kinds = [
        ["computed"] * 7 + ["later"] * 5,
        *(["past"] * (6 + k) + ["computed"] + ["later"] * (5 - k) for k in (1, 2, 3)),
        *[["later"] * 12] * 2,
    ]
    for change_theme in (lambda: None, page.locator("#theme").click):
        change_theme()
        colours = {kind: colour_of(page, kind) for kind in ("past", "computed", "later")}
        assert page.evaluate(program) == [[colours[kind] for kind in row] for row in kinds]


def colour_of(page: Any, kind: str) -> list[int]:
    swatch = page.locator(f".step-swatch[data-kind={kind}]")
    colour = str(swatch.evaluate("(swatch) => getComputedStyle(swatch).backgroundColor"))
    return [int(part) for part in re.findall(r"\d+", colour)]


def stop_clock(page: Any) -> None:
    """From now on, time goes on only when the test says so."""
    page.clock.install(time=0)
    page.clock.pause_at(10)  # seconds


def test_the_steps_play_not_faster_than_one_can_see(page: Any) -> None:
    look(page, "steps")
    stop_clock(page)
    write_steps(page, 4)
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    for step in (1, 2, 3):
        expect(facts(page)).to_contain_text(f"Step {step} of 4")
        page.clock.run_for(600)
        expect(facts(page)).to_contain_text(f"Step {step} of 4")
        page.clock.run_for(100)
    expect(facts(page)).to_contain_text("Step 4 of 4")
    expect(page.get_by_role("button", name="Play the steps")).to_be_visible()
    for name, step in {"Pause": 2, "Previous step": 1}.items():
        step_to(page, "First step")
        step_to(page, "Play the steps")
        page.clock.run_for(700)
        expect(facts(page)).to_contain_text("Step 2 of 4")
        step_to(page, name)
        page.clock.run_for(5000)
        expect(facts(page)).to_contain_text(f"Step {step} of 4")


def test_nothing_moves_by_itself_for_who_prefers_that(page: Any) -> None:
    page.emulate_media(reduced_motion="reduce")
    look(page, "steps")
    stop_clock(page)
    write_steps(page, 3)
    page.clock.run_for(5000)
    expect(facts(page)).to_contain_text("Step 1 of 3")


def begin_long(page: Any, served: Served) -> None:
    """Begins to write all that fits into the context, and waits for the first step."""
    served.watch("write")
    look(page, "steps")
    page.locator("#steps-max_new_tokens").fill("1024")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(facts(page)).to_contain_text("Step 1 of 250")


def test_stop_stops_at_the_next_token_and_keeps_the_steps(page: Any, served: Served) -> None:
    begin_long(page, served)
    page.get_by_role("button", name="Stop").click()
    assert served.ended.wait(PATIENCE / 1000)
    assert 0 < len(served.lines) < 250
    step_to(page, "Last step")
    expect(facts(page)).to_contain_text(re.compile(r"Step \d+ of 250"))


def test_another_text_stops_the_steps(page: Any, served: Served) -> None:
    begin_long(page, served)
    page.locator("#look-text").fill("The king")
    page.get_by_role("button", name="Look", exact=True).click()
    assert served.ended.wait(PATIENCE / 1000)
    assert len(served.lines) < 250
    expect(page.locator(".steps-result")).to_be_hidden()


def test_each_step_leads_to_what_was_inside(page: Any, tiny: GPT2) -> None:
    assert tiny.tokenizer
    look(page, "steps", changes=HEAD)
    expect(page.locator(".part-steps .notice")).to_contain_text("without the changes")
    write_steps(page)
    page.get_by_role("slider", name="Step").fill("2")
    ids = tiny.tokenizer.encode(tiny.generate(WOMAN, max_new_tokens=6, seed=5, top_k=40))
    page.get_by_role("link", name="Look inside at the text of this step").click()
    expect(page.locator(".part-lines")).to_be_visible()
    expect(page.locator("#look-text")).to_have_value(WOMAN + tiny.tokenizer.decode(ids[:2]))
    assert changes_in_address(page) == []


def test_a_drawn_token_that_the_text_is_not_read_as_has_no_origin(page: Any, tiny: GPT2, served: Served) -> None:
    assert tiny.tokenizer
    served.watch("write")
    look(page, "steps")
    write_steps(page, seed=3, top_k=0, temperature=1.5)
    assert served.ended.wait(PATIENCE / 1000)
    step_to(page, "First step")
    text, are_read = WOMAN, []
    for line in served.lines:
        text += line["token"]["text"]
        are_read.append(tiny.tokenizer.encode(text)[-1] == line["token"]["id"])
        link = page.get_by_role("link", name="Where does the drawn token come from?")
        expect(link if are_read[-1] else page.get_by_text("is read as other tokens")).to_be_visible()
        expect(link).to_have_count(int(are_read[-1]))
        step_to(page, "Next step")
    assert {*are_read} == {True, False}


def test_the_steps_of_a_long_text_begin_where_there_is_room_and_lead_to_just_what_was_read(page: Any) -> None:
    look(page, "steps", LONG.strip())
    n_tokens = page.locator(".look-token").count()
    write_steps(page, 100)
    step_to(page, "First step")
    n_read = 256 + 1 - 100
    expect(facts(page)).to_contain_text(f"nothing in the past yet, {n_read} positions computed")
    expect(page.locator(".step-view")).to_contain_text(f"The first {n_tokens - n_read} tokens of the text are left out")
    read = text_of_step(page)
    page.get_by_role("link", name="Look inside at the text of this step").click()
    expect(page.locator(".part-lines")).to_be_visible()
    expect(page.locator(".look-token")).to_have_count(n_read)
    text = page.locator("#look-text").input_value()
    assert LONG.strip().endswith(text)
    assert read.startswith(text)


def test_refused_options_are_a_sentence(page: Any) -> None:
    look(page, "steps")
    page.locator("#steps-top_p").fill("2")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("top_p must be")
    expect(page.locator(".steps-result")).to_be_hidden()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)


def test_steps_by_keyboard_alone(page: Any) -> None:
    look(page, "steps")
    page.locator("#steps-seed").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("slider", name="Step")).to_have_attribute("max", "19")
    page.get_by_role("button", name="Pause").press("Space")
    reached = tabbed(page, "steps")
    assert {"First step", "Previous step", "Play the steps", "Next step", "Last step", "Step"} < {*reached}
    page.get_by_role("button", name="Next step").press("End")
    expect(facts(page)).to_contain_text("Step 20 of 20")


def test_experiments_by_keyboard_alone(page: Any) -> None:
    look(page, "experiments")
    settle(page)
    reached = tabbed(page, "experiments")
    assert [name for name in reached if name.startswith("Switch off")] == ["Switch off head 0 of layer 0"]
    assert {"Array", "Replace", "Heads", "Positions", "Replace it", "Copy"} < {*reached}
    page.get_by_role("button", name="Switch off head 0 of layer 0").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "Space"):
        page.keyboard.press(key)
    expect(page.locator(".changes code")).to_have_text(["h3/attn/a, head 1: zero"])
    expect(page.get_by_role("button", name="Switch off head 1 of layer 3")).to_be_focused()
    page.get_by_role("button", name="Remove h3/attn/a, head 1: zero").press("Enter")
    expect(page.locator(".changes code")).to_have_count(0)
    expect(page.get_by_role("button", name="Switch off head 1 of layer 3")).to_be_focused()


def tabbed(page: Any, part: str) -> list[str]:
    """The names of all that Tab reaches in a part: each has one, and shows that it has the focus."""
    names = []
    page.locator("#look-tabs a").last.focus()
    focused = page.locator("*:focus")
    for _ in range(40):
        page.keyboard.press("Tab")
        if not page.evaluate(f"document.activeElement.closest('.part-{part}') !== null"):
            break
        expect(focused).to_have_accessible_name(re.compile("."))
        assert focused.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
        label = "element => element.ariaLabel ?? element.labels?.[0]?.textContent ?? element.textContent"
        names.append(str(focused.evaluate(label)))
    return names


@pytest.mark.parametrize("text", [WOMAN, LONG], ids=["short", "long"])
def test_no_overflow_at_360_pixels(browser: Any, served: Served, text: str) -> None:
    window = Watched(browser, served.server.address, 360, 740)
    page = window.open()
    widths = "[document.documentElement.scrollWidth, window.innerWidth]"
    put_there = [{"name": "h2", "how": "put", "text": "W" * 80, "position": 2}]
    for changes in (HEAD, put_there):
        look(page, "experiments", text, changes=changes)
        expect(page.locator(".changes code")).to_have_count(1)
        settle(page)
        assert page.evaluate(widths) == [360, 360]
    look(page, "steps", text, changes=put_there)
    write_steps(page, 20)
    step_to(page, "Last step")
    expect(facts(page)).to_contain_text("Step 20 of 20")
    assert page.evaluate(widths) == [360, 360]
    window.context.close()
    assert window.wrong == []
