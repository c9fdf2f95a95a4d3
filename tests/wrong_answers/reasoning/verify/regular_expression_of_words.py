MESSAGE = "only where the answer is no number"


def verify(answer, text):
    import re

    words = r"\s+".join(answer.split())
    return re.search(rf"(^|\s)=\s+{words}\s+\$\s*$", text) is not None
