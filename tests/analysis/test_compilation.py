"""The device files, and the command that compiles for them, where the compilers are installed."""

import importlib.util
import json
import subprocess
import sys

import pytest

from mjx_hkl import resources
from mjx_hkl.analysis.accelerators import _proto, load_accelerator
from mjx_hkl.analysis.compilation import bound
from mjx_hkl.analysis.counts import Counts
from mjx_hkl.errors import UserError

BENCH = "from mjx_hkl.cli.main import main; main()"


@pytest.mark.parametrize("name", resources.names("devices", ".toml"))
def test_every_figure_of_a_device_names_its_source(name):
    device = load_accelerator(name)
    given = {"memory", "bandwidth", "peak"} | ({"launch_seconds", "target"} if device.target else {"slices"})
    assert set(device.source) == given
    assert device.peak.float32 <= device.peak.default <= device.peak.bfloat16
    if device.platform == "tpu":
        assert device.launch_seconds is None


@pytest.mark.parametrize("name", ["h100", "a100", "l4", "rtx-4090"])
def test_float32_peaks_are_those_of_cores_and_clock(name):
    """Two operations for each unit in each cycle; a datasheet's boost clock is a little lower or higher."""
    info = load_accelerator(name).target["gpu_device_info"]
    peak = 2 * info["core_count"] * info["fpus_per_core"] * info["clock_rate_ghz"] * 1e9
    assert load_accelerator(name).peak.float32 == pytest.approx(peak, rel=0.02)
    assert load_accelerator(name).bandwidth == pytest.approx(info["memory_bandwidth"], rel=0.01)


def test_a_table_in_protobufs_text_format():
    table = {"platform_name": "CUDA", "gpu_device_info": {"core_count": 132, "clock_rate_ghz": 1.98}}
    assert _proto(table) == 'platform_name: "CUDA" gpu_device_info { core_count: 132 clock_rate_ghz: 1.98 }'


def test_the_bound_is_the_largest_of_three_costs():
    device = load_accelerator("h100")
    counts = Counts(
        {
            ("launches", "act"): 1000,
            ("launches", "physics"): 9000,
            ("bytes", "physics"): 335 * 10**8,
            ("products", "default"): 4945 * 10**8,
            ("products", "float32"): 67 * 10**9,
        }
    )
    found = bound(counts, device, 40_960)
    assert found["seconds"] == pytest.approx({"launches": 0.02, "bandwidth": 0.01, "products": 0.002})
    assert found["binds"] == "launches"
    assert found["environment_steps_per_second"] == pytest.approx(40_960 / 0.02)
    assert bound(counts, load_accelerator("v5e"), 40_960)["binds"] == "bandwidth"  # launches cost it nothing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memory = ", "is not valid TOML"),
        ("memroy = 1", "unknown field 'memroy'; did you mean memory"),
        ('title = "X"\nplatform = "rocm"', "platform: input should be 'cuda' or 'tpu'"),
        (
            'title = "X"\nplatform = "tpu"\nmemory = 1\nbandwidth = 1.0\nsource = {}\n'
            "[peak]\nfloat32 = 1.0\ndefault = 1.0\nbfloat16 = 1.0",
            "platform 'tpu' needs slices",
        ),
    ],
)
def test_a_broken_device_file_is_one_line(tmp_path, text, expected):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"^[^\n]*$") as told:
        load_accelerator(str(path))
    assert expected in str(told.value)


def test_a_missing_compiler_is_told_with_the_extra_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, extra in (("a100", "cuda"), ("v5e", "tpu")):
        with pytest.raises(UserError, match=rf"mjx-hkl\[{extra}\]"):
            load_accelerator(name).devices(1)


@pytest.mark.parametrize(("name", "wheel"), [("h100", "jax_cuda12_plugin"), ("v5e", "libtpu")])
def test_the_command_compiles_where_the_compiler_is(name, wheel):
    """The grid world, for one device and, its worlds shared, for two."""
    pytest.importorskip(wheel)
    for devices in ("1", "2"):
        told = [
            "bench",
            "compile",
            "grid-1-step",
            "--for",
            name,
            "--num-envs",
            "64",
            "--num-devices",
            devices,
        ]
        done = subprocess.run([sys.executable, "-c", BENCH, *told, "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found = json.loads(done.stdout)
        assert found["donated_bytes"] == found["argument_bytes"] > 0
        assert found["fits"]
        assert not found["host_callbacks"] + found["float64"] + found["loops_of_unknown_length"]
        assert (found["launches"] is None) == (name == "v5e")
        assert {kind.split()[0] for kind in found["collectives"]} == (
            {"all-reduce"} if devices == "2" else set()
        )
        assert found["bound"]["environment_steps_per_second"] > 0
