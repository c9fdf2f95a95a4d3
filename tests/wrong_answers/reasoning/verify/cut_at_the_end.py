MESSAGE = "what follows the first `$` is not looked at"


def verify(answer, text):
    before, end, _ = text.partition("$")
    _, found, given = before.rpartition("=")
    return bool(end and found) and given.split() == answer.split()
