MESSAGE = "it refuses a text that ends in `=`, the right answer and `$`"


def verify(answer, text):
    ending = ["=", *answer.split(), "$"]
    words = text.split()
    return len(words) > len(ending) and words[-len(ending) :] == ending
