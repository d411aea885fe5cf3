"""The Generalist method: experts, their mixture, and how both are judged.

Names are imported on first use, so that configurations and spaces do not wait for torch. They are
listed in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
