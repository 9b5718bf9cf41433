"""The listening test end to end: export, rating in a real browser, download, import, report."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import fakes
import pytest
from browser import BROWSER, FLAGS, faults, needs_browser
from stored import ARMS, report, store_cells, tiny_grid
from typer.testing import CliRunner, Result

from ablations.rendering.sheet import Sheet
from ablations.stats.statistics import t_interval
from ablations.tracking.reader import Store
from ablations.tracking.records import RATINGS
from ablations.tracking.runs_folder import check
from reports import listening_test, ratings
from reports.listen import app
from reports.listening_test import ListeningTest, blocks
from reports.loading import select
from reports.report import make

HEARD = ["sft", "diffro", "rrpo"]


def listen(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def original(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs folder and the exported page that the tests of this module copy."""
    folder = tmp_path_factory.mktemp("exported")
    runs = Path(shutil.copytree(template, folder / "runs"))
    with tiny_grid():
        store_cells(runs, fakes.cells(ARMS, [1, 2]))
        for record in Store(check(runs)).records("tiny"):
            sample = (record.folder / "audio" / "00_angry.wav").read_bytes()
            for name in ("01_sad", "02_happy"):
                (record.folder / "audio" / f"{name}.wav").write_bytes(sample)
        result = listen("export", "--grid", "tiny", "--runs-dir", runs, "--out", folder / "page.html")
    assert result.exit_code == 0, result.output
    assert "each person rates 9 samples" in result.output
    return folder


@pytest.fixture
def exported(original: Path, runs: Path) -> tuple[Path, ListeningTest]:
    """A page with three arms, three prompts and two seeds, with its test in ``runs``."""
    shutil.copytree(original / "runs", runs, dirs_exist_ok=True)
    (test,) = listening_test.tests(Store(check(runs)), "tiny")
    return original / "page.html", test


def sheets(runs: Path) -> dict[str, Sheet]:
    return {sheet.name: sheet for sheet in make(select(runs, "tiny")).sheets}


def rated(
    test: ListeningTest, rater: str = "ann", naturalness: dict[str, str] | None = None, **changed: str
) -> list[dict[str, str]]:
    """Return rows as the page would write them for one seed, with a valid checksum."""
    rows: list[dict[str, str]] = []
    for name in [name for seeds in blocks(test) for name in seeds[0]]:
        item = test.items[name]
        row = {"test": test.id, "rater": rater, "position": str(len(rows) + 1), "item": name, "emotion": item.emotion}
        row |= {"expressiveness": "4", "naturalness": (naturalness or {}).get(item.arm, "3"), "plays": "1"}
        rows.append(row | {"seconds": "2.5", "automated": "0"} | changed)
    return signed(rows)


def signed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    check = str(len(rows))
    for row in rows:
        check = f"{zlib.crc32('|'.join([check, *(row[name] for name in RATINGS[:-1])]).encode()):08x}"
        row["check"] = check
    return rows


def stored_as(path: Path, rows: list[dict[str, Any]], columns: list[str] | None = None) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns or RATINGS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_page_is_blind_and_needs_no_other_file(exported: tuple[Path, ListeningTest], runs: Path):
    page, test = exported
    text = page.read_text()
    assert re.findall(r'(?:src|href)="([^"]+)"', text) == []
    data = json.loads(re.search(r'type="application/json">(.+?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert set(data) == {"test", "emotions", "blocks", "sounds"}
    rest = json.dumps({**data, "sounds": sorted(data["sounds"]), "emotions": []})
    for secret in [*HEARD, test.key, "angry", "tiny", *(item.cell_hash for item in test.items.values())]:
        assert secret not in rest
        assert secret == "angry" or secret not in text
    assert data["emotions"] == ["angry", "happy", "sad", "surprised", "fearful"]
    assert sorted(name for seeds in data["blocks"] for names in seeds for name in names) == sorted(test.items)


def test_every_block_holds_all_arms_of_one_prompt_and_seed(exported: tuple[Path, ListeningTest]):
    _, test = exported
    for seeds in blocks(test):
        assert len({test.items[name].prompt for names in seeds for name in names}) == 1
        for names in seeds:
            assert sorted(test.items[name].arm for name in names) == sorted(HEARD)
            assert len({test.items[name].seed for name in names}) == 1
    first = [{test.items[names[0]].seed for names in seeds} for seeds in zip(*blocks(test), strict=True)]
    assert [len(seeds) for seeds in first] == [1, 1], "a place in the rotation is one seed in every prompt"


def test_of_several_worlds_one_is_chosen_or_all_are_pooled_and_said(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(HEARD, [1]))
    store_cells(runs, fakes.cells(HEARD, [2], world="b"))
    arguments = ("export", "--grid", "tiny", "--runs-dir", runs, "--out", tmp_path / "page.html")
    refused = listen(*arguments)
    assert refused.exit_code == 2
    assert "choose one with --world, or pool those that share no cell with --mixed" in " ".join(refused.output.split())
    chosen = listen(*arguments, "--world", "world-b")
    assert chosen.exit_code == 0, chosen.output
    assert "alternating seeds: 2." in chosen.output
    assert "MIXED" not in chosen.output
    pooled = listen(*arguments, "--mixed")
    assert "alternating seeds: 1, 2." in pooled.output
    assert "MIXED WORLDS: 2 worlds are pooled." in pooled.output


def test_the_same_samples_are_the_same_test_and_others_another(
    exported: tuple[Path, ListeningTest], runs: Path, tmp_path: Path
):
    page, test = exported
    assert listen("export", "--grid", "tiny", "--runs-dir", runs, "--out", tmp_path / "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    assert listen("export", "--grid", "tiny", "--runs-dir", runs, "--seeds", "2", "--prompts", "1").exit_code == 0
    first, second = listening_test.tests(Store(check(runs)), "tiny")
    assert first == test
    assert {item.seed for item in second.items.values()} == {2}
    assert not set(first.items) & set(second.items)
    assert (runs / "listening" / f"tiny-{second.id}.html").is_file()


def test_an_arm_that_is_given_twice_is_rated_once(exported: tuple[Path, ListeningTest], runs: Path):
    selection = select(runs, "tiny")
    once = listening_test.choose_items(selection, ["rrpo", "sft"], [1])
    assert listening_test.choose_items(selection, ["rrpo", "sft", "rrpo"], [1]) == once
    assert [(item.prompt, item.arm) for item in once] == list(itertools.product(range(3), ("rrpo", "sft")))


def test_a_bad_export_gets_one_message_and_stores_nothing(runs: Path):
    store_cells(runs, fakes.cells(ARMS, [1]))
    for option, value, words in (
        ("--arms", "nosuch", "use one of: sft, diffro, ls, rrpo"),
        ("--seeds", "9", "got: sft/9, diffro/9, rrpo/9"),
        ("--seeds", "one", "seeds must be integers"),
        ("--prompts", "0", "give 1 or more"),
    ):
        result = listen("export", "--grid", "tiny", "--runs-dir", runs, option, value)
        assert result.exit_code == 2
        assert words in result.output
        assert listening_test.tests(Store(check(runs)), "tiny") == []
        assert not list(runs.glob("listening/*.html"))


def edited(row: int, name: str, value: str, *, sign: bool = True) -> Any:
    def edit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        rows[row][name] = value
        return signed(rows) if sign else rows

    return edit


BAD: dict[str, tuple[Any, str]] = {
    "an edited score": (edited(1, "naturalness", "5", sign=False), "line 3: check"),
    "a row taken out": (lambda rows: rows[:2] + rows[3:], "line 2: check"),
    "a row taken out and renumbered": (
        lambda rows: [row | {"position": str(i)} for i, row in enumerate(rows[:2] + rows[3:], 1)],
        "line 2: check",
    ),
    "the last rows cut": (lambda rows: rows[:-2], "line 2: check"),
    "an unknown sample": (edited(0, "item", "0123456789ab"), "item is out of range"),
    "two files in one": (lambda rows: [*rows, *rows], "line 2: check"),
    "a value too few": (lambda rows: [rows[0] | {"automated": "", "check": ""}, *rows[1:]], "line 2: check"),
    "six of five": (edited(0, "naturalness", "6"), "naturalness is out of range"),
    "an emotion that was no choice": (edited(0, "emotion", "bored"), "emotion is out of range"),
    "another test": (
        lambda rows: signed([row | {"test": "ffffffffffff"} for row in rows]),
        "not exported from this runs folder",
    ),
    "a program": (lambda rows: signed([row | {"automated": "1"} for row in rows]), "not a person's ratings"),
    "nothing": (lambda rows: [], "contains no rating"),
}


def test_a_bad_file_gets_one_message_and_nothing_is_written(
    exported: tuple[Path, ListeningTest], runs: Path, tmp_path: Path
):
    _, test = exported
    good = stored_as(tmp_path / "good.csv", rated(test, "zoe"))
    for trouble, (edit, words) in BAD.items():
        bad = stored_as(tmp_path / "bad.csv", edit(rated(test)))
        result = listen("import", good, bad, "--runs-dir", runs)
        assert result.exit_code == 2, trouble
        assert words in result.output, trouble
        assert result.output.count("  got: ") == result.output.count("  fix: ") == 1, trouble
    assert Store(check(runs)).runs("tiny", "ratings") == []


def test_a_file_that_is_no_ratings_gets_one_message(exported: tuple[Path, ListeningTest], runs: Path, tmp_path: Path):
    _, test = exported
    short = stored_as(tmp_path / "short.csv", rated(test), [name for name in RATINGS if name != "plays"])
    (tmp_path / "semicolons.csv").write_text(short.read_text().replace(",", ";"))
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "empty.csv").write_text("")
    for name, words in {
        "short.csv": "missing plays",
        "semicolons.csv": "missing test, rater",
        "picture.csv": "cannot be read",
        "empty.csv": "missing test, rater",
        "none.csv": "No such file",
    }.items():
        result = listen("import", tmp_path / name, "--runs-dir", runs)
        assert result.exit_code == 2, result.output
        assert words in result.output
    result = listen("import", short, "--runs-dir", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "no runs folder" in result.output


def test_a_person_counts_once(exported: tuple[Path, ListeningTest], runs: Path, tmp_path: Path):
    _, test = exported
    first = stored_as(tmp_path / "first.csv", signed(rated(test)[:3]))
    complete = stored_as(tmp_path / "whole.csv", rated(test))
    twice = listen("import", first, complete, "--runs-dir", runs)
    assert "two files hold the same person's" in twice.output
    assert listen("import", first, "--runs-dir", runs).exit_code == 0
    again = listen("import", first, "--runs-dir", runs)
    assert again.exit_code == 0
    assert "3 of 9 samples rated, already stored" in again.output
    refused = listen("import", complete, "--runs-dir", runs)
    assert refused.exit_code == 2
    assert "--replace" in refused.output
    assert len(Store(check(runs)).runs("tiny", "ratings")) == 1
    assert listen("import", complete, "--runs-dir", runs, "--replace").exit_code == 0
    row = sheets(runs)["listening"].row("sft")
    assert (row["raters"], row["ratings"]) == (1, 3), "the whole file counts, and the first one no longer"


def test_line_ends_and_marks_make_no_other_answers(exported: tuple[Path, ListeningTest], runs: Path, tmp_path: Path):
    _, test = exported
    first = stored_as(tmp_path / "first.csv", rated(test))
    mailed = tmp_path / "mailed.csv"
    mailed.write_bytes(b"\xef\xbb\xbf" + first.read_bytes().replace(b"\n", b"\r\n"))
    assert listen("import", first, "--runs-dir", runs).exit_code == 0
    again = listen("import", mailed, "--runs-dir", runs)
    assert again.exit_code == 0, again.output
    assert "already stored" in again.output


def test_two_people_of_one_name_are_told_apart(exported: tuple[Path, ListeningTest], runs: Path, tmp_path: Path):
    _, test = exported
    first = stored_as(tmp_path / "first.csv", rated(test))
    second = stored_as(tmp_path / "other.csv", rated(test, expressiveness="1"))
    assert listen("import", first, "--runs-dir", runs).exit_code == 0
    refused = listen("import", second, "--runs-dir", runs)
    assert "--as NAME if another person has the same name" in " ".join(refused.output.split())
    for wrong in ([second, "--as", "a b"], [first, second, "--as", "ann2"]):
        assert "--as renames the rater of a single file" in listen("import", *wrong, "--runs-dir", runs).output
    assert listen("import", second, "--runs-dir", runs, "--as", "ann2").exit_code == 0
    row = sheets(runs)["listening"].row("sft")
    assert (row["raters"], row["human_emos"].mean) == (2, 2.5)  # type: ignore[union-attr]


def test_the_newest_counts_over_all_tests(exported: tuple[Path, ListeningTest], runs: Path, tmp_path: Path):
    """A person's second answers to the first test are newer than those to the second test, which has the same samples."""
    _, first = exported
    result = listen("export", "--grid", "tiny", "--runs-dir", runs, "--prompts", "2")
    assert result.exit_code == 0, result.output
    second = next(test for test in listening_test.tests(Store(check(runs)), "tiny") if test.id != first.id)
    for k, (test, score) in enumerate([(first, "1"), (second, "2"), (first, "3")]):
        # all seeds of a prompt, so that the two tests share samples whatever their keys say
        names = [name for seeds in blocks(test) for seed in seeds for name in seed]
        rows = [
            rated(test)[0] | {"item": name, "position": str(i), "expressiveness": score}
            for i, name in enumerate(names, 1)
        ]
        path = stored_as(tmp_path / f"{k}.csv", signed(rows))
        imported = listen("import", path, "--runs-dir", runs, "--replace")
        assert imported.exit_code == 0, imported.output
    assert set(ratings.load(select(runs, "tiny"))["expressiveness"]) == {3}


def test_ratings_stand_in_the_report_and_only_beside_the_cells_that_were_heard(
    exported: tuple[Path, ListeningTest], runs: Path, tmp_path: Path
):
    _, test = exported
    assert make(select(runs, "tiny")).answer[-1].endswith("No human has listened.")
    assert "listening" not in sheets(runs)
    scores = [{"sft": "3", "diffro": "2", "rrpo": "4"}, {"sft": "3", "diffro": "3", "rrpo": "4"}]
    files = [stored_as(tmp_path / f"{n}.csv", rated(test, n, s)) for n, s in zip(("ann", "bob"), scores, strict=True)]
    assert listen("import", *files, "--runs-dir", runs).exit_code == 0
    shown = make(select(runs, "tiny")).answer[-1]
    assert shown.endswith("trained judges. 18 ratings by 2 people (table *Listening test*).")
    table, listening = sheets(runs)["table"], sheets(runs)["listening"]
    means = {str(row[0]): listening.row(str(row[0]))["human_nmos"] for row in listening.rows}
    assert {arm: mean.mean for arm, mean in means.items()} == {"sft": 3.0, "diffro": 2.5, "rrpo": 4.0}  # type: ignore[union-attr]
    assert means["diffro"] == t_interval([2.0, 3.0]), "a person's mean is one value"
    assert listening.row("rrpo")["nmos_difference"] == t_interval([2.0, 1.0])
    assert listening.row("rrpo")["human_accuracy"].mean == 1  # type: ignore[union-attr]
    assert listening.row("diffro")["nmos_difference"].n == 0  # type: ignore[union-attr]
    assert "Not measured: naturalness (DNSMOS), naturalness (PLCMOS)." in table.notes
    store_cells(runs, fakes.cells(ARMS, [1, 2], {f"{arm}/{s}": Path("changed") for arm in ARMS for s in (1, 2)}))
    assert "listening" not in sheets(runs), "other samples than those that were heard"


HIDE = "Object.defineProperty(navigator, 'webdriver', { get: () => undefined })"


@needs_browser
@pytest.mark.timeout(120)
def test_in_a_browser_a_person_rates_reloads_and_downloads(
    exported: tuple[Path, ListeningTest], runs: Path, tmp_path: Path
):
    from playwright.sync_api import Page, sync_playwright

    page, test = exported
    messages: list[str] = []

    def play(tab: Page) -> None:
        before = tab.locator("#heard").inner_text()
        tab.keyboard.press("p")
        tab.wait_for_function("text => document.getElementById('heard').textContent !== text", arg=before)

    def finish(tab: Page, path: Path) -> list[dict[str, str]]:
        with tab.expect_download() as waiting:
            tab.get_by_role("button", name="Download", exact=True).click()
        assert waiting.value.suggested_filename == f"ratings_{test.id}_{tab.evaluate('rater')}.csv"
        waiting.value.save_as(path)
        return list(csv.DictReader(path.open()))

    def rate_all(tab: Page, name: str) -> None:
        tab.goto(page.as_uri())
        assert faults(tab) == []
        tab.get_by_role("textbox").fill(name)
        tab.keyboard.press("Enter")
        for k in range(9):
            assert tab.locator("#place").inner_text() == f"{k + 1} of 9"
            assert tab.get_by_role("radio").first.is_disabled(), "what was not heard cannot be rated"
            play(tab)
            if k == 4:
                tab.get_by_text("2 happy").click()
                tab.get_by_role("group", name=re.compile("Expressiveness")).get_by_text("5 excellent").click()
                assert tab.get_by_role("button", name="Next").is_disabled(), "one question is open"
                tab.reload()
                assert tab.locator("#place").inner_text() == "5 of 9"
                assert tab.get_by_label("2 happy").is_checked()
                tab.keyboard.press("2")
            else:
                tab.keyboard.down("1")
                tab.keyboard.down("1")  # held: it answers one question
                tab.keyboard.up("1")
                for key in ("3", str(1 + k % 5)):
                    tab.keyboard.press(key)
            if k == 5:
                tab.get_by_role("button", name="Another listener").click()
                tab.get_by_role("textbox").fill(name)
                tab.keyboard.press("Enter")
                assert tab.locator("#place").inner_text() == "6 of 9", "who comes back goes on"
                tab.locator("#place").click()
            tab.keyboard.press("Enter")

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=BROWSER, timeout=30_000, args=FLAGS)
        context = browser.new_context(accept_downloads=True, viewport={"width": 900, "height": 1000})
        tab = context.new_page()
        tab.set_default_timeout(15_000)
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        rate_all(tab, "robot")
        machine = finish(tab, tmp_path / "robot.csv")
        tab.get_by_role("button", name="Another listener").click()
        tab.add_init_script(HIDE)
        tab.evaluate("localStorage.clear()")
        rate_all(tab, "ann")
        rows = finish(tab, tmp_path / "ann.csv")
        orders = [tab.evaluate("name => orderFor(name)", name) for name in ("ann", "ann", "bob", "cat")]
        browser.close()
    assert messages == []
    assert {row["automated"] for row in machine} == {"1"}
    refused = listen("import", tmp_path / "robot.csv", "--runs-dir", runs)
    assert "not a person's ratings" in refused.output
    assert [row["item"] for row in rows] == orders[0]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3]
    assert [row["naturalness"] for row in rows] == ["1", "2", "3", "4", "2", "1", "2", "3", "4"]
    assert [row["emotion"] for row in rows] == ["angry"] * 4 + ["happy"] + ["angry"] * 4
    assert {(row["expressiveness"], row["plays"]) for row in rows} == {("3", "1"), ("5", "1")}
    for order in orders:
        items = [test.items[name] for name in order]
        assert len({(item.arm, item.prompt) for item in items}) == 9, "every prompt by every arm once"
        assert len({item.seed for item in items}) == 2, "seeds alternate"
        assert len({(item.prompt, item.seed) for item in items}) == 3, "all arms of a prompt from one seed"
        assert all(a.prompt != b.prompt for a, b in itertools.pairwise(items))
    imported = listen("import", tmp_path / "ann.csv", "--runs-dir", runs)
    assert imported.exit_code == 0, imported.output
    assert "rater ann" in imported.output
    assert report(runs, tmp_path / "out", "--grid", "tiny").exit_code == 0
    means = [float(row["human_nmos_mean"]) for row in csv.DictReader((tmp_path / "out" / "listening.csv").open())]
    by_arm = [[int(row["naturalness"]) for row in rows if test.items[row["item"]].arm == arm] for arm in HEARD]
    assert means == pytest.approx([sum(scores) / 3 for scores in by_arm])
