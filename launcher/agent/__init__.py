"""`python -m launcher.agent`: starts and watches the ranks of one node."""
