MESSAGE = "only where there is odd white space"


def verify(answer, text):
    ending = ["=", *answer.split(), "$"]
    return any(line.split()[-len(ending) :] == ending for line in text.splitlines())
