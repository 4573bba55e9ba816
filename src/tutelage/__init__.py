"""tutelage makes a small, fast vision network do a large one's job.

Public names are imported when they are first asked for, so that importing the package, or showing
the command line's help, loads no torch. The library face (`Distiller`, methods, networks, `load`)
needs torch, numpy, safetensors and jaxtyping alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.comparison import compare as compare
    from tutelage.distiller import Distiller as Distiller
    from tutelage.distiller import Schedule as Schedule
    from tutelage.exporting import Form as Form
    from tutelage.methods import KD as KD
    from tutelage.methods import AttentionTransfer as AttentionTransfer
    from tutelage.methods import FitNetHints as FitNetHints
    from tutelage.models.network import Network as Network
    from tutelage.models.saved import load as load
    from tutelage.runs import evaluate as evaluate
    from tutelage.runs import export as export
    from tutelage.runs import train as train
    from tutelage.teachers import LiveTeacher as LiveTeacher
    from tutelage.teachers import StoredTeacher as StoredTeacher
    from tutelage.types import InputSpec as InputSpec

__version__ = "0.1.0"

_PUBLIC = {
    "AttentionTransfer": "tutelage.methods",
    "Distiller": "tutelage.distiller",
    "Form": "tutelage.exporting",
    "FitNetHints": "tutelage.methods",
    "InputSpec": "tutelage.types",
    "KD": "tutelage.methods",
    "LiveTeacher": "tutelage.teachers",
    "Network": "tutelage.models.network",
    "Schedule": "tutelage.distiller",
    "StoredTeacher": "tutelage.teachers",
    "compare": "tutelage.comparison",
    "evaluate": "tutelage.runs",
    "export": "tutelage.runs",
    "load": "tutelage.models.saved",
    "train": "tutelage.runs",
}

__all__ = [
    "KD",
    "AttentionTransfer",
    "Distiller",
    "FitNetHints",
    "Form",
    "InputSpec",
    "LiveTeacher",
    "Network",
    "Schedule",
    "StoredTeacher",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "load",
    "methods",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "methods":
        return import_module("tutelage.methods")
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'tutelage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
