"""A policy in ONNX in a world of ours, through onnxruntime: who acts in evaluations and videos."""

import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from mjx_hkl.environments.engines.host_call import host_call
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.evaluation import Acted
from mjx_hkl.experiments.onnx.card import ACTION, CARRY, IS_FIRST, NEXT_CARRY, NOISE, PolicyCard, card_of

_DRAW = {"normal": jax.random.normal, "gumbel": jax.random.gumbel}


class _Session:
    """A graph that onnxruntime runs: arrays joined to one go in, and one comes out."""

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("playing ONNX needs onnxruntime: pip install 'mjx-hkl[onnx]'") from error
        if not path.is_file():
            raise UserError(f"{path} does not exist")
        content = path.read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # such networks are small
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever it says of a broken file
            raise UserError(f"{path} is no ONNX model that onnxruntime can run; export it again") from error
        self.card = card_of(self._session.get_modelmeta().custom_metadata_map, path)
        self.name = f"onnx_{hashlib.sha256(content).hexdigest()[:16]}"

    def __call__(self, given: np.ndarray) -> np.ndarray:
        """Any number of leading batch axes in, the same out."""
        rows = given.reshape(-1, given.shape[-1])
        ends = np.cumsum([spec.size for spec in self.card.inputs().values()])[:-1]
        arrays = {
            name: part.reshape(-1, *spec.shape).astype(spec.dtype)
            for (name, spec), part in zip(
                self.card.inputs().items(), np.split(rows, ends, axis=1), strict=True
            )
        }
        found = self._session.run(list(self.card.outputs()), arrays)
        joined = [np.asarray(x, np.float32).reshape(len(rows), -1) for x in found]
        return np.concatenate(joined, axis=1).reshape(*given.shape[:-1], -1)


@flax.struct.dataclass
class OnnxPolicy:
    """An `Actor`: see `models.agent.Agent`. Its carry and noise are arrays by name."""

    session: Any = flax.struct.field(pytree_node=False)

    @property
    def card(self) -> PolicyCard:
        """What it says of itself."""
        return self.session.card

    def start(self, batch: tuple[int, ...]) -> dict[str, Array]:
        """The carry for the first step of an episode."""
        return {
            name: jnp.broadcast_to(jnp.asarray(leaf.start, leaf.dtype), (*batch, *leaf.shape))
            for name, leaf in self.card.carry.items()
        }

    def noise(self, key: PRNGKeyArray, batch: tuple[int, ...]) -> dict[str, Array]:
        """Random numbers of one step.

        Raises:
          UserError: the policy was written without inputs for them.
        """
        if not self.card.noise:
            raise UserError("this is a mean policy without noise: write it with mjx-hkl export --stochastic")
        keys = jax.random.split(key, len(self.card.noise))
        return {
            name: _DRAW[noise.distribution](key, (*batch, *noise.shape))
            for key, (name, noise) in zip(keys, self.card.noise.items(), strict=True)
        }

    def no_noise(self, batch: tuple[int, ...]) -> dict[str, Array]:
        """Those of the mean action."""
        return {name: jnp.zeros((*batch, *noise.shape)) for name, noise in self.card.noise.items()}

    def step(
        self, carry: dict[str, Array], observation: dict[str, Array], is_first: Array, noise: dict[str, Array]
    ) -> tuple[dict[str, Array], Acted]:
        """One step of a batch of worlds."""
        given = {IS_FIRST: is_first, **observation}
        given |= {CARRY + name: x for name, x in carry.items()} | {
            NOISE + name: x for name, x in noise.items()
        }
        batch = is_first.shape
        parts = [given[name].reshape(*batch, -1).astype(jnp.float32) for name in self.card.inputs()]
        outputs = self.card.outputs()
        size = sum(spec.size for spec in outputs.values())
        call = functools.partial(host_call, self.session.name, self.session, size=size)
        found = jax.vmap(call)(jnp.concatenate(parts, axis=-1))
        ends = np.cumsum([spec.size for spec in outputs.values()])[:-1].tolist()
        after = {
            name: x.reshape(*batch, *spec.shape).astype(spec.dtype)
            for (name, spec), x in zip(outputs.items(), jnp.split(found, ends, axis=-1), strict=True)
        }
        return {name: after[NEXT_CARRY + name] for name in carry}, Acted(after[ACTION])


def load_policy(path: Path) -> OnnxPolicy:
    """The policy of a `.onnx` file.

    Raises:
      UserError: there is none, or it is damaged or not ours, or onnxruntime is not installed.
    """
    return OnnxPolicy(_Session(path))


def require_world(policy: OnnxPolicy, world: Any, name: str) -> None:
    """Raises UserError where the world does not show what the policy sees, or takes other actions."""
    shown, card = world.observation_specs, policy.card
    for group, spec in card.observation.items():
        if shown.get(group) != spec:
            told = f"has no group {group!r}" if group not in shown else f"shows {group} as {shown[group]}"
            raise UserError(f"environment {name!r} {told}; the policy sees {group} as {spec}")
    size = card.action.choices if card.action.choices is not None else math.prod(card.action.shape)
    if (world.action_kind == "categorical", world.action_size) != (card.action.choices is not None, size):
        raise UserError(
            f"environment {name!r} takes {world.action_size} actions, and the policy gives {size}"
        )
