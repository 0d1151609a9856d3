"""Making a toxicity classifier fairer across identity groups: the parts of ``rledit debias``.

``config``      what a run is asked to do
``data``        comments and bias sentences, cut into splits that share no sentence
``classifier``  the models: bag of words, or a head on a pretrained sentence encoder
``task``        what is searched
``layers``      which layers to edit, where nobody says
``evaluation``  before and after on the test sets, with confidence intervals
``figures``     error rates per group, and the front of utility and bias
``report``      what the general report lacks
``run``         a whole run in a folder
"""

from .config import DebiasConfig
from .run import run

__all__ = ["DebiasConfig", "run"]
