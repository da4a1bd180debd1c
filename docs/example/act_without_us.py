"""The mean action of an exported hierarchical agent, with Orbax and JAX alone.

python act_without_us.py AGENT: the first action of an episode, for an observation of zeros.

It knows networks of kind "mlp", continuous actions and groups that are vectors. It knows no encoders, gates,
LayerNorm in the levels or flat policies; play_numpy.py, of an ONNX export, knows more.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


def load(folder: Path) -> tuple[dict, dict]:
    """What an agent says of itself, and its parameters by module."""
    about = json.loads((folder / "agent.json").read_text())
    if about["format_version"] != 2:
        sys.exit(f"{folder} has format version {about['format_version']}; this script reads version 2")
    if about["recipe"]["encoders"] or about["recipe"]["policy"]["actions"] != "gaussian":
        sys.exit(f"{folder} has encoders or discrete actions, which this script does not know")
    for level in (about["recipe"]["policy"][name] for name in ("high_level", "low_level")):
        more = any(level.get(name) for name in ("gated", "layer_norm", "mean_bound", "coefficient"))
        if level["kind"] != "mlp" or more:
            sys.exit(f"{folder} has networks that this script does not know")
    with ocp.StandardCheckpointer() as checkpointer:
        return about, checkpointer.restore(folder.absolute() / "parameters")


def mean(module: dict, inputs: list[jax.Array]) -> jax.Array:
    """ELU layers and the mean half of a Gaussian head."""
    x = jnp.concatenate(inputs)
    for layer in (module["torso"]["layers"][str(i)] for i in range(len(module["torso"]["layers"]))):
        x = jax.nn.elu(x @ layer["kernel"] + layer["bias"])
    head = module["head"]["linear"]
    return jnp.split(x @ head["kernel"] + head["bias"], 2)[0]


def act(about: dict, parameters: dict, observation: dict[str, jax.Array]) -> jax.Array:
    """Each module is given what `sees` names, in that order; the previous latent starts at zero."""

    def see(module: str, latent: jax.Array) -> list[jax.Array]:
        return [observation.get(name, latent) for name in about["modules"][module]["sees"]]

    latent_size = about["recipe"]["policy"]["high_level"]["latent_size"]
    latent = mean(parameters["policy.high_level"], see("policy.high_level", jnp.zeros(latent_size)))
    return jnp.tanh(mean(parameters["policy.low_level"], see("policy.low_level", latent)))


if __name__ == "__main__":
    about, parameters = load(Path(sys.argv[1]))
    groups = about["world"]["observation"]
    print(act(about, parameters, {name: jnp.zeros(spec["shape"]) for name, spec in groups.items()}))
