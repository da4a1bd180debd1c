"""What an exported agent says of itself: a card, and the page for people that is made of it."""

import dataclasses
from collections.abc import Iterator

from mjx_hkl import resources
from mjx_hkl.config import NonNegative, to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import encoders_by_group
from mjx_hkl.experiments.evaluation import Evaluation
from mjx_hkl.experiments.recipe import Recipe, load_recipe
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.config import Information


@dataclasses.dataclass(frozen=True)
class ModuleCard:
    """One module of an agent.

    Attributes:
      sees: names of its inputs, in the order they are joined.
      parameters: numbers in its arrays.
      sha256: of its arrays, with their names, types and shapes.
      bound_to_body: whether it fits one body alone, whatever it sees.
      stands_for: the module that it is, where it has no parameters of its own.
    """

    sees: tuple[str, ...] = ()
    parameters: NonNegative = 0
    sha256: str = ""
    bound_to_body: bool = False
    stands_for: str = ""


@dataclasses.dataclass(frozen=True)
class AgentCard:
    """An exported agent, all but its parameters.

    Attributes:
      recipe: resolved, that trained it.
      seed: which of the recipe's.
      world: that it was made for.
      modules: by name, those that have parameters and those that stand for another.
      versions: of the packages that it was written with.
      evaluation: what it achieved, if it was evaluated.
    """

    recipe: Recipe
    seed: NonNegative
    world: WorldSpecs
    modules: dict[str, ModuleCard]
    versions: dict[str, str]
    evaluation: Evaluation | None = None

    def __post_init__(self):
        self.recipe.information.check(self.world.observation)


def page(card: AgentCard) -> str:
    """The card as Markdown."""
    lines = [
        f"# {card.recipe.name}",
        "",
        "An agent of mjx-hkl; `agent.json` holds its whole recipe.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _facts(card).items()),
        "",
        "| module | sees | parameters |",
        "|---|---|---|",
        *_modules(card),
    ]
    return "\n".join(lines) + "\n"


def kinds(recipe: Recipe) -> tuple[str, str, str]:
    """Names of the kinds of the high level, of the prior, and of the default policy's low level."""
    table = to_table(recipe)
    policy, default = table["policy"], table["default_policy"]
    return policy["high_level"]["kind"], default["high_level"]["kind"], default["low_level"]["kind"]


def _facts(card: AgentCard) -> dict[str, str]:
    recipe, found = card.recipe, card.evaluation
    high_level, prior, default_low_level = kinds(recipe)
    return {
        "recipe": recipe.name,
        "environment": recipe.environment_name,
        "policy": f"high level {high_level}",
        "default policy": f"high level {prior}, low level {default_low_level}",
        "budget": f"{recipe.total_env_steps:,} environment steps",
        "command": f"`{command(recipe)}`" if is_as_named(recipe) else "none in `train/`: see agent.json",
        "seed": str(card.seed),
        "evaluation": "none"
        if found is None
        else f"{found.summary()} over {found.episodes} episodes, seed {found.seed}",
        "written with": ", ".join(f"{name} {version}" for name, version in card.versions.items()),
    }


def _modules(card: AgentCard) -> Iterator[str]:
    for name, module in card.modules.items():
        if module.stands_for:
            yield f"| `{name}` | is `{module.stands_for}` | |"
        else:
            yield f"| `{name}` | {', '.join(module.sees)} | {module.parameters:,} |"


def is_as_named(recipe: Recipe) -> bool:
    """Whether `train/` holds the recipe under its name.

    Seeds, how training was watched, and what device and world fill in may differ.
    """
    if recipe.name.partition(":")[0] not in resources.names("train", ".toml"):  # nor a path that others chose
        return False
    try:
        named = load_recipe(recipe.name)
    except UserError:
        return False
    pairs = zip(dataclasses.astuple(named.information), dataclasses.astuple(recipe.information), strict=True)
    sources = dict(zip(named.transfer.agents, recipe.transfer.agents, strict=False))
    return recipe == dataclasses.replace(
        named,
        **{name: getattr(recipe, name) for name in _MAY_DIFFER},
        num_envs=named.num_envs or recipe.num_envs,
        information=Information(*(written or seen for written, seen in pairs)),
        policy=dataclasses.replace(named.policy, actions=recipe.policy.actions),
        encoders=encoders_by_group(named, recipe.encoders),
        transfer=named.transfer.with_agents(
            lambda source: sources.get(source, source) if source.startswith(":") else source
        ),
    )


_MAY_DIFFER = ("seed", "num_seeds", "num_devices", "evaluation_episodes", "evaluation_interval")


def command(recipe: Recipe) -> str:
    """What trains the recipe again, and what it transfers from."""
    name, _, variant = recipe.name.partition(":")
    if variant:
        return f"mjx-hkl reproduce {name} --only {variant} --num-seeds {recipe.num_seeds}"
    return f"mjx-hkl train {name} --num-seeds {recipe.num_seeds} --seed {recipe.seed}"
