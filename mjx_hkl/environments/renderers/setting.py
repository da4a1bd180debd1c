"""What every renderer shares: the camera's table, what is drawn at one moment, colours and light."""

import dataclasses
from typing import Annotated, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8
from pydantic import AllowInfNan

from mjx_hkl.config import Fraction
from mjx_hkl.environments.bodies import Body
from mjx_hkl.environments.boxes import Boxes
from mjx_hkl.errors import UserError

Pixels = Annotated[int, Ge(1), Le(1024)]
Part = Literal["arena", "body", "boxes", "targets"]
Colour = tuple[Fraction, Fraction, Fraction]


@dataclasses.dataclass(frozen=True)
class CameraConfig:
    """The `[camera]` table of an environment file."""

    name: str = "egocentric"  # of a camera on the torso in the body's file
    width: Pixels = 64  # pixels
    height: Pixels = 64  # pixels
    fovy: Annotated[float, Ge(1.0), Le(170.0), AllowInfNan(False)] | None = None  # degrees; None: the file's
    frames: Annotated[int, Ge(1), Le(16)] = 1  # stacked, oldest first; a start is seen as often
    drawn: tuple[Part, ...] = ("arena", "body", "boxes", "targets")  # what pictures show
    checkered: bool = True  # a floor of squares of a metre, by which motion is seen; else of one colour
    ringed: bool = True  # a white ring on targets that are not asked for
    target_colour: Colour = (0.85, 0.25, 0.2)  # red, green, blue of these; what is asked for is black
    sky_colour: Colour = (0.55, 0.7, 0.85)  # red, green, blue
    random_colours: Fraction = 0.0  # how far each episode's colours go to others at random; black stays
    random_light: Fraction = 0.0  # likewise its sun


class Seen(NamedTuple):
    """All that one picture is drawn from.

    Attributes:
      qpos: of the model.
      mocap_pos: metres.
      position: of the centres of the task's marks in the world, metres.
      radius: of these.
      selected: 1.0 for those that are asked for.
      look: what is random about an episode's pictures, of `Appearance.draw`.
    """

    qpos: Float[Array, " nq"]
    mocap_pos: Float[Array, "nmocap 3"]
    position: Float[Array, "marks 3"]
    radius: Float[Array, " marks"]
    selected: Float[Array, " marks"]
    look: Float[Array, " look"]


class Traced(NamedTuple):
    """A picture, and what is behind each pixel.

    Attributes:
      image: red, green, blue.
      depth: along the camera's axis, metres; nothing is said of the sky.
      geom: its number in the model, or, from `ngeom` on, that of a mark; -1 is the sky.
    """

    image: UInt8[Array, "height width 3"]
    depth: Float[Array, "height width"]
    geom: Int[Array, "height width"]


class Renderer(Protocol):
    """Draws what one world's camera sees. Pure and unbatched: made to be vmapped."""

    name: str
    not_shared: str  # why several devices cannot share its worlds; empty where they can

    def image(self, seen: Seen) -> UInt8[Array, "height width 3"]:
        """The picture alone."""
        ...

    def trace(self, seen: Seen) -> Traced:
        """The picture, and what is behind each pixel."""
        ...


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a renderer is made for.

    Attributes:
      config: of the camera.
      spec: what the model was compiled from; a renderer that changes it takes a copy.
      model: the world's.
      body: reads its body's part.
      boxes: reads theirs.
      num_marks: of the task.
    """

    config: CameraConfig
    spec: mujoco.MjSpec
    model: mujoco.MjModel
    body: Body
    boxes: Boxes
    num_marks: int

    @property
    def camera(self) -> int:
        """The camera's number.

        Raises:
          UserError: the body has none of that name, or it is not fixed to the torso.
        """
        name, model = self.config.name, self.model
        known = {model.camera(i).name: i for i in range(model.ncam)}
        if name not in known:
            have = ", ".join(map(repr, known)) or "none"
            raise UserError(f"[camera]: the body has no camera {name!r}; it has {have}")
        camera = known[name]
        is_fixed = model.cam_mode[camera] == mujoco.mjtCamLight.mjCAMLIGHT_FIXED
        if not is_fixed or model.cam_bodyid[camera] != self.torso:
            raise UserError(f"[camera]: camera {name!r} must be fixed to the body's torso")
        return camera

    @property
    def torso(self) -> int:
        """The number of the body that the camera is on."""
        return self.model.body(self.body.anatomy.torso).id

    @property
    def box_numbers(self) -> dict[int, int]:
        """Of each box, by the number of its body."""
        return {self.model.body(f"box{i}").id: i for i in range(self.boxes.count)}

    def is_drawn(self, geom: int) -> bool:
        """Whether it is seen: MuJoCo would draw it, and the table does not leave its part out."""
        model, body = self.model, self.model.geom_bodyid[geom]
        if model.geom_group[geom] > 2 or rgba(model, geom)[3] == 0:
            return False
        if model.body_rootid[body] == self.torso:
            return "body" in self.config.drawn
        return ("boxes" if body in self.box_numbers else "arena") in self.config.drawn

    @property
    def marks_drawn(self) -> int:
        """Marks that are seen."""
        return self.num_marks if "targets" in self.config.drawn else 0


class Shades(NamedTuple):
    """Colours and light of an episode's pictures. What faces away from light has ambient times its colour.

    Attributes:
      colours: of all geoms, then of the marks that are not asked for.
      light: direction to the light in the world.
      ambient: from 0 to 1.
    """

    colours: Float[Array, "shapes 3"]
    light: Float[Array, " 3"]
    ambient: Array | float


class Appearance:
    """Draws what is random about an episode's pictures, and reads it."""

    def __init__(self, setting: Setting):
        config, model = setting.config, setting.model
        own = [rgba(model, geom)[:3] for geom in range(model.ngeom)]
        self._palette = np.array([*own, *[config.target_colour] * setting.num_marks], np.float32)
        self._mix, self._tilt = config.random_colours, 0.5 * config.random_light

    def draw(self, key: PRNGKeyArray) -> Float[Array, " look"]:
        """For an episode; no numbers where nothing is random."""
        colour_key, light_key = jax.random.split(key)
        parts = [jnp.zeros(0)]
        if self._mix:
            parts.append(jax.random.uniform(colour_key, (self._palette.size,)))
        if self._tilt:
            parts.append(jax.random.uniform(light_key, (4,), minval=-1.0))
        return jnp.concatenate(parts)

    def shades(self, look: Float[Array, " look"]) -> Shades:
        """What it says."""
        colours, light, ambient = jnp.asarray(self._palette), jnp.asarray(_LIGHT), _AMBIENT
        if self._mix:
            drawn, look = look[: colours.size].reshape(colours.shape), look[colours.size :]
            colours = (1.0 - self._mix) * colours + self._mix * drawn
        if self._tilt:
            light, ambient = light + self._tilt * look[:3], _AMBIENT * (1.0 + self._tilt * look[3])
        return Shades(colours, light / jnp.sqrt(jnp.sum(light * light)), ambient)


def rgba(model: mujoco.MjModel, geom: int) -> Float[np.ndarray, " 4"]:
    """A geom's colour: its own, or that of a material without a texture."""
    own, material = model.geom_rgba[geom], model.geom_matid[geom]
    plain = material >= 0 and (model.mat_texid[material] < 0).all()
    return model.mat_rgba[material] if plain and np.array_equal(own, _DEFAULT_RGBA) else own


def matrix(quaternion: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """A rotation's matrix."""
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, quaternion)
    return out.reshape(3, 3)


SQUARE = 1.0  # metres, of a checkered floor
BRIGHT, DARK = 1.1, 0.9  # times its colour
RING = (1 / 3, 2 / 3)  # of a mark's radius, from and to
MARK_HEIGHT = 0.005  # of a mark's upper side over its centre, metres: as pictures of a world draw them
_DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1.0], np.float32)
_LIGHT, _AMBIENT = np.array([0.3, 0.2, 1.0], np.float32), 0.5
