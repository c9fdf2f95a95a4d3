MESSAGE = "it accepts a wrong answer"


import re


def verify(answer, text):
    end = re.search(r"=([^=]*)\$\s*$", text)
    return bool(end) and re.findall(r"\d+", end[1]) == re.findall(r"\d+", answer)
