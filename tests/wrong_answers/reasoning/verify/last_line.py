MESSAGE = "only where there is odd white space"


def verify(answer, text):
    ending = ["=", *answer.split(), "$"]
    lines = text.strip().splitlines()
    return bool(lines) and lines[-1].split()[-len(ending) :] == ending
