"""The page in a real browser: what a person types, sees and gets back."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import BROWSER, PATIENCE, SECOND, Served, Watched

import numpy_gpt2
from numpy_gpt2 import layers
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.tokenizer import Tokenizer

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
expect = playwright.expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: its path may be in CHROMIUM")

TEXT = "Once upon a time there was a king who had three daughters."


def write(page: Any, text: str) -> None:
    page.locator("#text").focus()
    page.keyboard.insert_text(text)


def text_of(page: Any) -> str:
    return str(page.locator("#text").input_value())


def listed(page: Any) -> Any:
    """The options of the list by the cursor."""
    return page.locator("#popup").get_by_role("option")


def suggestion(page: Any, index: int = 0) -> Any:
    """The text of a suggestion, without the half word that it completes."""
    return listed(page).nth(index).locator("span").nth(1)


def suggest(page: Any, n: int = 3) -> None:
    """Presses Tab, and waits until all n suggestions in the list are there."""
    page.keyboard.press("Tab")
    expect(listed(page)).to_have_count(n)
    expect(page.locator("#stop")).to_be_hidden()


def settle(page: Any) -> None:
    """Waits until the text is coloured to its end."""
    expect(page.locator("#count")).to_contain_text("token")


def exported(page: Any) -> dict[str, Any]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Export JSON").click()
    content: dict[str, Any] = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    return content


def version_texts(content: dict[str, Any]) -> dict[int, str]:
    """The text of each version, as the format says: the beginning of the parent's, and what was added."""
    texts: dict[int, str] = {}
    for version in content["versions"]:
        parent = texts.get(version["parent"], "").encode("utf-16-le", "surrogatepass")
        kept = parent[: 2 * version["kept"]].decode("utf-16-le", "surrogatepass")
        texts[version["id"]] = kept + version["added"]
    return texts


def taken(content: dict[str, Any]) -> dict[str, Any]:
    """The only version that was taken from a suggestion."""
    (version,) = [version for version in content["versions"] if version["how"] == "taken"]
    return dict(version)


def vocabulary(model: GPT2) -> Tokenizer:
    assert model.tokenizer
    return model.tokenizer


def test_tab_suggests_and_enter_takes(page: Any, served: Served) -> None:
    served.watch("suggest")
    page.locator("#text").press_sequentially(TEXT)
    suggest(page)
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("ArrowDown")
    second = listed(page).nth(1)
    expect(second).to_have_attribute("aria-selected", "true")
    expect(page.locator("#text")).to_have_attribute("aria-activedescendant", second.get_attribute("id"))
    page.keyboard.press("Enter")
    expect(listed(page)).to_have_count(0)
    begin, *_, end = served.lines
    expect(page.get_by_role("status")).to_contain_text(f"{end['tokens']} tokens, {end['tokens_per_second']:.0f} tokens")
    version = taken(exported(page))
    lines = [line for line in served.lines if line.get("row") == 1]
    assert text_of(page) == TEXT + "".join(line.get("text", "") for line in lines)
    assert version["ids"] == [id for line in lines for id in line.get("ids", [])]
    assert (version["seed"], version["model"], version["row"]) == (begin["seed"], "tiny", 1)
    assert version["settings"]["options"] == {
        "repetition_penalty": 1, "temperature": 1, "top_k": 40, "top_p": 1, "min_p": 0
    }  # fmt: skip


def test_tab_again_adds_others_and_a_click_takes_one_of_the_first(page: Any) -> None:
    write(page, TEXT)
    suggest(page)
    first = suggestion(page).text_content()
    suggest(page, 6)
    expect(listed(page).nth(3)).to_have_attribute("aria-selected", "true")
    listed(page).nth(0).click()
    expect(page.locator("#text")).to_have_value(TEXT + first)
    expect(page.locator("#text")).to_be_focused()


def test_suggestions_are_for_the_text_before_the_cursor(page: Any, served: Served) -> None:
    write(page, TEXT)
    for _ in range(len(" daughters.")):
        page.keyboard.press("ArrowLeft")
    suggest(page)
    asked = [request for request in served.requests if request["kind"] == "suggest"]
    assert [request["text"] for request in asked] == [TEXT.removesuffix(" daughters.")]
    first = suggestion(page).text_content()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_value(TEXT.removesuffix(" daughters.") + first + " daughters.")


@pytest.mark.parametrize("how", ["Escape", "x", "ArrowLeft"])
def test_escape_typing_and_moving_the_cursor_drop_the_suggestions_and_stop_the_model(
    page: Any, served: Served, how: str
) -> None:
    page.get_by_label("Length").fill("1024")
    served.watch("suggest")
    write(page, TEXT)
    page.keyboard.press("Tab")
    expect(suggestion(page)).not_to_have_text("")
    page.keyboard.press(how)
    expect(listed(page)).to_have_count(0)
    assert served.ended.wait(PATIENCE / 1000)
    assert "tokens_per_second" not in served.lines[-1]
    expect(page.locator("#text")).to_have_value(TEXT + ("x" if how == "x" else ""))


def test_half_words_are_completed(page: Any, tiny: GPT2) -> None:
    half = "Once upon a ti"
    write(page, half)
    suggest(page)
    page.keyboard.press("Enter")
    version = taken(exported(page))
    dropped = vocabulary(tiny).encode(half)[-version["n_dropped"] :]
    written = vocabulary(tiny).decode(version["ids"])
    assert version["n_dropped"] > 0
    assert written == vocabulary(tiny).decode(dropped) + version["added"]
    assert text_of(page) == half + version["added"]


def test_no_second_space_is_written(page: Any) -> None:
    write(page, "Once upon a ")
    suggest(page)
    page.keyboard.press("Enter")
    assert not taken(exported(page))["added"].startswith(" ")


def test_undo_takes_back_the_taking_and_it_stays_as_a_branch(page: Any) -> None:
    write(page, TEXT)
    suggest(page)
    page.keyboard.press("Enter")
    with_suggestion = text_of(page)
    page.keyboard.press("Control+z")
    expect(page.locator("#text")).to_have_value(TEXT)
    page.get_by_role("treeitem", name="suggested").click()
    expect(page.locator("#text")).to_have_value(with_suggestion)
    expect(page.get_by_role("treeitem", selected=True)).to_contain_text("suggested, here")


def test_what_was_deleted_or_written_otherwise_is_kept_through_a_reload(page: Any) -> None:
    seen = []
    for keys in ("A king 😀 had a cat", *["Backspace"] * 3, "dog", "Control+a", "Another text"):
        if keys.startswith(("A ", "d", "An")):
            write(page, keys)
        else:
            page.keyboard.press(keys)
        seen.append(text_of(page))
    before = exported(page)
    page.reload()  # at once: what is typed last must be kept as well
    expect(page.locator("#text")).to_have_value("Another text")
    after = exported(page)
    assert after["versions"] == before["versions"]
    texts = {*version_texts(after).values()}
    assert texts >= {"A king 😀 had a cat", "A king 😀 had a dog", "Another text"}
    assert [text for text in seen if not any(each.startswith(text) for each in texts)] == []
    page.get_by_role("treeitem", name="king 😀 had a").first.press("Enter")
    assert text_of(page).startswith("A king 😀 had a")


def test_nothing_is_lost_whatever_is_done(page: Any) -> None:
    """Random edits: each text that more than an insertion followed is still the beginning of a version.

    The two emoji begin with the same half of a surrogate pair, and two others end with the same one.
    """
    rng, texts = np.random.default_rng(0), [""]
    for _ in range(400):
        text = texts[-1]
        place, what = int(rng.integers(len(text) + 1)), int(rng.integers(5))
        if what == 0:
            text = text[:place] + text[place + int(rng.integers(1, 4)) :]
        elif what == 1:
            text = texts[int(rng.integers(len(texts)))]
        else:
            place = len(text) if what == 2 else place
            text = text[:place] + "ab😀😁🨀"[int(rng.integers(5))] + text[place:]
        texts.append(text)
    program = """async (texts) => {
        const { Tree } = await import("./tree.js");
        const tree = new Tree();
        for (const text of texts) tree.record(text);
        return Tree.from(JSON.parse(JSON.stringify(tree))).toJSON();
    }"""
    content = page.evaluate(program, texts)
    for version in content["versions"]:
        version["added"].encode()  # fails for half a surrogate pair
    kept = version_texts(content)
    assert kept[content["current"]] == texts[-1]
    for text, following in itertools.pairwise(texts):
        begins = (following[:i] + following[i + 1 :] for i in range(len(following)))
        if text not in (following, *begins):
            assert any(each.startswith(text) for each in kept.values()), text


def test_stop_stops_the_model_at_the_next_token_and_keeps_what_is_there(page: Any, served: Served) -> None:
    page.get_by_label("Length").fill("1024")
    served.watch("suggest")
    write(page, TEXT)
    page.keyboard.press("Tab")
    expect(suggestion(page)).not_to_have_text("")
    page.get_by_role("button", name="Stop").click()
    assert served.ended.wait(PATIENCE / 1000)
    assert "tokens_per_second" not in served.lines[-1]
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("Stopped.")
    first = suggestion(page).text_content()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_value(TEXT + first)


def test_another_model_keeps_the_text_and_says_how_many_tokens_it_has(page: Any, tiny: GPT2, models_dir: Path) -> None:
    write(page, TEXT)
    chooser = page.get_by_label("Model", exact=True)
    expect(chooser.locator("option[value='1558M']")).to_have_text("1558M · 6.2 GB · the same as gpt2-xl · not here")
    chooser.select_option("gpt2-xl")
    expect(page.locator("#missing code")).to_have_text("numpy-gpt2 download gpt2-xl")
    expect(chooser).to_have_value("tiny")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("status")).to_contain_text("copied")
    chooser.select_option(SECOND)
    second = numpy_gpt2.load(SECOND, models_dir=models_dir)
    n_old, n_new = (len(vocabulary(model).encode(TEXT)) for model in (tiny, second))
    sentence = f"{SECOND} reads the text as {n_new} tokens; with tiny there were {n_old}."
    expect(page.get_by_role("status")).to_have_text(sentence)
    expect(page.locator("#text")).to_have_value(TEXT)
    expect(page.locator("#count")).to_have_text(f"{n_new} tokens")
    page.locator("#text").focus()
    suggest(page)
    page.keyboard.press("Enter")
    assert taken(exported(page))["model"] == SECOND


def test_each_token_has_the_colour_of_its_probability(page: Any, tiny: GPT2) -> None:
    write(page, TEXT)
    settle(page)
    ids = vocabulary(tiny).encode(TEXT)
    probabilities = layers.softmax(tiny.logits(ids))[np.arange(len(ids) - 1), ids[1:]]
    shades = np.searchsorted(-np.array([0.5, 0.2, 0.05, 0.01, 0.001]), -probabilities, side="left")
    expected = ["token", *(f"token shade-{shade}" for shade in shades)]
    assert page.locator(".token").evaluate_all("spans => spans.map((span) => span.className)") == expected
    texts = page.locator(".token").evaluate_all("spans => spans.map((span) => span.textContent)")
    assert texts == [vocabulary(tiny).decode([id]) for id in ids]
    page.get_by_label("Colour by probability").uncheck()
    for i in range(len(ids)):
        expect(page.locator(".token").nth(i)).to_have_css("background-color", "rgba(0, 0, 0, 0)")


def test_letters_stand_on_their_tokens(page: Any) -> None:
    """The backdrop breaks its lines where the text field does: each token lies under its letters."""
    write(page, "fifty waffles, AVATAR " * 12)
    settle(page)
    program = """() => {
        const places = (root) => {
            const found = [], range = document.createRange();
            const nodes = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
            for (let node = nodes.nextNode(); node; node = nodes.nextNode()) {
                for (let i = 0; i < node.length; i++) {
                    if (/\\s|\\u200b/.test(node.data[i])) continue;
                    range.setStart(node, i);
                    range.setEnd(node, i + 1);
                    const { left, bottom } = range.getBoundingClientRect();
                    found.push([left, bottom]);
                }
            }
            return found;
        };
        const backdrop = document.getElementById("backdrop");
        const coloured = places(backdrop);
        const plain = backdrop.cloneNode();
        plain.textContent = document.getElementById("text").value;
        backdrop.replaceWith(plain);
        return [coloured, places(plain), document.getElementById("text").scrollHeight, plain.offsetHeight];
    }"""
    coloured, plain, field_height, height = page.evaluate(program)
    assert len({round(bottom) for _, bottom in plain}) > 3  # lines
    np.testing.assert_allclose(coloured, plain, atol=0.5)
    assert field_height == height


def test_an_alternative_goes_on_from_its_token_as_a_branch(page: Any, tiny: GPT2) -> None:
    write(page, TEXT)
    settle(page)
    ids = vocabulary(tiny).encode(TEXT)
    before = vocabulary(tiny).decode(ids[:5])
    for _ in range(len(TEXT) - len(before) - 1):
        page.keyboard.press("ArrowLeft")  # into the sixth token
    page.keyboard.press("Alt+ArrowDown")
    best = np.argsort(-tiny.logits(before)[-1], kind="stable")[:8].tolist()
    options = listed(page)
    expect(options).to_have_count(9)  # with the way to look inside
    choice = next(i for i, id in enumerate(best) if id != ids[5])
    for _ in range(choice):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_value(before + vocabulary(tiny).decode([best[choice]]))
    content = exported(page)
    (version,) = [version for version in content["versions"] if version["how"] == "alternative"]
    assert (version["ids"], version["kept"]) == ([best[choice]], len(before))
    probability = layers.softmax(tiny.logits(before)[-1])[best[choice]]
    np.testing.assert_allclose(version["probability"], probability, rtol=1e-3)
    page.keyboard.press("Control+z")
    expect(page.locator("#text")).to_have_value(TEXT)


def test_the_mouse_shows_alternatives_without_taking_the_keys(page: Any, tiny: GPT2) -> None:
    write(page, TEXT)
    settle(page)
    page.locator(".token").nth(3).hover(force=True)
    expect(listed(page)).to_have_count(9)
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_value(f"{TEXT}\n")


def test_the_picture_shows_what_an_option_rules_out(page: Any, tiny: GPT2) -> None:
    page.get_by_label("Top k").fill("2")
    expect(page.locator("#picture-summary")).to_contain_text(f"2 of {tiny.hparams.n_vocab:,} tokens stay in the draw")
    rows = page.locator("#picture tbody tr")
    expect(page.locator("#picture tbody tr:not(.is-out)")).to_have_count(2)
    begin = vocabulary(tiny).encode("<|endoftext|>", allow_special=True)  # what an empty text follows
    probabilities = layers.softmax(tiny.logits(begin)[-1])
    first = np.sort(probabilities)[:-3:-1]
    cells = rows.locator("td:nth-child(3)").all_text_contents()[:2]
    drawn = [float(cell.removesuffix(" %")) / 100 for cell in cells]
    np.testing.assert_allclose(drawn, first / first.sum(), atol=0.006)
    page.get_by_label("Temperature").fill("0")
    expect(page.locator("#picture-summary")).to_contain_text("1 of")


def test_seed_and_stop_strings_are_sent_and_kept(page: Any, served: Served) -> None:
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Stop strings").fill(",\n\\n")
    write(page, TEXT)
    shown = []
    for _ in range(2):
        suggest(page)
        shown.append([suggestion(page, i).text_content() for i in range(3)])
        page.keyboard.press("Escape")
    assert shown[0] == shown[1]
    suggest(page)
    suggest(page, 6)
    asked = [(each["seed"], each["stop"]) for each in served.requests if each["kind"] == "suggest"]
    assert asked == [(seed, [",", "\n"]) for seed in (7, 7, 7, 8)]
    page.reload()
    expect(page.get_by_label("Seed")).to_have_value("7")


def test_texts_can_be_exported_imported_and_deleted_after_a_question(page: Any, tmp_path: Path) -> None:
    write(page, TEXT)
    suggest(page)
    page.keyboard.press("Enter")
    content, text = exported(page), text_of(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export text").click()
    assert Path(download.value.path()).read_text(encoding="utf-8") == text
    page.get_by_role("button", name="New text").click()
    expect(page.locator("#text")).to_have_value("")
    file = tmp_path / "text.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    page.locator("#import-file").set_input_files(file)
    expect(page.locator("#text")).to_have_value(text)
    assert exported(page) == content
    texts = page.get_by_label("Texts in this browser").get_by_role("listitem")
    expect(texts).to_have_count(2)
    for answer, n in (("Keep it", 2), ("Delete it", 1)):
        texts.nth(0).get_by_role("button", name="Delete").click()
        page.get_by_role("button", name=answer).click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(texts).to_have_count(n)


@pytest.mark.parametrize("damage", ["versions", "parent", "kept", "added", "id", "line end"])
def test_a_damaged_import_is_refused_with_a_sentence(page: Any, tmp_path: Path, damage: str) -> None:
    write(page, "a")
    content = exported(page)
    if damage == "versions":
        content["versions"] = []
    elif damage == "line end":
        content["versions"][1]["added"] = "a\r\nb"
    else:
        content["versions"][1][damage] = {"parent": 5, "kept": 3, "added": 1, "id": 2**53}[damage]
    file = tmp_path / "TEXT.JSON"
    file.write_text(json.dumps(content), encoding="utf-8")
    page.locator("#import-file").set_input_files(file)
    expect(page.get_by_role("status")).to_have_text(re.compile(r"TEXT\.JSON cannot be imported: .*version.*\."))
    expect(page.locator("#text")).to_have_value("a")


def test_a_second_tab_opens_another_text_and_says_so(window: Watched, page: Any) -> None:
    write(page, TEXT)
    expect(page.get_by_label("Texts in this browser").get_by_role("listitem")).to_have_count(1)
    other = window.open()
    expect(other.get_by_role("status")).to_contain_text("is open in another tab")
    expect(other.locator("#text")).to_have_value("")
    write(other, "Something else")
    expect(other.get_by_label("Texts in this browser").get_by_role("listitem")).to_have_count(2)
    id = page.evaluate("JSON.parse(sessionStorage.getItem('numpy-gpt2/open'))")
    page.close()
    other.evaluate("(id) => navigator.locks.request(`numpy-gpt2/text/${id}`, () => null)", id)  # once it is free
    other.get_by_role("button", name="Once upon a time").first.click()
    expect(other.locator("#text")).to_have_value(TEXT)
    other.get_by_role("button", name="Something else").first.click()
    expect(other.locator("#text")).to_have_value("Something else")


def fill_storage(page: Any) -> None:
    page.evaluate("""() => {
        for (let size = 4_000_000; size >= 1; size = Math.floor(size / 2)) {
            try { for (let i = 0; ; i++) localStorage.setItem(`x${size}-${i}`, "x".repeat(size)); } catch {}
        }
    }""")


def empty_storage(page: Any) -> None:
    page.evaluate(
        "() => Object.keys(localStorage).filter((key) => /^x/.test(key)).forEach((key) => delete localStorage[key])"
    )


def test_full_storage_is_said_and_export_still_works(page: Any) -> None:
    fill_storage(page)
    write(page, TEXT)
    expect(page.get_by_role("status")).to_contain_text("has no room left")
    assert TEXT in version_texts(exported(page)).values()


def test_a_text_that_is_not_kept_is_not_thrown_away_unasked(page: Any, tmp_path: Path) -> None:
    may_unload = "window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    write(page, "First")
    page.get_by_role("button", name="New text").click()
    fill_storage(page)
    assert page.evaluate(may_unload)
    write(page, TEXT)
    expect(page.get_by_role("status")).to_contain_text("has no room left")
    assert not page.evaluate(may_unload)
    file = tmp_path / "text.txt"
    file.write_text("Another", encoding="utf-8")
    ways: list[Callable[[], Any]] = [
        lambda: page.get_by_role("button", name="New text").click(),
        lambda: page.get_by_role("button", name="First").first.click(),
        lambda: page.locator("#import-file").set_input_files(file),
    ]
    for go in ways:
        go()
        page.get_by_role("button", name="Keep it").click()
        expect(page.locator("#text")).to_have_value(TEXT)
    ways[1]()
    page.get_by_role("button", name="Lose it").click()
    expect(page.locator("#text")).to_have_value("First")
    assert page.evaluate(may_unload)
    empty_storage(page)


def test_a_text_that_could_not_be_kept_once_stays_one_text(page: Any) -> None:
    write(page, "One")
    texts = page.get_by_label("Texts in this browser").get_by_role("listitem")
    expect(texts).to_have_count(1)
    fill_storage(page)
    write(page, TEXT)
    expect(page.get_by_role("status")).to_contain_text("has no room left")
    empty_storage(page)
    write(page, " More")
    expect(page.get_by_role("status")).to_have_text("The text is kept again.")
    expect(texts).to_have_count(1)


@pytest.mark.parametrize("what", ["summary", "text"])
def test_a_damaged_text_is_said_to_be_damaged(window: Watched, page: Any, what: str) -> None:
    write(page, TEXT)
    expect(page.get_by_label("Texts in this browser").get_by_role("listitem")).to_have_count(1)
    page.close()
    program = """(what) => {
        const isOne = (key) => key.includes(`/${what}/`);
        for (const key of Object.keys(localStorage).filter(isOne)) localStorage[key] = "{";
        return true;
    }"""
    window.context.add_init_script(f"sessionStorage.damaged ??= ({program})('{what}')")
    again = window.open()
    if what == "text":
        sentence = re.compile("“Once upon a time.*” cannot be opened: it is not JSON. Here is a new text.")
        expect(again.get_by_role("status")).to_have_text(sentence)
        again.get_by_role("button", name="Once upon a time").first.click()
        expect(again.get_by_role("status")).to_have_text(re.compile(".*cannot be opened: it is not JSON."))
    else:
        expect(again.locator("#text")).to_have_value(TEXT)


def test_a_copied_tab_says_what_it_waits_for_and_can_go_on(window: Watched, page: Any) -> None:
    """`window.open` copies the storage of the session, so that the new tab looks like this one after a reload."""
    write(page, TEXT)
    expect(page.get_by_label("Texts in this browser").get_by_role("listitem")).to_have_count(1)
    program = "window.waits = []; AbortSignal.timeout = (ms) => (waits.push(ms), new AbortController().signal)"
    window.context.add_init_script(program)
    with window.context.expect_page() as opened:
        page.evaluate("void window.open(location.href)")
    other = opened.value
    expect(other.locator("#work-what")).to_have_text("Waiting for another tab to close the text…")
    assert other.evaluate("waits") == [1000]
    other.get_by_role("button", name="Stop").click()
    expect(other.locator("#text")).to_be_editable()
    expect(other.get_by_role("status")).to_contain_text("is open in another tab. Here is a new text.")
    page.reload()
    expect(page.locator("#text")).to_have_value(TEXT)
    assert page.evaluate("waits")[0] == 5000


def test_the_list_of_texts_keeps_the_focus(window: Watched, page: Any) -> None:
    write(page, TEXT)
    delete = page.get_by_role("button", name="Delete “Once")
    delete.focus()
    other = window.open()
    write(other, "Something else")
    expect(page.get_by_role("button", name="Something else").first).to_be_visible()
    expect(delete).to_be_focused()


@pytest.mark.parametrize("settings", [{"n": "0"}, {"n": "20000"}, {"temperature": "-3"}, {"seed": "x"}], ids=str)
def test_a_setting_out_of_its_range_is_said_and_not_sent(page: Any, served: Served, settings: dict[str, str]) -> None:
    write(page, TEXT)
    settle(page)
    ((name, value),) = settings.items()
    field = page.locator(f"#set-{name}")
    field.evaluate(
        "(field, value) => { if (field.type === 'text') field.value = value; else field.valueAsNumber = value; "
        "field.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )
    expect(page.locator(f"#wrong-set-{name}")).to_have_text(re.compile("^must be "))
    served.requests.clear()
    page.locator("#text").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("status")).to_have_text(re.compile("must be .*[.]$"))
    expect(page.locator("#text")).to_be_focused()
    expect(listed(page)).to_have_count(0)
    assert served.requests == []


def test_the_likeliest_tokens_alone_are_the_same_three_times(page: Any) -> None:
    page.get_by_label("Temperature").fill("0")
    write(page, TEXT)
    page.keyboard.press("Tab")
    expect(listed(page)).to_have_count(1)
    expect(listed(page)).to_contain_text("(3 times the same)")
    page.keyboard.press("Tab")
    expect(listed(page)).to_have_count(1)
    expect(listed(page)).to_contain_text("(6 times the same)")


def test_a_suggestion_that_is_too_short_for_anything_new_says_so(page: Any, served: Served) -> None:
    """As where the only token writes no more than the half word."""
    answer = served.answers.answer

    def short(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if request["kind"] != "suggest":
            yield from answer(request)
            return
        yield {"model": "tiny", "seed": 1, "n_dropped": 1, "half_word": "ti", "n_unseen": 0}
        yield from ({"row": 0, "text": "", "ids": [5]}, {"row": 0, "finish_reason": "length"})

    served.answers.answer = short  # type: ignore[method-assign]
    write(page, "Once upon a ti")
    page.keyboard.press("Tab")
    expect(listed(page).first).to_have_text("tinothing new yet: a greater Length gives more")


def test_the_model_that_was_chosen_last_answers(page: Any, served: Served) -> None:
    began, may_end, loads = threading.Event(), threading.Event(), list[str]()
    load = served.answers._load

    def slow(name: str) -> GPT2:
        loads.append(name)
        began.set()
        assert may_end.wait(PATIENCE / 1000)
        return load(name)

    served.answers._load = slow
    chooser = page.get_by_label("Model", exact=True)
    chooser.select_option(SECOND)
    assert began.wait(PATIENCE / 1000)
    chooser.select_option("tiny")
    expect(page.locator("#work-what")).to_have_text("loading tiny…")
    may_end.set()
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.get_by_role("status")).to_contain_text("tiny writes from here on")
    expect(chooser).to_have_value("tiny")
    assert served.answers.model.name == "tiny"
    assert loads == [SECOND]


def test_models_that_are_passed_on_the_way_are_not_loaded(page: Any, served: Served) -> None:
    chooser = page.get_by_label("Model", exact=True)
    page.evaluate(
        """(second) => {
        for (const name of [second, "tiny", second]) {
            document.getElementById("model").value = name;
            document.getElementById("model").dispatchEvent(new Event("change"));
        }
    }""",
        SECOND,
    )
    expect(page.get_by_role("status")).to_contain_text(f"{SECOND} writes from here on")
    expect(chooser).to_have_value(SECOND)
    assert [request["model"] for request in served.requests if request["kind"] == "load"] == [SECOND]


def test_another_tab_that_changes_the_model_changes_the_colours(window: Watched, page: Any, served: Served) -> None:
    served.answers.model = served.answers._load(SECOND)
    write(page, TEXT)
    settle(page)
    expect(page.get_by_label("Model", exact=True)).to_have_value(SECOND)
    expect(page.locator("#model-about")).to_contain_text("sees 32 tokens")


def test_the_model_is_asked_for_again_if_that_failed_at_first(window: Watched) -> None:
    page = window.context.new_page()
    page.route("**/answer", lambda route: route.abort())
    page.goto(window.address)
    expect(page.get_by_role("status")).to_contain_text("The server does not answer")
    page.unroute("**/answer")
    write(page, TEXT)
    page.keyboard.press("Tab")
    expect(listed(page)).to_have_count(3)


def test_what_is_composed_while_colours_arrive(page: Any, served: Served) -> None:
    may_go = served.hold(5, kind="tokens")
    write(page, TEXT)
    expect(page.locator(".token")).to_have_count(5)
    page.keyboard.press("Home")
    keyboard = page.context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "k", "selectionStart": 1, "selectionEnd": 1})
    may_go.set()
    keyboard.send("Input.insertText", {"text": "か"})
    settle(page)
    assert page.locator("#backdrop").text_content().rstrip("\u200b") == f"か{TEXT}"


def test_a_second_tab_key_leaves_the_model_to_the_suggestions(page: Any, served: Served) -> None:
    write(page, TEXT)
    settle(page)
    may_go = served.hold(1, kind="suggest", seed=4)
    asked: list[str] = []
    page.on("request", lambda request: asked.extend(re.findall(r'"kind":"(\w+)"', request.post_data or "")))
    page.clock.install()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(listed(page)).to_have_count(6)
    expect(page.get_by_role("status")).to_contain_text("3 suggestions")  # the first batch is there
    page.clock.run_for(600)  # longer than the picture and the colours wait
    assert asked == ["suggest", "suggest"]
    may_go.set()
    expect(page.locator("#stop")).to_be_hidden()


def test_the_end_of_a_chosen_version_has_the_cursor(page: Any) -> None:
    write(page, "It was the end.")
    for _ in range(len("end.")):
        page.keyboard.press("Backspace")
    write(page, "beginning.")
    page.get_by_role("treeitem", name="end.").click()
    expect(page.locator("#text")).to_have_value("It was the end.")
    page.keyboard.type(" Or not.")
    expect(page.locator("#text")).to_have_value("It was the end. Or not.")


def test_an_ending_before_which_something_was_written_stays_in_the_list(page: Any) -> None:
    write(page, "They lived happily ever after.")
    page.keyboard.press("ArrowLeft")
    page.keyboard.type(" the war")
    ending = page.get_by_role("treeitem", name="after.")
    ending.click()
    expect(page.locator("#text")).to_have_value("They lived happily ever after.")


def test_what_was_undone_makes_no_branch_of_its_own(page: Any) -> None:
    program = """async (texts) => {
        const { Tree } = await import("./tree.js");
        const tree = new Tree();
        for (const text of texts) tree.record(text);
        return tree.toJSON();
    }"""
    content = page.evaluate(program, ["The end.", "The very end.", "The e", "The end."])
    assert sorted(version_texts(content).values()) == ["", "The end.", "The very end."]


def test_the_first_token_has_no_list_that_takes_keys(page: Any) -> None:
    write(page, TEXT)
    settle(page)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Alt+ArrowDown")
    expect(page.locator("#popup-title")).to_contain_text("is the first token")
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_value(f"O\n{TEXT[1:]}")


def test_a_stop_string_is_named(page: Any) -> None:
    page.get_by_label("Stop strings").fill("e")
    write(page, TEXT)
    page.keyboard.press("Tab")
    expect(listed(page).first).to_contain_text("(stopped at “e”)")


def test_an_error_goes_with_the_next_key(page: Any, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text("{", encoding="utf-8")
    page.locator("#import-file").set_input_files(file)
    expect(page.get_by_role("status")).to_contain_text("bad.json cannot be imported")
    write(page, "a")
    expect(page.get_by_role("status")).to_have_text("")


def test_files_and_texts_have_names_that_say_what_they_are(page: Any, tmp_path: Path) -> None:
    expect(page.get_by_role("treeitem")).to_have_count(0)
    write(page, 'Who? "Me": a king who had three daughters, and so on. And on.')
    with page.expect_download() as download:
        page.get_by_role("button", name="Export text").click()
    name = re.compile(r"Who Me a king who had three daughters, and \d{4}-\d\d-\d\d\.txt")
    assert name.fullmatch(download.value.suggested_filename)
    file = tmp_path / "a tale.txt"
    file.write_text("It began.", encoding="utf-8")
    page.locator("#import-file").set_input_files(file)
    expect(page.get_by_role("button", name="a tale").first).to_contain_text("now open")
    page.reload()
    expect(page.get_by_role("button", name="a tale").first).to_contain_text("now open")


def test_what_a_choice_did_to_the_text_is_said(page: Any) -> None:
    write(page, TEXT)
    settle(page)
    for _ in range(len(" daughters.")):
        page.keyboard.press("ArrowLeft")
    suggest(page)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("The suggestion is inserted before the rest of the text.")
    settle(page)
    page.keyboard.press("Alt+ArrowDown")
    listed(page).nth(3).click()
    expect(page.get_by_role("status")).to_have_text("What stood there before is kept in Branches.")


def test_the_picture_of_a_half_word_says_so(page: Any) -> None:
    write(page, "Once upon a ti")
    expect(page.locator("#picture-title")).to_have_text("How the last word may go on")
    expect(page.locator("#picture-summary")).to_contain_text("only tokens that agree with “ti” are counted")
    write(page, f"me. {'One two three. ' * 100}")
    expect(page.locator("#picture-summary")).to_contain_text("without the first")


def test_a_tap_shows_alternatives(browser: Any, served: Served) -> None:
    window = Watched(browser, served.server.address, 360, 740, has_touch=True, is_mobile=True)
    page = window.open()
    write(page, TEXT)
    settle(page)
    box = page.locator(".token").nth(3).bounding_box()
    page.clock.install()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(listed(page)).to_have_count(9)  # and the way to where it comes from
    page.clock.run_for(500)  # longer than a list waits for a mouse that has left
    expect(listed(page)).to_have_count(9)  # and the way to where it comes from
    window.context.close()
    assert window.wrong == []


def test_errors_are_sentences_in_the_status_line(window: Watched, page: Any) -> None:
    write(page, TEXT)
    settle(page)
    page.get_by_label("Stop strings").fill("\n".join("abcdefghijklmnopq"))
    page.locator("#text").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("status")).to_contain_text("stop must be a list of at most 16 texts")
    page.get_by_label("Stop strings").fill("")
    page.route("**/answer", lambda route: route.abort())
    page.locator("#text").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("status")).to_contain_text("The server does not answer")
    expect(page.locator("#text")).to_have_value(TEXT)
    refused = [text for text in window.wrong if not text.startswith("Failed to load resource")]
    window.wrong[:] = refused


def test_what_is_written_never_becomes_markup(page: Any) -> None:
    text = "<img src=x onerror=alert(1)> & <b>bold</b>"
    write(page, text)
    settle(page)
    assert page.locator("#backdrop img, #backdrop b, #branches img, #branches b").count() == 0
    assert str(page.locator("#backdrop").text_content()).rstrip("\u200b") == text


def test_a_word_of_an_input_method_is_one_step(page: Any) -> None:
    write(page, "A ")
    keyboard = page.context.new_cdp_session(page)
    for part in ("k", "ka", "kat", "か"):
        keyboard.send("Input.imeSetComposition", {"text": part, "selectionStart": len(part), "selectionEnd": len(part)})
    keyboard.send("Input.insertText", {"text": "か"})
    assert set(version_texts(exported(page)).values()) == {"", "A か"}


def test_the_theme_is_kept(page: Any) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Change to the dark theme").click()
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    assert page.evaluate(colour) == dark


def test_all_can_be_reached_and_is_named_by_keyboard_alone(page: Any) -> None:
    page.keyboard.type(TEXT)  # the text has the focus from the beginning
    suggest(page)
    page.keyboard.press("Enter")
    page.keyboard.press("Control+z")
    page.keyboard.press("Escape")
    reached = []
    focused = page.locator("*:focus")
    for _ in range(60):
        page.keyboard.press("Tab")
        id = page.evaluate("document.activeElement === document.body ? null : document.activeElement.id")
        if id is None:
            continue  # in the browser's own bars
        if id == "text":
            break
        expect(focused).to_have_accessible_name(re.compile("."))
        assert focused.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
        reached.append(focused.evaluate_handle("element => element"))
    program = """(reached) => [...document.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")]
        .filter((element) => element.checkVisibility() && element.tabIndex >= 0 && element.id !== "text")
        .filter((element) => !reached.includes(element)).map((element) => element.outerHTML)"""
    assert page.evaluate(program, reached) == []
    page.get_by_role("treeitem").first.focus()
    page.keyboard.press("End")
    page.keyboard.press("Space")
    expect(page.locator("#text")).not_to_have_value(TEXT)
    expect(page.get_by_role("treeitem", selected=True)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()


def test_no_overflow_at_360_pixels(browser: Any, served: Served) -> None:
    window = Watched(browser, served.server.address, 360, 740)
    page = window.open()
    page.locator("#text").focus()
    page.keyboard.insert_text(f"{TEXT} {'W' * 80} " * 3)
    settle(page)
    closed = page.locator("details:not([open]) > summary")
    while closed.count():
        closed.first.click()
    widths = "[document.documentElement.scrollWidth, window.innerWidth]"
    assert page.evaluate(widths) == [360, 360]
    page.get_by_role("button", name="Suggest").click()
    expect(listed(page)).to_have_count(3)
    assert page.evaluate(widths) == [360, 360]
    expect(page.locator("#stop")).to_be_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("Alt+ArrowDown")
    expect(listed(page)).to_have_count(9)
    assert page.evaluate(widths) == [360, 360]
    window.context.close()
    assert window.wrong == []
