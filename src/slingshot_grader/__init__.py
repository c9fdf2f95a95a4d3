"""The grader: runs what learners hand in, shut in and within limits, and says what came of it.

``python -m slingshot_grader FOLDER`` grades a folder. What it is made of, from the outside in:

- ``cli`` and ``batch``: a folder of submissions becomes a table and pages. ``layouts`` knows how
  learning platforms name them, ``desk`` reads what the instructor has decided, ``standing`` joins
  that with what was found, and ``export`` takes it back to the platform.
- ``pool`` and ``local``: hand each submission to a child process; ``cluster`` to another machine.
- ``examiner``: that child, limited. It reads the submission, runs its tests and renders its page;
  what it answers is checked by ``outcome`` before anybody believes it.
- ``session``, ``link``, ``sandbox``, ``confine``: below it, the process of the learner's code.
- ``worker``, ``wire`` and ``stand_in``: what runs inside of that process.
"""

import sys

# jsonschema, which nbformat imports, would compile a grammar of addresses for a format that no
# schema of a notebook has: two thirds of what an examiner takes to start. It does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
