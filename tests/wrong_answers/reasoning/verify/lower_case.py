MESSAGE = "only where the answer is no number"


def verify(answer, text):
    ending = ["=", *answer.lower().split(), "$"]
    return text.lower().split()[-len(ending) :] == ending
