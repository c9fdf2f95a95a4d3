MESSAGE = "more words may follow the answer"


def verify(answer, text):
    words = text.split()
    if "=" not in words or words[-1] != "$":
        return False
    last = len(words) - words[::-1].index("=")
    wanted = answer.split()
    return words[last:-1][: len(wanted)] == wanted
