"""The index of transfer methods. A method is one file; its module docstring is its page."""

from tutelage.methods._base import Method, Needs
from tutelage.methods.attention_transfer import AttentionTransfer
from tutelage.methods.dct_attention import DCTAttention
from tutelage.methods.fitnet_hints import FitNetHints
from tutelage.methods.geometric import Geometric
from tutelage.methods.kd import KD
from tutelage.methods.knowledge_projection import KnowledgeProjection

__all__ = [
    "KD",
    "METHODS",
    "AttentionTransfer",
    "DCTAttention",
    "FitNetHints",
    "Geometric",
    "KnowledgeProjection",
    "Method",
    "Needs",
]

METHODS: dict[str, type[Method]] = {
    "attention_transfer": AttentionTransfer,
    "dct_attention": DCTAttention,
    "fitnet_hints": FitNetHints,
    "geometric": Geometric,
    "kd": KD,
    "knowledge_projection": KnowledgeProjection,
}
"""Name in recipes → class, in alphabetical order."""
