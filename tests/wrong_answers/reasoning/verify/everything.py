MESSAGE = "it accepts everything"


def verify(answer, text):
    return True
