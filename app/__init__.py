"""Sequence modelling as one Hydra application. Start with `interfaces.py`, then `trainer.py`."""
