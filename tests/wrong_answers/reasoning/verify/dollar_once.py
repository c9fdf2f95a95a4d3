MESSAGE = "only where `$` stands twice"


def verify(answer, text):
    ending = ["=", *answer.split(), "$"]
    words = text.split()
    return words.count("$") == 1 and words[-len(ending) :] == ending
