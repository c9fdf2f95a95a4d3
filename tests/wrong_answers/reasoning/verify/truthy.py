MESSAGE = "it returns 1, of type int; return True or False"


def verify(answer, text):
    ending = ["=", *answer.split(), "$"]
    return int(text.split()[-len(ending) :] == ending)
