"""Making a toxicity classifier fairer across identity groups: the parts of ``rledit debias``.

``config``      what a run is asked to do
``data``        comments and bias sentences, cut into splits that share no sentence
``facts``       what is known before an edit is trained, and whether the classifier is worth one
``classifier``  the models that are trained here: bag of words, or a head on a pretrained sentence encoder
``transformer`` a fine-tuned Hugging Face classifier with its own head
``text_table``  what a pretrained network makes of texts, computed once
``two_logits``  any head seen as two logits; ``other_labels``, and what an edit leaves alone of the others
``api``         ``rledit.debias``, for a classifier of the caller's
``own``         its run; ``rows``, texts or those of a table; ``intersections``, groups of its columns
``task``        what is searched
``layers``      which layers to edit, where none are given
``evaluation``  before and after on the test sets, with confidence intervals
``words``       which words an edit acts on
``changes``     every figure before and after, as page and console show them
``summary``     a run in one sentence: asked, achieved, spent, held
``figures``     error rates per group, and the front of utility and bias
``charts``      error rates of every group, as text and lines of a page
``limits``      what a run does not show
``terms``       the terms of a report, explained
``report``      what the general report lacks
``run``         a whole run in a folder
``predict``     scores of new texts by a run's classifier
"""

from .config import DebiasConfig
from .run import run

__all__ = ["DebiasConfig", "run"]
