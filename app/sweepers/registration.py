"""Our sweepers among Hydra's plug-ins, which Hydra takes from packages called `hydra_plugins` only."""

import sys
from types import ModuleType

import hydra_plugins
from hydra.core.plugins import Plugins

from app.sweepers.optuna_search import OptunaSearch
from app.sweepers.random_search import RandomSearch
from app.sweepers.successive_halving import SuccessiveHalving

MODULE = "hydra_plugins.seqwright"
SWEEPERS = (RandomSearch, SuccessiveHalving, OptunaSearch)


def name_sweepers() -> None:
    """Make `hydra_plugins.seqwright`, a module without a file. A job that unpickles Hydra's state needs it too."""
    module = ModuleType(MODULE)
    for sweeper in SWEEPERS:
        sweeper.__module__ = MODULE
        setattr(module, sweeper.__name__, sweeper)
    sys.modules[MODULE] = hydra_plugins.seqwright = module


def register_sweepers() -> None:
    """Let `conf/hydra/sweeper/` choose them."""
    for sweeper in SWEEPERS:
        Plugins.instance().register(sweeper)
