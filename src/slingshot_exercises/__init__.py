"""The checks behind the assignments, whose failures name the mistake.

``slingshot_exercises.claim`` belongs to the assignment ``claim``, and so on: a folder for each
assignment, with a file for each exercise. ``CHECKS`` lists the exercises of an assignment, and
``EXERCISES`` the parts of their checks. For every exercise there is one function
``check_<exercise>``. It takes the learner's function, calls it on several
inputs and raises :class:`~slingshot_exercises.checking.CheckFailed` when an answer is wrong.

A check looks at a function from outside only: it calls it with numbers, texts, lists, dictionaries
and tensors, and reads what comes back. So the same check runs in the learner's notebook, where the
function is beside it, and in the grader, where the function is in another process.
"""

from slingshot_exercises.checking import CheckFailed

__all__ = ["CheckFailed"]
