MESSAGE = "of type Match; return True or False"


import re


def verify(answer, text):
    return re.search(rf"=\s+{answer}\s+\$\s*$", text)
