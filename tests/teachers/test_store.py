"""Files that say what they are, and cannot be mistaken for whole when they are not."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from answers import BATCH, COUNTS, FIRST, MAPS, NUM_VIEWS, make_store, manifest
from safetensors.torch import load_file

from tutelage.errors import StoreError
from tutelage.teachers.encoding import LogitsCode
from tutelage.teachers.manifest import Manifest, require_same
from tutelage.teachers.store import Store, existing, is_whole, write_shard

NAMES = ["logits", "maps/layer1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "store"
    assert make_store(folder, maps=MAPS).complete
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    place = tmp_path / "copy"
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def test_it_is_safetensors_and_json(folder: Path):
    # 31 pictures in files of 12, three views; 25 and 20 pictures in files of 20
    names = [path.name.rpartition("-")[0] for path in sorted(folder.glob("*.safetensors"))]
    assert len(names) == 1 + NUM_VIEWS * 3 + 2 + 1
    assert {"index", "train-0002-00002", "validation-0000-00001", "test-0000-00000"} <= set(names)
    shards = {name: load_file(path) for name, path in existing(folder).items()}
    assert shards["train-0001-00002"]["logits"].shape == (7, 3)
    assert shards["train-0001-00002"]["maps/layer1"].dtype == torch.bfloat16
    assert shards["test-0000-00000"].keys() == {"logits"}
    assert json.loads((folder / "manifest.json").read_text())["fingerprint"]["seed"] == 5


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path):
    top = LogitsCode("top", 3, top=1, temperature=2.0)
    sized = replace(MAPS["layer1"], size=(2, 2), kept="encoded", method={"kd": {"power": 2.0}})
    written = manifest(logits=top, maps={"layer1": sized})
    written.write(tmp_path)
    assert Manifest.read(tmp_path) == written


def test_bytes_are_counted_by_hand():
    fp16 = manifest(logits=LogitsCode("fp16", 3), maps=MAPS)
    # 3 logits of 2 bytes, a map of 4 · 4 · 4 of 2; validation in float32; test without maps
    assert [fp16.entry_bytes(part) for part in COUNTS] == [134, 140, 12]
    index = 8 * (31 + 25 + 20)
    assert fp16.total_bytes() == 31 * 3 * 134 + 25 * 140 + 20 * 12 + index


def test_files_take_what_was_counted(folder: Path):
    headers = 400 * len(list(folder.glob("*.safetensors")))
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    counted = Store(folder).manifest.total_bytes()
    assert counted <= size <= counted + headers


def test_entries_are_found_by_index_and_view(folder: Path):
    store = Store(folder)
    index = torch.tensor([30, 0, 12, 5])
    places = store.locate("train", index)
    assert places.tolist() == [30, 0, 12, 5]
    view = torch.tensor([0, 2, 2, 1])
    read = store.read("train", view, places, NAMES)
    shards = {name: load_file(path) for name, path in existing(folder).items()}
    for row in range(4):
        number, inside = divmod(int(index[row]), BATCH)
        shard = shards[f"train-{int(view[row]):04d}-{number:05d}"]
        for name in NAMES:
            assert torch.equal(read[name][row], shard[name][inside])


def test_pictures_of_another_part_are_not_found(folder: Path):
    store = Store(folder)
    index = torch.tensor([0, 31, -1, FIRST["test"], 2**41])
    assert store.locate("train", index).tolist() == [0, -1, -1, -1, -1]
    assert store.locate("test", index).tolist() == [-1, -1, -1, 0, -1]
    assert store.locate("train", index.repeat(2)[::2]).tolist()[0] == 0  # not contiguous


# Damage


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("where", [0, 9, 60, 0.5, -1])
def test_a_flipped_byte_in_any_file_is_found(copy: Path, where: float):
    for name, path in existing(copy).items():
        before = path.read_bytes()
        damage(path, int(where * len(before)) if isinstance(where, float) else where)
        assert not is_whole(path)
        if name == "index":
            with pytest.raises(StoreError, match=r"index-.* is damaged.*makes anew"):
                Store(copy)
        else:
            store = Store(copy)
            assert store.damaged() == [path.name]
            part, view, number = name.split("-")
            place = torch.tensor([int(number) * store.manifest.parts[part].shard_size])
            with pytest.raises(StoreError, match=f"{path.name} is damaged"):
                store.read(part, torch.tensor([int(view)]), place, ["logits"])
        path.write_bytes(before)
    assert Store(copy).damaged() == []


def test_a_missing_file_is_named(copy: Path):
    path = existing(copy)["train-0001-00001"]
    path.unlink()
    store = Store(copy)
    assert store.damaged() == [path.name]
    with pytest.raises(StoreError, match=f"lacks {path.name}.*makes what is missing"):
        store.read("train", torch.tensor([1]), torch.tensor([BATCH]), ["logits"])


def test_a_damaged_file_spoils_no_other(copy: Path):
    damage(existing(copy)["train-0001-00001"], -1)
    store = Store(copy)
    store.read("train", torch.tensor([0]), torch.tensor([BATCH]), ["logits"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "holds no manifest.json.*tutelage cache"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"schema": 1}', "is damaged"),
        ('{"schema": 7}', "has schema 7, and this version reads 1"),
    ],
)
def test_what_is_no_store_is_refused(copy: Path, text: str | None, words: str):
    path = copy / "manifest.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(StoreError, match=words):
        Store(copy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fingerprint", []),
        ("fingerprint", None),
        ("logits", 3),
        ("logits", {"kind": "fp16"}),
        ("maps", []),
        ("maps", {"layer1": None}),
        ("maps", {"layer1": {"shape": ["a", 2, 2], "channels_last": True}}),
        ("parts", 5),
        ("parts", {"train": 5}),
        ("parts", {"train": [31, 3, 0]}),
        ("parts", {"train": [31, 0, 12]}),
        ("parts", {"train": [-1, 3, 12]}),
        ("parts", {"train": ["31", 3, 12]}),
        ("parts", {"train": [31, 3]}),
        ("about", "x"),
        ("checksums", ["x"]),
        ("checksums", {"index": 3}),
    ],
)
def test_a_manifest_of_another_shape_is_damaged(copy: Path, key: str, value: object):
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        Store(copy)


def test_an_unfinished_store_is_refused(copy: Path):
    replace(Manifest.read(copy), checksums=None).write(copy)
    existing(copy)["train-0000-00000"].unlink()
    with pytest.raises(StoreError, match=r"is unfinished: 11 of 12 files.*goes on"):
        Store(copy)


def test_a_difference_is_named_with_both_values(tmp_path: Path):
    known = {"seed": 0, "views": {"flip": True}}
    require_same(tmp_path, known, {"seed": 0})
    with pytest.raises(StoreError, match="its seed is 0, and that of this run is 1"):
        require_same(tmp_path, known, {"seed": 1})
    with pytest.raises(StoreError, match=r'views is {"flip": true}, and .* is {"flip": false}'):
        require_same(tmp_path, known, {"views": {"flip": False}})
    with pytest.raises(StoreError, match="its batch size is null"):
        require_same(tmp_path, known, {"batch_size": 128})


# Memory


READING = """
import sys
from pathlib import Path
import torch
from tutelage.teachers.store import Store

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))

store = Store(Path(sys.argv[1]))
rows = store.manifest.parts["train"].pictures
some = torch.randint(rows, (50, 128), generator=torch.Generator().manual_seed(0))
zero = torch.zeros(128, dtype=torch.int64)
store.read("train", zero, some[0] % 1000, ["logits"])  # the first file alone
before = anonymous()
for places in some:
    read = store.read("train", zero, places, ["logits"])
    assert read["logits"].shape == (128, 1024)
print(before, anonymous())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts it there")
def test_anonymous_memory_does_not_grow_with_the_store(tmp_path: Path):
    """Two GiB of zeros in holes of the file system, so that only the reader could take memory."""
    rows, classes, files = 2**18, 1024, 4
    what = replace(
        manifest(logits=LogitsCode("fp32", classes), views=1),
        parts={
            name: part._replace(pictures=2 * rows if name == "train" else 0, shard_size=rows // 2)
            for name, part in manifest(views=1).parts.items()
        },
    )
    assert what.total_bytes() > 2**31
    checksums = {}
    header = json.dumps(
        {"logits": {"dtype": "F32", "shape": [rows // 2, classes], "data_offsets": [0, 2**29]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2**29)
    with sparse.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    for number in range(files):
        name = f"train-0000-{number:05d}"
        os.link(sparse, tmp_path / f"{name}-{checksum}.safetensors")
        checksums[name] = checksum
    index = {"train": torch.arange(2 * rows), "validation": torch.arange(0)}
    index["test"] = index["validation"].clone()
    path = write_shard(tmp_path, "index", index)
    checksums["index"] = path.stem.rpartition("-")[2]
    replace(what, checksums=checksums).write(tmp_path)

    done = subprocess.run(
        [sys.executable, "-c", READING, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")},
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after - before < 16 * 1024  # KiB; the store has two million
