"""The index of transfer methods. A method is one file; its module docstring is its page."""

from tutelage.methods._base import Method, Needs
from tutelage.methods.attention_transfer import AttentionTransfer
from tutelage.methods.dct_attention import DCTAttention
from tutelage.methods.embedded_distillation import EmbeddedDistillation
from tutelage.methods.fitnet_hints import FitNetHints
from tutelage.methods.geometric import Geometric
from tutelage.methods.kd import KD
from tutelage.methods.knowledge_projection import KnowledgeProjection

__all__ = [
    "KD",
    "METHODS",
    "AttentionTransfer",
    "DCTAttention",
    "EmbeddedDistillation",
    "FitNetHints",
    "Geometric",
    "KnowledgeProjection",
    "Method",
    "Needs",
]

METHODS: dict[str, type[Method]] = {
    "attention_transfer": AttentionTransfer,
    "dct_attention": DCTAttention,
    "embedded_distillation": EmbeddedDistillation,
    "fitnet_hints": FitNetHints,
    "geometric": Geometric,
    "kd": KD,
    "knowledge_projection": KnowledgeProjection,
}
"""Name in recipes → class, in alphabetical order."""
