"""The grader: runs what learners hand in, shut in and within limits, and says what came of it.

``python -m slingshot_grader FOLDER`` grades a folder. What it is made of, from the outside in:

- ``cli`` and ``batch``: a folder of submissions becomes a table and pages; ``layouts`` knows how the
  learning platforms name them, ``rules``, ``overrides`` and ``roster`` what the instructor decided.
- ``pool``: hands each submission to a child process, here or on a cluster.
- ``examiner``: that child, limited. It reads the submission, runs its tests and renders its page;
  what it answers is checked by ``outcome`` before anybody believes it.
- ``sandbox``, ``confine``, ``link`` and ``session``: below it, the process of the learner's code.
- ``worker``, ``wire`` and ``stand_in``: what runs inside of that process, and all of the grader that
  is there.
"""
