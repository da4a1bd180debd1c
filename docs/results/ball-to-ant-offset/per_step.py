"""Near targets with a reward in each step: as much as a KL of constant size takes away, or gives back."""

import dataclasses

from mjx_hkl.environments.tasks.go_to_target import GoToTarget


@dataclasses.dataclass(frozen=True)
class PerStep(GoToTarget):
    """Its relabelling gives the reward at a target alone: not for algorithms that relabel."""

    reward_per_step: float = 0.0

    def reward(self, state, scene):
        """That of a target, and of the step."""
        outcome = super().reward(state, scene)
        return outcome._replace(reward=outcome.reward + self.reward_per_step)
