"""Give it a picture, see what it says, correct it, take that back: by mouse and by keyboard."""

from __future__ import annotations

import re

import pytest

import retain
from tests.browser.helpers import give, hand, name_it, title, until


def test_the_first_two_pictures_teach_it_two_names(visit, serve, tmp_path, test_pictures, shot):
    with retain.create(tmp_path / "empty"):
        pass
    page = visit(serve(tmp_path / "empty"))
    assert page.locator("h1").inner_text() == "Show it the first picture"
    shot(page, "first")
    give(page, test_pictures("Hat")[0])
    card = page.locator(".card").first
    assert title(card) == "What is this?"
    name_it(card, "hat")
    card.get_by_text("It is hat now").wait_for()
    give(page, test_pictures("Pants")[0])
    name_it(page.locator(".card").first, "trousers")
    page.get_by_text("It is trousers now").wait_for()
    give(page, test_pictures("Hat")[1])
    assert title(page.locator(".card").first) in ("hat", "trousers", "Unknown")


@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_an_answer_comes_with_probabilities_and_what_it_resembles(
    visit, server, test_pictures, shot, width
):
    page = visit(server, width=width, scheme="light" if width == "desktop" else "dark")
    give(page, test_pictures("Hat")[0])
    card = page.locator(".card").first
    assert title(card) == "Hat"
    numbers = card.locator(".choice .number").all_inner_texts()
    assert len(numbers) == 5
    assert all(re.fullmatch(r"[<>]? ?\d+ %", number) for number in numbers)
    alike = card.locator(".resembles .strip img")
    assert alike.count() == 4
    alike.last.scroll_into_view_if_needed()
    until(
        page,
        "() => [...document.querySelectorAll('.resembles img')].every((i) => i.naturalWidth > 0)",
    )
    shot(page, f"answer-{width}")
    card.locator(".resembles button").first.click()
    page.get_by_role("dialog").get_by_text("It is answered right").wait_for()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").count()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_can_be_dropped_and_pasted(visit, server, test_pictures, way):
    page = visit(server)
    hand(page, way, test_pictures("Shoes")[:2])
    until(page, "() => document.querySelectorAll('.card .choice').length === 10")
    assert page.locator("#veil").is_hidden()


def test_a_photograph_can_be_taken(visit, server):
    page = visit(server)
    page.get_by_role("button", name="Take a photo").click()
    until(page, "() => document.querySelector('dialog video')?.videoWidth > 0")
    page.get_by_role("button", name="Take it").click()
    page.locator(".card .choice").first.wait_for()


def test_what_is_no_picture_is_said_to_be_none(visit, server, tmp_path, test_pictures):
    page = visit(server)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    give(page, [tmp_path / "broken.jpg", test_pictures("Hat")[0]])
    texts = page.locator(".card h2").all_inner_texts()
    assert sorted(texts) == ["Hat", "Not a picture"]


def test_one_click_corrects_and_undo_takes_it_back(visit, server, test_pictures, shot):
    page = visit(server)
    wrong = next(f for f in test_pictures("Shirt") if _answer(page, f) != "Shirt")
    card = page.locator(".card").first
    was = title(card)
    choice = card.locator(".choice[data-label=Shirt]")
    assert choice.count(), "the right name is not among the first five"
    choice.click()
    card.get_by_text("It is Shirt now").wait_for()
    assert "Fixed" in card.locator(".over").inner_text()
    assert card.get_by_text(f"It was {was} before").is_visible()
    assert card.locator(".changes, .nothing").count() == 1
    shot(page, "fixed")
    card.get_by_role("button", name="Undo").click()
    page.wait_for_selector(".card.fixed", state="detached")
    # It is asked anew: not what was true while the correction was.
    until(page, "was => document.querySelector('.card h2').innerText === was", was)
    assert not card.get_by_text("taught already").count()
    assert wrong.exists()


def _answer(page, file) -> str:
    page.evaluate("() => document.querySelectorAll('.card .remove').forEach((b) => b.click())")
    give(page, file)
    return title(page.locator(".card").first)


def test_what_else_changed_is_shown_side_by_side_worse_first(
    visit, serve, taught, tmp_path, test_pictures, shot
):
    """A correction that costs something: its owner allows that much."""
    with retain.open(taught) as shop:
        costly = next(
            (file, name)
            for label in ("Pants", "T-Shirt", "Shorts", "Dress")
            for file in test_pictures(label)
            for name in ("Longsleeve", "Dress")
            if name != label
            and (tried := shop.correct(file, name, dry_run=True)).worse
            and (tried.better or tried.changed)
        )
    page = visit(serve(taught))
    give(page, costly[0])
    card = page.locator(".card").first
    name_it(card, costly[1])
    card.get_by_text(f"It is {costly[1]} now").wait_for()
    groups = card.locator(".changes h3").all_inner_texts()
    assert "answered wrong now" in groups[0]
    assert len(groups) > 1
    row = card.locator(".changes li").first
    assert row.locator("span.right .note").inner_text() == "before"
    assert row.locator("span.wrong .note").inner_text() == "now"
    assert card.get_by_role("button", name="Undo").is_visible()
    shot(page, "changes")
    row.get_by_role("button").click()
    page.get_by_role("dialog").get_by_text("It is answered “").wait_for()


def test_a_new_class_is_made_by_typing_its_name(visit, server, test_pictures):
    page = visit(server)
    give(page, test_pictures("Skirt")[0])
    card = page.locator(".card").first
    field = card.locator(".name-field input")
    field.fill("shorts")
    assert card.get_by_text("There is “Shorts” already").is_visible()
    field.fill("Skirt")
    assert card.get_by_text("“Skirt” will be a new class.").is_visible()
    field.press("Enter")
    card.get_by_text("“Skirt” is a new class.").wait_for()
    until(page, "() => document.querySelector('#classes option[value=Skirt]')")


def test_many_pictures_get_one_name(visit, server, test_pictures, shot):
    page = visit(server)
    give(page, test_pictures("Skirt")[:6])
    page.get_by_role("button", name="Select all").first.click()
    bar = page.get_by_role("region", name="What is selected")
    assert "6 pictures selected" in bar.inner_text()
    shot(page, "bulk")
    name_it(bar, "Skirt")
    _teach_all_the_same(page)
    page.get_by_text("6 pictures learned as “Skirt”").wait_for()
    assert page.locator(".card.fixed").count() == 6
    with retain.open(server.path) as shop:
        assert shop.log()[-1].kind == "learn"
    page.locator("#notices").get_by_role("button", name="Undo").click()
    page.wait_for_selector(".card.fixed", state="detached")


def test_a_name_given_in_bulk_is_doubted_where_it_is_wrong(visit, server, test_pictures, shot):
    """New pictures are learned, so the gate doubts them; and says so before anything changes."""
    page = visit(server)
    with retain.open(server.path) as shop:
        before = shop.event
    give(page, [*test_pictures("Shoes")[:5], test_pictures("Hat")[0]])
    page.get_by_role("button", name="Select all").first.click()
    name_it(page.get_by_role("region", name="What is selected"), "Hat")
    until(page, "() => document.querySelector('dialog[open]')")
    if page.get_by_role("dialog").get_by_text("Before this is taught").count():
        page.get_by_role("button", name="Teach all 6").click()
    box = page.get_by_role("dialog")
    box.get_by_text("Nothing has changed").wait_for()
    assert box.get_by_text("in doubt").first.is_visible()
    assert box.get_by_text("Some of these names are probably wrong").is_visible()
    assert box.get_by_text("called Hat").count()
    assert box.get_by_text("looks like Shoes").count()
    shot(page, "doubted")
    box.get_by_role("button", name="Leave it as it is").click()
    with retain.open(server.path) as shop:
        assert shop.event == before
    assert page.locator(".card.fixed").count() == 0


def test_in_bulk_what_it_remembers_is_corrected_and_the_rest_learned(
    visit, server, pictures, test_pictures
):
    page = visit(server)
    known = sorted((pictures / "train" / "Hat").iterdir())[0]
    with retain.open(server.path) as shop:
        before = shop.event
    give(page, [known, *test_pictures("Skirt")[:3]])
    page.get_by_role("button", name="Select all").first.click()
    name_it(page.get_by_role("region", name="What is selected"), "Skirt")
    _teach_all_the_same(page)
    page.locator("#notices").get_by_text("3 pictures learned as “Skirt”").wait_for()
    with retain.open(server.path) as shop:
        assert [each.kind for each in shop.log() if each.event > before] == ["learn", "correct"]
        assert {each.label for each in shop.samples() if each.event > before} == {"Skirt"}
    page.locator("#notices").get_by_role("button", name="Undo").click()
    page.wait_for_selector(".card.fixed", state="detached")
    with retain.open(server.path) as shop:
        assert "Skirt" not in shop.labels


def _teach_all_the_same(page) -> None:
    """Where there is advice first, do not take it."""
    until(page, "() => document.querySelector('dialog[open], .card.fixed, .notice')")
    if page.get_by_role("dialog").count():
        page.get_by_role("button", name=re.compile(r"^Teach (all|it)")).click()


def test_hints_against_poisoning(visit, server, tmp_path, pictures, shot):
    from PIL import Image, ImageFilter

    page = visit(server)
    with Image.open(next((pictures / "train" / "Hat").iterdir())) as picture:
        picture.resize((24, 24)).save(tmp_path / "small.png")
        picture.filter(ImageFilter.GaussianBlur(6)).save(tmp_path / "blurred.png")
        for i in range(4):
            picture.crop((i, i, 124 + i, 124 + i)).save(tmp_path / f"burst{i}.png")
    give(page, [tmp_path / "small.png", tmp_path / "blurred.png"])
    page.locator(".hints [data-kind=small]").first.wait_for()
    page.locator(".hints [data-kind=blurry]").first.wait_for()
    page.get_by_role("button", name="Put all away").click()
    # A burst that contradicts what it knows is said to be both before it is taught.
    give(page, [tmp_path / f"burst{i}.png" for i in range(4)])
    page.get_by_role("button", name="Select all").first.click()
    name_it(page.get_by_role("region", name="What is selected"), "Shoes")
    box = page.get_by_role("dialog")
    box.wait_for()
    kinds = {each.get_attribute("data-kind") for each in box.locator("[data-kind]").all()}
    assert {"burst", "contradicts"} <= kinds
    shot(page, "hints")
    box.get_by_role("button", name="Not now").click()
    assert page.locator(".card.fixed").count() == 0


def test_what_a_correction_contradicts_is_said_beside_it(visit, server, pictures, tmp_path):
    from PIL import Image

    page = visit(server)
    with Image.open(next((pictures / "train" / "Hat").iterdir())) as picture:
        picture.crop((1, 1, 127, 127)).save(tmp_path / "crop.png")
    give(page, [tmp_path / "crop.png"])
    name_it(page.locator(".card"), "Shoes")
    page.locator(".card.fixed .hints [data-kind=contradicts]").wait_for()


def test_what_adds_nothing_is_said_to(visit, server, pictures):
    page = visit(server)
    known = sorted((pictures / "train" / "Hat").iterdir())[:2]
    give(page, known)
    assert page.get_by_text("taught already").count() == 2
    page.get_by_role("button", name="Select all").first.click()
    name_it(page.get_by_role("region", name="What is selected"), "Hat")
    box = page.get_by_role("dialog")
    box.wait_for()
    assert box.locator("[data-kind=sure], [data-kind=duplicate]").count()


def test_everything_goes_by_keyboard(visit, server, test_pictures):
    page = visit(server)
    give(page, test_pictures("Skirt")[:2])
    card = page.locator(".card").first
    card.focus()
    page.keyboard.press("x")
    assert card.locator("input[type=checkbox]").is_checked()
    page.keyboard.press("x")
    second = card.locator(".choice .label").nth(1).inner_text()
    page.keyboard.press("2")
    card.get_by_text(f"It is {second} now").wait_for()
    until(page, "() => document.activeElement.matches('.card.fixed')")
    page.keyboard.press("u")
    page.wait_for_selector(".card.fixed", state="detached")
    card.focus()
    page.keyboard.press("t")
    page.keyboard.type("Skirt")
    page.keyboard.press("Enter")
    card.get_by_text("It is Skirt now").wait_for()
    page.keyboard.press("Control+z")
    page.locator("#notices").get_by_text("Took back event").last.wait_for()
    # From the top by Tab alone.
    page.reload()
    page.wait_for_selector("body[data-ready]")
    page.keyboard.press("Tab")
    reached = set()
    for _ in range(12):
        reached.add(page.evaluate("() => document.activeElement.innerText.trim()"))
        page.keyboard.press("Tab")
    assert any(text.startswith("Inbox") for text in reached)
    assert "Choose pictures" in reached


def test_what_others_teach_is_seen_without_reloading(visit, server, test_pictures):
    page = visit(server)
    give(page, test_pictures("Skirt")[1])
    with retain.open(server.path) as shop:
        shop.correct(test_pictures("Skirt")[1], "Kilt")
    until(page, "() => document.querySelector('.card h2').innerText === 'Kilt'")
    assert "Kilt" in page.locator("#notices").inner_text()
