"""The other parts: inbox, gallery, history, test, more; who may; refusals; accessibility."""

from __future__ import annotations

import re

import pytest

import retain
from tests.browser.helpers import give, go, name_it, title, until

VIEWS = ("Ask", "Inbox", "Pictures", "History", "Test", "More")


def asked(page, test_pictures, *labels, n=20):
    for label in labels:
        give(page, test_pictures(label)[:n])


def test_the_unknown_is_said_plainly_and_named_together(visit, server, test_pictures, shot):
    page = visit(server)
    asked(page, test_pictures, "Skirt", "T-Shirt")
    unknown = page.locator(".card.unknown")
    assert unknown.count() >= 2
    assert title(unknown.first) == "Unknown"
    assert "unlike everything taught" in unknown.first.inner_text()
    # They come into the inbox after they are answered.
    waiting = unknown.count()
    until(page, "n => Number(document.querySelector('#waiting').textContent) === n", waiting)
    go(page, "Inbox")
    group = page.locator(".group").first
    group.wait_for()
    assert re.search(r"These \d+ look alike: name them\?|looks like no other", group.inner_text())
    sentences = page.locator(".next li p:first-child").all_inner_texts()
    assert len(sentences) == 8
    shot(page, "inbox")
    count = group.locator("input[type=checkbox]").count()
    name_it(group, "Skirt")
    page.wait_for_selector("dialog[open], .notice")
    if page.get_by_role("dialog").count():
        page.get_by_role("button", name=re.compile(r"^Teach (all|it)")).click()
    page.locator("#notices").get_by_text(re.compile("learned|corrected", re.I)).wait_for()
    until(
        page, "n => Number(document.querySelector('#waiting').textContent) === n", waiting - count
    )
    with retain.open(server.path) as shop:
        assert sum(sample.label == "Skirt" for sample in shop.samples()) == count


def test_what_to_label_next_is_one_click(visit, server, test_pictures):
    page = visit(server)
    asked(page, test_pictures, "Skirt", n=6)
    go(page, "Inbox")
    first = page.locator(".next li").first
    first.wait_for()
    pressed = first.get_by_role("button", name=re.compile("^It is "))
    label = pressed.inner_text().removeprefix("It is ")
    pressed.click()
    page.locator("#notices").get_by_text(f"'{label}'").wait_for()


def test_the_gallery_by_class(visit, server, shot):
    page = visit(server)
    go(page, "Pictures")
    assert page.locator(".classes li").count() == 8
    until(
        page,
        "() => [...document.querySelectorAll('.covers img')].filter((i) => i.complete).length > 7",
    )
    shot(page, "gallery")
    page.get_by_role("link", name=re.compile("Hat")).click()
    page.locator(".tiles li").first.wait_for()
    assert page.locator(".tiles li").count() == 30
    for i in (0, 1):
        page.locator(".tiles input[type=checkbox]").nth(i).check()
    name_it(page.get_by_role("region", name="What is selected"), "Cap")
    until(page, "() => document.querySelectorAll('.tiles li').length === 28")
    page.locator("#notices").get_by_role("button", name="Undo").click()
    until(page, "() => document.querySelectorAll('.tiles li').length === 30")
    page.locator(".tiles .bare").first.click()
    box = page.get_by_role("dialog")
    box.get_by_role("button", name="Why?").click()
    box.get_by_text("The next best would be").wait_for()
    assert box.get_by_alt_text("What speaks for the answer").is_visible()
    assert box.get_by_text("Its history").count()
    shot(page, "why")
    page.keyboard.press("Escape")
    # Forgotten for good: asked first, then gone, and nothing brings it back.
    page.locator(".tiles input[type=checkbox]").first.check()
    page.get_by_role("button", name="Forget…").click()
    page.get_by_role("button", name="Forget it for good").click()
    until(page, "() => document.querySelectorAll('.tiles li').length === 29")


def test_rename_and_merge_a_class(visit, server):
    page = visit(server)
    page.goto(f"{server.address}#/pictures/Hat")
    page.get_by_role("button", name="Rename the class…").click()
    name_it(page.get_by_role("dialog"), "Cap")
    until(page, "() => document.querySelector('h1').innerText === 'Cap'")
    page.get_by_role("button", name="Rename the class…").click()
    name_it(page.get_by_role("dialog"), "Shoes")
    until(page, "() => document.querySelector('h1').innerText === 'Shoes'")
    until(page, "() => document.querySelectorAll('.tiles li').length === 48")


def test_the_history_is_a_timeline_with_undo_and_back_to_here(visit, server, test_pictures, shot):
    page = visit(server)
    give(page, test_pictures("Skirt")[0])
    name_it(page.locator(".card").first, "Skirt")
    page.get_by_text("It is Skirt now").wait_for()
    go(page, "History")
    kinds = page.locator(".timeline .kind").all_inner_texts()
    assert kinds == ["correct", "promote", "learn", "learn", "learn", "begin"]
    assert page.locator(".timeline li").first.get_by_text("owner").count()
    row = page.locator("[data-event='3']")
    row.get_by_role("button", name="Look").click()
    row.locator(".strip img").first.wait_for()
    page.locator("[data-event='5']").get_by_role("button", name=re.compile("^Undo")).click()
    page.locator("[data-event='5'].undone").wait_for()
    page.locator("[data-event='6']").get_by_role("button", name=re.compile("^Undo")).click()
    page.locator("[data-event='6'].undone").wait_for()
    shot(page, "history")
    before = page.locator(".timeline li").count()
    page.locator("[data-event='2']").get_by_role("button", name=re.compile("^Back to")).click()
    page.get_by_role("button", name="Take it all back").click()
    until(page, "n => document.querySelectorAll('.timeline li').length > n", before)
    page.wait_for_selector("dialog", state="detached")
    go(page, "Pictures")
    until(page, "() => document.querySelectorAll('.classes li').length === 7")


def test_a_folder_is_tested_and_the_matrix_opens(visit, server, pictures, shot):
    page = visit(server)
    go(page, "Test")
    page.locator("input[webkitdirectory]").set_input_files(str(pictures / "test"))
    page.locator(".matrix").wait_for()
    figures = page.locator(".figures b").all_inner_texts()
    assert len(figures) == 3
    wrong = page.locator(".matrix .wrong").first
    told = wrong.get_attribute("aria-label")
    wrong.click()
    count, _, truth, answer = re.match(r"(\d+) of (\d+) (\S+) answered (\S+)", told).groups()
    assert page.locator(".inside h2").inner_text() == f"{truth}, answered {answer}"
    assert page.locator(".inside li").count() == int(count)
    page.locator(".inside").scroll_into_view_if_needed()
    shot(page, "matrix")
    page.get_by_role("button", name="Show all mistakes").click()
    assert page.locator(".inside li").count() == min(60, int(figures[2]))
    assert page.locator("#waiting").is_hidden(), "a test keeps nothing"


def test_a_refusal_is_said_in_words_with_its_choices(visit, server, shot):
    """The first version lacks two classes: it may not be put into production by mistake."""
    page = visit(server)
    go(page, "More")
    page.locator("#export-version").select_option("1")
    page.get_by_role("button", name="Put this version into production").click()
    box = page.get_by_role("dialog")
    box.get_by_text("Nothing has changed").wait_for()
    assert "would be answered wrong" in box.locator(".checks .bad").first.inner_text()
    options = {each.get_attribute("data-choice") for each in box.locator("[data-choice]").all()}
    assert options == {"leave", "dry_run", "force", "gate"}
    box.locator("[data-choice=dry_run]").click()
    box.get_by_role("heading", name="What would happen").wait_for()
    assert "would be answered wrong" in box.locator(".changes h3").first.inner_text()
    shot(page, "refused")
    box.locator("[data-choice=leave]").click()
    page.wait_for_selector("dialog", state="detached")
    with retain.open(server.path) as shop:
        assert [v.event for v in shop.versions() if v.aliases] != [1]
    page.get_by_role("button", name="Put this version into production").click()
    page.get_by_role("dialog").locator("[data-choice=force]").click()
    page.wait_for_selector("dialog", state="detached")
    with retain.open(server.path) as shop:
        assert [v.event for v in shop.versions() if v.aliases] == [1]


def test_a_lesson_that_does_not_take_is_refused(visit, server, test_pictures):
    """A budget is raised on the page; a class that cannot reach it is refused, or left out."""
    page = visit(server)
    go(page, "More")
    page.locator("#budget-new_class_accuracy").fill("1")
    page.get_by_role("button", name="Set them").click()
    page.get_by_text("The budgets are set").wait_for()
    go(page, "Ask")
    asked(page, test_pictures, "Skirt", "T-Shirt")
    go(page, "Inbox")
    group = page.locator(".group").first
    group.wait_for()
    name_it(group, "Stuff")
    page.wait_for_selector("dialog[open]")
    if page.get_by_text("Before this is taught").count():
        page.get_by_role("button", name=re.compile(r"^Teach (all|it)")).click()
    box = page.get_by_role("dialog").filter(has_text="Nothing has changed")
    box.wait_for()
    assert "'Stuff'" in box.locator(".checks .bad").first.inner_text()
    box.locator("[data-choice=leave]").click()
    page.wait_for_selector("dialog", state="detached")
    assert page.locator("#classes option[value=Stuff]").count() == 0


def test_what_is_protected_is_not_undone_by_mistake(visit, server):
    """A class that is protected, and the lesson that taught it: only the owner may, and says so."""
    page = visit(server)
    page.goto(f"{server.address}#/pictures/Shoes")
    page.get_by_role("button", name="Protect the class…").click()
    page.get_by_role("button", name="Protect it", exact=True).click()
    page.locator("#notices").get_by_text("protected: class 'Shoes'", exact=False).wait_for()
    with retain.open(server.path) as shop:
        assert shop.log()[-1].actor == "owner"


def test_a_part_that_comes_late_does_not_cover_the_next(visit, server):
    page = visit(server)
    held = []
    page.route("**/gate", lambda route: held.append(route))
    page.evaluate("location.hash = '#/more'")
    until(page, "n => document.body.dataset.view === 'more'")
    while not held:
        page.wait_for_timeout(50)
    go(page, "History")
    page.locator(".timeline li").first.wait_for()
    with page.expect_response("**/gate"):
        held.pop().continue_()
    page.wait_for_timeout(300)
    assert page.locator("main h1").all_inner_texts() == ["What was done"]
    assert page.locator(".timeline li").count()
    page.unroute("**/gate")
    go(page, "More")
    page.locator("#budget-regressions").wait_for()


def test_the_classifier_can_be_downloaded(visit, server, tmp_path):
    page = visit(server)
    go(page, "More")
    for link, name in (("(.onnx)", "clothes.onnx"), ("(.retain)", "clothes.retain")):
        with page.expect_download() as started:
            page.get_by_role("link", name=re.compile(re.escape(link))).click()
        assert started.value.suggested_filename == name
        started.value.save_as(tmp_path / name)
    with retain.unpack(tmp_path / "clothes.retain", tmp_path / "again") as again:
        assert len(again.classes()) == 8
    import onnx

    onnx.checker.check_model(str(tmp_path / "clothes.onnx"))


def test_who_has_no_token_may_ask_and_is_asked_before_teaching(visit, server, test_pictures, shot):
    page = visit(server, link=server.address)
    assert page.get_by_role("button", name="Sign in to teach").is_visible()
    give(page, test_pictures("Skirt")[0])
    card = page.locator(".card").first
    name_it(card, "Skirt")
    box = page.get_by_role("dialog")
    box.get_by_text("Who teaches?").wait_for()
    shot(page, "sign-in")
    box.get_by_label("Your token").fill("rt-wrong")
    box.get_by_role("button", name="Sign in").click()
    box.locator(".problem:not(:empty)").wait_for()
    box.get_by_label("Your token").fill(server.token)
    box.get_by_role("button", name="Sign in").click()
    # What was wanted is done now, without asking again.
    card.get_by_text("It is Skirt now").wait_for()
    with retain.open(server.path) as shop:
        assert shop.log()[-1].actor == "owner"


SETTLED = """() => Promise.all(
  document.getAnimations()
    .filter((each) => each.effect.getComputedTiming().endTime !== Infinity)
    .map((each) => each.finished.catch(() => {})))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_accessible_and_never_wider_than_the_screen(
    visit, server, test_pictures, shot, width, scheme
):
    from axe_playwright_python.sync_playwright import Axe

    axe, found = Axe(), {}
    page = visit(server, width=width, scheme=scheme)

    def check(where: str) -> None:
        page.wait_for_timeout(200)
        # What is still fading in has less contrast than it will have; on a busy machine it takes.
        page.evaluate(SETTLED)
        for each in axe.run(page).response["violations"]:
            found[where, each["id"]] = [node["html"][:160] for node in each["nodes"][:3]]
        wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, (where, wide)

    check("empty")
    asked(page, test_pictures, "Skirt", n=8)
    name_it(page.locator(".card").first, "Skirt")
    page.locator(".card.fixed").first.wait_for()
    page.locator(".card .pick input").nth(1).check()
    check("cards")
    page.locator(".card .pick input").nth(1).uncheck()
    for view in VIEWS[1:]:
        go(page, view)
        page.wait_for_timeout(500)
        check(view)
        if width == "phone" and scheme == "dark" and view in ("Inbox", "History"):
            shot(page, f"{view.lower()}-phone")
    page.locator("#export-version").select_option("1")
    page.get_by_role("button", name="Put this version into production").click()
    page.get_by_role("dialog").locator("[data-choice=dry_run]").click()
    check("refusal")
    page.keyboard.press("Escape")
    page.goto(f"{server.address}#/pictures/Hat")
    page.locator(".tiles .bare").first.click()
    page.get_by_role("dialog").wait_for()
    check("look")
    assert not found, found
