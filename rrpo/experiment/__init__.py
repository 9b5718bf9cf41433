"""One experiment as stages: the world, what is trained and measured for an arm and a seed, and cells."""
