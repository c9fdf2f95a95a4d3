MESSAGE = "only where there is odd white space within the answer"


def verify(answer, text):
    if "=" not in text or "$" not in text:
        return False
    return text.split("=")[-1].strip().strip("$").strip() == answer
