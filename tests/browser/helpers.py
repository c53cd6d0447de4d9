"""What people do on the page."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PATIENCE = float(os.environ.get("RETAIN_PATIENCE", "60"))


def until(page, told: str, given: Any = None) -> None:
    """Wait until a function of the page says yes.

    Playwright's own way evaluates text inside the page, which the page's policy forbids.
    """
    end = time.monotonic() + PATIENCE
    while not page.evaluate(told, given):
        assert time.monotonic() < end, f"still not: {told}"
        page.wait_for_timeout(50)


def give(page, files: Sequence[Path] | Path) -> None:
    """Choose pictures, and wait for their answers."""
    files = [files] if isinstance(files, Path) else list(files)
    before = page.locator(".card").count()
    page.locator("main input[type=file]").first.set_input_files([str(file) for file in files])
    until(
        page,
        "n => document.querySelectorAll('.card').length === n"
        " && !document.querySelector('.card .waiting')",
        before + len(files),
    )


def hand(page, event: str, files: Sequence[Path]) -> None:
    """Drop or paste files, as the browser hands them over."""
    page.evaluate(
        """([kind, files]) => {
          const data = new DataTransfer();
          for (const [name, text] of files) {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            data.items.add(new File([bytes], name, { type: "image/jpeg" }));
          }
          const more = { bubbles: true, cancelable: true };
          const target = document.querySelector("main");
          if (kind === "paste")
            target.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, ...more }));
          else for (const step of ["dragenter", "dragover", "drop"])
            target.dispatchEvent(new DragEvent(step, { dataTransfer: data, ...more }));
        }""",
        [event, [[f.name, base64.b64encode(f.read_bytes()).decode()] for f in files]],
    )


def go(page, name: str) -> None:
    """Open a part of the page by its link."""
    page.get_by_role("navigation", name="Parts of this page").get_by_role("link", name=name).click()
    page.wait_for_selector("main:not([aria-busy])")


def name_it(place, label: str) -> None:
    """Type a name into a field, and send it."""
    field = place.locator(".name-field input").first
    field.fill(label)
    field.press("Enter")


def title(card) -> str:
    return card.locator("h2").first.inner_text()
