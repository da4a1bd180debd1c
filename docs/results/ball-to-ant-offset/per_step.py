"""Near targets with a reward in each step: what a KL of about constant size adds to, or takes from, the reward."""

import dataclasses

from mjx_hkl.environments.tasks.go_to_target import GoToTarget


@dataclasses.dataclass(frozen=True)
class PerStep(GoToTarget):
    """Its relabelling gives the reward at a target alone: not for algorithms that relabel."""

    reward_per_step: float = 0.0

    def reward(self, state, scene):
        outcome = super().reward(state, scene)
        return outcome._replace(reward=outcome.reward + self.reward_per_step)
