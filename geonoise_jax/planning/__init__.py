"""What a config needs of devices that are not there: memory, arithmetic and time, by the real program."""
