"""The ends of limbs, against C MuJoCo's kinematics."""

import jax
import mujoco
import numpy as np
import pytest

from mjx_hkl.environments.limbs import Limbs
from mjx_hkl.errors import UserError

# On the torso itself, behind three joints of one body with anchors and references, welded, on a slide.
LIMBS = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <geom name="lost" size=".1"/>
    <body name="torso" pos="0 0 1">
      <freejoint/>
      <geom name="own" size=".1" pos=".1 .2 .3"/>
      <body pos=".1 .2 .3" euler=".3 .5 .7">
        <joint type="hinge" axis="1 2 3" pos=".1 0 .2" ref="0.3"/>
        <joint type="slide" axis="1 0 1" ref=".1"/>
        <joint type="hinge" axis="0 1 1" pos=".3 0 .2"/>
        <geom name="turned" size=".1" pos=".3 .1 0"/>
        <body pos=".2 .2 .3" euler=".3 -.5 .7">
          <geom name="welded" size=".1" pos=".1 .2 .3"/>
          <body euler="1 0 0" pos="1 0 0">
            <joint type="slide" axis="1 0 0"/>
            <geom name="sliding" size=".1" pos=".1 .2 .4"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


def test_centres_are_mujocos_in_the_torso_frame():
    model = mujoco.MjModel.from_xml_string(LIMBS)
    data, torso, rng = mujoco.MjData(model), model.body("torso").id, np.random.default_rng(0)
    geoms = np.array([model.geom(name).id for name in ("own", "turned", "welded", "sliding")])
    centres = jax.jit(Limbs(model, geoms, torso))
    for _ in range(5):
        data.qpos[:] = rng.normal(size=model.nq)
        mujoco.mj_kinematics(model, data)
        away = data.geom_xpos[geoms] - data.xpos[torso]
        expected = away @ data.xmat[torso].reshape(3, 3)
        np.testing.assert_allclose(centres(data.qpos.astype(np.float32)), expected, atol=1e-6)


def test_a_geom_that_no_joint_of_the_torso_carries_is_refused():
    model = mujoco.MjModel.from_xml_string(LIMBS)
    with pytest.raises(UserError, match="'lost' must hang from its torso"):
        Limbs(model, np.array([model.geom("lost").id]), model.body("torso").id)
