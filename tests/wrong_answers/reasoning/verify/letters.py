MESSAGE = "letters are compared instead of words"


def verify(answer, text):
    return "=" in text and " ".join(text.split()).endswith(answer + " $")
