"""Ways to spoil a picture; the table of them, and their source, stand in `index`."""

from tutelage.evaluation.corruptions.index import (
    CORRUPTIONS,
    SEVERITIES,
    Corruption,
    corrupt,
    corruptions_for,
    require,
)

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "corrupt", "corruptions_for", "require"]
