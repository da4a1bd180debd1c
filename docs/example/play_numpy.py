"""Plays an agent that goes to targets in plain MuJoCo, with NumPy alone: no JAX, nothing of mjx-hkl.

mjx-hkl export ball-go-to-target carried --format onnx
python play_numpy.py carried [EPISODES]

It knows the Ball, the Ant and the Quadruped on open ground, and networks without encoders and LayerNorm.
"""

import argparse
import json
from pathlib import Path

import mujoco
import numpy as np


def load(folder):
    """What the export says of its world and of what modules see, the policy's arrays, MuJoCo's model."""
    about = json.loads((folder / "policy.json").read_text())
    (world,) = about["worlds"].values()
    parameters = dict(np.load(folder / "parameters.npz"))
    return about, world, parameters, mujoco.MjModel.from_xml_path(str(folder / world["model"]))


def observe(model, data, world, targets, selected):
    """The observation groups. `mj_kinematics` must have been called; places are in metres."""
    unit, task = world["description"]["proprioception"], world["description"]["task"]
    torso, joints = model.body("torso").id, np.arange(model.njnt)
    own, is_free = joints[model.jnt_bodyid != torso], model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    feet = [i for i in range(model.ngeom) if model.geom(i).name.endswith(("foot", "hand"))]
    place, axes = data.xpos[torso], data.xmat[torso].reshape(3, 3)
    most, acceleration = unit["max_acceleration"], data.qacc[:3] - model.opt.gravity
    felt = [
        data.qpos[model.jnt_qposadr[own[model.jnt_limited[own] > 0]]],
        data.qvel[model.jnt_dofadr[own]] / unit["joint_velocity_unit"],
        place[2:],
        axes[2],
        (data.qvel[3:6] if is_free else np.array([0, 0, data.qvel[3]])) / unit["angular_velocity_unit"],
        data.qvel[:3] @ axes / unit["velocity_unit"],
        np.clip(acceleration @ axes / unit["acceleration_unit"], -most, most),
        ((data.geom_xpos[feet] - place) @ axes).ravel(),
        data.geom_xpos[feet, 2] < model.geom_size[feet, 0],  # it touches the ground
    ]
    x, y = axes[:2, 0] / np.linalg.norm(axes[:2, 0])  # where it heads
    targets = (targets - place[:2]) @ [[x, -y], [y, x]] / task["distance_unit"]
    instruction = np.eye(len(targets))[selected]
    return {"proprioception": np.concatenate(felt), "targets": targets.ravel(), "instruction": instruction}


def linear(name, parameters, x):
    """A layer; one with gates multiplies half of its outputs by what the other half says."""
    gated = f"{name}.linear.kernel" in parameters
    name = f"{name}.linear" if gated else name
    x = x @ parameters[f"{name}.kernel"] + parameters[f"{name}.bias"]
    value, gate = np.split(x, 2) if gated else (x, 0.0)
    return value * (1 + np.tanh(gate))


def mean(name, about, parameters, seen):
    """The mean that a module gives: layers with ELU, then the first half of its head."""
    x = np.concatenate([seen[group] for group in about["modules"][name]])
    level = about["networks"]["policy"][name.removeprefix("policy.")]
    more = any(level.get(name) for name in ("layer_norm", "mean_bound", "coefficient"))
    if level["kind"] != "mlp" or more or about["networks"]["encoders"]:
        raise SystemExit(f"{about['recipe']} has networks that this script does not know")
    for layer in range(len(level["sizes"])):
        x = linear(f"{name}.torso.layers.{layer}", parameters, x)
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return np.split(linear(f"{name}.head.linear", parameters, x), 2)[0]


def act(about, parameters, observation, step, latent):
    """The action, and the latent: a new one every `latent_period` steps, made from the one before."""
    seen = {**observation, "previous latent": latent}
    if step % about["latent_period"] == 0 and about["latent_size"]:
        latent = mean("policy.high_level", about, parameters, seen)
    return np.tanh(mean("policy.low_level", about, parameters, {**seen, "latent": latent})), latent


def start(model, data, world, random):
    """Places body and targets at random, apart from each other; returns the targets and which one counts."""
    task, half = world["description"]["task"], world["description"]["arena"]["size"] / 2
    count = task["num_targets"]
    while True:
        places = random.uniform(-half, half, (1 + count, 2))
        apart = min(np.linalg.norm(places[i] - places[j]) for i in range(1 + count) for j in range(i))
        if apart >= task["separation"]:
            break
    mujoco.mj_resetData(model, data)
    angle, is_free = random.uniform(-np.pi, np.pi), model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    data.qpos[:], data.qpos[:2] = world["start"], places[0]
    data.qpos[3:7][: 4 if is_free else 1] = [np.cos(angle / 2), 0, 0, np.sin(angle / 2)] if is_free else angle
    mujoco.mj_kinematics(model, data)
    return places[1:], random.integers(count)


def play(about, world, parameters, model, random):
    """One episode; whether it reached its target, and after how many steps."""
    rules, data = world["description"], mujoco.MjData(model)
    targets, selected = start(model, data, world, random)
    latent, torso = np.zeros(about["latent_size"]), data.body("torso")
    for step in range(rules["episode_length"]):
        observation = observe(model, data, world, targets, selected)
        action, latent = act(about, parameters, observation, step, latent)
        controls = zip(action, world["actuators"]["control"], strict=True)
        data.ctrl[:] = [np.interp(a, (-1, 0, 1), control) for a, control in controls]
        mujoco.mj_step(model, data, rules["physics"]["substeps"])
        mujoco.mj_kinematics(model, data)  # mj_step leaves bodies where they were before its last move
        if np.linalg.norm(torso.xpos[:2] - targets[selected]) < rules["task"]["radius"]:
            return True, step + 1
        if torso.xmat[8] < rules["upright"] or torso.xpos[2] < rules["min_height"]:
            return False, step + 1
    return False, rules["episode_length"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("episodes", type=int, nargs="?", default=20)
    given = parser.parse_args()
    about, world, parameters, model = load(given.folder)
    random = np.random.default_rng(0)
    results = [play(about, world, parameters, model, random) for _ in range(given.episodes)]
    success, steps = np.mean(results, axis=0)
    print(f"{about['recipe']}: success {success:.1%} over {given.episodes} episodes, {steps:.1f} steps each")
