"""The report says what the results say: numbers, bold, proofs, failures, and nothing of its own."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from retain.bench.report import write
from retain.bench.report_data import families
from retain.bench.report_proof import compared
from retain.errors import BadOption
from tests.bench.made import matrix, result

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Elements close in order, ids are unique, links lead somewhere, nothing is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        held = dict(attrs)
        if "id" in held:
            self.ids.append(held["id"])
        if "href" in held:
            self.links.append(held["href"])
        self.outside += [v for k, v in attrs if k in ("src", "srcset") or "//" in (v or "")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def read(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert not checker.open
    return checker


@pytest.fixture
def page(tmp_path):
    return write(matrix(), tmp_path / "deep" / "report.html")


def test_one_file_that_needs_nothing_else(page):
    checker = read(page)
    assert not checker.outside
    assert len(checker.ids) == len(set(checker.ids))
    assert all(link.startswith("#") and link[1:] in checker.ids for link in checker.links)
    assert "<script" not in page.read_text(encoding="utf-8")
    assert [each.name for each in page.parent.iterdir()] == ["report.html"]


def test_no_number_is_not_a_number(page):
    text = "".join(read(page).text)
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b|-0\.0\b", text)


def test_missing_is_a_dash_not_nought(tmp_path):
    made = [result("ncm", seed) for seed in range(2)] + [result("slda", seed) for seed in range(2)]
    for each in made:
        if each["method"]["name"] == "ncm":
            each["metrics"]["ece"] = None
    text = write(made, tmp_path / "r.html").read_text(encoding="utf-8")
    row = next(each for each in text.split("<tr") if ">ncm</th>" in each and "right" in each)
    assert "–" in row


def test_what_failed_is_said_with_its_reason(page):
    text = "".join(read(page).text)
    assert "ImportError: no module named 'torch'" in text
    assert "cannot forget" in text


def test_text_of_results_cannot_be_markup(tmp_path):
    bad = "<script>alert(1)</script>\x1b[31m"
    made = [result("slda", 0), result(bad, 0), result(bad, 1, status="failed", reason=bad)]
    made[1]["order"][0] = bad
    made[1]["method"].update(title=bad, source=bad, options={bad: bad})
    made[1]["stream"]["name"] = bad
    text = write(made, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "\x1b" not in text


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(BadOption, match="retain bench run"):
        write([], tmp_path / "r.html")


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_any_number_of_seeds(tmp_path, seeds):
    text = write(matrix(seeds), tmp_path / "r.html").read_text(encoding="utf-8")
    assert ("nothing can be tested" in text) == (seeds == 1)


def test_only_failures(tmp_path):
    made = [result("facil:lwf", 0, status="failed", reason="not a clone of FACIL")]
    assert "not a clone of FACIL" in write(made, tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_family_is_one_stream_with_several_seeds():
    first, second = families(matrix())
    assert (first.title, first.seeds) == ("caltech101-inc10x10", [0, 1, 2])
    assert second.entries == ()
    assert [each["reason"] for each in second.broken] == ["cannot forget"]
    means = [each.mean("average_incremental_accuracy") for each in first.entries]
    assert means == sorted(means, reverse=True)
    assert not any(each.hindsight for each in first.rivals)


@pytest.mark.parametrize("key", ["average_incremental_accuracy", "last_accuracy", "forgetting"])
def test_bold_is_the_paired_t_test(key, tmp_path):
    """The slow twin: scipy's two-sample paired test, method by method."""
    family = families(matrix())[0]
    values = {e.label: np.array(list(e.by_seed(key).values())) for e in family.rivals}
    sign = -1 if key == "forgetting" else 1
    best = max(values, key=lambda label: sign * values[label].mean())
    for label, held in values.items():
        same = np.ptp(values[best] - held) < 1e-12
        equal = label == best or (same and np.allclose(values[best], held, atol=1e-12))
        if same or label == best:
            assert (label in family.good[key]) == equal
        else:
            chance = stats.ttest_rel(values[best], held).pvalue
            assert (label in family.good[key]) == (chance >= 0.05), label


def test_ceilings_are_never_bold(page):
    text = page.read_text(encoding="utf-8")
    rows = text[text.index("With hindsight") : text.index("Task by task")]
    assert "logistic" in rows
    assert "<b>" not in rows


def test_a_method_with_fewer_seeds_is_told_apart(tmp_path):
    made = [each for each in matrix() if each["method"]["name"] != "slda" or each["seed"] == 0]
    text = write(made, tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("1 of 3 seeds") == 1


def test_the_matrix_of_ours_stands_beside_the_most_forgetful(page):
    text = page.read_text(encoding="utf-8")
    shown = text[text.index("Task by task") : text.index("other methods")]
    names = re.findall(r'aria-label="([^"]+)"', shown)
    assert names == ["retain", "fine-tune"]


def test_no_minus_nought(page):
    assert "".join(read(page).text).count("-0.0") == 0


def test_one_seed_makes_only_the_best_bold():
    assert len(families(matrix(1))[0].good["average_incremental_accuracy"]) == 1


def test_the_proof_counts_what_agrees():
    rows = compared(families(matrix()))
    default = [each for each in rows if each.label == "retain"]
    assert len(default) == 3
    assert len({each.digest for each in rows}) == 1
    assert all(each.joint == "retain-joint" for each in default)
    assert all(each.same_digests == each.told_digests == 10 for each in default)


def test_a_proof_that_fails_says_so(tmp_path):
    made = matrix()
    broken = copy.deepcopy(made)
    for each in broken:
        if each["method"]["name"] == "retain" and each["seed"] == 1:
            each["steps"][-1]["digest"] = "sha256:00"
    assert "FAILS" not in write(made, tmp_path / "a.html").read_text(encoding="utf-8")
    text = write(broken, tmp_path / "b.html").read_text(encoding="utf-8")
    assert "FAILS" in text
    assert "DIFFERENT" in text


def test_only_runs_that_hold_the_same_pictures_must_end_alike(tmp_path):
    """Draws of a few-shot stream teach as many pictures, but others: they may differ."""
    made = [each for each in matrix() if each["method"]["name"] in ("retain", "retain-joint")]
    for each in made:
        each["stream"] = {**each["stream"], "kind": "few-shot"}
        for step in each["steps"]:
            step["digest"] = f"{step['digest']}{each['seed']}"
    assert "FAILS" not in write(made, tmp_path / "a.html").read_text(encoding="utf-8")
    for each in made:
        for step in each["steps"]:
            step["held"] = f"sha256:{each['seed']}"
    assert "FAILS" not in write(made, tmp_path / "b.html").read_text(encoding="utf-8")
    for each in made:
        each["steps"][-1]["held"] = "sha256:of all"
    assert "FAILS" in write(made, tmp_path / "c.html").read_text(encoding="utf-8")


def test_no_joint_run_is_not_a_proof(tmp_path):
    made = [each for each in matrix() if each["method"]["name"] != "retain-joint"]
    assert "untested" in write(made, tmp_path / "r.html").read_text(encoding="utf-8")
