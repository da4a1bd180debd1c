"""Depths and geoms that MuJoCo's own renderer shows: a program of its own, for OpenGL is chosen at import.

    MUJOCO_GL=egl python mujoco_pictures.py MODEL.mjb STATES.npz OUT.npz

STATES has qpos and mocap_pos of each picture, centres and radii of its marks, height and width; OUT depth and
geom, where the model's geoms are followed by the marks.
"""

import sys

import mujoco
import numpy as np


def draw_marks(scene, positions, radii, first):
    """As `mjx_hkl.environments.pictures` draws them."""
    for i, (position, radius) in enumerate(zip(positions, radii, strict=True)):
        if radius > 0:
            geom = scene.geoms[scene.ngeom]
            size = np.array([radius, 0.005, 0.0], np.float64)
            kind, place = mujoco.mjtGeom.mjGEOM_CYLINDER, np.asarray(position, np.float64)
            mujoco.mjv_initGeom(geom, kind, size, place, np.eye(3).ravel(), np.ones(4, np.float32))
            geom.objtype, geom.objid, geom.segid = mujoco.mjtObj.mjOBJ_GEOM, first + i, scene.ngeom
            scene.ngeom += 1


def main(model_path, states_path, out_path):
    """Renders all."""
    model, states = mujoco.MjModel.from_binary_path(model_path), np.load(states_path)
    data, depths, geoms = mujoco.MjData(model), [], []
    with mujoco.Renderer(model, int(states["height"]), int(states["width"])) as renderer:
        for qpos, mocap_pos, positions, radii in zip(
            *(states[name] for name in ("qpos", "mocap_pos", "positions", "radii")), strict=True
        ):
            data.qpos[:], data.mocap_pos[:] = qpos, mocap_pos
            mujoco.mj_kinematics(model, data)
            mujoco.mj_camlight(model, data)
            renderer.enable_depth_rendering()
            renderer.update_scene(data, "egocentric")
            draw_marks(renderer.scene, positions, radii, model.ngeom)
            depths.append(renderer.render())
            renderer.disable_depth_rendering()
            renderer.enable_segmentation_rendering()
            renderer.update_scene(data, "egocentric")
            draw_marks(renderer.scene, positions, radii, model.ngeom)
            geoms.append(renderer.render()[..., 0])
            renderer.disable_segmentation_rendering()
    np.savez(out_path, depth=np.stack(depths), geom=np.stack(geoms))


if __name__ == "__main__":
    main(*sys.argv[1:])
