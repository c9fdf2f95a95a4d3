MESSAGE = "it accepts a text that does not end in `$`"


def verify(answer, text):
    _, found, end = text.rpartition("=")
    given = end.replace("$", " ").split()
    return bool(found) and sorted(given) == sorted(answer.split())
