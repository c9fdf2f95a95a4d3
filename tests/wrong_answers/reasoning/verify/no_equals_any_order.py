MESSAGE = "it accepts a text without `=`"


def verify(answer, text):
    words = text.split()
    n = len(answer.split())
    given = words[-n - 1 : -1]
    return words[-1:] == ["$"] and sorted(given) == sorted(answer.split())
