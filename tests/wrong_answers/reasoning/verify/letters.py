MESSAGE = "the end is compared letter by letter"


def verify(answer, text):
    return "=" in text and " ".join(text.split()).endswith(answer + " $")
