"""The README that lies beside an exported file: what it is, what it says, how it is called."""

import html
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tutelage.exporting.form import About
from tutelage.report.tables import count, percent

__all__ = ["card", "plain"]

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")


def plain(text: str) -> str:
    r"""Text that means nothing to Markdown or HTML, on one line.

    >>> plain("a_b <i>[x](y)</i>")
    'a\\_b &lt;i&gt;\\[x\\](y)&lt;/i&gt;'
    """
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _fenced(text: str, language: str) -> str:
    """A block of code that nothing in it can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def card(about: About, entry: Mapping[str, Any], record: Mapping[str, Any], timm: str) -> str:
    """A model card in Markdown.

    Args:
        entry: of the export, as it goes into the record.
        record: of the run.
        timm: how timm makes the network from weights beside; empty if it does not know it.
    """
    form, spec = about.form, about.spec
    head = {
        "library_name": form.target,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation", "tutelage"],
    }
    size = f"{spec.height}×{spec.width}"
    pictures = "gray" if spec.channels == 1 else "RGB"
    whole = about.name if about.subnet is None else f"{about.name}, sub-net {about.subnet}"
    shown = "n" if form.batch is None else form.batch
    many = "any number of" if form.batch is None else f"exactly {form.batch}"
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {plain(record['name'])}: {plain(whole)}, {plain(form.name)}",
        "",
        f"Tells {plain(_classes(about, record))} apart. Trained and exported by tutelage "
        f"{plain(about.made_by)}; {plain(count(entry['parameters']))} parameters, "
        f"{plain(count(entry['macs']))} multiply-accumulates per picture.",
        "",
        "## Whether it is the same",
        "",
        *_table(entry),
        "",
        f"Both were shown the same {entry['parity']['pictures']:,} test pictures. The largest "
        f"difference of a logit is {entry['parity']['largest_difference']:.3g}; both name the same "
        f"class for {percent(entry['parity']['same_answer'])}. Latency: median for one picture, "
        f"{entry['threads']} thread(s), {plain(str(entry['hardware']['processor']))}.",
        "",
        "## How it is called",
        "",
        f"`{form.file}` takes `images`, float32 of shape ({shown}, {spec.channels}, {spec.height}, "
        f"{spec.width}), {many} {pictures} pictures of {size}, {_scale(about)}. It puts out "
        f"`logits`, float32 of shape ({shown}, classes).",
        "",
        _fenced(_call(about), "python"),
        "",
        *_shown(about),
        *(
            ["", "Its weights lie beside it, for timm:", "", _fenced(timm, "python")]
            if timm
            else []
        ),
        "",
        "## How it was made",
        "",
        _fenced(yaml.safe_dump(record["recipe"], sort_keys=False, allow_unicode=True), "yaml"),
        "",
        f"Run {plain(record['name'])}, commit {plain(str(record['commit'] or 'unknown'))}, code "
        f"{plain(record['code'])}; exported by the command",
        "",
        _fenced(" ".join(entry["command"].split()), "console"),
        "",
        "## License",
        "",
        "The licenses of the training pictures, and of the teacher's weights if there was one, say "
        "what may be done with these weights. Nobody has looked at them for you.",
        "",
    ]
    return "\n".join(lines)


def _classes(about: About, record: Mapping[str, Any]) -> str:
    names = about.classes
    number = len(names) or record["data"]["classes"]
    if not names or len(names) > 20:
        return f"{number} classes"
    return f"{number} classes ({', '.join(names)})"


def _scale(about: About) -> str:
    if not about.form.normalized:
        return "pixels in [0, 1]; it normalizes by itself"
    mean, std = (", ".join(f"{value:.6g}" for value in pair) for pair in about.spec[3:5])
    return f"normalized: pixels in [0, 1], minus ({mean}), over ({std})"


def _table(entry: Mapping[str, Any]) -> list[str]:
    """Network and file side by side."""
    parity = entry["parity"]
    agreement = parity["teacher_agreement"]
    head = ["", "test accuracy", *(["as its teacher"] if agreement else []), "bytes", "latency"]
    rows = [head, ["---"] * len(head)]
    for name, title in (("network", "PyTorch, fp32"), ("exported", entry["name"])):
        cells = [plain(title), percent(parity["accuracy"][name])]
        cells += [percent(agreement[name])] if agreement else []
        cells += [f"{entry['bytes'][name]:,}", f"{entry['latency_ms'][name]:.2f} ms"]
        rows.append(cells)
    return [f"| {' | '.join(row)} |" for row in rows]


def _call(about: About) -> str:
    form, spec = about.form, about.spec
    number = form.batch or 1
    shape = f"{number}, {spec.channels}, {spec.height}, {spec.width}"
    if form.target == "onnx":
        return (
            "import numpy as np\nimport onnxruntime\n\n"
            f'session = onnxruntime.InferenceSession("{form.file}")\n'
            f"images = np.zeros(({shape}), np.float32)\n"
            '(logits,) = session.run(["logits"], {"images": images})'
        )
    images = f"images = torch.zeros({shape})"
    if form.target == "executorch":
        return (
            "import torch\nfrom executorch.runtime import Runtime\n\n"
            f'method = Runtime.get().load_program("{form.file}").load_method("forward")\n'
            f"{images}\n(logits,) = method.execute([images])"
        )
    return (
        "import torch\n\n# Reading a .pt2 file may run what is in it: trust whom it is from.\n"
        f'network = torch.export.load("{form.file}").module()\n{images}\nlogits = network(images)'
    )


def _shown(about: About) -> list[str]:
    """How photographs become pictures."""
    rule = about.rule
    resized = about.spec[:2] != (rule.size, rule.size)
    lines = [
        "A photograph becomes such a picture so: its short side is shrunk or enlarged to "
        f"{rule.side} pixels, and the {rule.size}×{rule.size} pixels in its middle are shown"
        f"{', resized' * resized}."
    ]
    if about.form.target != "torch":
        lines += ["", _fenced(f"tutelage predict {about.form.file} photograph.jpg", "console")]
    return lines
