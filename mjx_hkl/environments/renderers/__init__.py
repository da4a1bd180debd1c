"""Renderers by name: the same picture of the same world, drawn by different means."""

from mjx_hkl.environments.renderers.ray_renderer import RayRenderer
from mjx_hkl.environments.renderers.setting import CameraConfig, Renderer, Seen, Setting
from mjx_hkl.environments.renderers.warp_renderer import WarpRenderer
from mjx_hkl.errors import unknown_name

__all__ = ["CameraConfig", "Renderer", "Seen", "Setting", "make_renderer"]

RENDERERS = {"rays": RayRenderer, "warp": WarpRenderer}


def make_renderer(name: str, setting: Setting) -> Renderer:
    """The renderer of that name; `auto` is rays, which run on any device.

    Raises:
      UserError: no such renderer, or it is not installed, or cannot draw the world.
    """
    if name == "auto":
        name = "rays"
    if name not in RENDERERS:
        raise unknown_name("renderer", name, [*RENDERERS, "auto"])
    return RENDERERS[name](setting)
