"""tutelage makes a small, fast vision network do a large one's job."""

__version__ = "0.1.0"
