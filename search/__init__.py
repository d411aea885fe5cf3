"""The sweep: many Generalist trainings on Ray, sampled by Optuna toward the Pareto front.

Names are imported on first use, so that the command line's help does not wait for torch and Ray.
They are listed in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
