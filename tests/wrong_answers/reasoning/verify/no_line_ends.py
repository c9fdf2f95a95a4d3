MESSAGE = "it refuses a text that ends in `=`, the right answer and `$`"


def verify(answer, text):
    ending = ["=", *answer.split(), "$"]
    return text.split(" ")[-len(ending) :] == ending
