"""Comparisons: many runs, one table."""

from tutelage.comparison.cluster import Share
from tutelage.comparison.compare import Comparison, compare
from tutelage.comparison.spec import Row, Spec, read_spec

__all__ = ["Comparison", "Row", "Share", "Spec", "compare", "read_spec"]
