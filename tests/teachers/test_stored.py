"""A stored teacher answers as the live one did, and says so when it cannot."""

import copy
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import final

import pytest
import torch
from answers import COUNTS, FIRST, MAPS, NUM_VIEWS, VIEWS, make_store, part_of, question
from small_run import tiny

from tutelage.data import EvalLoader, TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine.phases import end_phase
from tutelage.errors import NetworkError, StoreError
from tutelage.methods import KD, AttentionTransfer, Method, Needs
from tutelage.taps import Stage
from tutelage.teachers import LiveTeacher, StoredTeacher, Teacher
from tutelage.types import Batch, Findings, Phase, Terms, TransferBatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "store"
    make_store(folder, maps=MAPS)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def batch(index: list[int], view: list[int] | None = None) -> Batch:
    count = len(index)
    labels = torch.zeros(count, dtype=torch.int64)
    views = torch.tensor([0] * count if view is None else view)
    return Batch(torch.zeros(count, 1, 8, 8), labels, labels == 0, torch.tensor(index), views)


def test_it_is_a_teacher(folder: Path):
    teacher = StoredTeacher(folder)
    assert isinstance(teacher, Teacher)
    assert teacher.takes_pixels
    assert teacher.num_views == NUM_VIEWS
    assert teacher.stages(None) == [Stage("layer1", (4, 4, 4), (2, 2))]


def test_it_answers_every_visit_as_the_live_one(folder: Path):
    stored, live = StoredTeacher(folder), question(taps=("layer1",)).teacher
    data = TrainLoader(part_of("train"), VIEWS, batch_size=12, seed=5, num_views=NUM_VIEWS)
    seen_views = set()
    for step in range(13):  # five epochs, so the views come around again
        shown = data.batch(step)
        mine, theirs = (one.observe(shown, ("layer1",)) for one in (stored, live))
        assert torch.equal(mine.output, theirs.output)
        assert mine.output.dtype == torch.float32
        assert torch.equal(mine.features["layer1"], theirs.features["layer1"].bfloat16().float())
        assert shown.view is not None
        seen_views |= set(shown.view.tolist())
    assert seen_views == {0, 1, 2}


def test_views_and_pictures_differ(folder: Path):
    outputs = StoredTeacher(folder).observe(batch([4, 4, 4, 5], [0, 1, 2, 0])).output
    assert outputs.isfinite().all()
    assert len(outputs.unique(dim=0)) == 4


@pytest.mark.parametrize("part", ["validation", "test"])
def test_it_answers_pictures_as_they_are(folder: Path, part: str):
    stored, live = StoredTeacher(folder), question().teacher
    for shown in EvalLoader(part_of(part), batch_size=20):
        assert torch.equal(stored.observe(shown).output, live.observe(shown, ()).output)


def test_a_batch_may_mix_parts(folder: Path):
    teacher = StoredTeacher(folder)
    index = [3, FIRST["test"] + 1, FIRST["validation"], 30]
    together = teacher.observe(batch(index, [2, 0, 0, 1])).output
    for row, (which, view) in enumerate(zip(index, [2, 0, 0, 1], strict=True)):
        alone = teacher.observe(batch([which], [view])).output
        assert torch.equal(together[row : row + 1], alone)


def test_the_same_picture_twice_gets_the_same_answer(folder: Path):
    seen = StoredTeacher(folder).observe(batch([7, 7], [1, 1]), ("layer1",))
    assert torch.equal(seen.output[0], seen.output[1])
    assert torch.equal(seen.features["layer1"][0], seen.features["layer1"][1])


@final
class Looks(Method):
    """Notes what the teacher says of held-out pictures."""

    needs = Needs(outputs=("logits",))

    def forward(self, batch: TransferBatch) -> Terms:
        return {"gap": (batch.student.output - batch.teachers[0].output).square().sum(1).mean()}

    def end_phase(self, phase: Phase) -> Findings:
        said = [seen.teachers[0].output.tolist() for seen in phase.held_out()]
        return Findings({"said": said, "after": phase.lookahead(["gap"])})


def test_it_answers_for_held_out_pictures_between_phases(folder: Path):
    data = TrainLoader(part_of("train"), VIEWS, batch_size=12, seed=5, num_views=NUM_VIEWS)
    held_out = EvalLoader(part_of("validation"), batch_size=20)
    found = []
    for teacher in (StoredTeacher(folder), question().teacher):
        pupil = Distiller(tiny(), teacher, methods={"looks": (Looks(), 1.0)})
        found.append(end_phase(pupil, 0, held_out, data.batch(3), lr=0.1, progress=0.5)["looks"])
    assert found[0].values == found[1].values
    assert [len(said) for said in found[0].values["said"]] == [20, 5]


# What it needs to be told


@pytest.mark.parametrize("missing", ["index", "view"])
def test_it_must_know_which_samples_and_views(folder: Path, missing: str):
    shown = replace(batch([1]), **{missing: None})
    with pytest.raises(StoreError, match=r"index=\.\.\. and view=\.\.\. for each batch"):
        StoredTeacher(folder).observe(shown)


def test_an_own_loop_gives_them(folder: Path):
    pupil = Distiller(tiny(), StoredTeacher(folder), methods={"kd": (KD(), 1.0)})
    data = TrainLoader(part_of("train"), VIEWS, batch_size=12, seed=5, num_views=NUM_VIEWS)
    shown = data.batch(0)
    out = pupil(shown.images, shown.targets, index=shown.index, view=shown.view)
    out.loss.backward()
    live = Distiller(tiny(), question().teacher, methods={"kd": (KD(), 1.0)})
    torch.manual_seed(0)  # dropout
    one = pupil(shown.images, shown.targets, index=shown.index, view=shown.view)
    torch.manual_seed(0)
    other = live(shown.images, shown.targets)
    assert torch.equal(one.terms["kd.kl"], other.terms["kd.kl"])
    assert torch.equal(one.loss, other.loss)
    assert one.loss.isfinite()
    with pytest.raises(StoreError, match="call the distiller with index"):
        pupil(shown.images, shown.targets)


def test_another_picture_is_refused(folder: Path):
    with pytest.raises(StoreError, match=r"no answer for picture 99 \(2 of 3 in this batch"):
        StoredTeacher(folder).observe(batch([1, 99, 98]))


@pytest.mark.parametrize("view", [NUM_VIEWS, -1])
def test_another_view_is_refused(folder: Path, view: int):
    with pytest.raises(StoreError, match=rf"views 0 to 2 .* view {view} .*num_views to 3"):
        StoredTeacher(folder).observe(batch([1, 2], [0, view]))


def test_views_of_pictures_as_they_are_are_refused(folder: Path):
    with pytest.raises(StoreError, match="pictures as they are, view 0"):
        StoredTeacher(folder).observe(batch([FIRST["validation"]], [1]))


def test_maps_that_were_not_kept_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(NetworkError, match=r"no maps of the teacher's tap 'layer2'.*layer1"):
        StoredTeacher(folder).tap(["layer1", "layer2"])
    with pytest.raises(StoreError, match=r"no maps of test pictures.*leave teacher.cache out"):
        StoredTeacher(folder).observe(batch([FIRST["test"]]), ("layer1",))
    make_store(tmp_path / "bare")
    methods = {"at": (AttentionTransfer(), 1.0)}
    with pytest.raises(NetworkError, match="it holds no maps at all"):
        Distiller(tiny(), StoredTeacher(tmp_path / "bare"), methods=methods)


def test_a_choice_gets_no_answer_to_test(folder: Path):
    teacher = StoredTeacher(folder).without_test()
    teacher.observe(batch([0, FIRST["validation"]]))
    for one in (teacher, copy.deepcopy(teacher)):
        with pytest.raises(StoreError, match="no answer for picture 2000"):
            one.observe(batch([FIRST["test"]]))


# What happens to a distiller happens to it


def test_it_is_copied_pickled_moved_and_cast(folder: Path):
    teacher = StoredTeacher(folder)
    before = teacher.observe(batch([0])).output
    for again in (copy.deepcopy(teacher), pickle.loads(pickle.dumps(teacher))):
        assert torch.equal(again.observe(batch([0])).output, before)
    pupil = Distiller(tiny(), teacher, methods={"kd": (KD(), 1.0)})
    pupil.double()
    assert torch.equal(teacher.observe(batch([0])).output, before)
    assert not any("teacher" in name for name in pupil.state_dict())


def test_methods_that_compare_maps_run_from_it(folder: Path):
    methods = {"at": (AttentionTransfer(), 10.0)}
    pupil = Distiller(
        tiny(), StoredTeacher(folder), methods=methods, taps=[("layer1", "layer1")]
    ).eval()
    live = Distiller(
        tiny(), LiveTeacher(tiny(7)), methods={"at": (AttentionTransfer(), 10.0)},
        taps=[("layer1", "layer1")],
    ).eval()  # fmt: skip
    shown = EvalLoader(part_of("validation"), batch_size=20)
    for one in shown:
        terms = [
            each(one.images, one.targets, index=one.index, view=one.view).terms["at.at/layer1"]
            for each in (pupil, live)
        ]
        assert torch.allclose(terms[0], terms[1], rtol=0.02)  # maps are kept in bfloat16
        assert terms[0] > 0


def test_pairs_are_found_by_the_stages_it_had(folder: Path):
    pupil = Distiller(tiny(), StoredTeacher(folder), methods={"at": (AttentionTransfer(), 1.0)})
    assert [tuple(pair) for pair in pupil.pairs] == [("layer1", "layer1")]


def test_reading_warns_of_nothing(folder: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StoredTeacher(folder).observe(batch(list(range(COUNTS["train"]))), ("layer1",))
