"""Makes a folder of classes from a detection set in Pascal VOC layout: one picture per box.

    python examples/boxes.py BCCD crops --labelled 40
    tutelage distill --data crops --unlabelled crops-more --teacher runs/teacher --student …

With `--labelled N` only N boxes of each class are kept for training with their label, the same ones
every time; the others go, without it, into a folder beside, named …-more.
"""

import argparse
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from PIL import Image


class Box(NamedTuple):
    """What a file says of one object: pixels from 1, the far corner included."""

    name: str
    left: int
    top: int
    right: int
    bottom: int

    @property
    def is_thin(self) -> bool:
        """It is less than two pixels wide or high, so that there is nothing to be seen."""
        return self.right <= self.left or self.bottom <= self.top

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """As Pillow wants them: from 0, the far corner left out."""
        return max(self.left - 1, 0), max(self.top - 1, 0), self.right, self.bottom


def boxes_of(annotation: Path) -> Iterator[Box]:
    """The boxes of one picture, in the file's order."""
    for item in ElementTree.parse(annotation).getroot().iter("object"):
        place = item.find("bndbox")
        name = item.findtext("name")
        if place is None or not name or Path(name).name != name or name.startswith("."):
            raise SystemExit(f"{annotation} has an object without a box, or named {name!r}.")
        sides = (place.findtext(key, "") for key in ("xmin", "ymin", "xmax", "ymax"))
        yield Box(name, *(int(float(side)) for side in sides))


def more_beside(out: Path) -> Path:
    """The folder of pictures that lose their label."""
    return out.with_name(f"{out.name}-more")


def cut(voc: Path, out: Path, labelled: int | None) -> Counter[str]:
    """Writes the pictures; how many there are of each kind, and "too thin"."""
    found: Counter[str] = Counter()
    for part in ("train", "val", "test"):
        listed = voc / "ImageSets" / "Main" / f"{part}.txt"
        files = listed.read_text().splitlines() if listed.is_file() else []
        crops: dict[str, list[tuple[str, Image.Image]]] = defaultdict(list)
        for file in filter(None, map(str.strip, files)):
            with Image.open(voc / "JPEGImages" / f"{file}.jpg") as picture:
                for number, box in enumerate(boxes_of(voc / "Annotations" / f"{file}.xml")):
                    if box.is_thin:
                        found["too thin"] += 1
                        continue
                    name = f"{file}-{number:02}.png"
                    crops[box.name].append((name, picture.crop(box.corners).convert("RGB")))
        for label, pictures in crops.items():
            known = labelled if part == "train" else None
            pictures.sort(key=lambda one: hashlib.blake2b(one[0].encode()).digest())
            for place, (name, crop) in enumerate(pictures):
                keeps = known is None or place < known
                to = out / part / label if keeps else more_beside(out)
                to.mkdir(parents=True, exist_ok=True)
                crop.save(to / name)
                found[f"{part} {label}" if keeps else "more, without label"] += 1
    return found


def main() -> None:
    """Cuts, and says how much."""
    parser = argparse.ArgumentParser(description="A folder of classes from a VOC detection set.")
    parser.add_argument("voc", type=Path, help="folder with Annotations, ImageSets, JPEGImages")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--labelled", type=int, help="boxes of each class that keep their label")
    given = parser.parse_args()
    if not (given.voc / "Annotations").is_dir():
        raise SystemExit(f"{given.voc} has no folder Annotations. Name a folder in VOC layout.")
    for folder in (given.out, more_beside(given.out)):
        if folder.exists():
            raise SystemExit(f"{folder} exists. Name another, or remove it.")
    if not (given.voc / "ImageSets" / "Main" / "train.txt").is_file():
        raise SystemExit(f"{given.voc} lists nothing in ImageSets/Main/train.txt.")
    for what, count in sorted(cut(given.voc, given.out, given.labelled).items()):
        print(f"{count:6,}  {what}")


if __name__ == "__main__":
    main()
