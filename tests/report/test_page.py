"""The page of a report: what it says, what it escapes, what it leaves out."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from made_records import (
    CLASSES,
    CORRUPTIONS,
    deeply,
    line,
    lines,
    metrics,
    network,
    record,
    spec,
    teacher,
    write_comparison,
    write_run,
)
from plotly.offline import get_plotlyjs

from tutelage.errors import RunError
from tutelage.report.curves import MOST_POINTS, thin
from tutelage.report.figures import pareto_front
from tutelage.report.page import make_page, script_json, write_page
from tutelage.report.sources import read_source
from tutelage.report.styles import styles_of

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
        elif tag not in ("meta", "link"):
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
    have = lines()
    for one in have:
        student = one["record"]["students"]["student"]
        student |= deeply(student["test_accuracy"])
        student |= {
            "agreement": 0.8,
            "likeness": {"top1": 0.8, "kl": 0.5, "on_teacher_errors": 0.4},
        }
        one["record"]["teacher"] |= {k: v for k, v in deeply(0.93).items() if k != "similarity"}
    return have


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
        *("gains", "cost-macs", "cost-latency-ms", "similarity", "reliability", "severity"),
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
    assert f"kd {0.44 / 0.22:.3f}" in whole.text
    matrix = whole.figures["confusion-0"]["data"][0]
    assert (matrix["x"], matrix["y"]) == (CLASSES, CLASSES)
    assert whole.figures["classes-teacher"]["data"][0]["name"] == "kd"
    assert whole.figures["similarity"]["data"][0]["y"] == ["layer1 – layer1", "layer2 – layer2"]


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


# Runs


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
    page = page_of(tmp_path, have, rows=rows, note=HOSTILE, name=HOSTILE)
    assert len(page.named("script")) == 3
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
    student["likeness"] = {"top1": nan, "kl": None}
    student["similarity"][0]["cka"] = nan
    have[9]["record"]["students"]["student"]["test"]["confusion"] = None
    logged = [*metrics(), {"step": 60, "loss": None, "accuracy": nan}, {"step": None}]
    write_run(tmp_path / "kd-seed0", have[6]["record"], logged)
    page = page_of(tmp_path, have)
    assert not re.search(r"\b(nan|NaN|None|null)\b", page.text)
    assert len(page.figures["curve-loss"]["data"][0]["y"]) == 5


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


def test_equals_are_both_on_the_front():
    assert pareto_front([1.0, 1.0, 1.0], [0.5, 0.5, 0.4]) == [True, True, False]
    assert pareto_front([], []) == []


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
