"""What loggers are told: as much as metrics.jsonl, once, and nothing that could end a run."""

import contextlib
import dataclasses
import gc
import json
import os
import shutil
import struct
from pathlib import Path

import mediapy
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

import mjx_hkl
from mjx_hkl.cli.main import run
from mjx_hkl.experiments import snapshots
from mjx_hkl.experiments.loggers import table
from mjx_hkl.experiments.loggers.logger import LoggedRun, flat, tag
from mjx_hkl.experiments.recipe import recipe_to_toml
from mjx_hkl.experiments.reporter import Silent
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.tracking import Tracker, Tracking

ALL = ("tensorboard", "wandb", "mlflow")


@pytest.fixture(scope="module", autouse=True)
def offline():
    """Nothing leaves the machine."""
    names = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def painted(player, out, seed):
    """A video without OpenGL."""
    assert player.environment.num_envs == 1
    mediapy.write_video(out, np.zeros((4, 16, 16, 3), np.uint8), fps=20)


@pytest.fixture(scope="module")
def logged(tiny_recipe, tmp_path_factory):
    """A run that all loggers are told of, killed after its end and gone on with from half-way."""
    import imageio_ffmpeg

    mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    for name in ALL:
        pytest.importorskip(name.replace("tensorboard", "tensorboardX"))
    out, heard = tmp_path_factory.mktemp("runs") / "run", Listening()
    recipe = dataclasses.replace(tiny_recipe, checkpoint_interval=80)
    tracking = Tracking(ALL, histograms=True, video_interval=80, render=painted)
    mjx_hkl.train(recipe, out, reporter=heard, tracking=tracking)
    shutil.rmtree(out / "checkpoints" / "160")
    (out / "evaluation.json").unlink()
    mjx_hkl.train(recipe, out, resume=True, reporter=heard, tracking=tracking)
    assert not [line for line in heard.said if "failed" in line]
    return out


def expected(out):
    """What loggers are to be told: by tag the steps and their numbers."""
    found = {}
    for row in RunDirectory(out).read_metrics():
        for name, x in row.items():
            if x is not None and name not in ("seed", "environment_steps"):
                found.setdefault(tag(name), {})[row["environment_steps"]] = float(x)
    return found


def timeless(found):
    """Without what depends on the clock, which a repeated interval measures anew."""
    return {name: x for name, x in found.items() if "seconds" not in name and "second" not in name}


def records(data, at=0):
    """The records of a TFRecord file."""
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += length + 16


def events(folder):
    files = sorted(folder.glob("events.*"), key=lambda file: file.stat().st_mtime_ns)
    return [[Event.FromString(record) for record in records(file.read_bytes())] for file in files]


def test_tensorboard_has_groups_recipe_histograms_video_and_result(logged):
    first, last = events(logged / "tensorboard")
    scalars = {}
    for event in first + last:
        if event.HasField("session_log"):  # hides what came after it
            scalars = {name: {s: x for s, x in of.items() if s < event.step} for name, of in scalars.items()}
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                scalars.setdefault(value.tag, {})[event.step] = value.simple_value
    for name, steps in expected(logged).items():
        assert scalars[name] == pytest.approx(steps)
    tags = {value.tag: value for event in last for value in event.summary.value}
    assert b"total_env_steps = 160" in tags["recipe/text_summary"].tensor.string_val[0]
    assert tags["_hparams_/session_start_info"].metadata.plugin_data.plugin_name == "hparams"
    assert {"latents/0", "latents/1", "actions/0", "actions/1"} <= set(tags)
    assert tags["videos/episode"].image.encoded_image_string.startswith(b"GIF")
    (evaluation,) = json.loads((logged / "evaluation.json").read_text())
    assert scalars["final/episode_return"][160] == pytest.approx(evaluation["episode_return"])
    assert sorted(path.name for path in (logged / "videos").iterdir()) == ["160.mp4", "80.mp4"]


def wandb_records(folder):
    """The records of wandb's file: LevelDB's log after a header of 7 bytes, blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        data, at, whole = file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 2**15 - at % 2**15 < 7:
                at += 2**15 - at % 2**15
                continue
            _, length, kind = struct.unpack_from("<IHB", data, at)
            whole += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # whole, or the last part
                found.append(Record.FromString(whole))
                whole = b""
    return found


def test_wandb_has_the_same_and_nothing_twice(logged, tiny_recipe):
    found = wandb_records(logged / "wandb")
    scalars, config, summary, ids = {}, {}, {}, set()
    for record in found:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            step = int(items.get("_step", record.history.step.num))
            for name, text in items.items():
                assert step not in scalars.get(name, {}), f"{name} of {step} twice"
                scalars.setdefault(name, {})[step] = json.loads(text)
        elif kind == "run":
            ids.add(record.run.run_id)
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "summary":
            summary |= {
                item.key or ".".join(item.nested_key): item.value_json for item in record.summary.update
            }
    assert ids == {json.loads((logged / "tracking.json").read_text())["wandb"]["0"]["id"]}
    assert config["algorithm"]["kl_cost"] == tiny_recipe.algorithm.kl_cost
    wanted = expected(logged)
    assert timeless(wanted).keys() <= scalars.keys()
    for name, steps in timeless(wanted).items():
        assert scalars[name] == pytest.approx(steps)
    assert {"latents/0.values", "actions/1.values", "videos/episode.path"} <= scalars.keys()
    (evaluation,) = json.loads((logged / "evaluation.json").read_text())
    assert json.loads(summary["final/episode_return"]) == pytest.approx(evaluation["episode_return"])


@pytest.mark.filterwarnings("ignore")  # of sqlalchemy
def test_mlflow_has_the_same_and_nothing_twice(logged, tiny_recipe):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{logged / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mjx-hkl")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["algorithm.kl_cost"] == str(tiny_recipe.algorithm.kl_cost)
    assert found.data.params["policy.high_level.sizes"] == "[8]"
    for name, steps in timeless(expected(logged)).items():
        history = client.get_metric_history(found.info.run_id, name)
        assert len(history) == len(steps), f"{name} twice"
        assert {point.step: point.value for point in history} == pytest.approx(steps)
    files = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert {"histograms", "videos", "recipe.toml"} <= files
    (evaluation,) = json.loads((logged / "evaluation.json").read_text())
    assert found.data.metrics["final/episode_return"] == pytest.approx(evaluation["episode_return"])


def test_nobody_who_looks_changes_what_is_learned(logged, tiny_recipe, tmp_path, monkeypatch):
    """Nor does a video that cannot be drawn, of which is told once."""

    def refuse(player, out, seed):
        raise RuntimeError("no OpenGL\nhere")

    taken, take = [], snapshots.agent_of_seed
    monkeypatch.setattr(snapshots, "agent_of_seed", lambda *given: taken.append(1) or take(*given))
    heard, out = Listening(), tmp_path / "unseen"
    tracking = Tracking(["none"], video_interval=40, render=refuse)
    assert mjx_hkl.train(tiny_recipe, out, reporter=heard, tracking=tracking).finished
    assert [x for x in heard.said if "videos" in x] == ["no videos, training goes on: no OpenGL here"]
    assert len(taken) == 4  # other processes, which know nothing of it, take part in each
    assert {path.name for path in out.iterdir()}.isdisjoint({*ALL, "tracking.json"})
    assert timeless(expected(out)) == timeless(expected(logged))


class Failing:
    """A logger that fails in one of its calls."""

    def __init__(self, told, where):
        self.told, self.where = told, where
        self.call("init")

    def call(self, name):
        self.told.append(name)
        if name == self.where:
            raise RuntimeError("no network\nlong story")

    def __getattr__(self, name):
        return lambda *_, **__: self.call(name)


@pytest.mark.parametrize("where", ["init", "scalars", "histograms", "video", "result", "close"])
def test_a_logger_that_fails_is_left_out_and_told_of_once(where, tiny_recipe, tmp_path, monkeypatch):
    told, said = [], []
    monkeypatch.setitem(table.LOGGERS, "failing", lambda run: Failing(told, where))
    told_of = LoggedRun(RunDirectory(tmp_path), tiny_recipe, 0, said.append)
    with Tracker(told_of, ["failing"]) as tracker:
        for step in (40, 80):
            tracker.interval([{"seed": 0, "environment_steps": step, "kl_high": 1.0, "q": float("nan")}])
            tracker.histograms(0, step, {"latents/0": np.zeros(3)})
            tracker.video(0, step, tmp_path / "missing.mp4")
        tracker.result(80, [])
        tracker._each(lambda logger: logger.result(0, 80, {}))
    failed = [line for line in said if "'failing' failed" in line]
    assert failed == ["logger 'failing' failed and is left out from here on, training goes on: no network"]
    assert told.count(where) == (2 if where == "close" else 1)  # what can be closed is, in the end
    assert [row["kl_high"] for row in RunDirectory(tmp_path).read_metrics()] == [1.0, 1.0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a file that is always full")
@pytest.mark.parametrize("fails", [True, False])
def test_events_that_a_full_disk_does_not_take_are_let_go(fails, tiny_recipe, tmp_path, monkeypatch):
    said, unraisable = [], []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    told_of = LoggedRun(RunDirectory(tmp_path), tiny_recipe, 0, said.append)
    with contextlib.suppress(KeyboardInterrupt), Tracker(told_of, ["tensorboard"]) as tracker:
        events = tracker._loggers["tensorboard"]._files[0]._py_recordio_writer._writer
        with open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), events.fileno())
        if fails:
            raise KeyboardInterrupt
    assert events.closed
    del tracker, events
    gc.collect()
    assert not unraisable
    assert len(said) == (0 if fails else 1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--logger", "wand"], "unknown logger 'wand'; did you mean wandb?"),
        (["--logger", "none", "wandb"], "logger: name some of tensorboard, wandb, mlflow, or none alone"),
        (["--video-interval", "-1"], "video_interval: input should be greater than or equal to 0"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(arguments, expected, tiny_recipe, tmp_path, capsys):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(recipe_to_toml(tiny_recipe))
    assert run(["train", str(recipe), "--out", str(tmp_path / "run"), *arguments]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_nobody_logged_in_to_wandb_is_told_of(monkeypatch, tmp_path):
    """Instead of a question, which nobody may be there to answer."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()  # which reads these once
    with pytest.raises(
        mjx_hkl.UserError, match="nobody is logged in; wandb login, or set WANDB_MODE=offline"
    ):
        table.require(["wandb"])
    wandb.teardown()


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_told_of(logger, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(mjx_hkl.UserError, match=rf"pip install 'mjx-hkl\[{logger}\]'"):
        mjx_hkl.train(tiny_recipe, tmp_path / "run", tracking=Tracking([logger]))
    assert not (tmp_path / "run").exists()


def test_every_field_has_a_group_and_hyper_parameters_are_flat(tiny_recipe, tmp_path):
    assert tag("evaluation_return/ant-walk") == "evaluation/return/ant-walk"
    assert tag("success_rate/ant-walk") == "train/success_rate/ant-walk"
    assert tag("episode_return_speed") == "reward/speed"
    assert tag("critic_gradient_norm") == "gradient/critic_gradient_norm"
    assert tag("my_own") == "other/my_own"
    stage = RunDirectory(tmp_path / "run").stage(2)
    told = LoggedRun(stage, dataclasses.replace(tiny_recipe, num_seeds=2), 0, print)
    assert (told.group, told.name(1)) == ("run", "run-stage2-seed1")
    found = flat(told.hyper_parameters(1))
    assert (found["seed"], found["policy.high_level.kind"]) == (1, "mlp")
    assert found["policy.high_level.sizes"] == "[8]"
