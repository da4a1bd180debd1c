"""Several devices and several processes compute what one does."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_loop, resolve, world_of
from mjx_hkl.experiments.recipe import load_recipe

SHORT = (
    *("--num-envs", "8", "--log-interval", "320", "--evaluation-episodes", "8"),
    *("--algorithm.batch-size", "8"),
)


def environment(**more):
    return {**os.environ, "JAX_PLATFORMS": "cpu", **more}


def on_eight_devices(*command):
    """What a program of Python prints as JSON."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, *command], env=environment(XLA_FLAGS=flags), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def compared():
    return on_eight_devices(str(Path(__file__).with_name("on_eight_devices.py")))


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "of_the_way"),
    [
        ("worlds", 1e-3),
        ("environments", 1e-3),
        ("seeds", 1e-3),
        ("physics", 5e-3),
        ("normalized", 1e-3),
        ("remembers", 1e-3),
    ],
)
def test_eight_devices_compute_what_one_does(compared, what, of_the_way):
    """Up to the order of float additions, which a contact makes visible in the physics."""
    found = compared[what]
    assert found["difference"] < 1e-3 * found["largest"]
    assert found["difference"] < of_the_way * found["moved"]
    for one, many in zip(*found["rows"], strict=True):
        assert one["episodes"] == many["episodes"]
        np.testing.assert_allclose(one["critic_loss"], many["critic_loss"], rtol=1e-2)


@pytest.mark.long
def test_of_the_worlds_only_sums_travel(compared):
    for what in ("worlds", "environments", "physics", "normalized"):
        assert compared[what]["collectives"] == ["all-reduce"]
        assert compared[what]["replay"] == [None, "devices"]
        assert compared[what]["parameters"] == []
    assert compared["seeds"]["parameters"] == ["devices"]


def test_several_devices_take_an_engine_that_they_can_share():
    recipe = load_recipe("ball-go-to-target-plain")
    engines = [world_of(dataclasses.replace(recipe, num_devices=n)).backend for n in (1, 8)]
    assert engines == ["mujoco", "mjx"]
    assert world_of(dataclasses.replace(load_recipe("grid-1-step"), num_devices=8)).engine is None
    with pytest.raises(UserError, match=r"engine mujoco .* cannot be shared by devices"):
        make_loop(resolve(dataclasses.replace(recipe, engine="mujoco", num_devices=8)))


@pytest.mark.long
def test_what_is_transferred_is_on_every_device_and_stays(compared):
    assert compared["transfer"]


@pytest.mark.long
def test_bench_train_times_several_devices_in_turn_with_one():
    options = ["--num-envs", "16", "--num-devices", "8", "--num-seeds", "8", "--json"]
    program = "from mjx_hkl.cli.main import main; main()"
    found = on_eight_devices("-c", program, "bench", "train", "grid-1-step", *options)
    assert found["8_seeds_8_devices"]["environment_steps_per_second"] > 0


def start(*arguments, processes=1):
    """The command in so many processes that find each other on the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = "from mjx_hkl.cli.main import main; main()"
    command = [sys.executable, "-c", program, "train", *map(str, arguments)]
    if processes > 1:
        command.append("--distributed")
    return [
        subprocess.Popen(
            command,
            env=environment(
                JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES=str(processes), JAX_PROCESS_ID=str(index)
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]


def outputs(started, code=0):
    found = [process.communicate(timeout=300) for process in started]
    for process, (_, err) in zip(started, found, strict=True):
        assert process.returncode == code, err[-2000:]
    return [out for out, _ in found]


def run(*arguments, processes=1):
    return outputs(start(*arguments, processes=processes))


def metrics(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [[row[name] for name in ("episodes", "value", "kl_high", "critic_loss")] for row in rows]


@pytest.mark.long
def test_two_processes_train_one_agent_and_resume_it(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    run("grid-1-step", *SHORT, "--total-env-steps", 960, "--out", alone)
    spoken, silent = run("grid-1-step", *SHORT, "--total-env-steps", 640, "--out", together, processes=2)
    assert "as 2 devices" in spoken
    assert "evaluation over" in spoken
    assert "steps" not in silent
    run("grid-1-step", *SHORT, "--total-env-steps", 960, "--out", together, "--resume", processes=2)
    np.testing.assert_allclose(metrics(together), metrics(alone), rtol=1e-3, atol=1e-5)
    evaluations = [json.loads((out / "evaluation.json").read_text())[0] for out in (alone, together)]
    assert evaluations[0]["episodes"] == evaluations[1]["episodes"] == 8
    assert (together / "export" / "agent.json").is_file()


@pytest.mark.long
def test_a_signal_to_one_process_stops_both_and_one_alone_goes_on(tmp_path):
    out = tmp_path / "run"
    started = start("grid-1-step", *SHORT, "--total-env-steps", 10**8, "--out", out, processes=2)
    try:
        deadline = time.monotonic() + 200
        while not ((out / "metrics.jsonl").is_file() and metrics(out)):
            assert all(process.poll() is None for process in started)
            assert time.monotonic() < deadline
            time.sleep(0.1)
        started[1].terminate()
        spoken, _ = outputs(started, code=130)
    finally:
        for process in started:
            process.kill()
    assert "--resume --distributed" in spoken
    done = len(metrics(out))
    run(out, "--resume", "--total-env-steps", 320 * (done + 2))
    assert len(metrics(out)) == done + 2
