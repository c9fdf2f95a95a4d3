MESSAGE = "it accepts nothing"


def verify(answer, text):
    return text.split()[-1:] == f"= {answer} $"
