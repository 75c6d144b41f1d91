"""Facts and settings of one host: cores, ports, network interface."""
