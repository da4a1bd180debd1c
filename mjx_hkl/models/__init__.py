"""What is learned: policies, default policies and critics, as flax nnx modules used as pytrees."""

from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import CriticConfig, DefaultPolicyConfig, Information, ModelConfig, PolicyConfig

__all__ = ["Agent", "CriticConfig", "DefaultPolicyConfig", "Information", "ModelConfig", "PolicyConfig"]
