MESSAGE = "it accepts a wrong"


def verify(answer, text):
    words = text.split()
    n = len(answer.split())
    return (
        words[-1:] == ["$"]
        and words[-n - 2 : -n - 1] == ["="]
        and words[-n - 1] == answer.split()[0]
    )
