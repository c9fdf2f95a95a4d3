MESSAGE = "whole words do not help"


def verify(answer, text):
    return f" {answer} " in f" {text} "
