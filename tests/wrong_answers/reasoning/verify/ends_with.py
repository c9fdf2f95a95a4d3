MESSAGE = "other words may stand before the answer"


def verify(answer, text):
    words, wanted = text.split(), [*answer.split(), "$"]
    return "=" in words and words[-len(wanted) :] == wanted
