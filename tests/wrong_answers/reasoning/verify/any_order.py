MESSAGE = "the order of the words is not looked at"


def verify(answer, text):
    words = text.split()
    if "=" not in words or words[-1] != "$":
        return False
    last = len(words) - words[::-1].index("=")
    return sorted(words[last:-1]) == sorted(answer.split())
