"""What is learned: policies, default policies and critics, as flax nnx modules used as pytrees.

Import from the modules: `config` says what an agent is made of without loading JAX.
"""
