"""A recipe: one experiment as data, every number of it a field with a type and a range."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tomli_w
from pydantic import PlainValidator

from mjx_hkl import resources
from mjx_hkl.algorithms.algorithm import Algorithm
from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.algorithms.table import ALGORITHMS
from mjx_hkl.config import (
    Few,
    Fraction,
    Many,
    NonNegative,
    NonNegativeFloat,
    Positive,
    Seed,
    from_table,
    to_table,
)
from mjx_hkl.environments import task_name
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.experiments import copies
from mjx_hkl.models.config import DefaultPolicyConfig, Encoders, Information, ModelConfig, PolicyConfig
from mjx_hkl.models.critics import CRITICS, CriticFields, MLPCriticFields
from mjx_hkl.tables import beside, merged, read_extended
from mjx_hkl.user_code import home_of, trust


class Taken(NamedTuple):
    """A module of the new agent, the module of another agent that it is taken from, and that agent."""

    module: str
    source: str
    agent: str


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """What of other agents this one starts from (§7).

    A module is named as an export names it, like `policy.low_level`; to take another than its own:
    `policy.low_level=default_policy.low_level`; to take it from another agent than `agent`:
    `policy.low_level@AGENT`.
    """

    agent: str = ""
    """An exported agent, a finished run, or in a recipe with variants :VARIANT; seeds take theirs in turn."""
    frozen: tuple[str, ...] = ()
    """Modules taken and kept as they are."""
    initial: tuple[str, ...] = ()
    """Modules taken and learned on."""
    released: tuple[str, ...] | None = None
    """Modules taken, kept as they are until `release_after`, and learned on from there."""
    release_after: Positive | None = None
    """Environment steps of each agent, rounded up to whole train steps."""

    def __post_init__(self):
        if bool(self.agent) != any("@" not in entry for entry in self._entries):
            raise ValueError(
                "transfer needs an agent, and frozen, initial or released modules of it; or modules that name"
                " theirs, MODULE@AGENT"
            )
        if bool(self.released) != (self.release_after is not None):
            raise ValueError("released modules need release_after, and release_after needs released modules")
        for module in self.released_modules:
            inside = [outer for outer in self.frozen_modules if f"{module}.".startswith(f"{outer}.")]
            if inside and module != inside[0]:
                raise ValueError(f"{module} cannot be released: {inside[0]}, which it is in, is frozen")
        for entry in self._entries:
            module, _, agent = _taken(entry, self.agent)
            if not module or not agent:
                raise ValueError(f"{entry!r} is no MODULE, MODULE=MODULE or MODULE@AGENT")
            agents = [taken.agent for taken in self.taken if taken.module == module]
            if len(agents) > 1:
                told = " and from ".join(dict.fromkeys(agents))
                raise ValueError(f"{module} is taken twice, from {told}; name it once")

    @property
    def taken(self) -> list[Taken]:
        """The modules of the new agent that come from others."""
        return [_taken(entry, self.agent) for entry in self._entries]

    @property
    def agents(self) -> list[str]:
        """The other agents as they are given, each once."""
        return list(dict.fromkeys(taken.agent for taken in self.taken))

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        """The modules of the new agent that stay as they are."""
        return tuple(_taken(entry, self.agent).module for entry in self.frozen)

    @property
    def released_modules(self) -> tuple[str, ...]:
        """The modules of the new agent that stay as they are until `release_after`."""
        return tuple(_taken(entry, self.agent).module for entry in self.released or ())

    def with_agents(self, named: Callable[[str], str]) -> "TransferConfig":
        """The same, each agent given by what `named` makes of its name."""

        def renamed(entry: str) -> str:
            module, at, agent = entry.partition("@")
            return f"{module}@{named(agent)}" if at else entry

        lists = {name: getattr(self, name) for name in ("frozen", "initial", "released")}
        renamed_lists = {name: tuple(map(renamed, entries)) for name, entries in lists.items() if entries}
        return dataclasses.replace(self, agent=self.agent and named(self.agent), **renamed_lists)

    @property
    def _entries(self) -> tuple[str, ...]:
        return (*self.frozen, *(self.released or ()), *self.initial)


def _taken(entry: str, agent: str) -> Taken:
    """What an entry says; it may name the agent itself."""
    modules, _, own = entry.partition("@")
    module, _, source = modules.partition("=")
    return Taken(module, source or module, own if "@" in entry else agent)


def _environments(given: Any) -> Any:
    """A name, or a tuple of names; raises ValueError where it is neither."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"input should be a name or a list of names, not {given!r}")
    return tuple(given)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What `mjx-hkl train` runs."""

    environment: Annotated[str | tuple[str, ...], PlainValidator(_environments)]
    """Name in envs/, path to an environment .toml, brax:NAME or playground:NAME; after the latter two
    arguments of theirs, as in "brax:ant backend=mjx episode_length=500". Several: one agent learns all of
    them, in as many worlds of each."""
    name: str = "unnamed"
    """Names the run; the recipe file's own name where it gives none."""
    engine: Literal["auto", "mjx", "mujoco", "warp"] = "auto"
    """Physics engine; auto is mujoco (C MuJoCo, threaded) on a CPU and mjx on an accelerator."""
    renderer: Literal["auto", "rays", "warp"] = "auto"
    """Of the world's camera, where it has one; auto is rays, plain JAX on any device."""
    seed: Seed = 0
    """Of the first agent; the others count up from it."""
    num_seeds: Few = 1
    """Agents trained side by side in one program, independent but for their time."""
    num_devices: Positive | None = None
    """Devices that share the work: whole seeds each where they divide evenly, else a part of every seed's
    environments. By default one, or all that several processes have."""
    num_envs: Many | None = None
    """Worlds of each agent; by default what fits the device: 256 on a CPU, 4096 on an accelerator."""
    total_env_steps: Positive = 10_000_000
    """Environment steps of each agent after which training ends, rounded up to whole log intervals."""
    until_success: Fraction = 0.0
    """Training ends before that once this share of a log interval's episodes has succeeded, in every seed; of
    several environments, in each that tells of success."""
    log_interval: Positive = 100_000
    """Environment steps between metrics; rounded up to whole train steps."""
    checkpoint_interval: NonNegative = 5_000_000
    """Environment steps between checkpoints, beside those by time and the one at the end; 0: not by steps."""
    checkpoint_minutes: NonNegativeFloat = 5.0
    """Minutes after which a checkpoint is written at the end of the log interval; 0: not by time."""
    keep_checkpoints: Few = 2
    """The newest so many stay: the one before is what `--resume` goes on from where the last is damaged."""
    replay_capacity: NonNegative = 1_000_000
    """Transitions replay holds, rounded up to whole unrolls; 0: the newest unroll alone, for on-policy."""
    min_replay: NonNegative = 50_000
    """Transitions collected before the first update."""
    images: Literal["stored", "drawn"] = "stored"
    """Whether replay keeps a camera's images, as bytes, or what they are drawn from, to draw them again when
    they are sampled: far less memory, for the time of drawing."""
    evaluation_episodes: Many = 256
    """Episodes of an evaluation."""
    evaluation_interval: NonNegative = 0
    """Environment steps between evaluations of the mean policy while it is trained, at the end of log
    intervals; their time does not count as training. The best agent is kept in RUN/best. 0: at the end of the
    run alone."""
    information: Information = Information()
    policy: PolicyConfig = PolicyConfig()
    default_policy: DefaultPolicyConfig = DefaultPolicyConfig()
    critic: Annotated[CriticFields, CRITICS] = MLPCriticFields()
    encoders: Encoders = dataclasses.field(default_factory=dict)
    """By the observation group that is encoded, before a module joins all it sees; `all` is every group that
    is a vector and has none of its own. By default those of Brax and Playground are normalized."""
    algorithm: Annotated[Algorithm, ALGORITHMS] = SVG()
    transfer: TransferConfig = TransferConfig()
    ladder: tuple[dict[str, Any], ...] = ()
    """Easier stages to learn before, in order: each a table of what it changes in this recipe, such as its
    environment and `until_success`. An agent begins each stage with all modules of the stage before."""

    def __post_init__(self):
        names = [task_name(name) for name in self.environments]
        if isinstance(self.environment, tuple) and len(names) < 2:
            raise ValueError("environment: a list needs several; name a single one without a list")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            alike = [given for given, name in zip(self.environments, names, strict=True) if name == twice]
            if len(set(alike)) < len(alike):
                raise ValueError(f"environment: {twice} is there twice")
            raise ValueError(
                f"environment: {' and '.join(alike)} are both called {twice}: give one file another name"
            )
        if self.seed + self.num_seeds > 2**32:
            raise ValueError(f"seed {self.seed} leaves no room for {self.num_seeds} seeds below {2**32}")
        if self.min_replay > self.replay_capacity:
            raise ValueError(
                f"min_replay {self.min_replay} exceeds replay_capacity {self.replay_capacity}: learning"
                " would never begin"
            )
        self.model  # noqa: B018 - raises where its parts contradict each other
        self.stages  # noqa: B018 - likewise

    @property
    def environments(self) -> tuple[str, ...]:
        """What the agent acts in: one environment, or several."""
        return (self.environment,) if isinstance(self.environment, str) else self.environment

    @property
    def environment_name(self) -> str:
        """Names them for people."""
        return ", ".join(self.environments)

    @property
    def stages(self) -> list["Recipe"]:
        """The recipes of the ladder's stages."""
        if not self.ladder:
            return []
        fields = {field.name for field in dataclasses.fields(Recipe)} - {"ladder"}
        table = {name: value for name, value in to_table(self).items() if name in fields}
        found = []
        for number, changes in enumerate(self.ladder, 1):
            if "ladder" in changes:
                raise ValueError(f"ladder: stage {number} has a ladder of its own")
            stage = merged({**table, "name": f"{self.name}: stage {number}"}, changes)
            found.append(from_table(Recipe, stage, f"ladder: stage {number}"))
        return found

    @property
    def model(self) -> ModelConfig:
        """What shapes the agent's parameters."""
        return ModelConfig(
            self.information,
            self.policy,
            self.default_policy,
            self.critic,
            self.encoders,
            state_values=self.algorithm.state_values,
            acts_in_latents=self.algorithm.acts_in_latents,
        )


def load_recipe(given: str, trust_code: bool = False) -> Recipe:
    """The recipe of that name in `train/`, in a .toml file, or of a run directory.

    Of a recipe with variants one is asked for, as in `priors:ar1`. Code in a run directory runs if this user
    has trained with it, or with `trust_code`.

    Raises:
      UserError: it does not exist or says something wrong, or its code may not run.
    """
    is_run = (Path(given) / "recipe.toml").is_file()
    if is_run:
        given = str(Path(given) / "recipe.toml")
    home = Path(given).parent if is_run else home_of(Path(given))
    if trust_code and home:
        trust(home)
    name, colon, variant = (given, "", "") if Path(given).is_file() else given.partition(":")
    variants = _variants(name, is_run)
    if colon and variant not in variants:
        raise unknown_name("variant", variant, variants)
    if not colon and "" not in variants:
        raise UserError(f"{name} is several recipes; name one: {name}:{' or :'.join(variants)}")
    return recipe_from_table(*variants[variant])


def load_variants(given: str) -> dict[str, Recipe]:
    """The recipes of a file by name: one for each of its `[variants.NAME]`; without any its own, named "".

    Raises:
      UserError: it does not exist or says something wrong.
    """
    return {name: recipe_from_table(*told) for name, told in _variants(given).items()}


def _variants(given: str, is_run: bool = False) -> dict[str, tuple[dict[str, Any], str]]:
    """The tables of each recipe of a file, and what names it in errors."""
    resources.refuse_environment(given)
    path = resources.find("recipe", given, "train", ".toml")
    table = {"name": path.stem, **read_extended("recipe", path, "train", _FILES)}
    found = _told_variants(path, table)
    if is_run or home_of(path):
        for checked, _ in found.values():
            copies.check(path.parent, checked)
    return found


def _told_variants(path: Path, table: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    changes = table.pop("variants", None)
    if changes is None:
        return {"": (table, str(path))}
    if not isinstance(changes, dict) or not changes or not all(isinstance(x, dict) for x in changes.values()):
        raise UserError(f"{path}: variants must be tables, [variants.NAME]")
    return {
        name: (
            merged({**table, "name": f"{table['name']}:{name}"}, beside(path, change, _FILES)),
            f"{path}: variant {name}",
        )
        for name, change in changes.items()
    }


_FILES = ("environment",)


def recipe_from_table(table: dict[str, Any], where: str) -> Recipe:
    """A checked recipe from the tables of a TOML file; `where` names it in errors."""
    refuse_updates_per_unroll(table, where)
    return from_table(Recipe, table, where)


def refuse_updates_per_unroll(table: Any, where: str) -> None:
    """Raises UserError, with the replay ratio to say instead, for a recipe from before there was one."""
    algorithm = table.get("algorithm") if isinstance(table, Mapping) else None
    if not isinstance(algorithm, Mapping) or "updates_per_unroll" not in algorithm:
        return
    updates, worlds = algorithm["updates_per_unroll"], table.get("num_envs")
    windows = algorithm.get("batch_size", Algorithm.batch_size) or worlds
    known = all(isinstance(x, int) and x > 0 for x in (updates, worlds, windows))
    ratio = f", here {updates * windows / worlds:g}" if known else ""
    raise UserError(
        f"{where}: algorithm.updates_per_unroll is gone; say algorithm.replay_ratio instead,"
        f" which is updates_per_unroll x batch_size / num_envs{ratio}"
    )


def with_copies(recipe: Recipe, run: Path) -> Recipe:
    """The recipe, a user's files that the run has copies of replaced by these.

    Raises:
      UserError: a copy is missing or has changed, or is code that may not run.
    """
    table = to_table(recipe)
    own = copies.inside(table, run)
    if own == table:
        return recipe
    copies.check(run, own)
    return recipe_from_table(own, str(run))


def change(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with some of its fields and tables changed, as a recipe that extends it would change them.

    Args:
      recipe: to change; it stays as it is.
      changes: by field, like `num_envs=64` or `policy={"high_level": {"latent_size": 2}}`, or an
        instance of the field's class.

    Raises:
      UserError: a field is unknown or wrong.
    """
    names = [field.name for field in dataclasses.fields(Recipe)]
    objects = {name: changes.pop(name) for name in names if dataclasses.is_dataclass(changes.get(name))}
    try:
        recipe = dataclasses.replace(recipe, **objects)
    except ValueError as error:
        raise UserError(f"change: {error}") from error
    return recipe_from_table(merged(to_table(recipe), changes), "change")


def essence(recipe: Recipe) -> dict[str, Any]:
    """What the parts of one run must share: all but its length, its logging and its evaluation."""
    return {name: value for name, value in to_table(recipe).items() if name not in _MAY_CHANGE}


_MAY_CHANGE = (
    "total_env_steps",
    "until_success",
    "log_interval",
    "checkpoint_interval",
    "checkpoint_minutes",
    "keep_checkpoints",
    "evaluation_episodes",
    "evaluation_interval",
    "name",
    "num_devices",
)


def recipe_to_toml(recipe: Recipe) -> str:
    """What `load_recipe` reads back as the same recipe."""
    return tomli_w.dumps(to_table(recipe))
