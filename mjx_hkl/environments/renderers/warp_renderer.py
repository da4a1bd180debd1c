"""Pictures by MJX's Warp renderer: for NVIDIA GPUs, and for CPUs to test it; an optional extra."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, UInt8
from mujoco import mjx

from mjx_hkl.environments.physics import full_precision, no_log_file
from mjx_hkl.environments.renderers.setting import (
    BRIGHT,
    DARK,
    MARK_HEIGHT,
    RING,
    SQUARE,
    Appearance,
    Seen,
    Setting,
    Traced,
    matrix,
)
from mjx_hkl.environments.warp import for_whole_batches, require_warp


class WarpRenderer:
    """Draws all worlds of a batch in one launch, in the colours and the light of the rays in JAX.

    It draws geoms of a model. So the task's marks are geoms here, of a copy of the world's model.
    """

    name = "warp"
    not_shared = "would draw all worlds on every device"

    def __init__(self, setting: Setting):
        """Raises UserError where Warp is not installed, or does not run on this device."""
        require_warp("renderer")
        camera = setting.camera
        self._setting, self._appearance = setting, Appearance(setting)
        self._layers = (1.0, *RING[::-1]) if setting.config.ringed else (1.0,)
        self._model = _model_to_draw(setting, self._layers)
        self._mjx_model = mjx.put_model(self._model, impl="warp")
        self._place = np.asarray(self._model.cam_pos[camera], np.float32)
        self._turn = np.asarray(matrix(self._model.cam_quat[camera]), np.float32)
        self._image = for_whole_batches(functools.partial(self._pictures_of, is_traced=False))
        self._trace = for_whole_batches(functools.partial(self._pictures_of, is_traced=True))

    @jax.named_scope("vision")
    def image(self, seen: Seen) -> UInt8[Array, "height width 3"]:
        """See `Renderer.image`."""
        return self._image(seen)

    @jax.named_scope("vision")
    def trace(self, seen: Seen) -> Traced:
        """See `Renderer.trace`."""
        image, depth, geom = self._trace(seen)
        own = self._setting.model.ngeom
        mark = own + (geom - own) // len(self._layers)
        return Traced(image, depth, jnp.where(geom < own, geom, mark))

    def _pictures_of(self, num_worlds: int, is_traced: bool) -> Callable[[Seen], Any]:
        """What draws a batch: Warp's buffers are made for a number of worlds."""
        config = self._setting.config
        context = mjx.create_render_context(
            self._model,
            num_worlds,
            cam_res=(config.width, config.height),
            cam_active=[self._setting.camera],
            render_rgb=True,
            render_depth=is_traced,
            render_seg=is_traced,
            background_color=(*config.sky_colour, 1.0),
            enable_specular=False,
            enable_emission=False,
        )
        template = mjx.make_data(self._model, impl="warp")

        def picture(seen: Seen) -> Any:
            handle = context.pytree()  # the context lives as long as this function
            model = self._coloured(seen)
            data = mjx.refit_bvh(model, self._placed(seen, model, template), handle)
            if not is_traced:
                return _bytes(mjx.get_rgb(handle, 0, mjx.render(model, data, handle)[0]))
            rgb, depth, geom, _ = mjx.render_with_segmentation(model, data, handle)
            image = _bytes(mjx.get_rgb(handle, 0, rgb))
            return image, depth.reshape(image.shape[:2]), mjx.get_segmentation(handle, 0, geom)

        def pictures(seen: Seen) -> Any:
            with full_precision():
                return jax.vmap(picture)(seen)

        return pictures

    def _coloured(self, seen: Seen) -> mjx.Model:
        """The model in an episode's colours and light, with its marks as large as they are."""
        colours, _, ambient = self._appearance.shades(seen.look)
        model, setting = self._model, self._setting
        bright = np.where(model.geom_matid[: setting.model.ngeom] < 0, 1.0, BRIGHT)  # a checkered floor's
        geoms = colours[: setting.model.ngeom] * bright[:, None]
        sizes, marks = self._mjx_model.geom_size, setting.marks_drawn
        if marks:
            plain = colours[setting.model.ngeom :]
            layers = [jnp.ones_like(plain) if i == 1 else plain for i in range(len(self._layers))]
            layers = jnp.stack(layers, axis=1) * (1.0 - seen.selected)[:, None, None]
            geoms = jnp.concatenate([geoms, layers.reshape(-1, 3)])
            radii = seen.radius[:, None] * jnp.asarray(self._layers)
            sizes = jnp.asarray(sizes).at[setting.model.ngeom :, 0].set(radii.ravel())
        ambient = jnp.full((1, 3), ambient)
        return self._mjx_model.replace(
            geom_rgba=jnp.concatenate([geoms, jnp.ones((len(geoms), 1))], axis=-1),
            geom_size=sizes,
            light_ambient=ambient,
            light_diffuse=1.0 - ambient,
        )

    def _placed(self, seen: Seen, model: mjx.Model, template: mjx.Data) -> mjx.Data:
        """Where geoms, camera and light are."""
        setting, places = self._setting, [seen.mocap_pos]
        if setting.marks_drawn:
            places.append(seen.position + MARK_HEIGHT * np.array([0.0, 0.0, 1.0], np.float32))
        data = template.replace(qpos=seen.qpos, mocap_pos=jnp.concatenate(places))
        data = mjx.kinematics(model, data)
        turn, light = data.xmat[setting.torso], self._appearance.shades(seen.look).light
        place = data.xpos[setting.torso] + turn @ self._place
        data = data.replace(
            cam_xpos=data.cam_xpos.at[setting.camera].set(place),
            cam_xmat=data.cam_xmat.at[setting.camera].set(turn @ self._turn),
        )
        return data.tree_replace({"_impl.light_xdir": -light[None]})  # pyright: ignore - it is a Data


def _model_to_draw(setting: Setting, layers: tuple[float, ...]) -> mujoco.MjModel:
    """The world's model with one light, squares on the floor, and, as its last geoms, discs for marks."""
    spec, config, own = setting.spec.copy(), setting.config, setting.model
    for light in list(spec.lights):
        spec.delete(light)
    spec.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, specular=[0, 0, 0], castshadow=False
    )
    _add_squares(spec)
    for i in range(setting.marks_drawn):
        mark = spec.worldbody.add_body(name=f"mark{i}", mocap=True)
        for layer, _ in enumerate(layers):  # each lies on both sides of the one before
            half = _THIN * (1 + layer)
            mark.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[1.0, half, 0], contype=0, conaffinity=0, group=0
            )
    with no_log_file():
        model = spec.compile()
    model.stat.extent = own.stat.extent  # which says how near and far is seen
    model.vis.headlight.active = 0
    if config.fovy:
        model.cam_fovy[setting.camera] = config.fovy
    model.geom_matid[:] = -1
    for geom in range(own.ngeom):
        if not setting.is_drawn(geom):
            model.geom_group[geom] = _HIDDEN
        elif model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE:
            model.geom_size[geom, :2] = 0.0  # endless
            model.geom_matid[geom] = model.material("squares").id if config.checkered else -1
    return model


def _add_squares(spec: mujoco.MjSpec) -> None:
    """A material of squares; on an endless plane its texture is two metres wide."""
    texture = spec.add_texture(
        name="squares",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        width=_TEXTURE,
        height=_TEXTURE,
        rgb1=[DARK / BRIGHT] * 3,
        rgb2=[1.0] * 3,
    )
    material = spec.add_material(name="squares", texrepeat=[1 / SQUARE, 1 / SQUARE])
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name


def _bytes(image: Float[Array, "height width 3"]) -> UInt8[Array, "height width 3"]:
    return jnp.round(255.0 * image).astype(jnp.uint8)  # as they were before MJX made numbers of them


_HIDDEN = 5  # a group that is not drawn
_THIN = 1e-4  # metres, half the thickness of a disc
_TEXTURE = 1024  # pixels: between squares they are blurred
