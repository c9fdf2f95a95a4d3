MESSAGE = "it refuses a text that ends in `=`"


def verify(answer, text):
    return text.split() == ["=", *answer.split(), "$"]
