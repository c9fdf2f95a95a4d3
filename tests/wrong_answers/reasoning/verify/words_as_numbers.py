MESSAGE = "only where `=` is a part of another word"


def verify(answer, text):
    words = text.split()
    if words[-1:] != ["$"] or "=" not in words:
        return False
    given = words[len(words) - words[::-1].index("=") : -1]
    return [w for w in given if w.isdigit()] == answer.split()
