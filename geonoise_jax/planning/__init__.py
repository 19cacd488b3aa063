"""What a config needs of devices that are not there: memory, arithmetic, time, from the real program and its compiler."""
