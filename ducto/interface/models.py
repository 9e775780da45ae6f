"""Published path of the models; defined in `ducto.models`."""

from ducto.models import *  # noqa: F403
from ducto.models import __all__ as __all__
