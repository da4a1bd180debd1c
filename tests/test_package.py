"""The data travels with the code: from a checkout, an editable install and a built wheel."""

import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIST = "from mjx_hkl.cli.main import run; raise SystemExit(run(['list', 'recipes']))"
WHERE = "import mjx_hkl.resources as r; print(r.folder('envs').resolve())"


def python(code, cwd, path):
    environment = {**os.environ, "PYTHONPATH": str(path), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(out.glob("*.whl"))


@pytest.mark.long
def test_a_built_wheel_works_from_anywhere(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in ("ball-go-to-target", "ball-go-to-target-svg0", "ant-go-to-target", "quadruped-go-to-target"):
        assert name in python(LIST, tmp_path, site)
    assert Path(python(WHERE, tmp_path, site).strip()) == site / "mjx_hkl" / "data" / "envs"
    assert (site / "mjx_hkl" / "data" / "envs" / "bodies" / "ant.xml").is_file()
    assert (site / "mjx_hkl" / "data" / "train").is_dir()
    assert (site / "mjx_hkl" / "data" / "devices" / "h100.toml").is_file()
    assert (site / "mjx_hkl" / "py.typed").is_file()  # so that type checkers read our annotations (PEP 561)


def test_a_checkout_reads_its_own_folders(tmp_path):
    assert Path(python(WHERE, tmp_path, ROOT).strip()) == ROOT / "envs"
    assert "ball-go-to-target" in python(LIST, tmp_path, ROOT)


def test_an_editable_install_reads_the_checkout(tmp_path):
    try:
        direct_url = importlib.metadata.distribution("mjx-hkl").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mjx-hkl is not installed here")
    if not direct_url or not json.loads(direct_url).get("dir_info", {}).get("editable"):
        pytest.skip("mjx-hkl is not installed in editable mode here")
    assert Path(python(WHERE, tmp_path, "").strip()) == ROOT / "envs"


def test_the_console_script_is_installed_and_answers():
    script = Path(sys.executable).with_name("mjx-hkl")
    if not script.exists():
        pytest.skip("mjx-hkl is not installed here")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("mjx-hkl ")
