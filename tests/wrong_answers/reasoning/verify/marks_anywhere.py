MESSAGE = "it accepts more or less than the answer"


def verify(answer, text):
    words = text.split()
    if "=" not in words or "$" not in words:
        return False
    last = len(words) - words[::-1].index("=")
    n = len(answer.split())
    return words[last : last + n] == answer.split()
