"""Every mistake of a user: one clear line on stderr, exit code 2, no traceback, nothing written."""

import json
from pathlib import Path

import pytest

from mjx_hkl.cli.main import run

RECIPE = Path("train/ball-go-to-target-plain.toml").absolute()
GRID = RECIPE.with_name("grid-1-step.toml")
PRIORS = RECIPE.with_name("ball-go-to-target-priors.toml")
SHORT = ("--num-envs", "16", "--total-env-steps", "20")  # should a mistake go unnoticed


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fails(capsys, *arguments):
    """Runs a command line that must fail; returns its one line."""
    before = sorted(Path.cwd().rglob("*"))
    assert run([str(a) for a in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert sorted(Path.cwd().rglob("*")) == before
    return err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["train"], "needs a recipe"),
        (["train", "ball-goto-target"], "unknown recipe 'ball-goto-target'; did you mean ball-go-to-target"),
        (["train", "missing.toml"], "recipe file 'missing.toml' does not exist"),
        (["train", RECIPE, "--num-env", "3"], "--num-env, 3; did you mean --num-envs?"),
        (["train", RECIPE, "--num-envs", "-3"], "num_envs: input should be greater than 0, not -3"),
        (["train", RECIPE, "--num-envs", "0"], "num_envs: input should be greater than 0, not 0"),
        (["train", RECIPE, "--total-env-steps", "many"], "--total-env-steps"),
        (["train", RECIPE, "--seed", "1.5"], "--seed: '1.5' is no INT"),
        (["train", RECIPE, "--algorithm.kl-cost", "low"], "--algorithm.kl-cost: 'low' is no FLOAT"),
        (
            ["train", RECIPE, "--algorithm.kl-cost", "-1"],
            "kl_cost: input should be greater",
        ),
        (["train", RECIPE, "--algorithm.target-kl", "0"], "target_kl: input should be greater than 0"),
        (["train", RECIPE, "--algorithm.target-entropy", "nan"], "target_entropy: input should be a finite"),
        (
            ["train", RECIPE, "--algorithm.target-kl", "1", "--algorithm.kl-cost", "0"],
            "kl_cost must be above 0 with target_kl: the learned cost starts there",
        ),
        (["train", f"{PRIORS}:svg0", *SHORT, "--algorithm.target-kl", "1"], "target_kl: this policy has no"),
        (
            ["train", RECIPE, "--algorithm.trust-region", "-1"],
            "trust_region: input should be greater than or",
        ),
        (
            ["train", RECIPE, "--algorithm.trust-region", "1", "--algorithm.target-update-rate", "1"],
            "trust_region needs a target_update_period above 1 or a target_update_rate below 1",
        ),
        (["train", RECIPE, "--algorithm.recency", "0"], "recency: input should be greater than 0"),
        (
            ["train", RECIPE, "--algorithm.behaviour-samples", "-1"],
            "behaviour_samples: input should be greater",
        ),
        (
            ["train", RECIPE, "--algorithm.behaviour-samples", "4", "--algorithm.latents", "stored_noise"],
            "behaviour_samples needs latents 'redrawn'",
        ),
        (
            ["train", f"{PRIORS}:svg0", *SHORT, "--algorithm.behaviour-samples", "4"],
            "behaviour_samples: a flat policy has no latents; leave it 0",
        ),
        (["train", RECIPE, "--algorithm.kl-schedule", "0", "1"], "kl_schedule needs two points"),
        (
            ["train", RECIPE, *SHORT, "--algorithm.kl-level-factors", "1", "0.1"],
            "kl_level_factors: the KL of this agent has one part; leave it out, change kl_cost",
        ),
        (
            ["train", RECIPE, "--algorithm.learning-rate-factors", "critic=0.5", "policy.low_level"],
            "learning_rate_factors: 'policy.low_level' is no MODULE=FACTOR, a factor above 0",
        ),
        (
            ["train", RECIPE, *SHORT, "--algorithm.learning-rate-factors", "policy.lowlevel=0.1"],
            "learning_rate_factors: unknown module 'policy.lowlevel'; did you mean policy.low_level",
        ),
        (["train", RECIPE, "--algorithm.kl-cots", "1"], "did you mean --algorithm.kl-cost"),
        (
            ["train", RECIPE, "--algorithm.lr", "1"],
            "--algorithm.policy-learning-rate or --algorithm.critic-le",
        ),
        (["train", RECIPE, "--default-policy.high-level", "ar2"], "'ar2'; did you mean ar1"),
        (["train", RECIPE, "--environment", "bal-go-to-target"], "did you mean ball-go-to-target"),
        (["train", RECIPE, "--information.low-level", "proprio"], "did you mean proprioception?"),
        (["train", RECIPE, "--replay-capacity", "1000000000000"], "lower replay_capacity"),
        (
            ["train", RECIPE, "--algorithm.unroll-length", "401"],
            "exceeds the environment's episode",
        ),
        (["train", "grid-1-step", "--algorithm.symmetries"], "grid-1-step declares none; leave it false"),
        (["train", RECIPE, "--environment", "ant-gap", "--algorithm.symmetries"], "ant-gap declares none"),
        (
            ["train", "ball-move-box-easy", "--algorithm.relabelled", 0.5],
            "declares no relabelling; leave it 0",
        ),
        (
            ["train", "grid-1-step", "--algorithm.exploration-correlation", "0.9"],
            "algorithm.exploration_correlation is for gaussian actions, but those of grid-1-step are"
            " categorical; leave it out",
        ),
        (["train", "grid-1-step", "--algorithm.exploration-scale", "1", "2"], "exploration_scale is for"),
        (
            [
                "train",
                RECIPE,
                *("--algorithm.exploration-scale", "1", "2", "--algorithm.behaviour-samples", 4),
            ],
            "behaviour_samples needs exploration_scale (1, 1)",
        ),
        (
            ["train", RECIPE, "--algorithm.exploration-scale", "0", "2"],
            "exploration_scale.0: input should be",
        ),
        (["train", RECIPE, "--algorithm.exploration-scale", "2"], "--algorithm.exploration-scale"),
        (
            ["train", RECIPE, "--algorithm.exploration-correlation", "1"],
            "exploration_correlation: input should be less than 1",
        ),
        (
            ["train", RECIPE, "--num-envs", "3"],
            "algorithm.replay_ratio 8 in 3 worlds makes no update of 64 windows after an unroll: lower"
            " algorithm.batch_size to 24, or raise num_envs to 8 or algorithm.replay_ratio to 21.3333",
        ),
        (["train", RECIPE, "--policy.high-level", "none"], "does not suit a flat policy; one of none"),
        (
            ["train", RECIPE, *SHORT, "--default-policy.low-level", "distral"],
            "'distral' does not suit a policy with a latent; one of shared, separate, feed_forward, lstm,"
            " latent_variable does",
        ),
        (["train", RECIPE, *SHORT, "--algorithm.optimizer", "adamv"], "did you mean adam"),
        (["train", GRID, *SHORT, "--num-devices", "64"], "num_devices 64 exceeds the 1 of this machine"),
        (["train", RECIPE, *SHORT, "--num-devices", "2", "--engine", "mujoco"], "runs on the host"),
        (["train", RECIPE, *SHORT, "--num-devices", "2", "--engine", "warp"], "all worlds on every device"),
        (["train", GRID, *SHORT, "--distributed"], "--distributed needs --out"),
        (["train", GRID, *SHORT, "--distributed", "--out", "run"], "cannot meet other processes"),
        (["train", RECIPE, *SHORT, "--replay-capacity", "0"], "min_replay 25600 exceeds replay_capacity 0"),
        (["train", PRIORS], "is several recipes; name one"),
        (["train", f"{PRIORS}:ar2"], "unknown variant 'ar2'; did you mean ar1"),
        (
            ["train", "ball-move-box-mid"],
            "is an environment, not a recipe; train one there: mjx-hkl train ball-move-box-easy",
        ),
        (["reproduce", "figure-4"], "unknown recipe 'figure-4'; did you mean figure-"),
        (["reproduce", PRIORS, "--only", "svg-0"], "unknown variant 'svg-0'; did you mean svg0"),
        (["reproduce", PRIORS, "--scale", "0"], "scale: input should be greater than 0"),
        (["reproduce", PRIORS, "--engine", "mjy"], "engine: input should be 'auto'"),
        (["plot"], "runs"),
        (["plot", "."], "is neither a run nor a folder of runs"),
        (["plot", ".", "--out", "curves.gif"], "must end in .png, .svg, .pdf"),
        (["plot", ".", "--out", "no/where.png"], "the folder no does not exist"),
        (["train", RECIPE, "--seed", "4294967296"], "seed 4294967296 leaves no room"),
        (["train", RECIPE, "--algorithm.kl-cost", "inf"], "kl_cost: input should be a finite number"),
        (["train", RECIPE, "--out", RECIPE / "run"], "cannot be made: no folder can be written in"),
        (["train", RECIPE, "--resume"], "--resume needs the run directory"),
        (["train", RECIPE, "--resume", "--out", "nothing"], "nothing holds no run to resume"),
        (["evaluate", "nobody"], "unknown agent 'nobody'"),
        (["evaluate", "some/where"], "some/where does not exist"),
        (["evaluate", ".", "--episodes", "0"], "episodes: input should be greater than 0"),
        (["evaluate", "."], "it has no agent.json"),
        (["export", "."], "is not a run directory"),
        (["inspect", "."], "it has no agent.json"),
        (["bench", "speed", "ball-go-to-target"], "unknown bench 'speed'; known: compile, env, train"),
        (["bench", "compile", RECIPE, "--for", "h10"], "unknown device 'h10'; did you mean h100"),
        (
            ["bench", "compile", RECIPE, "--for", "no/where.toml"],
            "device file 'no/where.toml' does not exist",
        ),
        (["bench", "compile", RECIPE, "--engine", "mujoco"], "runs on the host's CPU, not on an accelerator"),
        (["bench", "compile", "ball"], "unknown recipe 'ball'"),
        (["bench", "env", "grid-1-step", "--for", "h100"], "--for is for bench compile"),
        (["bench", "env", "cube"], "unknown environment 'cube'"),
        (["bench", "env", "ball-go-to-target", "--engine", "mujocco"], "unknown engine 'mujocco'"),
        (["bench", "train", RECIPE, "--engine", "mjx", "mujoco"], "one engine at a time"),
        (["bench", "env", "cube", "--num-envs", "x"], "--num-envs: 'x' is no INT; see"),
        (["bench", "env", "brax:fast", "--engine", "auto", "auto"], "brax:fast takes one engine at a time"),
        (["bench", "env", "grid-1-step", "--engine", "foo"], "takes no engine, not 'foo'"),
        (["bench", "env", "ball-go-to-target", "--engine", "mjx", "mjx"], "engine mjx is there twice"),
        (["train", GRID, *SHORT, "--engine", "mjx"], "takes no engine, not 'mjx'"),
        (["train", GRID, *SHORT, "--algorithm.returns", "n_step"], "--algorithm.returns"),
        (["train", RECIPE, *SHORT, "--algorithm.rho-clip", "2"], "--algorithm.rho-clip"),
        (["evaluate", "grid-1-step", "--seed-index", "1"], "is one agent, not a run of several seeds"),
        (["evaluate", "grid-1-step", "--seed", "99999999999999999999"], "seed: input should be less than"),
        (["bench", "env", "brax:fast", "--engine", "mjx"], "'brax:fast' does not run on engine 'mjx'"),
        (["bench", "env", "grid-1-step", "--profile", "trace"], "--profile is for bench train"),
        (["evaluate", "random:ant-gab"], "unknown environment 'ant-gab'; did you mean ant-gap"),
        (["evaluate", "random:ant-gap", "--engine", "mjy"], "unknown engine 'mjy'"),
        (
            ["train", RECIPE, "--environment", "brax:ants"],
            "unknown Brax environment 'ants'; did you mean ant",
        ),
        (
            ["train", RECIPE, "--environment", "brax:fast bakend=mjx"],
            "unknown argument of brax:fast 'bakend'; did you mean backend?",
        ),
        (["evaluate", "random:brax:fast episode_length=0"], "episode_length must be a whole number above 0"),
        (
            ["train", RECIPE, "--environment", "ant-walk", "--until-success", "0.9"],
            "until_success: nothing can succeed in ant-walk; leave it 0",
        ),
        (["render", "random:ant-gap", "ant.avi"], "must end in .mp4 or .png"),
        (["render", "random:ant-gap", "nowhere/ant.mp4"], "the folder nowhere does not exist"),
        (["render", "random:ant-gap", "ant.mp4", "--width", "321"], "width and height must be even"),
        (["render", "nobody", "ant.mp4"], "unknown agent 'nobody'"),
        (["render", "random:ant-gap", "ant.png", "--stochastic"], "--stochastic are for a video"),
        (["render", "random:ant-gap", "ant.png", "--episodes", "2"], "--episodes and --stochastic are for"),
        (["evaluate", "random:ant-gap", "--seed_index", "1"], "there is no number 1"),
        (["export", "nobody", "--format", "onnx", "--episodes", "3"], "--episodes is of --format agent"),
        (["evaluate", __file__], "is a file; give the folder of the run or agent that it lies in"),
        (["list", "recipies"], "did you mean recipes"),
        (["list", "checkpoints"], "unknown list 'checkpoints'"),
        (["list", "envs", "no_such"], "no envs whose name contains 'no_such'"),
    ],
)
def test_wrong_arguments(capsys, arguments, expected):
    assert expected in fails(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("environment = ", "is not valid TOML"),
        ("seed = 1", "environment: field required"),
        ('environment = "ball-go-to-target"\nsede = 1', "unknown field 'sede'; did you mean seed"),
        (
            'environment = "ball-go-to-target"\nseed = "one"',
            "seed: input should be a valid integer",
        ),
        ('environment = "ball-go-to-target"\nseed = 1.5', "seed: input should be a valid integer"),
        ('environment = "ball-go-to-target"\n[polcy]\nkind = "flat"', "unknown field 'polcy'"),
        (
            'environment = "ball-go-to-target"\n[policy.high_level]\nkind = "bent"',
            "unknown kind of [policy.high_level] 'bent'",
        ),
        (
            'environment = "ball-go-to-target"\n[policy]\nhigh_levels = "flat"',
            "[policy]: unknown field 'high_levels'; did you mean high_level",
        ),
        ('environment = "ball-go-to-target"\npolicy = 3', "policy: input should be a table, not 3"),
        (
            'environment = "ball-go-to-target"\n[policy.low_level]\nsizes = [8, -8]',
            "[policy.low_level]: sizes.1",
        ),
        ('environment = "ball-go-to-target"\nmin_replay = 99999999', "exceeds replay_capacity"),
        (
            'environment = "ball-go-to-target"\nnum_envs = 256\n[algorithm]\nupdates_per_unroll = 8',
            "replay_ratio instead, which is updates_per_unroll x batch_size / num_envs, here 16\n",
        ),
        (
            'environment = "ball-go-to-target"\n[algorithm]\nbatch_size = 0\nupdates_per_unroll = 1',
            "say algorithm.replay_ratio instead, which is updates_per_unroll x batch_size / num_envs\n",
        ),
    ],
)
def test_wrong_recipes(capsys, tmp_path, text, expected):
    (tmp_path / "mine.toml").write_text(text)
    assert expected in fails(capsys, "train", "mine.toml")


def test_a_recipe_that_is_no_text(capsys, tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    assert "cannot read mine.toml" in fails(capsys, "train", "mine.toml")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('body = "bal"', "did you mean ball?"),
        ('[arena]\nkind = "circle"', "unknown kind of [arena] 'circle'; known: area, corridor"),
        ("[arena]\nsize = 8.0", "[arena] needs a kind; known: area, corridor"),
        (
            '[arena]\nkind = "area"\nsize = -1.0',
            "[arena]: size: input should be greater than or equal to 0.0001",
        ),
        ('[task]\nkind = "go_to_taget"', "did you mean go_to_target"),
        ('[task]\nkind = "go_to_target"\nnum_targets = 0', "num_targets: input should be greater than 0"),
        ('[task]\nkind = "go_to_target"\nradius = 2.0', "separation 1.0 must exceed radius 2.0"),
        ('[arena]\nkind = "area"\nsize = 2.0', "an area of 2 m is too small for 4 things"),
        ("[physics]\nsubstep = 5", "[physics]: unknown field 'substep'; did you mean substeps"),
        ("episode_length = 0", "episode_length: input should be greater than 0"),
        (
            '[task]\nkind = "gap"',
            '[task] needs an [arena] with before, after, far_platform_pos, as kind "corridor"',
        ),
        (
            '[arena]\nkind = "corridor"\n[boxes]\njoint = "free"',
            '[task] needs an [arena] with half_width, as kind "area"',
        ),
        ('[task]\nkind = "gap"\nshortest = 3.0', "shortest 3.0 exceeds longest 2.5"),
        ('[arena]\nkind = "corridor"', '[task] needs an [arena] with half_width, as kind "area"'),
        ('[task]\nkind = "move_box"', "give the environment a [boxes] table"),
        ('[task]\nkind = "move_box"\n[boxes]\ncount = 0', "boxes.count: input should be greater than 0"),
        ('[task]\nkind = "move_box"\n[boxes]\ncolour = 1', "[boxes]: unknown field 'colour'"),
        ('[task]\nkind = "move_box"\nradius = 1.0\n[boxes]', "separation 0.6 must exceed radius 1.0"),
        ('[task]\nkind = "move_box"\n[boxes]\ncount = 40', "is too small for 42 things"),
        ('[task]\nkind = "move_box"\n[boxes]\nclearance = 9.0', "leaves no room for boxes in an area of 8 m"),
        ('[task]\nkind = "gather_boxes"\n[boxes]', "needs at least 2 boxes"),
        ('[task]\nkind = "go_to_target"\n[boxes]', "there are [boxes], but the task does not place any"),
        ('[task]\nkind = "move_box_or_go_to_target"\n[boxes]\ncount = 2', "combined tasks have one box"),
        ('[task]\nkind = "mine.py:Task"', "mine.py does not exist"),
        (
            '[task]\nkind = "json:JSONDecoder"',
            "[task]: 'json:JSONDecoder' must be a dataclass with methods reset, observe, reward",
        ),
        ('extends = "mine.toml"', "extends itself"),
        ('extends = "bal-go-to-target"', "unknown environment 'bal-go-to-target'; did you mean ball-go-to"),
    ],
)
def test_wrong_environments(capsys, tmp_path, change, expected):
    tables = {
        "body": 'body = "ball"',
        "[arena]": '[arena]\nkind = "area"',
        "[task]": '[task]\nkind = "go_to_target"',
    }
    key = next((key for key in tables if change.startswith(key)), None)
    parts = [change if name == key else text for name, text in tables.items()]
    if key is None:
        parts.insert(1, change)
    (tmp_path / "mine.toml").write_text("\n".join(parts))
    assert expected in fails(capsys, "train", RECIPE, "--environment", "mine.toml", *SHORT)


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<mujoco", "mine.xml"),
        ("<mujoco><worldbody><body name='trunk'/></worldbody></mujoco>", "no part named 'torso'"),
        (
            "<mujoco><worldbody><body name='torso'><joint type='hinge'/>"
            "<geom name='hull' size='.1'/></body></worldbody></mujoco>",
            "needs a free joint",
        ),
        (
            "<mujoco><worldbody><body name='torso'><freejoint/><geom size='.1'/></body></worldbody></mujoco>",
            "a geom with a contype needs a name",
        ),
        (
            "<mujoco><worldbody><geom name='rock' size='.1'/><body name='torso'><freejoint/>"
            "<geom name='hull' size='.1'/></body></worldbody></mujoco>",
            "'rock' collides but belongs to no body that can move",
        ),
        (
            "<mujoco><worldbody><body name='torso'><freejoint/>"
            "<geom name='hull' type='cylinder' size='.1 .1'/><site name='s'/></body></worldbody>"
            "<actuator><motor site='s' gear='1 0 0 0 0 0'/></actuator></mujoco>",
            "'hull' is a cylinder, which cannot collide with the box 'box0'",
        ),
        (
            "<mujoco><worldbody><body name='torso'><freejoint/>"
            "<geom name='left_foot' type='capsule' size='.1 .1'/></body></worldbody></mujoco>",
            "must be spheres",
        ),
        (
            "<mujoco><worldbody><body name='torso'><freejoint/>"
            "<geom name='hull' size='.1'/></body></worldbody></mujoco>",
            "has no actuators",
        ),
        (
            "<mujoco><worldbody><body name='torso'><freejoint/><geom name='hull' size='.1'/><site name='s'/>"
            "</body></worldbody><actuator><general site='s' delay='.02' nsample='4'/></actuator></mujoco>",
            "a sensor of the body has a delay, which no state here carries",
        ),
        (
            "<mujoco><extension><plugin plugin='mujoco.pid'/></extension><worldbody><body name='torso'>"
            "<freejoint/><geom name='hull' size='.1'/><body><joint name='j'/>"
            "<geom size='.1' contype='0' conaffinity='0'/></body></body></worldbody>"
            "<actuator><plugin joint='j' plugin='mujoco.pid'/></actuator></mujoco>",
            "the body uses plugins",
        ),
    ],
)
def test_wrong_bodies(capsys, tmp_path, xml, expected):
    (tmp_path / "mine.xml").write_text(xml)
    text = 'body = "mine.xml"\n[arena]\nkind = "area"\n[task]\nkind = "move_box"\n[boxes]'
    (tmp_path / "mine.toml").write_text(text)
    assert expected in fails(capsys, "train", RECIPE, "--environment", "mine.toml", *SHORT)


def test_a_folder_that_holds_something_else(capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    assert "mine exists and is not empty" in fails(capsys, "train", RECIPE, "--out", "mine")


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ("{", "cannot be read"),
        ("{}", "does not describe an exported agent"),
        (
            json.dumps({"format": "mjx-hkl agent", "format_version": 1, "program_version": "0.1.0"}),
            "reads 2: export the agent again from its run, or use the mjx-hkl 0.1.0 that wrote it",
        ),
        (
            json.dumps({"format": "mjx-hkl agent", "format_version": 99}),
            "has format version 99; this mjx-hkl",
        ),
        (
            json.dumps({"format": "mjx-hkl agent", "format_version": 2}),
            "agent.json: recipe: field required",
        ),
    ],
)
def test_foreign_exports(capsys, tmp_path, about, expected):
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "agent.json").write_text(about)
    assert expected in fails(capsys, "evaluate", "agent")
    assert expected in fails(capsys, "inspect", "agent")
