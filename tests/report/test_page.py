"""The page of a report: what it says, what it escapes, what it leaves out."""

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import (
    CLASSES,
    CORRUPTIONS,
    WIDTHS,
    deeply,
    line,
    lines,
    lines_of_widths,
    measured_deeply,
    metrics,
    network,
    record,
    spec,
    spec_line,
    teacher,
    write_comparison,
    write_pictures,
    write_run,
)
from numpy.typing import NDArray
from PIL import Image
from plotly.offline import get_plotlyjs

from tutelage.errors import RunError
from tutelage.report.comparisons import make_tables
from tutelage.report.curves import MOST_POINTS, thin
from tutelage.report.figures import pareto_front
from tutelage.report.networks import corrupted, mean, networks_of, over_control, over_teacher
from tutelage.report.page import make_page, script_json, write_page
from tutelage.report.pictures import png
from tutelage.report.sources import Comparison, read_source
from tutelage.report.styles import styles_of
from tutelage.stats import Interval

SECTIONS = (
    *("result", "networks", "cost", "training", "choices", "classes", "calibration", "agreement"),
    *("robustness", "trials", "recipe", "origin", "again"),
)


BREAK = "\u200b"


class Page(HTMLParser):
    """What a browser would make of a page, as far as tests ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: dict[str, str] = {}
        self.feed(text)
        assert not self.opened, f"left open: {self.opened}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "wbr":
            self.words.append(BREAK)
        elif tag not in ("meta", "link", "img"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.opened and self.opened[-1] in ("script", "style"):
            kind = self.tags[-1][1].get("type") or self.opened[-1]
            self.scripts[kind] = self.scripts.get(kind, "") + data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace(f" {BREAK} ", "").split())

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads(self.scripts["application/json"])

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(path: Path, have: list[dict[str, Any]], **more: Any) -> Page:
    file = write_comparison(path / "made.jsonl", have, **more)
    return Page(make_page(read_source([file], runs=path / "runs")))


def deep_lines() -> list[dict[str, Any]]:
    """Trials of which everything was measured."""
    return measured_deeply(lines())


@pytest.fixture(scope="module", autouse=True)
def _without_plotly() -> Iterator[None]:
    """Five megabytes less in every page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tutelage.report.page.get_plotlyjs", lambda: "/* plotly */")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of a comparison of which everything was measured and kept."""
    folder = tmp_path_factory.mktemp("whole")
    have = deep_lines()
    for one in have:
        terms = ("supervised", *(["kd.kl"] if one["row"] == "kd" else []))
        terms += ("fitnet_hints.at/layer1", "fitnet_hints.at/layer2") * (one["row"] == "hints")
        write_run(folder / one["record"]["name"], one["record"], metrics(5, terms))
    return page_of(folder, have)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of a comparison of which little was measured and nothing kept."""
    return page_of(tmp_path_factory.mktemp("bare"), lines())


# What it says


def test_the_verdict_is_one_sentence(whole: Page):
    (verdict,) = re.findall(r"A gain over both[^.]*(?:\.\d[^.]*)*\.", whole.text)
    assert verdict == (
        "A gain over both label-only controls is shown for kd (+6.0 points over label-only, +5.5 "
        "over label-only-long) and is not shown for hints (+0.2 points over label-only, −0.3 over "
        "label-only-long)."
    )


@pytest.mark.parametrize(
    ("have", "more", "words"),
    [
        (lines(), {"controls": "none"}, "Nothing is shown: the comparison has no label-only"),
        (lines()[:6], {}, "Nothing can be judged yet"),
        (lines()[:6], {}, "; kd and hints not run yet."),
        (
            [one for one in lines() if one["seed"] < 2],
            {"seeds": [0, 1]},
            "cannot be judged for kd and hints (too few seeds).",
        ),
        (
            [*lines()[:9], line("hints", 0, 0.1, record={"collapsed": True})],
            {},
            "kd (+6.0 points over label-only, +5.5 over label-only-long); hints failed.",
        ),
    ],
)
def test_verdicts_in_other_cases(tmp_path: Path, have: Any, more: Any, words: str):
    assert words in page_of(tmp_path, have, **more).text


def test_every_section_is_there_in_both(whole: Page, bare: Page):
    for page in (whole, bare):
        found = [attributes["id"] for attributes in page.named("section")]
        assert tuple(found) == SECTIONS
        linked = [link["href"] for link in page.named("a")]
        assert linked == ["#main", *(f"#{key}" for key in SECTIONS)]


def test_every_figure_has_data_and_words(whole: Page):
    expected = {
        *("gains", "cost-macs", "cost-latency-ms", "similarity", "attention"),
        *("reliability", "severity"),
        *("corruptions", "classes-teacher", "classes-control", "curve-loss", "curve-accuracy"),
        *("curve-validation-accuracy", "curve-supervised", "curve-term-0", "curve-term-1"),
        *(f"confusion-{number}" for number in range(4)),
    }
    assert set(whole.figures) == expected
    plots = [one for one in whole.named("div") if one.get("class") == "plot"]
    assert {one["data-figure"] for one in plots} == expected
    assert all(one["aria-label"] and one["role"] == "img" for one in plots)
    for figure in whole.figures.values():
        assert figure["layout"]["height"] > 0
        assert all(trace.get("y") for trace in figure["data"])


def test_the_table_is_the_comparison_s_own(whole: Page):
    for words in ("over short", "71.0 ± 0.9", "+6.0 (+5.5 … +6.5)", "not shown"):
        assert words in whole.text


def test_ratios_are_against_the_teacher(bare: Page):
    for words in ("11.3× fewer", "10.3× fewer", "9.5× faster", "−22.0 points", "1.0× the time"):
        assert words in bare.text


def test_what_was_measured_is_shown(whole: Page):
    assert "Not measured" not in whole.text
    heat = whole.figures["corruptions"]["data"][0]
    assert heat["y"] == list(CORRUPTIONS)
    assert heat["x"] == ["teacher", "label-only", "label-only-long", "kd", "hints"]
    assert heat["z"][0][0] == pytest.approx(100 * (0.93 - 0.15))
    # errors of kd, mean accuracy 0.71, over those of the teacher: (0.29 + 0.15) / (0.07 + 0.15)
    assert f"kd 71.0 56.0 {0.44 / 0.22:.3f}" in whole.text
    assert "teacher 93.0 78.0 – –" in whole.text
    matrix = whole.figures["confusion-0"]["data"][0]
    assert (matrix["x"], matrix["y"]) == (CLASSES, CLASSES)
    assert whole.figures["classes-teacher"]["data"][0]["name"] == "kd"
    assert whole.figures["similarity"]["data"][0]["y"] == ["layer1 – layer1", "layer2 – layer2"]
    looks = whole.figures["attention"]["data"][0]
    assert [row[0] for row in looks["z"]] == [0.6, -0.1]
    assert looks["zmin"] == -1


def test_what_was_not_measured_is_said(bare: Page):
    for what in ("accuracy by class", "calibration", "agreement with a teacher", "corruptions"):
        assert re.search(rf"Not measured: these records hold no [^.]*{what}", bare.text)
    assert "Not shown: the run folders, which hold the curves, are not here." in bare.text
    assert "(CKA): not measured" in bare.text


def test_confusions_of_the_best_on_validation_come_first(tmp_path: Path):
    have = deep_lines()
    for one in have:
        if one["row"] == "hints":  # worse on test, better on validation
            one["record"]["students"]["student"]["validation_accuracy"] = 0.99
    text = page_of(tmp_path, have).text
    assert text.index("Confusions of hints") < text.index("Confusions of kd")
    assert "of hints, the best on validation" in text


def test_stale_failed_and_missing_trials_are_marked_and_in_no_mean(tmp_path: Path):
    have = [*lines()[:-1], line("gone", 0, 0.99), line("kd", 7, 0.99)]
    page = page_of(tmp_path, have)
    marked = [one for one in page.named("tr") if one.get("class") == "marked"]
    assert len(marked) == 3
    assert page.text.count("stale: counts for nothing") == 2
    assert "not run yet" in page.text
    kd = next(t for t in page.figures["cost-macs"]["data"] if t.get("name") == "kd")
    assert kd["y"] == [pytest.approx(71.0)]


def test_a_row_that_failed_is_in_no_figure_of_means(tmp_path: Path):
    why = "kd.kl became infinite or NaN at step 7"
    failed = line("kd", 2, 0.7) | {"failed": why, "record": {"commit": None, "recipe": {}}}
    page = page_of(tmp_path, [*lines(), failed])
    assert all(trace.get("name") != "kd" for trace in page.figures["cost-macs"]["data"])
    assert f"failed: {why}" in page.text


def test_one_seed_has_no_interval(tmp_path: Path):
    page = page_of(tmp_path, [one for one in lines() if one["seed"] == 0], seeds=[0])
    assert "gains" not in page.figures
    for trace in page.figures["cost-macs"]["data"]:
        assert "error_y" not in trace


def test_intervals_over_seeds_are_t_intervals(bare: Page):
    kd = next(t for t in bare.figures["cost-macs"]["data"] if t.get("name") == "kd")
    # deviation 0.9165, half-width 4.3027 · 0.9165 / √3
    assert kd["error_y"]["array"] == [pytest.approx(2.277, abs=2e-3)]


def test_choices_show_all_that_was_tried(tmp_path: Path):
    rows = {"kd": {"like": None, "set": {}, "choose": {"lr": [0.1, 0.3]}}}
    have = [
        line("kd", 0, accuracy, kind="try", settings={"lr": lr})
        for lr, accuracy in ((0.1, 0.6), (0.3, 0.65))
    ]
    have += [line("kd", seed, 0.7, settings={"lr": 0.3}) for seed in range(3)]
    text = page_of(tmp_path, have, rows=rows, controls="none").text
    assert "kd lr 0.1 61.0 kd lr 0.3 66.0 chosen" in text


def test_recipes_differ_where_they_differ(tmp_path: Path):
    have = lines()
    for one in have:
        if one["row"].startswith("label-only"):
            one["record"]["recipe"] |= {"methods": {}}
    text = page_of(tmp_path, have).text
    assert "What differs between rows" in text
    assert re.search(r"methods\.kd\.weight – – 0\.9 0\.9", text)
    assert "train.precision bf16" in text


def test_it_tells_how_to_run_it_again(bare: Page):
    assert "git checkout 0123456789ab tutelage compare spec.yaml" in bare.text


CLAIM = "kd > label-only-long on accuracy"


def test_claims_come_first_in_the_verdict(tmp_path: Path):
    page = page_of(tmp_path, deep_lines(), claims=[CLAIM, "kd < hints on ece"])
    assert (
        f"Claimed and shown: {CLAIM} (by +5.5 points); claimed and not shown: kd < hints on ece "
        "(by +0.0 points); a gain over both label-only controls is shown for kd"
    ) in page.text
    assert f"shown: {CLAIM}, by +5.5 (" in page.text
    assert "What became of the claims" in page.text


def test_a_claim_that_is_not_yet_measured_says_so(tmp_path: Path):
    text = page_of(tmp_path, lines()[:6], claims=[CLAIM]).text
    assert f"Claimed and not yet measured: {CLAIM}; nothing can be judged yet" in text
    assert f"not measured: {CLAIM}; 0 seed(s)." in text


def test_claims_need_no_controls(tmp_path: Path):
    have = [one for one in lines() if one["row"] in ("kd", "hints")]
    rows = {row: spec()["rows"][row] for row in ("kd", "hints")}
    text = page_of(
        tmp_path, have, rows=rows, controls="none", claims=["kd > hints on accuracy"]
    ).text
    assert "Claimed and shown: kd > hints on accuracy (by +5.8 points)." in text
    assert "Nothing is shown" not in text


def test_of_many_claims_the_verdict_gives_no_numbers(tmp_path: Path):
    others = [row for row in spec()["rows"] if row != "kd"]
    claims = [f"kd > {row} on {what}" for row in others for what in ("accuracy", "balanced")]
    text = page_of(tmp_path, deep_lines(), claims=claims).text
    assert f"Claimed and shown: {', '.join(claims[:-1])} and {claims[-1]}; a gain" in text


def test_backticks_become_code(bare: Page, tmp_path: Path):
    page = page_of(tmp_path, lines(), note="See `make tables` or `<b>`; an odd ` stays.")
    assert "`make tables`" not in page.text
    assert "See make tables or <b> ; an odd ` stays." in page.text
    assert len(page.named("code")) == len(bare.named("code")) + 2
    assert "b" not in {tag for tag, _ in page.tags}


def test_costs_beyond_latency_are_shown(whole: Page, bare: Page):
    costs = "kd 0.60 ms 95 %: 0.80 ms 12.00 ms 95 %: 14.50 ms 0.30 MB 0.61 MB"
    assert costs in whole.text
    assert "latency of a batch of 32" in whole.text
    assert "File size, peak memory and latency of larger batches: not measured." in bare.text


def test_doubt_of_people_is_shown(whole: Page):
    assert "kd 0.800 1.400 69.0" in whole.text


def test_accuracies_over_classes_are_shown(whole: Page):
    assert "network top-1 % balanced % worst class" in whole.text  # top-5 of three classes is none
    assert "kd 71.0 71.0 cat 70.0 %" in whole.text


def test_duplicates_are_told(whole: Page, bare: Page):
    assert "3 picture(s) of test are in train as well." in whole.text
    assert "2 picture(s) of train are there once more; 3 picture(s) of test" in whole.text
    assert "exact duplicates not measured" in bare.text


def test_corruption_errors_are_those_of_the_table(tmp_path: Path):
    """A teacher and a control that differ from seed to seed: the mean of ratios is not the ratio of
    means."""
    have = deep_lines()
    for number, one in enumerate(have):
        for place, entry in enumerate(
            (one["record"]["students"]["student"], one["record"]["teacher"])
        ):
            worse = 0.003 * (number % 5) + 0.011 * (number % 3) * (1 - place)
            spoiled = entry["robustness"]["corruptions"]
            entry["robustness"]["corruptions"] = {
                name: [share - worse - 0.01 * n for share in shares]
                for n, (name, shares) in enumerate(spoiled.items())
            }
    path = write_comparison(tmp_path / "made.jsonl", have)
    source = read_source([path])
    assert isinstance(source, Comparison)
    (table,) = make_tables(source.spec, source.lines)
    networks = {one.name: one for one in networks_of(source)}
    text = Page(make_page(source)).text
    for row in table.rows[1:]:
        own = networks[row["row"]]
        assert over_teacher(own) == pytest.approx(row["mce_of_teacher"], rel=1e-12)
        assert over_control(own, networks["label-only"]) == pytest.approx(row["mce_of_control"])
        errors = f"{row['mce_of_teacher']:.3f} {row['mce_of_control']:.3f}"
        assert f"{row['corrupted']:.1f} {errors}" in text


def test_runs_on_other_spoiled_pictures_are_not_compared(tmp_path: Path):
    alone = record(0.65, name="alone", student=deeply(0.65))
    alone["recipe"] |= {"methods": {}}
    other = record(0.7, name="kd", student=deeply(0.7))
    other["students"]["student"]["robustness"]["pictures"] = 7
    runs = [write_run(tmp_path / kept["name"], kept) for kept in (alone, other)]
    page = Page(make_page(read_source(runs)))
    assert "error / alone's" in page.text
    assert "alone 65.0 50.0 1.000" in page.text  # its teacher was not shown any
    assert "kd 70.0 55.0 –" in page.text
    assert "Measured on 7 or 50 test pictures" in page.text


# Axes


@pytest.fixture(scope="module")
def widths(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of two widths: kd gains at both, hints at the second; a claim is shown at the first."""
    folder = tmp_path_factory.mktemp("widths")
    have = measured_deeply(
        lines_of_widths(
            kd=[0.66, 0.67, 0.675], hints=[0.72, 0.73, 0.735], label_only=[0.63, 0.64, 0.65]
        )
    )
    for one in have:
        one["record"]["seconds"] = 100.0 * one["settings"]["student.width"] / 8
        write_run(folder / one["record"]["name"], one["record"], metrics(3))
    return page_of(folder, have, axes=WIDTHS, claims=["kd > hints on accuracy"], note="Of both.")


def test_with_axes_the_verdict_names_the_part(widths: Page):
    assert (
        "Claimed and shown: kd > hints on accuracy at student.width 8; claimed and contradicted: "
        "kd > hints on accuracy at student.width 16; a gain over both label-only controls is shown "
        "for kd everywhere and hints at student.width 16 and is not shown for hints at "
        "student.width 8."
    ) in widths.text
    assert "Comparison of 4 rows at 2 settings of student.width, with 3 seeds each" in widths.text


def test_with_axes_every_part_has_its_own_tables_and_figures(widths: Page):
    assert widths.text.count("All rows row test accuracy") == 2
    for key in ("gains", "curve-loss", "reliability", "severity", "corruptions", "similarity"):
        assert {key, f"{key}-1"} <= set(widths.figures)
    names = {trace.get("name") for trace in widths.figures["cost-macs"]["data"]}
    assert {"kd, student.width 8", "kd, student.width 16", "teacher"} <= names
    assert "cost-macs-1" not in widths.figures
    assert [t["name"] for t in widths.figures["reliability-1"]["data"][1:]] == [
        *("teacher", "label-only", "label-only-long", "kd", "hints"),
    ]
    assert widths.text.count("Of both.") == 1


def test_with_axes_students_are_held_against_the_control_of_their_part(widths: Page):
    at_8, at_16 = (
        next(t for t in widths.figures[f"classes-control{slug}"]["data"] if t["name"] == "hints")
        for slug in ("", "-1")
    )
    assert at_8["x"] == [pytest.approx(65.167 - 65.0, abs=1e-3)] * 3
    assert at_16["x"] == [pytest.approx(72.833 - 64.0, abs=1e-3)] * 3
    assert widths.text.count("1.0× the time") == 6  # and not 2.0× at the second width


def test_with_axes_recipes_differ_between_parts_and_within(widths: Page):
    assert "axis student.width 8, 16" in widths.text
    assert (
        "What differs between the axes' values key student.width 8 student.width 16" in widths.text
    )
    assert "student.width 8 16" in widths.text


def test_at_each_value_of_an_axis_a_teacher_of_its_own(tmp_path: Path):
    have = lines_of_widths()
    for one in have:
        if one["settings"]["student.width"] == 16:
            one["record"]["recipe"]["teacher"] = {"name": "resnet20"}
            one["record"]["teacher"] |= {"test_accuracy": 0.9}
    page = page_of(tmp_path, have, axes=WIDTHS)
    named = {trace.get("name") for trace in page.figures["cost-macs"]["data"]}
    assert {"teacher, student.width 8", "teacher, student.width 16"} <= named
    assert "−22.0 points" in page.text  # kd at 8: 71 to 93
    assert "−19.0 points" in page.text  # kd at 16: 71 to 90


def test_what_is_missing_at_one_value_of_an_axis_is_named_there(tmp_path: Path):
    have = [one for one in lines_of_widths() if one["record"]["name"] != "kd-16-seed2"]
    text = page_of(tmp_path, have, axes=WIDTHS).text
    assert "kd, student.width 16: seed(s) 2 not run yet." in text
    assert "kd, student.width 16 2 trial – – – – not run yet" in text
    assert "kd, student.width 8: seed(s)" not in text


# Runs


def test_the_answer_that_gates_a_release_is_told(tmp_path: Path):
    answer = {
        "time": "2026-01-02T00:00:00+00:00",
        "command": "tutelage evaluate run --accept max_drop=1.0",
        "limits": {"max_drop": 1.0},
        "answer": "undecided",
        "reasons": ["undecided: 0.9 points below the teacher (0.1 … 1.7), 1 allowed"],
    }
    run = write_run(tmp_path / "run", record(0.7, accepted=[answer]))
    text = Page(make_page(read_source([run]))).text
    assert "; does it keep max_drop 1.0? undecided." in text
    assert "Whether the student keeps the limits that were set" in text
    assert answer["reasons"][0] in text


def test_one_run_is_told_from_its_record(tmp_path: Path):
    run = write_run(tmp_path / "run", record(0.7, student={"agreement": 0.8}), metrics())
    page = Page(make_page(read_source([run])))
    assert (
        "The student reaches 70.0 % on test in one run, 23.0 points below its teacher, at 1/10.3 "
        "of its MACs; what the method adds is not shown, for no control ran beside it."
    ) in page.text
    assert {"curve-loss", "curve-term-0", "cost-macs"} <= set(page.figures)
    assert "methods.kd.temperature 4.0" in page.text
    assert "kd.kl" in page.text


def test_one_run_of_several_depths_is_one_run(tmp_path: Path):
    deep = record(0.7)
    deep["students"]["small"] = deep["students"]["student"] | {"test_accuracy": 0.61}
    deep["depths"] = {"own_parameters": 1234}
    lines = [line | {"supervised/small": 1.5, "supervised/tiny": 2.5} for line in metrics()]
    page = Page(make_page(read_source([write_run(tmp_path / "run", deep, lines)])))
    assert "The student reaches 70.0 % on test in one run" in page.text
    assert (
        "; of its sub-nets small 61.0 %, for which it holds 1,234 parameters more, of norms of "
        "their own."
    ) in page.text
    assert "side by side" not in page.text
    assert "Supervised terms of sub-nets" in page.text


def test_several_runs_prove_nothing(tmp_path: Path):
    alone = record(0.65, name="alone")
    alone["recipe"] |= {"methods": {}}
    runs = [
        write_run(tmp_path / "alone", alone),
        write_run(tmp_path / "kd", record(0.7, name="kd"), metrics()),
    ]
    page = Page(make_page(read_source(runs)))
    assert "2 runs side by side" in page.text
    assert "is not shown" in page.text
    assert "alone control" in page.text
    assert "Curves of 1 of 2; the other run folders are not here." in page.text


def test_a_run_without_test_and_teacher_has_a_page(tmp_path: Path):
    kept = record(0.7) | {"teacher": None, "readings": []}
    kept["recipe"] |= {"methods": {}, "teacher": None}
    del kept["students"]["student"]["test_accuracy"]
    page = Page(make_page(read_source([write_run(tmp_path / "run", kept)])))
    assert "The student reaches 71.0 % on validation in one run." in page.text
    assert "validation accuracy %" in page.text


# Pictures


def kept_runs(folder: Path, have: list[dict[str, Any]], *, pictures: tuple[str, ...]) -> None:
    """Run folders of all trials; those of some rows hold pictures."""
    for one in have:
        place = write_run(folder / one["record"]["name"], one["record"])
        if one["row"] in pictures:
            write_pictures(place, seed=one["seed"])


def page_with_pictures(folder: Path, have: list[dict[str, Any]], **more: Any) -> Page:
    path = write_comparison(folder / "made.jsonl", have, **more)
    return Page(make_page(read_source([path], runs=folder / "runs"), pictures=True))


def decoded(address: str) -> NDArray[np.uint8]:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as found:
        assert found.format == "PNG"
        return np.asarray(found)


def stretched(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Roots from 0, the smallest, to 255, the largest."""
    roots = np.sqrt(values.astype(np.float64))
    return 255 * (roots - roots.min()) / (roots.max() - roots.min())


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (4, 7, 3), (300, 2, 3)])
def test_a_png_holds_its_pixels(shape: tuple[int, ...]):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as found:
        found.verify()
    with Image.open(io.BytesIO(png(pixels))) as found:
        assert np.array_equal(np.asarray(found), pixels)


def test_without_being_asked_no_picture_is_in_the_page(tmp_path: Path):
    have = deep_lines()
    kept_runs(tmp_path, have, pictures=("label-only", "kd"))
    path = write_comparison(tmp_path / "made.jsonl", have)
    text = make_page(read_source([path]))
    page = Page(text)
    assert "data:image" not in text
    assert page.named("img") == []
    assert "holds no picture of the data, and loads nothing" in page.text
    assert "pictures" not in [one["id"] for one in page.named("section")]


def test_pictures_stand_side_by_side(tmp_path: Path):
    have = deep_lines()
    kept_runs(tmp_path, have, pictures=("label-only", "kd"))
    page = page_with_pictures(tmp_path, have)
    shown = page.named("img")
    # 3 pictures, with 2 stages of teacher, control and student; and 3 where each of two differs
    assert len(shown) == 3 * (1 + 3 * 2) + 2 * 3
    assert all(one["alt"] and one["width"] and one["height"] for one in shown)
    assert {len(one) for one in shown} == {4}
    first, of_teacher = shown[0], shown[1]
    assert first["alt"] == "Test picture 7, cat"
    assert np.array_equal(decoded(first["src"] or ""), np.arange(64).reshape(8, 8))
    assert of_teacher["alt"] == "teacher, layer2, picture 7"
    with np.load(tmp_path / "label-only-seed0" / "pictures.npz") as kept:
        expected = stretched(kept["same/teacher/1"][0])
        shares = kept["apart/student"][0]
    assert np.abs(decoded(of_teacher["src"] or "") - expected).max() <= 0.51
    assert [one["alt"] for one in shown[1:7]] == [
        f"{who}, {stage}, picture 7"
        for who in ("teacher", "label-only", "kd")
        for stage in ("layer2", "layer3")
    ]
    assert page.text.index("Where kd and its teacher") < page.text.index("Where label-only and its")
    assert f"{CLASSES[int(shares.argmax())]} {100 * shares.max():.0f} %" in page.text
    assert "shows pictures of the data as run folders hold them, and loads nothing" in page.text


def test_pictures_of_the_first_seed_that_is_still_there_are_shown(tmp_path: Path):
    have = deep_lines()
    kept_runs(tmp_path, have[7:9], pictures=("kd",))  # seeds 1 and 2
    other = have[6]["record"] | {"began": "another day"}
    write_pictures(write_run(tmp_path / "kd-seed0", other))
    page = page_with_pictures(tmp_path, have)
    with np.load(tmp_path / "kd-seed1" / "pictures.npz") as kept:
        expected = stretched(kept["same/student/2"][0])
    (found,) = [one for one in page.named("img") if one["alt"] == "kd, layer3, picture 7"]
    assert np.abs(decoded(found["src"] or "") - expected).max() <= 0.51


def test_every_part_has_pictures_of_its_own(tmp_path: Path):
    have = lines_of_widths()
    kept_runs(tmp_path, have, pictures=("kd",))
    page = page_with_pictures(tmp_path, have, axes=WIDTHS)
    assert page.text.count("Where networks look, on the same test pictures") == 2
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_runs_show_their_pictures(tmp_path: Path):
    run = write_run(tmp_path / "run", record(0.7))
    write_pictures(run)
    page = Page(make_page(read_source([run]), pictures=True))
    assert len(page.named("img")) == 3 * (1 + 2 * 2) + 3
    assert "class 0" in page.text  # this record knows no names of classes


def test_no_pictures_are_one_sentence(tmp_path: Path):
    page = page_with_pictures(tmp_path, lines())
    assert page.named("img") == []
    assert "Not shown: the run folders are not here, or hold no pictures." in page.text


def test_other_pictures_do_not_stand_beside_these(tmp_path: Path):
    have = lines()
    kept_runs(tmp_path, have, pictures=("label-only", "kd"))
    write_pictures(tmp_path / "kd-seed0", number=2)
    page = page_with_pictures(tmp_path, have)
    assert "kd: of other pictures, and left out." in page.text
    assert not any((one["alt"] or "").startswith("kd,") for one in page.named("img"))


def test_large_pictures_are_made_small(tmp_path: Path):
    run = write_run(tmp_path / "run", record(0.7))
    write_pictures(run, size=300)
    page = Page(make_page(read_source([run]), pictures=True))
    small = decoded(page.named("img")[0]["src"] or "")
    assert small.shape == (75, 75)
    assert small[0, 0] == pytest.approx(
        np.arange(90_000, dtype=np.uint8).reshape(300, 300)[:4, :4].mean(), abs=0.5
    )


def _foreign(path: Path) -> None:
    np.savez(path, weights=np.ones(3))


def _pickled(path: Path) -> None:
    arrays = {"same/images": np.array([{}], dtype=object)}
    np.savez(path, allow_pickle=True, **arrays)


def _no_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def _not_finite(path: Path) -> None:
    with np.load(path) as kept:
        arrays = dict(kept)
    arrays["same/student/0"][0, 0, 0] = np.nan
    np.savez(path, allow_pickle=False, **arrays)


@pytest.mark.parametrize(
    "harm",
    [
        _foreign,
        _pickled,
        _not_finite,
        lambda path: path.write_bytes(b"no archive"),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"same/", b"lame/")),
        _no_archive,
    ],
)
def test_damaged_pictures_are_refused_in_a_sentence(tmp_path: Path, harm: Any):
    run = write_run(tmp_path / "run", record(0.7))
    harm(write_pictures(run))
    with pytest.raises(RunError, match=r"pictures\.npz is damaged, or no run has written") as told:
        make_page(read_source([run]), pictures=True)
    assert "\n" not in str(told.value)
    make_page(read_source([run]))


# What it must not do


HOSTILE = "</script><script>alert(1)</script><!--\u2028&amp;'\"{{ 7*7 }}%{x}"


def test_hostile_names_stay_text(tmp_path: Path):
    have = []
    for one in deep_lines():
        row = HOSTILE if one["row"] == "kd" else one["row"]
        student = one["record"]["students"]["student"]
        student |= deeply(student["test_accuracy"], [HOSTILE, "<b>b</b>", "c"])
        one["record"]["teacher"] |= deeply(0.93, [HOSTILE, "<b>b</b>", "c"])
        one["record"] |= {"command": HOSTILE, "name": HOSTILE, "commit": HOSTILE}
        one["record"]["recipe"] |= {"methods": {HOSTILE: {HOSTILE: HOSTILE}}}
        have.append(one | {"row": row, "settings": {"row": row}})
    rows = {
        row: {"like": None, "set": {"row": row}, "choose": {}}
        for row in ("label-only", "label-only-long", HOSTILE, "hints")
    }
    place = write_run(tmp_path / "run", have[0]["record"] | {"name": "run"})
    have[0]["record"]["name"] = "run"
    write_pictures(place)
    page = page_with_pictures(tmp_path, have, rows=rows, note=HOSTILE, name=HOSTILE)
    assert len(page.named("script")) == 3
    assert any(HOSTILE in (one["alt"] or "") for one in page.named("img"))
    assert "b" not in {tag for tag, _ in page.tags}
    assert "{{ 7*7 }}" in page.text
    assert page.text.count("alert(1)") > 10
    # plotly reads some HTML, which must not come from names
    told = json.dumps(page.figures)
    assert "&lt;/script&gt;" in told
    assert {trace.get("legendgroup") for trace in page.figures["cost-macs"]["data"]} >= {HOSTILE}
    shown = [trace.get("name", "") for fig in page.figures.values() for trace in fig["data"]]
    assert not any("<" in name for name in shown)


def test_a_hostile_run_name_stays_text(tmp_path: Path):
    run = write_run(tmp_path / "run", record(name=HOSTILE), metrics(3, (HOSTILE,)))
    page = Page(make_page(read_source([run])))
    assert len(page.named("script")) == 3


def test_hostile_values_of_axes_stay_text(tmp_path: Path):
    have = measured_deeply(lines())
    for one in have:
        one["settings"][HOSTILE] = HOSTILE
        write_pictures(write_run(tmp_path / one["record"]["name"], one["record"], metrics(2)))
    page = page_with_pictures(tmp_path, have, axes={HOSTILE: [HOSTILE]})
    assert len(page.named("script")) == 3
    shown = [trace.get("name", "") for fig in page.figures.values() for trace in fig["data"]]
    assert any("alert(1)" in name for name in shown)
    assert not any("<" in name for name in shown)


def test_json_in_a_script_ends_nothing():
    text = script_json({"</script>": "<!--\u2028&", "n": [float("nan"), float("inf"), 1.5]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"</script>": "<!--\u2028&", "n": [None, None, 1.5]}


def test_numbers_that_are_none_break_nothing(tmp_path: Path):
    nan = float("nan")
    have = deep_lines()
    student = have[6]["record"]["students"]["student"]
    student["test"]["per_class"][0] = None
    student["test"]["calibration"] |= {"ece": nan, "temperature": None}
    student["test"]["calibration"]["bins"][3] = [nan, None, nan]
    student["robustness"]["corruptions"]["contrast"] = [None, nan, 0.5, 0.4, 0.3]
    student["robustness"]["clean"] = None
    student["fidelity"] = {"top1": nan, "kl": None}
    student["similarity"][0]["cka"] = nan
    have[9]["record"]["students"]["student"]["test"]["confusion"] = None
    logged = [*metrics(), {"step": 60, "loss": None, "accuracy": nan}, {"step": None}]
    write_run(tmp_path / "kd-seed0", have[6]["record"], logged)
    page = page_of(tmp_path, have)
    assert not re.search(r"\b(nan|NaN|None|null)\b", page.text)
    assert "NaN" not in page.scripts["application/json"]
    assert len(page.figures["curve-loss"]["data"][0]["y"]) == 5
    for what in ("fidelity", "robustness", "similarity", "test"):
        assert (
            f"kd, seed 0: {what} is damaged in its record, and counts as not measured" in page.text
        )


def test_it_loads_nothing_and_shows_no_picture(whole: Page):
    for tag, attributes in whole.tags:
        assert tag not in ("img", "iframe", "object", "embed", "picture", "video", "canvas")
        assert "src" not in attributes
        for key in ("href", "action"):
            assert (attributes.get(key) or "#").startswith(("#", "data:,"))
    assert [one.get("href") for one in whole.named("link")] == ["data:,"]
    (policy,) = [
        one["content"] or ""
        for one in whole.named("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert ":root {" in whole.scripts["style"]
    assert "url(" not in whole.scripts["style"]
    assert "@import" not in whole.scripts["style"]


def test_headings_are_in_order_and_ids_are_single(whole: Page):
    levels = [int(tag[1]) for tag, _ in whole.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in whole.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_source_gives_the_same_page(tmp_path: Path):
    path = write_comparison(tmp_path / "made.jsonl", lines())
    assert make_page(read_source([path])) == make_page(read_source([path]))


def test_fifty_runs_of_two_hundred_points_fit(tmp_path: Path):
    terms = ("supervised", "kd.kl", *(f"fitnet_hints.at/layer{n}" for n in range(3)))
    have = []
    for number in range(10):
        for seed in range(5):
            one = line(f"row-{number}", seed, 0.6 + number / 50 + seed / 500)
            student = one["record"]["students"]["student"]
            student |= deeply(student["test_accuracy"], [f"class {n}" for n in range(10)])
            write_run(tmp_path / one["record"]["name"], one["record"], metrics(200, terms))
            have.append(one)
    rows = spec(*(f"row-{number}" for number in range(10)))["rows"]
    path = write_comparison(
        tmp_path / "made.jsonl", have, rows=rows, controls="none", seeds=list(range(5))
    )
    text = make_page(read_source([path]))
    assert len(text.encode()) + len(get_plotlyjs().encode()) < 8e6
    curves = Page(text).figures["curve-loss"]["data"]
    assert len(curves) == 50
    assert all(len(curve["x"]) == MOST_POINTS for curve in curves)


def test_curves_end_where_they_end():
    kept = thin(list(range(1000)))
    assert (kept[0], kept[-1], len(kept)) == (0, 999, MOST_POINTS)


def spans(*bounds: tuple[float, float]) -> list[Interval]:
    return [Interval((low + high) / 2, low, high) for low, high in bounds]


def test_equals_are_both_on_the_front():
    costs, accuracies = spans(*[(1.0, 1.0)] * 3), spans((0.5, 0.5), (0.5, 0.5), (0.4, 0.4))
    assert pareto_front(costs, accuracies) == [True, True, False]
    assert pareto_front([], []) == []


@pytest.mark.parametrize(
    ("costs", "accuracies", "front"),
    [
        # equally dear: accuracy decides, where the intervals part
        ([(1, 1), (1, 1)], [(60, 64), (63, 66)], [True, True]),
        ([(1, 1), (1, 1)], [(60, 62), (63, 66)], [False, True]),
        # more accurate for certain, and perhaps cheaper
        ([(1.0, 2.0), (1.5, 2.5)], [(70, 71), (60, 61)], [True, True]),
        ([(1.0, 1.4), (1.5, 2.5)], [(70, 71), (60, 61)], [True, False]),
    ],
)
def test_nobody_is_off_the_front_by_chance(costs: Any, accuracies: Any, front: list[bool]):
    assert pareto_front(spans(*costs), spans(*accuracies)) == front


def timed_apart() -> list[dict[str, Any]]:
    """Trials of one architecture that a busy machine has measured differently."""
    have = lines()
    for number, one in enumerate(have):
        one["record"]["students"]["student"]["latency_ms"] = 0.4 + 0.06 * number
        one["record"]["teacher"]["latency_ms"] = 4.0 + 0.6 * number
    return have


def test_equal_networks_are_equally_fast(tmp_path: Path):
    have = timed_apart()
    page = page_of(tmp_path, have)
    # students 0.4 … 1.06, mean 0.73; the teacher 4.0 … 10.6, mean 7.3
    assert page.text.count("0.73 ms 10.0× faster") == 4
    assert page.text.count("× faster") == 4
    assert "equal networks are equally fast" in page.text
    places = {
        trace["name"]: trace["x"]
        for trace in page.figures["cost-latency-ms"]["data"]
        if "name" in trace
    }
    assert places.pop("teacher") == [pytest.approx(7.3)]
    assert len(places) == 4
    assert set(map(tuple, places.values())) == {(0.73,)}
    (table,) = make_tables(spec(), have)
    assert {round(row["latency_ms"], 9) for row in table.rows[1:]} == {0.73}
    assert table.rows[0]["latency_ms"] == pytest.approx(7.3)


def test_runs_of_one_architecture_are_equally_fast(tmp_path: Path):
    for number, latency in enumerate((0.4, 0.8)):
        kept = record(0.7, name=f"run{number}", student={"latency_ms": latency})
        write_run(tmp_path / f"run{number}", kept)
    source = read_source([tmp_path / "run0", tmp_path / "run1"])
    timed = {one.name: mean(one, "latency_ms") for one in networks_of(source)}
    assert timed["run0"] == timed["run1"] == pytest.approx(0.6)


def test_a_claim_that_came_late_says_so(tmp_path: Path):
    have = [spec_line(), *lines(), spec_line(claims=[CLAIM])]
    text = page_of(tmp_path, have).text
    assert f"Claimed and shown, but claimed only after trials had run: {CLAIM}" in text
    assert "declared after 6 of its trials had run." in text
    assert "written down before the runs" not in text
    in_time = page_of(tmp_path, [spec_line(claims=[CLAIM]), *lines()]).text
    assert "written down before the runs" in in_time
    assert "declared" not in in_time


def test_what_other_code_measured_is_in_no_mean_of_the_page(tmp_path: Path):
    have = deep_lines()
    for one in have:
        if one["row"] == "kd":
            code = "b" if one["seed"] == 2 else "a"
            one["record"]["measured"] = {"robustness": {"code": code, "commit": None}}
    path = write_comparison(tmp_path / "made.jsonl", have)
    networks = {one.name: one for one in networks_of(read_source([path]))}
    assert corrupted(networks["kd"]) is None
    assert corrupted(networks["hints"]) is not None
    assert mean(networks["kd"], "test_accuracy") == pytest.approx(0.71)


def test_no_two_of_many_look_the_same():
    names = [f"row {number}" for number in range(42)]
    assert len(set(styles_of(names, {}).values())) == 42
    known = styles_of(
        ["teacher", "short", "long"], {"teacher": "teacher", "short": "control", "long": "control"}
    )
    assert len({style.symbol for style in known.values()}) == 3
    assert known["short"].dash != known["long"].dash


# Where it is written


def test_it_is_written_whole(tmp_path: Path):
    source = read_source([write_comparison(tmp_path / "made.jsonl", lines())])
    write_page(source, tmp_path / "made.html")
    assert (tmp_path / "made.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.html", "made.jsonl"]


@pytest.mark.parametrize("name", ["made.jsonl", "page", "absent/page.html", "folder.html"])
def test_places_that_are_none_are_refused(tmp_path: Path, name: str):
    path = write_comparison(tmp_path / "made.jsonl", lines())
    before = path.read_bytes()
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(RunError):
        write_page(read_source([path]), tmp_path / name)
    assert path.read_bytes() == before


def test_a_page_is_made_without_torch(tmp_path: Path):
    path = write_comparison(tmp_path / "made.jsonl", lines())
    code = f"""
import sys
from pathlib import Path
import tutelage.cli.report
from tutelage.report.page import make_page
from tutelage.report.sources import read_source
print(len(make_page(read_source([Path({str(path)!r})]))) > 4_000_000)
print(sorted({{"torch", "torchvision", "timm", "jaxtyping", "safetensors"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "[]"]


def test_of_a_teacher_the_fullest_record_is_shown(tmp_path: Path):
    have = deep_lines()
    for key in ("test", "robustness", "people"):
        del have[0]["record"]["teacher"][key]
    page = page_of(tmp_path, have)
    assert page.figures["corruptions"]["data"][0]["x"][0] == "teacher"


def test_two_teachers_are_told_apart(tmp_path: Path):
    other = record()["recipe"] | {"teacher": {"name": "resnet20"}}
    have = lines()
    for one in have:
        if one["row"] == "hints":
            one["record"] |= {
                "recipe": other | {"seed": one["seed"]},
                "teacher": teacher() | network(0.9),
            }
    text = page_of(tmp_path, have).text
    assert "teacher of label-only" in text
    assert "teacher of hints" in text
