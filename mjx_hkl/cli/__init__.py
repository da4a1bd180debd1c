"""The commands: parse, call a function of a floor below, print."""
