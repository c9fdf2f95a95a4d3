MESSAGE = "any `=` counts"


def verify(answer, text):
    words = " ".join(text.split())
    return f"= {answer} " in words and words.endswith("$")
