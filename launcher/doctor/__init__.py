"""`ftlaunch doctor`: what would fail later, found before anything is started.

`probes.py` starts a probe on each node, `examined.py` holds the facts they tell, and the others judge those facts,
purely: facts in, findings out. Nothing is changed on any node.
"""
