"""What a browser is shown of MuJoCo's geoms, against MuJoCo's own rays."""

import mujoco
import numpy as np
import pytest
from loading import physics_environment

from mjx_hkl.analysis.solids import colour_of, mesh_of
from mjx_hkl.environments import PhysicsWorld

MODEL = """
<mujoco>
  <asset>
    <hfield name="bumps" nrow="3" ncol="4" size="2 1 0.5 0.1" elevation="0 1 0 0  0 0 0.5 0  1 0 0 0.2"/>
    <mesh name="wedge" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/>
  </asset>
  <worldbody>
    <geom name="sphere" type="sphere" size="0.3"/>
    <geom name="capsule" type="capsule" size="0.2 0.5"/>
    <geom name="cylinder" type="cylinder" size="0.2 0.5"/>
    <geom name="box" type="box" size="0.1 0.2 0.3"/>
    <geom name="ellipsoid" type="ellipsoid" size="0.1 0.2 0.3"/>
    <geom name="wedge" type="mesh" mesh="wedge"/>
    <geom name="bumps" type="hfield" hfield="bumps"/>
  </worldbody>
</mujoco>
"""


def test_meshes_are_where_mujocos_rays_meet_the_geoms():
    model = mujoco.MjModel.from_xml_string(MODEL)
    rays = np.random.default_rng(0).normal(size=(40, 3))
    for name in ("sphere", "capsule", "cylinder", "box", "ellipsoid"):
        geom = model.geom(name).id
        mesh, kind, size = mesh_of(model, geom), int(model.geom_type[geom]), model.geom_size[geom]
        for ray in rays / np.linalg.norm(rays, axis=1, keepdims=True):
            away = mujoco.mju_rayGeom(np.zeros(3), np.eye(3).ravel(), size, 5 * ray, -ray, kind)
            support = (mesh.vertices @ ray).max()
            assert support >= 5 - away - 0.02  # no point of the geom lies beyond the mesh
        assert mesh.volume == pytest.approx(_volume(name, size), rel=0.05)
    wedge = mesh_of(model, model.geom("wedge").id)
    assert wedge.volume == pytest.approx(1 / 6, rel=1e-4)


def test_a_height_field_is_as_high_as_mujocos_rays_say():
    model = mujoco.MjModel.from_xml_string(MODEL)
    data, geom = mujoco.MjData(model), model.geom("bumps").id
    mujoco.mj_forward(model, data)
    mesh = mesh_of(model, geom)
    assert mesh.bounds.tolist() == [[-2.0, -1.0, 0.0], [2.0, 1.0, 0.5]]
    for x, y, z in mesh.vertices * [0.999, 0.999, 1.0]:
        away = mujoco.mj_rayHfield(model, data, geom, np.array([x, y, 2.0]), np.array([0.0, 0.0, -1.0]))
        assert 2.0 - away == pytest.approx(z, abs=2e-3)
    assert (mesh.face_normals[:, 2] > 0).all()


def test_a_colour_is_the_geoms_or_else_the_mean_of_its_texture():
    floor = PhysicsWorld(physics_environment("ball-go-to-target")).engine.model
    assert colour_of(floor, floor.geom("shell").id).tolist() == pytest.approx([0.2, 0.45, 0.85, 1.0])
    assert colour_of(floor, floor.geom("floor").id).tolist() == pytest.approx(
        [0.26, 0.3, 0.345, 1.0], abs=0.01
    )


def _volume(name, size):
    x, y, z = size
    return {
        "sphere": 4 / 3 * np.pi * x**3,
        "capsule": np.pi * x**2 * (2 * y + 4 / 3 * x),
        "cylinder": 2 * np.pi * x**2 * y,
        "box": 8 * x * y * z,
        "ellipsoid": 4 / 3 * np.pi * x * y * z,
    }[name]
