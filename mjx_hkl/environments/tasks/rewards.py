"""Terms that rewards of robots are made of: pure functions of one scene, without weights.

Those that grow with what is unwanted are given a negative weight. All are as in legged_gym and MuJoCo
Playground, but for squared errors over the tolerance squared.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx_hkl.environments.rotations import seen_from, turn_matrix
from mjx_hkl.environments.scene import Scene


def closeness(error: Float[Array, " n"], tolerance: float) -> Float[Array, ""]:
    """exp(−|error|²/tolerance²): 1 where there is no error, 0.37 at the tolerance."""
    return jnp.exp(-jnp.sum(error**2) / tolerance**2)


def velocity_tracking(scene: Scene, velocity: Float[Array, " 2"], tolerance: float = 0.5) -> Float[Array, ""]:
    """How close the torso's velocity ahead and to the left is to the one asked for, m/s."""
    ahead = seen_from(turn_matrix(scene.frame.heading)[:2, :2], scene.frame.velocity[:2])
    return closeness(ahead - velocity, tolerance)


def turn_tracking(scene: Scene, rate: Float[Array, ""], tolerance: float = 0.5) -> Float[Array, ""]:
    """How close the torso's turning to the left is to the rate asked for, rad/s."""
    return closeness(scene.frame.angular_velocity[2:] - rate, tolerance)


def upright(scene: Scene) -> Float[Array, ""]:
    """Cosine between the torso's up-axis and the world's."""
    return scene.frame.rotation[2, 2]


def alive() -> Float[Array, ""]:
    """1 for each step."""
    return jnp.ones(())


def action_rate(scene: Scene) -> Float[Array, ""]:
    """Sum of squares of how much actions change from one step to the next."""
    return jnp.sum((scene.action - scene.last_action) ** 2)


def power(scene: Scene) -> Float[Array, ""]:
    """What the actuators do and take up, W: the sum of |force · velocity|.

    A joint's own limit (`actuatorfrcrange`) is not counted: give it to the actuator, as `forcerange`.
    """
    return jnp.sum(jnp.abs(scene.actuator_forces * scene.actuator_velocities))


def posture(scene: Scene, rest: Float[Array, " joints"]) -> Float[Array, ""]:
    """Sum of squares of how far joints are from a rest position, radians or metres."""
    return jnp.sum((scene.joint_positions - rest) ** 2)


def sinking(scene: Scene) -> Float[Array, ""]:
    """Square of the torso's vertical velocity, (m/s)²."""
    return scene.frame.velocity[2] ** 2


def undesired_contacts(scene: Scene, *parts: str) -> Float[Array, ""]:
    """How many of these parts of the body touch the ground, such as torso and thighs; see `Scene.depths`."""
    return jnp.sum(scene.touches(*parts))


def air_time(
    scene: Scene, seconds: Float[Array, " feet"], wanted: float, control_seconds: float
) -> tuple[Float[Array, ""], Float[Array, " feet"]]:
    """How much longer than `wanted` (s) each foot that now lands was in the air, summed.

    Args:
      scene: after the step.
      seconds: each foot has been in the air, before it; a task's state keeps them.
      wanted: seconds.
      control_seconds: of a step; `Stage.control_seconds`.

    Returns:
      The term, and the seconds after the step.
    """
    touch = scene.feet_touch
    seconds = seconds + control_seconds
    lands = touch * (seconds > 1.5 * control_seconds)  # who stands does not land
    return jnp.sum(lands * (seconds - wanted)), seconds * (1 - touch)
