"""A high level that sees a camera's image alone moves from body to body, with its encoder."""

import dataclasses
import functools

import pytest

from mjx_hkl.environments.world import VISION, VISION_STATE
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agent_format import abstract_agent
from mjx_hkl.experiments.build import resolve, world_of
from mjx_hkl.experiments.recipe import TransferConfig, load_variants
from mjx_hkl.experiments.transfer import require_fits
from mjx_hkl.experiments.world_specs import WorldSpecs


@functools.cache
def known(recipe, variant):
    """The agent of a shipped recipe, with shapes alone."""
    chosen = load_variants(recipe)[variant]
    world = world_of(chosen)
    return abstract_agent(resolve(chosen, world), WorldSpecs.of(world))


@pytest.mark.parametrize(("recipe", "there"), [("ball-to-ant-vision", "ball"), ("figure-7", "ant")])
def test_what_drives_one_body_by_its_camera_fits_another(recipe, there):
    other = known(recipe, there)
    for variant in ("with_kl", "without_kl"):
        require_fits(known(recipe, variant), {f":{there}": other})
    here = known(recipe, "with_kl")
    assert here.world.environment["body"] != other.world.environment["body"]
    without = dataclasses.replace(
        here.recipe, transfer=TransferConfig(agent="there", frozen=("policy.high_level",))
    )
    with pytest.raises(UserError, match=r"sees vision through the shared encoders.vision; take that too"):
        require_fits(dataclasses.replace(here, recipe=without), {"there": other})


@pytest.mark.parametrize(
    "recipe", ["ball-go-to-near-target-vision-options", "ball-to-ant-vision", "figure-7"]
)
def test_in_shipped_recipes_the_low_level_does_not_see(recipe):
    for variant in load_variants(recipe):
        modules = known(recipe, variant).agent.modules()
        assert modules["policy.low_level"].sees[0] == "proprioception"
        assert VISION not in modules["policy.low_level"].sees
        assert not any(VISION_STATE in module.sees for module in modules.values())
