MESSAGE = "it accepts only texts with single spaces"


def verify(answer, text):
    return text.endswith(f"= {answer} $")
