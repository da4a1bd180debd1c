"""TrainState, the one jitted train step, the loop around it, checkpoints and devices."""
