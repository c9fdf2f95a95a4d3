MESSAGE = "the first `=` counts"


def verify(answer, text):
    _, _, end = text.partition("=")
    return end.split() == [*answer.split(), "$"]
