MESSAGE = "it looks for the answer anywhere in the text"


def verify(answer, text):
    return answer in text
