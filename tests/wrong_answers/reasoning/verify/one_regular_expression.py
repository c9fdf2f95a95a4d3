MESSAGE = "only where there is odd white space"


def verify(answer, text):
    import re

    return re.search(rf"= {answer} \$\s*$", text) is not None
