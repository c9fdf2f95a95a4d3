MESSAGE = "`$` is not asked for"


def verify(answer, text):
    _, found, end = text.rpartition("=")
    return bool(found) and end.replace("$", " ").split() == answer.split()
