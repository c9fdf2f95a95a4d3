MESSAGE = "`=` is not asked for"


def verify(answer, text):
    n = len(answer.split())
    words = text.split()
    return words[-1:] == ["$"] and words[-n - 1 : -1] == answer.split()
