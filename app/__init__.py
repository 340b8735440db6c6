"""Sequence modelling as one Hydra application. Start with `interfaces.py`, then `trainer.py`."""

import os

# Threads of torch's CPU operations that wait for each other turn in a loop for milliseconds before they sleep. Where
# other programs want the cores too, they turn while what they wait for cannot run. GNU OpenMP reads this when torch is
# imported, so that it has to be said first.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
